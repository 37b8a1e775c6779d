"""The three moments at which a contract is asked: before extraction, on the batch, before publishing.

expectation_of   what a source must look like before anything is read from it: columns, types, freshness
checking.check   the batch: all rules, when the batch is the whole new version
check_append     the batch and what the whole new version will be, when rows are put behind others: row rules on
                 the batch alone, rules about the table (counts, aggregates, keys, freshness) on both together
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flyball.clock import SYSTEM
from flyball.data.checks import Resolve
from flyball.data.reports import ContractReport, FailKind
from flyball.data.terms import Contract
from flyball.errors import did_you_mean

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Expectation", "check_append", "expectation_of", "of_batch", "of_version"]

_OF_OTHERS = {"unique", "primary_key", "depends_on"}  # row rules that compare a row with others of the table
_OF_SHAPE = {"type", "columns"}


@dataclass(frozen=True)
class Expectation:
    """What a source must look like.

    `types` maps the contract's columns to their logical types (None: any), `names` to the names that they may have in
    the source; `freshness_s` maps time columns to the age in seconds that their newest value may have.
    """

    contract: str
    types: Mapping[str, str | None]
    names: Mapping[str, tuple[str, ...]]
    freshness_s: Mapping[str, float]
    strict: bool = False

    def problems(
        self,
        schema: Mapping[str, pl.DataType],
        newest: Mapping[str, datetime] | None = None,
        *,
        now: datetime | None = None,
    ) -> list[str]:
        """Return in words how a source differs from what is expected; nothing when it does not.

        Args:
            schema: the source's columns and Polars types, as a probe finds them without reading rows.
            newest: the newest value of time columns, where the source can tell; without zone it is UTC.
            now: what freshness is measured against (default: the clock).
        """
        found: list[str] = []
        met: set[str] = set()
        for column, logical in self.types.items():
            there = next((name for name in self.names[column] if name in schema), None)
            if there is None:
                found.append(f'there is no column "{column}"{did_you_mean(column, schema)}')
                continue
            met.add(there)
            if logical is not None and not _may_be(schema[there], logical):
                found.append(f"{column} is {str(schema[there]).lower()}, which cannot be read as {logical}")
        if self.strict:
            found += [f'the contract does not name the column "{name}"' for name in schema if name not in met]
        for column, limit_s in self.freshness_s.items():
            instant = (newest or {}).get(column)
            if instant is not None:
                aware = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
                age_s = ((now or SYSTEM.now()) - aware).total_seconds()
                if age_s > limit_s:
                    ages = f"{age_s / 3600:.1f} hours old; expected at most {limit_s / 3600:.1f}"
                    found.append(f"the newest {column} is {ages}")
        return found


def expectation_of(contract: Contract) -> Expectation:
    """Return what a contract expects of a source, before any row is read."""
    top = [c for c in contract.columns if "." not in c.name]
    fresh = {str(r.column): float(r.params["seconds"]) for r in contract.rules if r.check == "freshness"}
    return Expectation(
        contract=f"{contract.name} {contract.version}",
        types={c.name: c.logical_type for c in top},
        names={c.name: tuple(n for n in (c.name, c.physical_name) if n) for c in top},
        freshness_s=fresh,
        strict=contract.strict,
    )


def of_batch(contract: Contract) -> Contract:
    """Return the rules that a row breaks or keeps whatever other rows there are."""
    kept = tuple(r for r in contract.rules if r.check in _OF_SHAPE or (r.scope == "row" and r.check not in _OF_OTHERS))
    return dataclasses.replace(contract, rules=kept)


def of_version(contract: Contract) -> Contract:
    """Return the rules that only the whole table can break or keep."""
    of_rows = {rule.id for rule in of_batch(contract).rules}
    return dataclasses.replace(contract, rules=tuple(r for r in contract.rules if r.id not in of_rows))


def check_append(
    batch: pl.LazyFrame | pl.DataFrame,
    before: pl.LazyFrame,
    contract: Contract,
    *,
    now: datetime | None = None,
    sample: int = 5,
    resolve: Resolve | None = None,
) -> ContractReport:
    """Return what each rule found when `batch` is to follow the rows of `before`; `rows` counts those of the batch.

    Rows of `before` were checked when they were published, so only rules about the table look at them again; both must
    have the same columns. Sample rows of those rules count from the first row of `before`.

    Raises:
        InvalidInput: as `checking.check`.
    """
    import polars as pl

    from flyball.data.checking import check

    now = now or SYSTEM.now()
    rows = check(batch, of_batch(contract), now=now, sample=sample, resolve=resolve)
    whole = of_version(contract)
    if not whole.rules:
        return rows
    both = pl.concat([before, batch.lazy()], how="diagonal_relaxed")
    table = check(both, whole, now=now, sample=sample, resolve=resolve)
    by_id = {r.id: r for r in (*table.results, *rows.results)}
    order = [rule.id for rule in contract.rules]
    results = tuple(by_id[i] for i in (*order, *(i for i in by_id if i not in order)) if i in by_id)
    kinds = {rows.fail_kind, table.fail_kind} - {"none"}
    # A key that is there already may stand in a row of `before`: splitting the batch would not make the table good.
    kind: FailKind = "none" if not kinds else ("rows" if kinds == {"rows"} and table.passed else "table")
    return dataclasses.replace(rows, results=results, fail_kind=kind)


def _may_be(dtype: pl.DataType, logical: str) -> bool:
    """Whether values of a type may be read as a logical type; text may be anything until it is read."""
    import polars as pl

    if isinstance(dtype, pl.String | pl.Null | pl.Categorical | pl.Enum | pl.Object):
        return True
    by_logical = {
        "string": False,
        "integer": dtype.is_numeric(),
        "number": dtype.is_numeric(),
        "boolean": dtype == pl.Boolean or dtype.is_integer(),
        "date": isinstance(dtype, pl.Date | pl.Datetime),
        "timestamp": isinstance(dtype, pl.Date | pl.Datetime),
        "time": dtype == pl.Time,
        "array": isinstance(dtype, pl.List | pl.Array),
        "object": isinstance(dtype, pl.Struct),
    }
    return by_logical.get(logical, True)
