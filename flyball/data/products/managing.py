"""Data products over a ledger: move them through their lifecycle, tell who depends on them, measure what they keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from flyball.clock import SYSTEM, Clock, format_instant
from flyball.data.kinds import DataProduct, Dataset
from flyball.data.products.dependents import Dependent, dependents, outputs
from flyball.data.products.levels import Batches, Level, measure
from flyball.data.products.lifecycle import FIRST, Stage, check_move, check_stage
from flyball.errors import Conflict, Forbidden, InvalidInput, listed
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.refs import ref as parse_ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.storage.tables import TableStore

__all__ = ["Moved", "Notice", "Products"]

KIND = "data-product"
_MOST_VERSIONS = 1000  # of each output and of its quarantine, looked at for service levels


@dataclass(frozen=True)
class Moved:
    """A product came to a stage; the event that says so, and who was told."""

    product: Ref
    stage: Stage
    event: int | None
    told: tuple[Dependent, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        told = [dependent.to_dict() for dependent in self.told]
        return {"product": str(self.product), "stage": self.stage, "event": self.event, "told": told}


@dataclass(frozen=True)
class Notice:
    """What the owner of a dependent should know: the product it needs is deprecated or retired."""

    product: Ref
    stage: Stage
    dependent: Dependent
    since: str
    reason: str
    replaced_by: str | None = None
    retires_on: str | None = None

    @property
    def sentence(self) -> str:
        """The notice as people read it."""
        when = f", to be retired on {self.retires_on}" if self.retires_on and self.stage == "deprecated" else ""
        instead = f"; use {self.replaced_by}" if self.replaced_by else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.product} is {self.stage}{when}{why}{instead}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        plain = {"product": str(self.product), "dependent": self.dependent.to_dict(), "sentence": self.sentence}
        return {**self.__dict__, **plain}


class Products:
    """The data products of a home."""

    def __init__(self, ledger: Ledger, tables: TableStore, clock: Clock = SYSTEM) -> None:
        self._ledger = ledger
        self._tables = tables
        self._clock = clock
        self._newest_events: dict[tuple[str, str], datetime | None] = {}  # by digest and column: versions never change

    def stage(self, name: str) -> Stage:
        """Return the stage that a product is in. Raises NotFound."""
        with self._ledger.read() as world:
            return _stage(world.resources.get(KIND, name))

    def advance(
        self,
        name: str,
        to: str,
        *,
        actor: str,
        reason: str = "",
        replaced_by: str | None = None,
        retires_on: date | str | None = None,
        force: bool = False,
        cause: int | None = None,
    ) -> Moved:
        """Move a product to a stage; on deprecation and retirement every dependent gets an event that names the reason.

        Args:
            to: the stage; the one that it is in changes nothing.
            reason: why; required to deprecate, and to retire by force.
            replaced_by: what to use instead: a reference.
            retires_on: of a deprecation: the day after which it may be gone.
            force: retire although somebody still depends on it.

        Raises:
            NotFound: no such product.
            InvalidInput: unknown stage, or no reason where one is needed, or a day that cannot be.
            Conflict: the stage may not follow the present one, or somebody depends on what would be retired.
        """
        stage = check_stage(to)
        reason = reason.strip()
        day = _day(name, retires_on, self._clock.now())
        instead = str(parse_ref(replaced_by)) if replaced_by else None
        with self._ledger.write(actor, cause) as world:
            product = world.resources.get(KIND, name)
            before = _stage(product)
            if before == stage:
                return Moved(product.ref, stage, None)
            check_move(name, before, stage)
            if stage == "deprecated" and not reason:
                raise InvalidInput(
                    f"{product.ref} is to be deprecated without a reason; say why, and what to use instead"
                )
            told = dependents(product, world) if stage in ("deprecated", "retired") else []
            live = [d for d in told if d.is_live]
            if stage == "retired" and live:
                self._check_retiring(product, live, force, reason)
            known = {"reason": reason, "replaced_by": instead, "retires_on": day}
            told_before = product.status if stage == "retired" else {}
            status = {
                **{k: v for k, v in product.status.items() if k not in known},
                "stage": stage,
                "since": format_instant(self._clock.now()),
                **{k: value for k, v in known.items() if (value := v or told_before.get(k))},
            }
            detail: dict[str, Any] = {"from": before, "to": stage, **{k: v for k, v in known.items() if v}}
            if force and live:
                detail["forced"] = [str(d.ref) for d in live[:20]]
            event = world.resources.set_status(KIND, name, status, action=stage, detail=detail).event
            seq = event.seq if event else None
            for dependent in told:
                note = {"product": str(product.ref), "stage": stage, "how": dependent.how, "owner": dependent.owner}
                world.journal.note("warned", str(dependent.ref), {**note, **{k: v for k, v in known.items() if v}}, seq)
            return Moved(product.ref, stage, seq, tuple(told))

    def begin(self, name: str, stage: str, *, actor: str, reason: str = "imported") -> Moved:
        """Put a product that has no stage yet where its document says it is. Raises Conflict when it has one."""
        wanted = check_stage(stage)
        with self._ledger.write(actor) as world:
            product = world.resources.get(KIND, name)
            if "stage" in product.status:
                raise Conflict(f"{product.ref} is {_stage(product)} already; move it with advance")
            status = {**product.status, "stage": wanted, "since": format_instant(self._clock.now()), "reason": reason}
            event = world.resources.set_status(KIND, name, status, action=wanted, detail={"reason": reason}).event
            return Moved(product.ref, wanted, event.seq if event else None)

    def dependents(self, name: str) -> list[Dependent]:
        """Return who depends on a product, live ones first. Raises NotFound."""
        with self._ledger.read() as world:
            return dependents(world.resources.get(KIND, name), world)

    def notices(self, *, owner: str | None = None, ref: Ref | str | None = None) -> list[Notice]:
        """Return what owners of live dependents should know, of one owner or about one resource, or all."""
        found = []
        with self._ledger.read() as world:
            for product in world.resources.all(KIND):
                stage = _stage(product)
                if stage not in ("deprecated", "retired"):
                    continue
                status = product.status
                for dependent in dependents(product, world):
                    is_asked = (owner is None or dependent.owner == owner) and ref in (
                        None,
                        dependent.ref,
                        str(dependent.ref),
                    )
                    if dependent.is_live and is_asked:
                        told = (status.get("since", ""), status.get("reason", ""))
                        after = (status.get("replaced_by"), status.get("retires_on"))
                        found.append(Notice(product.ref, stage, dependent, *told, *after))
        return found

    def check_read(self, target: Ref) -> None:
        """Raise Forbidden when a dataset is given only by retired products; cheap enough for every read."""
        if target.kind != "dataset":
            return
        with self._ledger.read() as world:
            known = [world.resources.get(KIND, r.name) for r in world.resources.referrers(target) if r.kind == KIND]
        giving = [p for p in known if target.resource in outputs(DataProduct.model_validate(p.spec))]
        if giving and all(_stage(product) == "retired" for product in giving):
            last = giving[0].status
            instead = f"; use {last['replaced_by']}" if last.get("replaced_by") else ""
            raise Forbidden(
                f"{target.resource} was the output of {giving[0].ref}, which is retired since "
                f"{last.get('since', '')[:10]}{instead}"
            )

    def levels(self, name: str) -> list[Level]:
        """Return how a product keeps its service levels at this moment. Raises NotFound."""
        with self._ledger.read() as world:
            spec = DataProduct.model_validate(world.resources.get(KIND, name).spec)
            known = {d.name: _batches(d, world) for d in outputs(spec)}
            columns = {d: _event_time(d, world) for d in known}
        return measure(spec, known, lambda v: self._newest_event(v, columns[v.name]), self._clock.now())

    def watch(self, name: str, *, actor: str = "controller/products", cause: int | None = None) -> list[Level]:
        """Measure, and keep in the status which promises are broken, since when; equal findings write nothing."""
        found = self.levels(name)
        with self._ledger.write(actor, cause) as world:
            product = world.resources.get(KIND, name)
            before: Mapping[str, Any] = product.status.get("conditions", {})
            now = format_instant(self._clock.now())
            broken = {
                f"{level.measure} of {level.port}": {
                    "summary": f"{level.measure} of {level.port} is not {level.target}",
                    "since": before.get(f"{level.measure} of {level.port}", {}).get("since", now),
                }
                for level in found
                if level.holds is False
            }
            status = {k: v for k, v in product.status.items() if k != "conditions"}
            action = "broke a service level" if broken.keys() - before.keys() else "keeps its service levels"
            world.resources.set_status(
                KIND, name, {**status, **({"conditions": broken} if broken else {})}, action=action,
                detail={"broken": sorted(broken)},
            )  # fmt: skip
        return found

    def to_dict(self, name: str) -> dict[str, Any]:
        """Return all that a page shows of a product, as plain values. Raises NotFound."""
        with self._ledger.read() as world:
            product = world.resources.get(KIND, name)
            spec = DataProduct.model_validate(product.spec)
            found = dependents(product, world)
        return {
            "ref": str(product.ref),
            "stage": _stage(product),
            **{k: product.status.get(k) for k in ("since", "reason", "replaced_by", "retires_on")},
            **spec.model_dump(mode="json", exclude={"levels", "more"}),
            "levels": [level.to_dict() for level in self.levels(name)],
            "dependents": [dependent.to_dict() for dependent in found],
        }

    def _check_retiring(self, product: Resource, live: list[Dependent], force: bool, reason: str) -> None:
        needs = listed([str(d.ref) for d in live], 5)
        if not force:
            raise Conflict(
                f"{product.ref} cannot be retired: {needs} depend{'s' if len(live) == 1 else ''} on it; change that "
                "first, or force it with a reason"
            )
        if not reason:
            raise InvalidInput(f"{product.ref} is to be retired although {needs} need it; say why")

    def _newest_event(self, version: Version, column: str | None) -> datetime | None:
        """Return the newest event of a version; times without a zone are taken as UTC."""
        if column is None:
            return None
        key = (version.digest, column)
        if key not in self._newest_events:
            import polars as pl

            frame = self._tables.scan(version.digest)
            found = frame.select(pl.col(column).max()).collect().item() if column in frame.collect_schema() else None
            if isinstance(found, date) and not isinstance(found, datetime):
                found = datetime(found.year, found.month, found.day, tzinfo=UTC)
            if isinstance(found, datetime):
                found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
            self._newest_events[key] = found if isinstance(found, datetime) else None
        return self._newest_events[key]


def _stage(product: Resource) -> Stage:
    return check_stage(product.status.get("stage", FIRST))


def _batches(dataset: Ref, world: Transaction) -> Batches:
    kept = world.versions.all("dataset", dataset.name, _MOST_VERSIONS)
    aside = world.versions.all("quarantine", dataset.name, _MOST_VERSIONS)
    return Batches(tuple(kept), tuple(aside))


def _event_time(dataset: str, world: Transaction) -> str | None:
    found = world.resources.find("dataset", dataset)
    return Dataset.model_validate(found.spec).event_time if found is not None else None


def _day(name: str, day: date | str | None, now: datetime) -> str | None:
    if day is None:
        return None
    try:
        found = date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError:
        raise InvalidInput(f"{KIND}/{name}: retires_on is {day!r}; write a day like 2026-12-31") from None
    if found < now.date():
        raise InvalidInput(f"{KIND}/{name}: retires_on is {found}, which is past; name a day to come")
    return found.isoformat()
