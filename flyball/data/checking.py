"""Check a table against a contract, or split it into good and bad rows.

One pass: the table goes by in pieces, each is converted to the contract's types, the masks of all row rules are
computed together and summed, and the first few failing rows are fetched from a piece that has some. Only rules about
other rows (a repeated key, a value unlike the rest of its group) need another look, since what a row is compared
with may come later: a second pass over their columns, taken only if something was found. Memory is that of a piece
and of the keys (`keys`: bounded whatever their number), and a bit a row where there are such rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, overload

from flyball.clock import SYSTEM
from flyball.data.checks import Resolve
from flyball.data.folds import Folds
from flyball.data.pieces import Piece, pieces, unreadable
from flyball.data.plans import Plan, plan_of
from flyball.data.reasons import reason_of
from flyball.data.reports import ContractReport
from flyball.data.tallies import Tally
from flyball.data.terms import Contract, Rule
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FAILED_COLUMN", "check", "explained", "split"]

FAILED_COLUMN = "_failed"
_ROW = "\0row"


def check(
    frame: pl.LazyFrame | pl.DataFrame,
    contract: Contract,
    *,
    now: datetime | None = None,
    sample: int = 5,
    resolve: Resolve | None = None,
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
        resolve: returns the rows of a dataset by name or name@version, for rules that refer to one.

    Raises:
        InvalidInput: a naive `now`, a negative `sample`, a lazy frame whose source cannot be read, or a contract
            that refers to a dataset or column that `resolve` does not find.
    """
    now = now or SYSTEM.now()
    if now.tzinfo is None:
        raise InvalidInput(f"the time {now.isoformat()} to measure freshness against has no zone; give it one")
    if sample < 0:
        raise InvalidInput(f"sample is {sample}; expected 0 or more failing rows to show of each rule")
    plan = _plan(frame, contract, now, resolve)
    tally = Tally(plan, sample)
    with ThreadPoolExecutor(1, "flyball-check") as ahead:  # the next piece is evaluated while this one is counted
        waiting: tuple[Piece, Future[pl.DataFrame]] | None = None
        for piece in pieces(plan.lazy):
            evaluated = ahead.submit(_evaluated, plan, piece, tally.outputs())
            if waiting is not None:
                tally.add(*waiting)
            waiting = piece, evaluated
        if waiting is not None:
            tally.add(*waiting)
    return tally.report()


@overload
def split(
    frame: pl.DataFrame, contract: Contract, *, now: datetime | None = None, resolve: Resolve | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]: ...
@overload
def split(
    frame: pl.LazyFrame, contract: Contract, *, now: datetime | None = None, resolve: Resolve | None = None
) -> tuple[pl.LazyFrame, pl.LazyFrame]: ...
def split(
    frame: Any, contract: Contract, *, now: datetime | None = None, resolve: Resolve | None = None
) -> tuple[Any, Any]:
    """Return the rows that break no row rule of severity error, and those that do.

    Rows keep their order, columns and values as they came. The bad ones have a column `_failed` more, the list of
    ids of the rules they break; an existing `_failed` is taken for an earlier one's and replaced. Rules about the
    whole table (and row rules that tolerate some failures) blame no row. Lazy in, lazy out.

    Raises:
        InvalidInput: as `check`.
    """
    import polars as pl

    marked, rules = _marked(frame.lazy(), contract, now, resolve)
    if not marked.collect_schema()[_ROW].fields:  # type: ignore[attr-defined]
        good, bad = pl.LazyFrame(), pl.LazyFrame(schema={FAILED_COLUMN: pl.List(pl.String)})
        return (good.collect(), bad.collect()) if isinstance(frame, pl.DataFrame) else (good, bad)
    # Rows are told apart before the list of reasons is made, which most rows do not need.
    breaks = pl.any_horizontal(rules) if rules else pl.lit(False)
    row = pl.col(_ROW).struct.unnest()
    good, bad = marked.filter(~breaks).select(row), marked.filter(breaks).select(row, _reasons(rules))
    return (good.collect(), bad.collect()) if isinstance(frame, pl.DataFrame) else (good, bad)


def explained(
    frame: pl.LazyFrame, contract: Contract, *, now: datetime | None = None, resolve: Resolve | None = None
) -> pl.LazyFrame:
    """Return all rows as they came, with a column `_failed` more: the ids of the row rules that each breaks.

    Raises:
        InvalidInput: as `check`.
    """
    import polars as pl

    marked, rules = _marked(frame, contract, now, resolve)
    if not marked.collect_schema()[_ROW].fields:  # type: ignore[attr-defined]
        return pl.LazyFrame(schema={FAILED_COLUMN: pl.List(pl.String)})
    return marked.select(pl.col(_ROW).struct.unnest(), _reasons(rules))


def _marked(
    frame: pl.LazyFrame, contract: Contract, now: datetime | None, resolve: Resolve | None
) -> tuple[pl.LazyFrame, list[str]]:
    """Return each row as it came, in one struct, beside a truth value a row rule, and the names of those."""
    import polars as pl

    plan = _plan(frame, contract, now or SYSTEM.now(), resolve)
    wanted = [r for r in contract.rules if r.scope == "row" and r.severity == "error"]
    _try_conditions(plan, wanted)
    folds = Folds(plan, {r.id for r in wanted})
    if folds:
        for piece in pieces(plan.lazy):
            folds.add(plan.prepared(piece.lazy).select(**folds.outputs()).collect())
    found = folds.finish()
    source = frame.drop(FAILED_COLUMN, strict=False)
    if not source.collect_schema():
        return pl.LazyFrame(schema={_ROW: pl.Struct([])}), []
    marked = source.select(pl.struct(pl.all()).alias(_ROW), *plan.preparation.expressions)
    return marked.select(_ROW, **{r.id: plan.mask(r, found).fill_null(False) for r in wanted}), [r.id for r in wanted]


def _reasons(rules: list[str]) -> pl.Expr:
    import polars as pl

    ids = [pl.when(rule_id).then(pl.lit(rule_id)) for rule_id in rules]
    failed = pl.concat_list(ids).list.drop_nulls() if ids else pl.lit([], dtype=pl.List(pl.String))
    return failed.alias(FAILED_COLUMN)


def _plan(
    frame: pl.LazyFrame | pl.DataFrame, contract: Contract, now: datetime, resolve: Resolve | None = None
) -> Plan:
    import polars as pl

    lazy = frame.lazy() if isinstance(frame, pl.DataFrame) else frame
    try:
        return plan_of(lazy.drop(FAILED_COLUMN, strict=False), contract, now.astimezone(UTC), resolve)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(error) from error


def _evaluated(plan: Plan, piece: Piece, outputs: Mapping[str, pl.Expr]) -> pl.DataFrame:
    return plan.prepared(piece.lazy).select(**outputs).collect(engine="in-memory")


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
