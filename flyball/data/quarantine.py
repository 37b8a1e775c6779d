"""What becomes of a batch that was kept aside: it is looked at, and then fixed, released or dropped, once.

    held ──fix──────► fixed      other rows took its place, kept the contract and were published
         ──release──► released   a person published it as it is, with a reason
         ──drop─────► dropped    its rows are gone; the version stays, with the report, as what happened

A batch is a version of `quarantine/<dataset>`; its state stands in the version's metadata under `quarantine` and is
changed in the same transaction that publishes, so of two people who act at once one gets a Conflict. Bytes are written
before that transaction and deleted after it: a crash in between leaves blobs that nothing refers to, never half a
decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flyball.clock import SYSTEM, Clock, format_instant, parse_instant
from flyball.data.checks import Resolve
from flyball.data.datasets import Admit, ContractBroken, columns_behind
from flyball.data.packs import packs_of
from flyball.data.rewriting import Doomed, blobs_of, collect
from flyball.errors import Conflict, Forbidden, InvalidInput, did_you_mean, listed
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.storage.blobs import BlobStore
from flyball.storage.tables import Table, TableStore

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.reports import ContractReport
    from flyball.data.terms import Contract

    Change = pl.DataFrame | pl.LazyFrame | Mapping[str, pl.Expr] | Callable[[pl.LazyFrame], Any]

__all__ = ["STATES", "Held", "Mode", "Publish", "Quarantine"]

State = Literal["held", "fixed", "released", "dropped"]
Mode = Literal["overwrite", "append"]
STATES: tuple[State, ...] = ("held", "fixed", "released", "dropped")
_KIND = "quarantine"
_TRIES = 10  # to append while others publish too
_REASON_LETTERS = 3


class Publish(Protocol):
    """Makes a version of a dataset within a transaction; see `Quarantine`."""

    def __call__(
        self,
        world: Transaction,
        name: str,
        table: Table,
        metadata: Mapping[str, Any],
        made_from: list[tuple[Ref, str]],
        after: Version | int | None,
    ) -> Version: ...


@dataclass(frozen=True)
class Held:
    """A batch that was kept aside, and what became of it.

    `is_part` says that only failing rows were kept, the good ones were published. `outcome` is the version that came
    of it, when it was fixed or released.
    """

    version: Version
    state: State
    rows: int
    is_part: bool
    report: Mapping[str, Any]
    actor: str | None = None
    at: datetime | None = None
    reason: str = ""
    outcome: str | None = None

    @property
    def ref(self) -> Ref:
        """`quarantine/flights@3`."""
        return self.version.ref


class Quarantine:
    """Batches that broke their contract, over the ledger and the stores.

    Args:
        ledger, tables, blobs: where versions, rows and bytes are.
        contract_of: returns the contract of a dataset by its name as it is now, or None when it has none.
        doomed: a folder of files that remember the blobs to delete, so that a crash does not keep dropped rows.
        resolve: as `checking.check` takes it.
        publish: makes the version; default: `versions.publish`.
        admit: which rows may be published at all; default: all.
    """

    def __init__(
        self,
        ledger: Ledger,
        tables: TableStore,
        blobs: BlobStore,
        contract_of: Callable[[str], Contract | None],
        doomed: Path,
        *,
        clock: Clock = SYSTEM,
        resolve: Resolve | None = None,
        publish: Publish | None = None,
        admit: Admit | None = None,
    ) -> None:
        self._ledger = ledger
        self._tables = tables
        self._blobs = blobs
        self._contract_of = contract_of
        self._doomed = doomed
        self._clock = clock
        self._resolve = resolve
        self._publish = publish or _publish
        self._admit = admit

    def all(self, name: str | None = None, state: State | None = None, limit: int = 100) -> list[Held]:
        """Return batches, newest first, of one dataset or of all.

        Raises:
            InvalidInput: there is no such state.
        """
        if state is not None and state not in STATES:
            raise InvalidInput(
                f'there is no state "{state}"{did_you_mean(state, STATES)} (there are: {listed(STATES)})'
            )
        with self._ledger.read() as world:
            found = [
                _held(version) for version in world.versions.all(_KIND, name, limit=10 * limit if state else limit)
            ]
        return [held for held in found if state in (None, held.state)][:limit]

    def get(self, name: str, version: str | int = "latest") -> Held:
        """Return one batch. Raises NotFound."""
        with self._ledger.read() as world:
            return _held(world.versions.get(_KIND, name, version))

    def inspect(self, name: str, version: str | int = "latest", *, failing: bool = True) -> pl.LazyFrame:
        """Return the rows, lazily, with a column `_failed` more: the ids of the rules that each breaks now.

        Args:
            failing: only rows that break a rule; a batch may also fail as a whole, with no row to blame.

        Raises:
            NotFound: no such batch.
            InvalidInput: its rows were dropped.
        """
        import polars as pl

        from flyball.data.checking import FAILED_COLUMN, explained

        held = self.get(name, version)
        if held.state == "dropped":
            raise InvalidInput(f"the rows of {held.ref} were dropped by {held.actor}; only its report is left")
        rows, contract = self._tables.scan(held.version.digest), self._contract_of(name)
        if contract is not None:
            rows = explained(rows, contract, now=self._clock.now(), resolve=self._resolve)
        elif FAILED_COLUMN not in rows.collect_schema():
            rows = rows.with_columns(pl.lit([], dtype=pl.List(pl.String)).alias(FAILED_COLUMN))
        return rows.filter(pl.col(FAILED_COLUMN).list.len() > 0) if failing else rows

    def fix(
        self,
        name: str,
        version: str | int,
        change: Change,
        *,
        actor: str,
        reason: str = "",
        mode: Mode | None = None,
        cause: int | None = None,
    ) -> Version:
        """Publish a batch after a change, if it now keeps the contract; else it stays held.

        Args:
            change: a frame that takes the batch's place; expressions by column, such as
                `{"age": pl.col("age").abs()}`; or a function from the rows, lazy, to other rows.
            mode: `append` or `overwrite`; default: as it was meant when it was kept aside, and `append` for rows that
                were split off.

        Returns:
            The version of the dataset that was published.

        Raises:
            NotFound: no such batch.
            Conflict: it is not held any more.
            ContractBroken: it still breaks the contract; `report` says how, and it is held as it was.
        """
        held = self._still_held(name, version)
        rows = self._admitted(name, self._changed(held, change))
        contract = self._contract_of(name)
        mode = mode or _mode(held)
        report = self._report(name, rows, contract, mode) if contract is not None else None
        if report is not None and not report.passed:
            failed = [f"{r.id} ({r.message})" for r in report.failures]
            raise ContractBroken(
                f"{held.ref} after the change still breaks {len(failed)} of {report.checks} rules: "
                f"{listed(failed, 3)}; it is held as it was",
                report,
                held.version,
            )
        return self._settle(held, "fixed", rows, mode, report, actor, reason, cause)

    def release(
        self,
        name: str,
        version: str | int,
        *,
        actor: str,
        reason: str,
        mode: Mode | None = None,
        cause: int | None = None,
    ) -> Version:
        """Publish a batch as it is, although it breaks the contract. Only a person may, and must say why.

        Returns:
            The version of the dataset; its metadata holds the failed report, who released it and why.

        Raises:
            NotFound: no such batch.
            Conflict: it is not held any more.
            Forbidden: the actor is not a person.
            InvalidInput: no reason is given.
        """
        if not actor.startswith("user/"):
            raise Forbidden(f"{actor} may not release quarantine/{name}; a person must, with a reason")
        _check_reason(reason, f"release quarantine/{name}@{version}")
        held = self._still_held(name, version)
        rows = self._admitted(name, self._rows(held))
        return self._settle(held, "released", rows, mode or _mode(held), None, actor, reason, cause)

    def drop(self, name: str, version: str | int, *, actor: str, reason: str, cause: int | None = None) -> Held:
        """Delete the rows of a batch, bytes too; the version and its report stay, without the sample rows.

        Doing it again on a batch that a crash left half deleted finishes it.

        Raises:
            NotFound: no such batch.
            Conflict: it is neither held nor dropped.
            InvalidInput: no reason is given.
        """
        _check_reason(reason, f"drop quarantine/{name}@{version}")
        held = self.get(name, version)
        doomed = Doomed(self._doomed / f"{name}@{held.version.number}")
        if held.state == "dropped" and len(doomed):
            self._collect(doomed)
            return held
        held = self._still_held(name, version)
        table = self._tables.read(held.version.digest)
        empty = self._tables.write(self._tables.scan(table.digest).head(0))
        with self._ledger.write(actor, cause) as world:
            before = _take(world, held)
            doomed.add([table.digest, *blobs_of(table), *packs_of(self._tables, table.digest)])
            metadata = {**_without_samples(before.metadata), "rows": 0, _KIND: self._decision("dropped", actor, reason)}
            after = world.versions.rewrite(
                _KIND, name, before.number, empty.digest, metadata, action="dropped",
                detail={"reason": reason, "rows": table.rows},
            )  # fmt: skip
        self._collect(doomed)
        return _held(after)

    def _still_held(self, name: str, version: str | int) -> Held:
        held = self.get(name, version)
        _refuse_settled(held)
        return held

    def _rows(self, held: Held) -> pl.LazyFrame:
        from flyball.data.checking import FAILED_COLUMN

        return self._tables.scan(held.version.digest).drop(FAILED_COLUMN, strict=False)

    def _admitted(self, name: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows if self._admit is None else self._admit(name, rows).frame

    def _changed(self, held: Held, change: Change) -> pl.LazyFrame:
        import polars as pl

        rows = self._rows(held)
        if isinstance(change, Mapping):
            known = rows.collect_schema().names()
            for column in change:
                if column not in known:
                    raise InvalidInput(
                        f'{held.ref} has no column "{column}" to change{did_you_mean(column, known)} '
                        f"(it has: {listed(known)})"
                    )
            changed: Any = rows.with_columns(**change)
        else:
            changed = change(rows) if callable(change) else change
        if isinstance(changed, pl.DataFrame):
            changed = changed.lazy()
        if not isinstance(changed, pl.LazyFrame):
            raise InvalidInput(
                f"the change of {held.ref} gave a {type(changed).__name__}; expected a frame, expressions by column, "
                "or a function that returns a frame"
            )
        return changed

    def _report(self, name: str, rows: pl.LazyFrame, contract: Contract, mode: Mode) -> ContractReport:
        from flyball.data.checking import check
        from flyball.data.moments import check_append

        with self._ledger.read() as world:
            newest = next(iter(world.versions.all("dataset", name, limit=1)), None)
        now = self._clock.now()
        if mode == "append" and newest is not None:
            before = self._tables.scan(newest.digest)
            return check_append(rows, before, contract, now=now, resolve=self._resolve)
        return check(rows, contract, now=now, resolve=self._resolve)

    def _settle(
        self,
        held: Held,
        state: State,
        rows: pl.LazyFrame,
        mode: Mode,
        report: ContractReport | None,
        actor: str,
        reason: str,
        cause: int | None,
    ) -> Version:
        """Publish rows and note what became of the batch, in one transaction."""
        name = held.version.name
        written = self._tables.write(rows)
        if not written.rows:
            raise InvalidInput(f"{held.ref} has no rows left to publish; drop it with a reason instead")
        for _ in range(_TRIES):
            with self._ledger.read() as world:
                newest = next(iter(world.versions.all("dataset", name, limit=1)), None)
            table = self._tables.join(newest.digest, written) if mode == "append" and newest else written
            decision = self._decision(state, actor, reason)
            metadata: dict[str, Any] = {"rows": table.rows, "size_bytes": table.size_bytes, "schema": table.schema}
            kept = {k: v for k, v in held.version.metadata.items() if k in ("event_time", "target")}
            kept |= columns_behind(held.version.metadata, newest if mode == "append" else None)
            metadata |= {**kept, "contract": report.to_dict() if report else dict(held.report) or None, "mode": mode}
            metadata["note"] = f"{state} from {held.ref}" + (f": {reason}" if reason else "")
            try:
                with self._ledger.write(actor, cause) as world:
                    before = _take(world, held)
                    made_from = [(held.ref, f"{state} from")]
                    if mode == "append" and newest is not None:
                        made_from.append((newest.ref, "followed"))
                    after = (newest or 0) if mode == "append" else None
                    made = self._publish(world, name, table, metadata, made_from, after)
                    outcome = {**decision, "version": str(made.ref)}
                    world.versions.rewrite(
                        _KIND, name, before.number, before.digest, {**before.metadata, _KIND: outcome}, action=state,
                        detail={"reason": reason, "version": str(made.ref)},
                    )  # fmt: skip
                return made
            except Conflict:
                _refuse_settled(self.get(name, held.version.number))  # else somebody published meanwhile: once more
        raise Conflict(f"others publish dataset/{name} all the time; {held.ref} is held as it was, try again")

    def _decision(self, state: State, actor: str, reason: str) -> dict[str, Any]:
        return {"state": state, "actor": actor, "at": format_instant(self._clock.now()), "reason": reason}

    def _collect(self, doomed: Doomed) -> None:
        collect(self._ledger, self._tables, self._blobs, doomed)
        doomed.close()


def _publish(
    world: Transaction,
    name: str,
    table: Table,
    metadata: Mapping[str, Any],
    made_from: list[tuple[Ref, str]],
    after: Version | int | None,
) -> Version:
    return world.versions.publish("dataset", name, table.digest, metadata=metadata, made_from=made_from, after=after)


def _take(world: Transaction, held: Held) -> Version:
    """Return the batch while nobody else can decide about it. Raises Conflict when somebody has."""
    world.versions.hold()
    now = world.versions.get(_KIND, held.version.name, held.version.number)
    _refuse_settled(_held(now))
    if now.digest != held.version.digest:
        raise Conflict(f"the rows of {held.ref} were changed meanwhile (erasure or retention); look at it again")
    return now


def _refuse_settled(held: Held) -> None:
    if held.state != "held":
        became = f", as {held.outcome}" if held.outcome else ""
        raise Conflict(f"{held.ref} was {held.state} by {held.actor}{became}; nothing was done")


def _held(version: Version) -> Held:
    from flyball.data.checking import FAILED_COLUMN

    metadata = version.metadata
    decided = metadata.get(_KIND) or {}
    return Held(
        version=version,
        state=decided.get("state", "held"),
        rows=int(metadata.get("rows") or 0),
        is_part=FAILED_COLUMN in (metadata.get("schema") or {}),
        report=metadata.get("contract") or {},
        actor=decided.get("actor"),
        at=parse_instant(decided["at"]) if decided.get("at") else None,
        reason=decided.get("reason", ""),
        outcome=decided.get("version"),
    )


def _mode(held: Held) -> Mode:
    meant = held.version.metadata.get("mode")
    return "append" if held.is_part or meant == "append" else "overwrite"


def _check_reason(reason: str, act: str) -> None:
    if sum(letter.isalnum() for letter in reason) < _REASON_LETTERS:
        raise InvalidInput(f"to {act} a reason is needed, in words that say why; got {reason[:80]!r}")


def _without_samples(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata whose report counts failures and shows no rows."""
    report = metadata.get("contract")
    if not report:
        return dict(metadata)
    results = [{**result, "sample": []} for result in report.get("results", [])]
    return {**metadata, "contract": {**report, "results": results}}
