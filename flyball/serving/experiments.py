"""What an experiment measures: the metric of each row, averaged by key, as moments by variant.

The unit is the key that the traffic table hashed (see `stats.outcomes`); a row without one is a unit by its id. Rows
whose metric is unknown, such as those without a label yet, are left out; the newest label holds. Callers: `evidence`,
and the planning of an experiment from the traffic of before.

| metric | of a row |
|---|---|
| reward | the label, as a number (true is 1) |
| correct | 1 where `output.prediction` is the label, else 0 |
| absolute_error, squared_error | of `output.probability` where there is one, else of `output.prediction` |
| latency_ms | from the request's last byte to the answer |
| output.NAME | that output, as a number |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyball.errors import InvalidInput, did_you_mean
from flyball.stats.outcomes import Outcomes, outcomes_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["covered", "measured", "outcomes", "units"]

_COVARIATE = "covariate"


def units(rows: pl.DataFrame) -> dict[str, int]:
    """Return how many keys each variant answered, whatever is known of them."""
    import polars as pl

    counts = rows.group_by("variant").agg(_unit().n_unique().alias("units"))
    return {str(variant): int(count) for variant, count in counts.select(pl.col("variant", "units")).iter_rows()}


def covered(rows: pl.DataFrame, covariate: str | None) -> pl.DataFrame:
    """Return the rows with a column `covariate`: of each key the first known value of that input or feature.

    A key without one gets the mean of all, which adjusts nothing.

    Raises:
        InvalidInput: neither an input nor a feature of the rows has this name, or it is no number.
    """
    import polars as pl

    if covariate is None:
        return rows.with_columns(pl.lit(0.0).alias(_COVARIATE))
    column = next((c for c in (f"input.{covariate}", f"feature.{covariate}") if c in rows.columns), None)
    if column is None:
        known = [c.partition(".")[2] for c in rows.columns if c.startswith(("input.", "feature."))]
        raise InvalidInput(f'the log has no input or feature "{covariate}"{did_you_mean(covariate, known)}')
    if not (rows[column].dtype.is_numeric() or rows[column].dtype in (pl.Boolean, pl.Null)):
        raise InvalidInput(f'the covariate "{covariate}" is text; expected a number known before a key met an arm')
    values = pl.col(column).cast(pl.Float64).drop_nulls().first().over(_unit()).alias(_COVARIATE)
    found = rows.sort("at", maintain_order=True).with_columns(values)
    return found.with_columns(pl.col(_COVARIATE).fill_null(pl.col(_COVARIATE).mean()).fill_null(0.0))


def outcomes(rows: pl.DataFrame, metric: str) -> dict[str, Outcomes]:
    """Return the moments of a metric by variant, each key once, with the column `covariate` of `covered`.

    Raises:
        InvalidInput: the rows have no such output.
    """
    import polars as pl

    by_key = (
        rows.with_columns(measured(rows, metric).alias("outcome"))
        .filter(pl.col("outcome").is_finite())
        .group_by("variant", _unit().alias("unit"), maintain_order=True)
        .agg(pl.col("outcome").mean(), pl.col(_COVARIATE).first())
    )
    return {
        str(variant): outcomes_of(part["outcome"].to_numpy(), part[_COVARIATE].to_numpy())
        for (variant,), part in by_key.group_by("variant")
    }


def measured(rows: pl.DataFrame, metric: str) -> pl.Expr:
    """Return the expression of a metric over log rows with labels: a number, null where unknown.

    Raises:
        InvalidInput: the rows have no such output.
    """
    import polars as pl

    if metric == "reward":
        return _number(rows, "label")
    if metric == "latency_ms":
        return pl.col("latency_us") / 1000
    if metric.startswith("output."):
        return _number(rows, metric)
    if metric == "correct":
        if "output.prediction" not in rows.columns:
            raise InvalidInput("the model has no output prediction, which the metric correct needs")
        is_number = rows["label"].dtype != pl.String and rows["output.prediction"].dtype != pl.String
        kind = pl.Float64 if is_number else pl.String
        return (pl.col("label").cast(kind) == pl.col("output.prediction").cast(kind)).cast(pl.Float64)
    answer = "output.probability" if "output.probability" in rows.columns else "output.prediction"
    apart = _number(rows, answer) - _number(rows, "label")
    return apart.abs() if metric == "absolute_error" else apart * apart


def _number(rows: pl.DataFrame, column: str) -> pl.Expr:
    import polars as pl

    if column not in rows.columns:
        known = [name for name in rows.columns if name.startswith("output.")]
        raise InvalidInput(f'the model has no "{column}"{did_you_mean(column, known)}')
    return pl.col(column).cast(pl.Float64, strict=False)


def _unit() -> pl.Expr:
    import polars as pl

    return pl.coalesce("key", "id")
