"""Datasets: publish a batch as an immutable version, or keep it aside when it breaks its contract.

Publishing writes bytes first, then one ledger transaction, so a crash in between leaves at most unreferenced blobs.
A batch that breaks its contract becomes a version of `quarantine/<dataset>` with its report: never half-published,
never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

from flyball.clock import SYSTEM, Clock
from flyball.data.agreements import Agreements
from flyball.data.formats import Format, converted
from flyball.data.intake import Intake
from flyball.data.kinds import Dataset
from flyball.data.publishing import ANY, Mode, Put, publish_behind, putting
from flyball.data.terms import Contract
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.storage.tables import Table, TableStore

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.diffs import Diff
    from flyball.data.intake import See
    from flyball.data.reports import ContractReport
    from flyball.data.sources import SourceSettings
    from flyball.storage.blobs import BlobStore

__all__ = ["Admit", "ContractBroken", "Datasets", "Mode", "Published", "columns_behind"]


class Admitted(Protocol):
    """Rows that may be published, and what the version says of it."""

    @property
    def frame(self) -> pl.LazyFrame: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...


class Admit(Protocol):
    """Says which rows of a batch may be published at all, before its contract is looked at. Raises Forbidden."""

    def __call__(self, dataset: str, frame: pl.LazyFrame) -> Admitted: ...


class ContractBroken(InvalidInput):
    """A batch broke its contract and was kept aside. `report` says how, `quarantined` names where it is."""

    def __init__(self, message: str, report: ContractReport, quarantined: Version) -> None:
        super().__init__(message)
        self.report = report
        self.quarantined = quarantined


@dataclass(frozen=True)
class Published:
    """What came of publishing: the version, its contract's report, and what was kept aside.

    `changes` counts what became of the rows: `appended`; or of an upsert `inserted`, `updated`, `unchanged` and
    `repeats` (rows that a later one of the same key overruled).
    """

    version: Version
    report: ContractReport | None = None
    quarantined: Version | None = None
    changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """What was asked of `publish`; of rows from the dataset's own source also where the reading began and ended."""

    name: str
    spec: Dataset
    contract: Contract | None
    actor: str
    run: str | None
    made_from: tuple[tuple[Ref, str], ...]
    note: str
    cause: int | None
    watermark: Mapping[str, Any] | None = None
    since: Any = ANY
    confirm: Callable[[], None] = lambda: None
    facts: Mapping[str, Any] = field(default_factory=dict)  # what more the version's metadata says

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that stay text, such as codes like 01001."""
        return self.contract.string_columns if self.contract is not None else ()


class Datasets:
    """The dataset room over a ledger and a table store.

    Args:
        project: what paths are relative to.
        admit: which rows may be published; default: all.
        blobs: takes the bytes of files; without it a data set of files is refused.
        sources: limits of reading datasets' own sources.
    """

    def __init__(
        self,
        ledger: Ledger,
        tables: TableStore,
        project: Path,
        clock: Clock = SYSTEM,
        *,
        admit: Admit | None = None,
        blobs: BlobStore | None = None,
        sources: SourceSettings | None = None,
    ) -> None:
        self._ledger = ledger
        self._tables = tables
        self._project = project
        self._clock = clock
        self._admit = admit
        self._sources = sources
        self._intake = Intake(ledger, tables, blobs)
        self.agreements = Agreements(ledger, tables, project, clock, blobs)

    def publish(
        self,
        name: str,
        source: Any = None,
        *,
        actor: str,
        mode: Mode | None = None,
        key: str | Sequence[str] = (),
        run: str | None = None,
        made_from: Iterable[tuple[Ref, str]] = (),
        note: str = "",
        cause: int | None = None,
        see: See | None = None,
        columns: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> Published:
        """Publish rows as the dataset's next version; the same rows again return the version they already are.

        Args:
            name: the dataset; it must have been applied.
            source: a Polars, pandas or Arrow frame, records, a path or glob, `Files`, or SQL over other datasets;
                default: the dataset's own source, of which only what is new is read where it has a watermark. Nothing
                new returns the newest version.
            actor: who publishes.
            mode: `overwrite` makes a version of these rows alone (and reads the dataset's own source whole); `append`
                puts them behind those of the newest version; `upsert` replaces the rows of the same key and puts the
                others behind. Default: `overwrite`, or what the dataset's own source says.
            key: the columns that name a row, for upsert; default: the dataset's `key`.
            run: the run that made the rows.
            made_from: what they were made from, with the role of each.
            note: a sentence that stays with the version.
            cause: the event because of which this is done.
            see: how whoever publishes sees the rows of another dataset that SQL reads; default: as they are.
            columns: where the columns of given rows come from, each as (`dataset/x@3`, column, `direct`), so that what
                classifies those classifies them; of SQL it is found.

        Raises:
            NotFound: no such dataset.
            InvalidInput: the source cannot be read, is empty, or lacks a column that the dataset names; rows to append
                or upsert have other columns than the dataset (schema drift), or no value in the key.
            ContractBroken: the batch was kept aside; what was published before is untouched.
            Conflict: others published so often meanwhile that the rows never came behind the newest version.
            Unavailable: the disk is full. In these cases nothing was published and the last version is as it was.
        """
        if mode is not None and mode not in get_args(Mode):
            raise InvalidInput(
                f'mode is "{mode}"{did_you_mean(mode, get_args(Mode))}; expected overwrite, append or upsert'
            )
        if key and mode != "upsert":
            raise InvalidInput(f'a key is for mode="upsert", not for "{mode or "overwrite"}"')
        with self._ledger.read() as world:
            spec = Dataset.model_validate(world.resources.get("dataset", name).spec)
            own = spec.source if source is None else None
            newest = next(iter(world.versions.all("dataset", name, limit=1)), None) if own else None
        key = [key] if isinstance(key, str) else list(key or spec.key)
        contract = self.agreements.of(name, spec)
        facts: Mapping[str, Any] = self.agreements.keep(name, spec, contract) if contract is not None else {}
        if columns:
            facts = {**facts, "columns": {column: [list(one) for one in from_] for column, from_ in columns.items()}}
        asked = _Asked(name, spec, contract, actor, run, tuple(made_from), note, cause, facts=facts)
        if source is not None:
            taken = self._intake.take(name, source, asked.texts, see)
            asked = replace(asked, made_from=asked.made_from + taken.made_from, facts={**facts, **taken.facts})
            return self._publish(asked, taken.frame, mode or "overwrite", key)
        if own is None:
            raise InvalidInput(f"dataset/{name} has no source of its own; give publish() a frame, records or a path")
        from flyball.data.sources import read_source

        since = newest.metadata.get("watermark") if newest and mode != "overwrite" else None
        reading = read_source(
            own,
            since,
            project=self._project,
            key=spec.key,
            string_columns=asked.texts,
            settings=self._sources,
            clock=self._clock,
        )
        with reading:
            if reading.frame is None:
                if newest is None:
                    raise InvalidInput(f"dataset/{name}: its source has no rows; nothing was published")
                return Published(newest)
            if mode == "append" and reading.mode == "whole" and since is not None:
                raise InvalidInput(
                    f"dataset/{name}: {reading.origin} had to be read whole ({listed(reading.notes) or 'it changed'}), "
                    "and rows that are there already would come twice; publish it without mode, which replaces them"
                )
            found: Mode = "overwrite" if reading.mode == "whole" else reading.mode
            told = {"origin": reading.origin, "notes": list(reading.notes)}
            of_source = {**facts, "source": {word: value for word, value in told.items() if value}}
            kept = replace(asked, watermark=reading.watermark, since=since, confirm=reading.confirm, facts=of_source)
            return self._publish(kept, reading.frame, mode or found, key)

    def frame(
        self, name: str, version: str | int = "latest", kind: str = "dataset", at: datetime | None = None
    ) -> pl.LazyFrame:
        """Return a version's rows, lazily.

        Args:
            version: a number, an alias or `latest`.
            at: with a zone; what `latest` or the alias meant then.

        Raises:
            NotFound: there is no such version, or there was none yet.
            InvalidInput: `at` has no zone, or is given beside a number.
        """
        return self._tables.scan(self._version(name, version, kind, at).digest)

    def read(
        self,
        name: str,
        version: str | int = "latest",
        kind: str = "dataset",
        at: datetime | None = None,
        *,
        format: Format = "polars",
    ) -> Any:
        """Return a version's rows as `polars`, `arrow`, `duckdb` or `pandas`; see `formats` and `frame`.

        Raises MissingExtra when the library is not installed.
        """
        digest = self._version(name, version, kind, at).digest
        return converted(self._tables.scan(digest), self._tables.paths(digest), format)

    def table(
        self, name: str, version: str | int = "latest", kind: str = "dataset", at: datetime | None = None
    ) -> Table:
        """Return what a version consists of: columns, parts, rows, bytes. Raises as `frame`."""
        return self._tables.read(self._version(name, version, kind, at).digest)

    def summary(
        self, name: str, version: str | int = "latest", kind: str = "dataset", at: datetime | None = None
    ) -> bytes | None:
        """Return a version's summary (its profile), from those of its parts; None where none is made."""
        return self._tables.summary(self._version(name, version, kind, at).digest)

    def diff(
        self,
        name: str,
        before: str | int,
        after: str | int = "latest",
        *,
        key: str | Sequence[str] | None = None,
        sample: int = 10,
        distances: Callable[[bytes, bytes], Mapping[str, float]] | None = None,
    ) -> Diff:
        """Return how two versions differ: columns, rows by key (without one: as wholes), distributions.

        Args:
            key: the columns that name a row; default: the dataset's `key`; empty: compare rows as wholes.
            sample: how many rows to show of each sort.
            distances: what compares two summaries, column by column; default: shares of values of a sample of rows.

        Raises:
            NotFound: there is no such version.
            InvalidInput: a key column is not in both versions, or the key names several rows.
        """
        from flyball.data.diffs import diff

        with self._ledger.read() as world:
            pair = [world.versions.get("dataset", name, version) for version in (before, after)]
            if key is None:
                key = Dataset.model_validate(world.resources.get("dataset", name).spec).key
        digests = [version.digest for version in pair]
        made = diff(self._tables, *digests, key=key, sample=sample, distances=distances)
        return replace(made, before=str(pair[0].ref), after=str(pair[1].ref))

    def _publish(self, asked: _Asked, frame: pl.LazyFrame, mode: Mode, key: Sequence[str]) -> Published:
        from polars.exceptions import PolarsError

        from flyball.data.reasons import reason_of

        try:
            return self._checked(asked, frame, mode, key)
        except PolarsError as error:  # its message, and what it was raised from, may hold rows
            raise InvalidInput(
                f"dataset/{asked.name}: the rows cannot be computed: {reason_of(error)}; nothing was published"
            ) from None

    def _checked(self, asked: _Asked, frame: pl.LazyFrame, mode: Mode, key: Sequence[str]) -> Published:
        """Check the rows, write what is good of them, and publish."""
        name, spec = asked.name, asked.spec
        if self._admit is not None:
            admitted = self._admit(name, frame)
            frame, asked = admitted.frame, replace(asked, facts={**asked.facts, **admitted.metadata})
        _check_columns(name, spec, frame)
        good, bad, report = frame, None, None
        if asked.contract is not None:
            report = self.agreements.check(name, frame, asked.contract, mode)
            if not report.passed:
                if spec.on_failure == "quarantine" or report.fail_kind == "table":
                    raise self._keep_aside(asked, frame, report, mode)
                good, bad = self.agreements.split(frame, asked.contract)
        with ExitStack() as scope:
            put = putting(self._tables, name, good, mode, key, scope)
            aside = self._tables.write(bad) if bad is not None else None

            def publish(world: Transaction, done: Put) -> Published:
                asked.confirm()
                metadata = _metadata(spec, done.table, report, asked.note, mode, done.counts) | dict(asked.facts)
                metadata |= columns_behind(asked.facts, done.newest)
                carried = done.newest.metadata.get("watermark") if done.newest else None
                if asked.watermark is not None or carried is not None:
                    metadata["watermark"] = asked.watermark if asked.watermark is not None else carried
                quarantined = None
                if aside is not None and aside.rows and report is not None:
                    kept = _metadata(spec, aside, report, "failing rows") | columns_behind(asked.facts, None)
                    quarantined = world.versions.publish("quarantine", name, aside.digest, metadata=kept, run=asked.run)
                    metadata["quarantined"] = {"version": str(quarantined.ref), "rows": aside.rows}
                version = world.versions.publish(
                    "dataset",
                    name,
                    done.table.digest,
                    metadata=metadata,
                    run=asked.run,
                    made_from=asked.made_from,
                    after=None if mode == "overwrite" else done.newest or 0,
                )
                return Published(version, report, quarantined, done.counts)

            if mode == "overwrite":
                whole = put(None)
                with self._ledger.write(asked.actor, asked.cause) as world:
                    return publish(world, whole)
            return publish_behind(
                self._ledger,
                self._tables,
                self._clock,
                name,
                put,
                publish,
                actor=asked.actor,
                cause=asked.cause,
                since=asked.since,
            )

    def _version(self, name: str, version: str | int, kind: str, at: datetime | None) -> Version:
        with self._ledger.read() as world:
            return world.versions.get(kind, name, version, at)

    def _keep_aside(self, asked: _Asked, frame: pl.LazyFrame, report: ContractReport, mode: Mode) -> ContractBroken:
        name, table = asked.name, self._tables.write(frame)
        metadata = {"rows": table.rows, "schema": table.schema, "contract": report.to_dict(), "mode": mode}
        metadata |= columns_behind(asked.facts, None)
        with self._ledger.write(asked.actor, asked.cause) as world:
            kept = world.versions.publish("quarantine", name, table.digest, metadata=metadata, run=asked.run)
        failed = [f"{r.id} ({r.message})" for r in report.failures]
        return ContractBroken(
            f"the batch for dataset/{name} breaks {len(failed)} of {report.checks} rules of its contract: "
            f"{listed(failed, 3)}; it was kept whole as {kept.ref}, and dataset/{name} is as it was",
            report,
            kept,
        )


def columns_behind(facts: Mapping[str, Any], newest: Version | None) -> dict[str, Any]:
    """Return what a version says of where its columns come from: as its own rows do, and those that it goes behind."""
    found: dict[str, list[Any]] = {}
    for told in (newest.metadata if newest is not None else {}, facts):
        for column, origins in told.get("columns", {}).items():
            known = found.setdefault(column, [])
            known += [list(origin) for origin in origins if list(origin) not in known]
    return {"columns": found} if found else {}


def _check_columns(name: str, spec: Dataset, frame: pl.LazyFrame) -> None:
    columns = frame.collect_schema().names()
    named = {"event_time": spec.event_time, "known_at": spec.known_at, "target": spec.target}
    named |= {"label_time": spec.label_time, **{f"entity {e}": e for e in spec.entity}}
    for role, column in named.items():
        if column is not None and column not in columns:
            raise InvalidInput(
                f'dataset/{name}: the batch has no column "{column}", which is its {role.split()[0]}'
                f"{did_you_mean(column, columns)} (it has: {listed(columns)})"
            )


def _metadata(
    spec: Dataset,
    table: Table,
    report: ContractReport | None,
    note: str,
    mode: str = "overwrite",
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    kept: Mapping[str, Any] = {
        "rows": table.rows,
        "size_bytes": table.size_bytes,
        "schema": table.schema,
        "event_time": spec.event_time,
        "target": spec.target,
        "contract": report.to_dict() if report else None,
        "note": note,
        "mode": mode if mode != "overwrite" else "",
        "changes": dict(counts) if counts else "",
    }
    return {k: v for k, v in kept.items() if v not in (None, "")}
