"""Add up what the pieces of one table say about each rule, and make the report."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from flyball.data.folds import Folds, Found
from flyball.data.pieces import Piece, pieces, read
from flyball.data.plans import Plan
from flyball.data.reasons import reason_of
from flyball.data.reports import ContractReport, RuleResult
from flyball.data.samples import Samples
from flyball.data.terms import Rule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

__all__ = ["Tally"]


class Tally:
    """Adds up what the pieces of one table say about each rule."""

    def __init__(self, plan: Plan, sample: int) -> None:
        self._plan = plan
        self._rows = self._any_failed = 0
        self._failed = dict.fromkeys(plan.row_tests, 0)
        self._parts: dict[str, list[dict[str, Any]]] = {rule_id: [] for rule_id in plan.table_tests}
        self._folds = Folds(plan)
        self._samples = Samples(plan, sample)
        rules = plan.contract.rules
        self._blaming = [r.id for r in rules if r.scope == "row" and r.severity == "error"]
        self._blamed: list[npt.NDArray[np.uint8]] = []  # a bit a row, by piece: some row rule of these failed

    def add(self, piece: Piece, evaluated: Future[pl.DataFrame]) -> None:
        """Take the next piece, and what came of evaluating `outputs` of it."""
        import numpy as np
        import polars as pl

        seen = self._seen(piece, evaluated)
        ids = [i for i in self._plan.row_tests if f"\1{i}" in seen.columns]
        sums = seen.select(pl.col(f"\1{i}").sum() for i in ids).row(0) if ids else ()
        failing = {i: int(n) for i, n in zip(ids, sums, strict=True) if n}
        for rule_id, count in failing.items():
            self._failed[rule_id] += count
        blamed = [f"\1{i}" for i in failing if i in self._blaming]
        marks = seen.select(pl.any_horizontal(blamed).fill_null(False)).to_series() if blamed else None
        self._any_failed += int(marks.sum()) if marks is not None else 0
        if self._folds:
            self._folds.add(seen)
            bits = np.zeros(seen.height, dtype=bool) if marks is None else marks.to_numpy()
            self._blamed.append(np.packbits(bits))
        self._keep_rows(piece, {i: seen[f"\1{i}"] for i in failing})
        self._measure(seen)
        self._rows += seen.height

    def report(self) -> ContractReport:
        """Return the report, after a second pass if rows are like or unlike others, and a query for each SQL rule."""
        found = self._folds.finish()
        nulls_blamed = any(t.nulls_fail and self._folds.null_keys[t.columns] for t in self._plan.key_tests.values())
        if found or nulls_blamed:
            self._second_pass(found)
        for rule_id, test in self._plan.key_tests.items():
            nulls = self._folds.null_keys[test.columns] if test.nulls_fail else 0
            self._failed[rule_id] = (found[test.columns].rows if test.columns in found else 0) + nulls
        for rule_id in self._plan.majority_tests:
            self._failed[rule_id] = found[rule_id].rows if rule_id in found else 0
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

    def outputs(self) -> dict[str, pl.Expr]:
        """Return masks, keys and the columns that measures need, to compute of a prepared piece."""
        import polars as pl

        tests = self._plan.row_tests.items()
        masks = {f"\1{i}": t.fails for i, t in tests if t.fails is not None}
        measured = [e for t in self._plan.table_tests.values() for e in t.measures.values()]
        columns = {name for expression in measured for name in expression.meta.root_names()}
        height = {"\0": pl.repeat(False, pl.len())}  # so that there is a column, whatever the rules
        return {**height, **masks, **self._folds.outputs(), **{name: pl.col(name) for name in sorted(columns)}}

    def _seen(self, piece: Piece, evaluated: Future[pl.DataFrame]) -> pl.DataFrame:
        import polars as pl

        try:
            return evaluated.result()
        except (pl.exceptions.PolarsError, OSError):
            # One rule's expression met a value that it cannot take; find which, and keep the others.
            rows = read(self._plan.prepared(piece.lazy))
            kept = rows.select(pl.repeat(False, pl.len()).alias("\0"))
            for name, expression in self.outputs().items():
                try:
                    kept = kept.with_columns(rows.select(expression.alias(name))[name])
                except pl.exceptions.PolarsError as error:
                    self._plan.give_up(name[1:], f"cannot be evaluated on this data: {reason_of(error)}")
            return kept

    def _measure(self, seen: pl.DataFrame) -> None:
        import polars as pl

        for rule_id, test in list(self._plan.table_tests.items()):
            try:
                part = seen.select(**test.measures).row(0, named=True) if test.measures else {}
            except pl.exceptions.PolarsError as error:
                self._plan.give_up(rule_id, f"cannot be evaluated on this data: {reason_of(error)}")
            else:
                self._parts[rule_id].append(part)

    def _keep_rows(self, piece: Piece, marks_by_id: Mapping[str, pl.Series]) -> None:
        """Fetch the first failing rows of rules that have not enough of them yet."""
        wanted = {i: marks.arg_true().head(self._samples.room(i)).to_list() for i, marks in marks_by_id.items()}
        wanted = {i: places for i, places in wanted.items() if places}
        if wanted:
            rows = read(piece.lazy.head(1 + max(places[-1] for places in wanted.values())))
            for rule_id, places in wanted.items():
                self._samples.add(rule_id, rows, places, piece.start)

    def _second_pass(self, found: Found) -> None:
        """Count the distinct bad rows again, now that all rows are known, and sample those."""
        import numpy as np
        import polars as pl

        tests = {**self._plan.key_tests, **self._plan.majority_tests}
        rules = [r for r in self._plan.contract.rules if r.id in tests and r.id not in self._plan.broken]
        masks = {f"\1{r.id}": self._plan.mask(r, found) for r in rules}
        for piece, bits in zip(pieces(self._plan.lazy), self._blamed, strict=True):
            marks = read(self._plan.prepared(piece.lazy).select(pl.repeat(False, pl.len()).alias("\0"), **masks))
            failing = {r.id: marks[f"\1{r.id}"] for r in rules if marks[f"\1{r.id}"].any()}
            blamed = [marks for rule_id, marks in failing.items() if rule_id in self._blaming]
            if blamed:
                before = np.unpackbits(bits, count=marks.height).view(bool)
                either = np.logical_or.reduce([series.fill_null(False).to_numpy() for series in blamed])
                self._any_failed += int((either & ~before).sum())
            self._keep_rows(piece, failing)

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
