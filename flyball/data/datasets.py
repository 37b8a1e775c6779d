"""Datasets: publish a batch as an immutable version, or keep it aside when it breaks its contract.

Publishing writes bytes first, then one ledger transaction, so a crash in between leaves at most unreferenced blobs.
A batch that breaks its contract becomes a version of `quarantine/<dataset>` with its report: never half-published,
never lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flyball.clock import SYSTEM, Clock
from flyball.data.contracts import read_contract
from flyball.data.kinds import Dataset
from flyball.data.terms import Contract
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.storage.tables import Table, TableStore

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.reports import ContractReport

__all__ = ["ContractBroken", "Datasets", "Published"]


class ContractBroken(InvalidInput):
    """A batch broke its contract and was kept aside. `report` says how, `quarantined` names where it is."""

    def __init__(self, message: str, report: ContractReport, quarantined: Version) -> None:
        super().__init__(message)
        self.report = report
        self.quarantined = quarantined


@dataclass(frozen=True)
class Published:
    """What came of publishing: the version, its contract's report, and what was kept aside."""

    version: Version
    report: ContractReport | None = None
    quarantined: Version | None = None


class Datasets:
    """The dataset room over a ledger and a table store."""

    def __init__(self, ledger: Ledger, tables: TableStore, project: Path, clock: Clock = SYSTEM) -> None:
        self._ledger = ledger
        self._tables = tables
        self._project = project
        self._clock = clock

    def publish(
        self,
        name: str,
        source: Any = None,
        *,
        actor: str,
        mode: Literal["overwrite", "append"] = "overwrite",
        run: str | None = None,
        made_from: Iterable[tuple[Ref, str]] = (),
        note: str = "",
        cause: int | None = None,
    ) -> Published:
        """Publish rows as the dataset's next version; the same rows again return the version they already are.

        Args:
            name: the dataset; it must have been applied.
            source: a Polars, pandas or Arrow frame, records, or a path or glob; default: the dataset's own source.
            actor: who publishes.
            mode: `append` puts the rows behind those of the newest version.
            run: the run that made the rows.
            made_from: what they were made from, with the role of each.
            note: a sentence that stays with the version.
            cause: the event because of which this is done.

        Raises:
            NotFound: no such dataset.
            InvalidInput: the source cannot be read, is empty, or lacks a column that the dataset names.
            ContractBroken: the batch was kept aside; what was published before is untouched.
        """
        with self._ledger.read() as world:
            spec = Dataset.model_validate(world.resources.get("dataset", name).spec)
        contract = self.contract(name, spec)
        frame = self._open(name, spec, source, contract)
        _check_columns(name, spec, frame)
        good, bad, report = frame, None, None
        if contract is not None:
            from flyball.data.checking import check, split

            report = check(frame, contract, now=self._clock.now())
            if not report.passed:
                if spec.on_failure == "quarantine" or report.fail_kind == "table":
                    raise self._keep_aside(name, frame, report, actor, run, cause)
                good, bad = split(frame, contract)
        table = self._write(good, name, mode)
        if table.rows == 0:
            raise InvalidInput(f"dataset/{name}: the batch has no rows; nothing was published")
        aside = self._tables.write(bad) if bad is not None else None
        metadata = _metadata(spec, table, report, note)
        with self._ledger.write(actor, cause) as world:
            quarantined = None
            if aside is not None and aside.rows and report is not None:
                quarantined = world.versions.publish(
                    "quarantine", name, aside.digest, metadata=_metadata(spec, aside, report, "failing rows"), run=run
                )
                metadata["quarantined"] = {"version": str(quarantined.ref), "rows": aside.rows}
            version = world.versions.publish(
                "dataset", name, table.digest, metadata=metadata, run=run, made_from=made_from
            )
        return Published(version, report, quarantined)

    def frame(self, name: str, version: str | int = "latest", kind: str = "dataset") -> pl.LazyFrame:
        """Return a version's rows, lazily. Raises NotFound."""
        with self._ledger.read() as world:
            found = world.versions.get(kind, name, version)
        return self._tables.scan(found.digest)

    def contract(self, name: str, spec: Dataset) -> Contract | None:
        """Return the dataset's contract, read and compiled, or None when it has none."""
        if spec.contract is None:
            return None
        if isinstance(spec.contract, str):
            path = self._project / spec.contract
            if not path.exists():
                raise InvalidInput(f"dataset/{name}: its contract {spec.contract} is not there; looked for {path}")
            return read_contract(path)
        return read_contract(spec.contract)

    def _open(self, name: str, spec: Dataset, source: Any, contract: Contract | None) -> pl.LazyFrame:
        from flyball.data.sources import open_source

        texts = contract.string_columns if contract is not None else ()  # codes such as 01001 stay text
        if source is not None:
            return open_source(source, string_columns=texts)
        if spec.source is None:
            raise InvalidInput(f"dataset/{name} has no source of its own; give publish() a frame, records or a path")
        return open_source(str(self._project / spec.source.files), string_columns=texts)

    def _write(self, frame: pl.LazyFrame, name: str, mode: str) -> Table:
        after = None
        if mode == "append":
            with self._ledger.read() as world:
                newest = world.versions.all("dataset", name, limit=1)
            after = newest[0].digest if newest else None
        elif mode != "overwrite":
            raise InvalidInput(f'mode is "{mode}"; expected overwrite or append')
        return self._tables.write(frame, after)

    def _keep_aside(
        self, name: str, frame: pl.LazyFrame, report: ContractReport, actor: str, run: str | None, cause: int | None
    ) -> ContractBroken:
        table = self._tables.write(frame)
        metadata = {"rows": table.rows, "schema": table.schema, "contract": report.to_dict()}
        with self._ledger.write(actor, cause) as world:
            kept = world.versions.publish("quarantine", name, table.digest, metadata=metadata, run=run)
        failed = [f"{r.id} ({r.message})" for r in report.failures]
        return ContractBroken(
            f"the batch for dataset/{name} breaks {len(failed)} of {report.checks} rules of its contract: "
            f"{listed(failed, 3)}; it was kept whole as {kept.ref}, and dataset/{name} is as it was",
            report,
            kept,
        )


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


def _metadata(spec: Dataset, table: Table, report: ContractReport | None, note: str) -> dict[str, Any]:
    kept: Mapping[str, Any] = {
        "rows": table.rows,
        "size_bytes": table.size_bytes,
        "schema": table.schema,
        "event_time": spec.event_time,
        "target": spec.target,
        "contract": report.to_dict() if report else None,
        "note": note,
    }
    return {k: v for k, v in kept.items() if v not in (None, "")}
