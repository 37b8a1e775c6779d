"""Check a table against a contract, or split it into good and bad rows.

One pass: the table streams by in batches, each batch is converted to the contract's types, the masks of all row
rules are computed together and summed, and the first few failing rows are kept while they are at hand. Only
repeated keys need another look, since a row's twin may come later: a second pass, taken only if there are any.
Memory is that of a batch plus 8 bytes a key (`keys` spills beyond a limit).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, overload

from flyball.clock import SYSTEM
from flyball.data.keys import KeyFold
from flyball.data.plans import Plan, plan_of
from flyball.data.reasons import reason_of
from flyball.data.reports import ContractReport, RuleResult
from flyball.data.samples import Samples
from flyball.data.terms import Contract, Rule
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FAILED_COLUMN", "check", "split"]

FAILED_COLUMN = "_failed"
_BATCH_ROWS = 131_072  # a few megabytes a column: large enough to keep both cores busy, small enough to stay flat


def check(
    frame: pl.LazyFrame | pl.DataFrame, contract: Contract, *, now: datetime | None = None, sample: int = 5
) -> ContractReport:
    """Return what each rule of `contract` found in `frame`.

    Data never makes it raise: an absent column, a column of another type, or a rule that cannot be evaluated on this
    data is a failed rule that says so. A table without rows fails, unless the contract itself says how many rows
    there must be: nothing was checked.

    Args:
        frame: any number of rows; a lazy frame is streamed.
        contract: from `contracts.read_contract`.
        now: with a zone; what freshness is measured against (default: the clock).
        sample: how many failing rows to show of each rule.

    Raises:
        InvalidInput: a naive `now`, a negative `sample`, or a lazy frame whose source cannot be read.
    """
    now = now or SYSTEM.now()
    if now.tzinfo is None:
        raise InvalidInput(f"the time {now.isoformat()} to measure freshness against has no zone; give it one")
    if sample < 0:
        raise InvalidInput(f"sample is {sample}; expected 0 or more failing rows to show of each rule")
    plan = _plan(frame, contract, now)
    tally = _Tally(plan, sample)
    for batch in _batches(plan.lazy):
        tally.add(batch)
    return tally.report()


@overload
def split(
    frame: pl.DataFrame, contract: Contract, *, now: datetime | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]: ...
@overload
def split(
    frame: pl.LazyFrame, contract: Contract, *, now: datetime | None = None
) -> tuple[pl.LazyFrame, pl.LazyFrame]: ...
def split(frame: Any, contract: Contract, *, now: datetime | None = None) -> tuple[Any, Any]:
    """Return the rows that break no row rule of severity error, and those that do.

    Rows keep their order, columns and values as they came. The bad ones have a column `_failed` more, the list of
    ids of the rules they break; an existing `_failed` is taken for an earlier one's and replaced. Rules about the
    whole table (and row rules that tolerate some failures) blame no row. Lazy in, lazy out.

    Raises:
        InvalidInput: the source of a lazy frame cannot be read.
    """
    import polars as pl

    plan = _plan(frame, contract, now or SYSTEM.now())
    wanted = [r for r in contract.rules if r.scope == "row" and r.severity == "error"]
    _try_conditions(plan, wanted)
    twins = _repeated_keys(plan, wanted)
    fails = {r.id: plan.mask(r, twins) for r in wanted}
    source = (frame.lazy() if isinstance(frame, pl.DataFrame) else frame).drop(FAILED_COLUMN, strict=False)
    if not source.collect_schema():
        good, bad = pl.LazyFrame(), pl.LazyFrame(schema={FAILED_COLUMN: pl.List(pl.String)})
    else:
        # The row as it came travels in one struct beside the converted columns that the masks need.
        row = "\0row"
        marked = source.select(pl.struct(pl.all()).alias(row), *plan.preparation.expressions)
        marked = marked.select(row, **{rule_id: mask.fill_null(False) for rule_id, mask in fails.items()})
        breaks = pl.any_horizontal(list(fails)) if fails else pl.lit(False)
        ids = [pl.when(rule_id).then(pl.lit(rule_id)) for rule_id in fails]
        failed = pl.concat_list(ids).list.drop_nulls() if ids else pl.lit([], dtype=pl.List(pl.String))
        good = marked.filter(~breaks).select(pl.col(row).struct.unnest())
        bad = marked.filter(breaks).select(pl.col(row).struct.unnest(), failed.alias(FAILED_COLUMN))
    return (good.collect(), bad.collect()) if isinstance(frame, pl.DataFrame) else (good, bad)


class _Tally:
    """Adds up what the batches of one table say about each rule."""

    def __init__(self, plan: Plan, sample: int) -> None:
        self._plan = plan
        self._rows = self._any_failed = 0
        self._failed = dict.fromkeys(plan.row_tests, 0)
        self._parts: dict[str, list[dict[str, Any]]] = {rule_id: [] for rule_id in plan.table_tests}
        self._folds = {columns: KeyFold() for columns in plan.keys}
        self._null_keys = dict.fromkeys(plan.keys, 0)
        self._samples = Samples(plan, sample)
        rules = plan.contract.rules
        self._blaming = [r.id for r in rules if r.scope == "row" and r.severity == "error"]

    def add(self, batch: pl.DataFrame) -> None:
        import polars as pl

        prepared = batch.select(self._plan.preparation.expressions)
        masks = self._masks(prepared)
        if masks.width:
            sums = masks.sum().row(0, named=True)
            for rule_id, count in sums.items():
                self._failed[rule_id] += count or 0
                if count:
                    self._samples.add(rule_id, batch, masks[rule_id], self._rows)
            blamed = [name for name in masks.columns if name in self._blaming]
            if any(sums[name] for name in blamed):
                self._any_failed += masks.select(pl.any_horizontal(blamed).sum()).item()
        for columns, fold in self._folds.items():
            keys = prepared.select(self._plan.keys[columns].alias("key"))["key"]
            self._null_keys[columns] += keys.null_count()
            fold.add(keys.drop_nulls().to_numpy())
        for rule_id, test in list(self._plan.table_tests.items()):
            try:
                part = prepared.select(**test.measures).row(0, named=True) if test.measures else {}
            except pl.exceptions.PolarsError as error:
                self._plan.give_up(rule_id, f"cannot be evaluated on this data: {reason_of(error)}")
            else:
                self._parts[rule_id].append(part)
        self._rows += batch.height

    def report(self) -> ContractReport:
        """Return the report, after a second pass if keys repeat and a query of its own for each SQL rule."""
        found = {columns: fold.finish() for columns, fold in self._folds.items()}
        twins = {columns: keys for columns, (_, keys) in found.items() if len(keys)}
        nulls_blamed = any(t.nulls_fail and self._null_keys[t.columns] for t in self._plan.key_tests.values())
        if twins or nulls_blamed:
            self._second_pass(twins)
        for rule_id, test in self._plan.key_tests.items():
            nulls = self._null_keys[test.columns] if test.nulls_fail else 0
            self._failed[rule_id] = found[test.columns][0] + nulls
        if any(rule_id in self._plan.broken for rule_id in self._blaming):
            self._any_failed = self._rows
        results = tuple(self._result(rule) for rule in self._plan.contract.rules)
        if not self._rows and not any(r.check == "row_count" for r in self._plan.contract.rules):
            message = "there are no rows, so nothing was checked"
            nothing = RuleResult("table.row_count", "row_count", None, "error", False, 0, 0.0, 0.0, message)
            results = (*results, nothing)
        return ContractReport(
            contract=self._plan.contract.name,
            version=self._plan.contract.version,
            rows=self._rows,
            rows_failed=self._any_failed,
            results=results,
            fail_kind=self._fail_kind(results),
        )

    def _masks(self, prepared: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        tests = {i: t.fails for i, t in self._plan.row_tests.items() if t.fails is not None}
        try:
            return prepared.select(**tests)
        except pl.exceptions.PolarsError:
            # One rule's expression met a value that it cannot take; find which, and keep the others.
            kept = pl.DataFrame()
            for rule_id, fails in tests.items():
                try:
                    kept = kept.with_columns(prepared.select(fails.alias(rule_id))[rule_id])
                except pl.exceptions.PolarsError as error:
                    self._plan.give_up(rule_id, f"cannot be evaluated on this data: {reason_of(error)}")
            return kept

    def _second_pass(self, twins: dict[tuple[str, ...], Any]) -> None:
        """Count again the distinct bad rows, now that repeated keys are known, and sample those."""
        import polars as pl

        rules = [r for r in self._plan.contract.rules if r.id in self._plan.key_tests or r.id in self._blaming]
        rules = [r for r in rules if r.id not in self._plan.broken]
        masks_by_id = {r.id: self._plan.mask(r, twins) for r in rules}
        at = self._any_failed = 0
        for batch in _batches(self._plan.lazy):
            prepared = batch.select(self._plan.preparation.expressions).with_columns(**masks_by_id)
            blamed = [i for i in masks_by_id if i in self._blaming]
            if blamed:
                self._any_failed += prepared.select(pl.any_horizontal(blamed).sum()).item()
            for rule_id in self._plan.key_tests:
                self._samples.add(rule_id, batch, prepared[rule_id], at)
            at += batch.height

    def _result(self, rule: Rule) -> RuleResult:
        failed, value, passed = 0, None, False
        if rule.id in self._plan.broken:
            failed, message = self._rows if rule.id not in self._plan.of_table else 0, self._plan.broken[rule.id]
        elif rule.id in self._plan.table_tests:
            verdict = self._plan.table_tests[rule.id].verdict(self._parts[rule.id])
            passed, value, message = verdict.passed, verdict.value, verdict.message
        elif rule.id in self._plan.query_tests:
            passed, value, message = self._plan.ask(rule.id)
        else:
            failed = self._failed[rule.id]
            passed, value, message = _row_verdict(rule, failed, self._rows, self._plan.says(rule.id))
        return RuleResult(
            id=rule.id,
            check=rule.check,
            column=rule.column,
            severity=rule.severity,
            passed=passed,
            failed=failed,
            fraction=failed / self._rows if self._rows else 0.0,
            value=value,
            message=message,
            sample=self._samples.of(rule.id),
        )

    def _fail_kind(self, results: tuple[RuleResult, ...]) -> Any:
        failed = [r for r in results if not r.passed and r.severity == "error"]
        if not failed:
            return "none"
        return "rows" if all(r.id in self._blaming and r.id not in self._plan.broken for r in failed) else "table"


def _row_verdict(rule: Rule, failed: int, rows: int, says: str) -> tuple[bool, float | None, str]:
    measured = 100 * failed / rows if rule.bounds and rule.bounds.percent and rows else failed
    passed = rule.bounds.holds(measured) if rule.bounds else failed == 0
    limit = f"; expected {rule.bounds}" if rule.bounds else ""
    subject = f"{rule.column} " if rule.column and rule.check != "cross_field" else ""
    return passed, measured if rule.bounds else None, f"{failed:,} of {rows:,} rows: {subject}{says}{limit}"


def _plan(frame: pl.LazyFrame | pl.DataFrame, contract: Contract, now: datetime) -> Plan:
    import polars as pl

    lazy = frame.lazy() if isinstance(frame, pl.DataFrame) else frame
    try:
        return plan_of(lazy.drop(FAILED_COLUMN, strict=False), contract, now.astimezone(UTC))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the table to check cannot be read: {reason_of(error)}") from error


def _batches(lazy: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    import polars as pl

    try:
        yield from (b for b in lazy.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True) if b.height)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the table to check cannot be read: {reason_of(error)}") from error


def _try_conditions(plan: Plan, rules: list[Rule]) -> None:
    """Give up conditions that raise on some value, like a CAST; all other checks read values leniently."""
    import polars as pl

    prepared = plan.lazy.select(plan.preparation.expressions)
    for rule in rules:
        test = plan.row_tests.get(rule.id)
        if rule.check != "cross_field" or test is None or test.fails is None:
            continue
        try:
            prepared.select(test.fails.alias("fails").sum()).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            plan.give_up(rule.id, f"cannot be evaluated on this data: {reason_of(error)}")


def _repeated_keys(plan: Plan, rules: list[Rule]) -> dict[tuple[str, ...], Any]:
    """Return the keys that occur more than once, for the key rules among `rules`."""
    needed = {plan.key_tests[r.id].columns for r in rules if r.id in plan.key_tests}
    folds = {columns: KeyFold() for columns in needed}
    if folds:
        for batch in _batches(plan.lazy):
            prepared = batch.select(plan.preparation.expressions)
            for columns, fold in folds.items():
                fold.add(prepared.select(plan.keys[columns].alias("key"))["key"].drop_nulls().to_numpy())
    return {columns: fold.finish()[1] for columns, fold in folds.items()}
