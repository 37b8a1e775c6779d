"""Keeping a view: stored from its data set, pushes folded in, written for look-ups, measured; its status says so.

One call brings all of it up to date, whoever asks: a person, or the process that the controller starts. It may be
killed between any two steps, and several may be at it at once; the next call goes on from what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.clock import Clock, format_instant
from flyball.data.columns import column_lineage
from flyball.errors import FlyballError, InvalidInput
from flyball.features.agreement import Agreement, agreement
from flyball.features.health import conditions, measured
from flyball.features.kinds import FeatureView as Declared
from flyball.features.kinds import Materialising
from flyball.features.materialise import Materialised
from flyball.features.offline import StoredView
from flyball.features.storing import Kept, StoredViews
from flyball.features.views import FeatureView
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import Ref
from flyball.storage.online import OnlineStore
from flyball.storage.streams import StreamReader
from flyball.storage.tables import TableStore

__all__ = ["Upkeep", "ViewKeeper"]

KIND = "feature-view"


@dataclass(frozen=True)
class Upkeep:
    """What came of keeping a view.

    Attributes:
        stored: the view as it is stored now.
        refreshed: what came of its data set.
        folded: what came of pushes.
        served: what was written for look-ups.
        found: how online and offline agree; None: there was nothing to compare.
        conditions: what is wrong with it now, by name.
    """

    stored: StoredView
    refreshed: Kept
    folded: Kept
    served: Materialised
    found: Agreement | None
    conditions: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without anybody's values."""
        return {
            "view": self.stored.spec.stored_as,
            "version": self.stored.number,
            "source": self.stored.source,
            "rows": self.stored.rows,
            "how": self.refreshed.how,
            "computed_rows": self.refreshed.rows,
            "pushed_rows": self.folded.rows,
            "refused_pushes": self.folded.refused,
            "written": self.served.written,
            "measured": None if self.found is None else measured(self.found),
            "conditions": {name: dict(condition) for name, condition in self.conditions.items()},
        }


class ViewKeeper:
    """Keeps views over a home's stores."""

    def __init__(self, ledger: Ledger, tables: TableStore, online: OnlineStore, clock: Clock) -> None:
        self._ledger = ledger
        self._tables = tables
        self._online = online
        self._clock = clock
        self._views = StoredViews(ledger, tables)

    def keep(
        self,
        view: FeatureView,
        pushes: StreamReader,
        *,
        actor: str,
        dataset: str | None = None,
        cause: int | None = None,
    ) -> Upkeep:
        """Bring a view up to date and write down in the status of `feature-view/<name>` how it stands.

        Args:
            pushes: the log of what was pushed to this view and version.
            dataset: its name; default: the view's source.
            actor: who does it.
            cause: the event because of which it is done.

        Raises:
            NotFound: the data set has no version.
            StepFailed, InvalidInput, Conflict, Unavailable: as `StoredViews.refresh`, `fold_pushes` and `serve`; what
                was done before stays, and the next call goes on.
        """
        with self._ledger.read() as world:
            source = world.versions.get("dataset", dataset or view.source)
        refreshed = self._views.refresh(view, source.name, source.number, actor=actor, cause=cause)
        folded = self._views.fold_pushes(view, pushes, actor=actor, cause=cause)
        served = self._views.serve(view, self._online, actor=actor, cause=cause, until=self._clock.now())
        stored = folded.stored
        found = self._measured(stored, view.name)
        limits, before = self._limits(view.name)
        holding = conditions(found, limits, before, self._now())
        done = Upkeep(stored, refreshed, folded, served, found, holding)
        self._note(view, done, source.ref, actor, cause)
        return done

    def failed(self, name: str, error: str, *, actor: str, cause: int | None = None) -> None:
        """Write down that a view could not be kept, and how often in a row; what it serves stays as it is."""
        with self._ledger.write(actor, cause) as world:
            resource = world.resources.find(KIND, name)
            if resource is None:
                return
            tries = int(resource.status.get("failure", {}).get("tries", 0)) + 1
            failure = {"at": self._now(), "error": error, "tries": tries}
            failure |= {"generation": resource.generation, "seen": world.journal.last()}
            status = {**resource.status, "failure": failure}
            world.resources.set_status(KIND, name, status, action="failed", detail={"error": error})

    def _measured(self, stored: StoredView, name: str) -> Agreement | None:
        limits, _ = self._limits(name)
        try:
            return agreement(stored, self._tables, self._online, self._clock.now(), sample=limits.sample)
        except InvalidInput:  # no row is stored
            return None

    def _limits(self, name: str) -> tuple[Materialising, Mapping[str, Any]]:
        with self._ledger.read() as world:
            resource = world.resources.find(KIND, name)
        if resource is None:
            return Materialising(), {}
        wanted = Declared.model_validate(resource.spec).materialise
        return wanted or Materialising(), resource.status.get("conditions", {})

    def _note(self, view: FeatureView, done: Upkeep, source: Ref, actor: str, cause: int | None) -> None:
        with self._ledger.write(actor, cause) as world:
            resource = world.resources.find(KIND, view.name)
            if resource is None:
                return
            before = dict(resource.status)
            now, stored = self._now(), done.stored
            status: dict[str, Any] = {k: v for k, v in before.items() if k != "failure"}
            status["kept"] = {"at": now, "dataset": str(source), "generation": resource.generation}
            status["stored"] = {
                "version": stored.number,
                "definition": stored.spec.version,
                "rows": stored.rows,
                "source": stored.source,
                "latest": None if stored.latest is None else format_instant(stored.latest),
            }
            status["online"] = {"entities": self._online.count(stored.spec.stored_as)}
            status["measured"] = None if done.found is None else {"at": now, **measured(done.found)}
            status["columns"] = self._columns(view, source, world)
            status["conditions"] = {name: dict(condition) for name, condition in done.conditions.items()}
            for action, detail in _told(before.get("conditions", {}), done):
                world.journal.note(action, str(resource.ref), detail)
            world.resources.set_status(KIND, view.name, status, action="measured", detail=_summary(done))

    def _columns(self, view: FeatureView, source: Ref, world: Transaction) -> dict[str, list[list[str]]]:
        """Return which columns of the data set each feature was made of; empty where that cannot be told."""
        made = world.versions.get(source.kind, source.name, source.version or "latest")
        schema = dict(self._tables.scan(made.digest).collect_schema())
        try:
            found = column_lineage(lambda tables: view.compute(tables[source.name]), {source.name: schema})
        except FlyballError:
            return {}
        own = {*view.entity, view.event_time, view.known_at}
        return {name: [list(one) for one in sources] for name, sources in found.items() if name not in own}

    def _now(self) -> str:
        return format_instant(self._clock.now())


def _told(before: Mapping[str, Any], done: Upkeep) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what began and what ended, as events."""
    began = [(name, condition) for name, condition in done.conditions.items() if name not in before]
    ended = [(f"no longer {name}", condition) for name, condition in before.items() if name not in done.conditions]
    return [*began, *ended]


def _summary(done: Upkeep) -> dict[str, Any]:
    parts = [f"{done.stored.rows:,} rows stored", f"{done.served.written:,} values written"]
    if done.found is not None:
        parts.append(f"{done.found.agree.value:.1%} of {done.found.entities:,} entities agree")
    return {"summary": ", ".join(parts), "version": done.stored.number}
