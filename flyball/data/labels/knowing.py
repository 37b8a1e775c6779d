"""Labels as they were known: at one instant by item, or at each row's own instant, so that none comes from its future.

A label counts from `known_at` on, when it arrived, not from when it was made.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flyball.data.kinds import Labels
from flyball.data.labels.resolving import current, resolve, weight_history, weights
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["as_of", "known", "outcomes"]

_ROWS_AT_ONCE = 500_000  # each is joined with all labels of its item
_ROW = "__row"
_AT = "__at"


def known(labels: pl.DataFrame, at: datetime | None) -> pl.DataFrame:
    """Return the rows that were known at an instant; None: now, all of them."""
    import polars as pl

    return labels if at is None else labels.filter(pl.col("known_at") <= at)


def outcomes(labels: pl.DataFrame, spec: Labels, at: datetime | None = None) -> pl.DataFrame:
    """Return what holds for each item: its key, label, state, labellers, share and label_time.

    `label_time` is since when the label is known: from the first arrival on after which it was this and stayed so. By
    the policy weighted, other items move an item's outcome too; only the arrivals for the item itself are asked.
    """
    import polars as pl

    seen = known(labels, at)
    now = current(seen, spec.key)
    if spec.policy == "weighted":
        now = _weighted(now, weights(now, spec.key))
    found = resolve(now, spec.key, spec)
    moments = seen.select([*spec.key, "known_at"]).unique(maintain_order=False)
    once = moments.join(moments.group_by(spec.key).len("__n"), on=spec.key, nulls_equal=True)
    simple = once.filter(pl.col("__n") == 1).select([*spec.key, pl.col("known_at").alias("label_time")])
    several = once.filter(pl.col("__n") > 1).drop("__n")
    if several.height:
        history = as_of(several, "known_at", seen, spec).sort([*spec.key, "known_at"])
        is_same = pl.col("label").eq_missing(pl.col("label").shift(1).over(spec.key)) & pl.col(
            "label_state"
        ).eq_missing(pl.col("label_state").shift(1).over(spec.key))
        began = history.filter(~is_same | pl.int_range(pl.len()).over(spec.key).eq(0))
        last = began.group_by(spec.key).agg(pl.col("known_at").max().alias("label_time"))
        simple = pl.concat([simple, last])
    return found.join(simple, on=spec.key, how="left", nulls_equal=True).sort(spec.key)


def as_of(rows: pl.DataFrame, at_column: str, labels: pl.DataFrame, spec: Labels) -> pl.DataFrame:
    """Return the rows with `label` and `label_state` as they were known at each row's own time.

    Args:
        rows: any number, in any order, with the key's columns and `at_column`, a time with a zone.
        labels: all rows of a label set, in the order of arrival.

    Returns:
        The rows in their order; the label is null and the state `unlabelled` where nothing was known of the item.

    Raises:
        InvalidInput: a column is missing, or the times have no zone.
    """
    import polars as pl

    for column in (*spec.key, at_column):
        if column not in rows.columns:
            raise InvalidInput(
                f'the rows have no column "{column}"{did_you_mean(column, rows.columns)} (they have: '
                f"{listed(rows.columns)})"
            )
    for column in ("label", "label_state"):
        if column in rows.columns:
            raise InvalidInput(f'the rows have a column "{column}" already; rename it')
    dtype = rows[at_column].dtype
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InvalidInput(f"{at_column} is {dtype}; expected a time with a zone, so that it is known when that was")
    asked = rows.select(*_typed(rows, labels, spec.key), pl.col(at_column).dt.convert_time_zone("UTC").alias(_AT))
    asked = asked.with_row_index(_ROW)
    history = weight_history(labels, spec.key).sort("known_at") if spec.policy == "weighted" else None
    numbered = labels.with_row_index("__arrived")
    parts = []
    for start in range(0, asked.height, _ROWS_AT_ONCE):
        part = asked.slice(start, _ROWS_AT_ONCE)
        seen = part.join(numbered, on=spec.key, how="inner").filter(pl.col("known_at") <= pl.col(_AT))
        now = current(seen.sort("__arrived"), [_ROW])
        if history is not None:
            now = now.sort(_AT).join_asof(
                history, left_on=_AT, right_on="known_at", by="labeller", strategy="backward", coalesce=False,
                suffix="_since", check_sortedness=False,
            )  # fmt: skip
        parts.append(resolve(now, [_ROW], spec))
    empty = resolve(
        _weighted(current(numbered.head(0).with_columns(pl.lit(0, pl.UInt32).alias(_ROW)), [_ROW]), {}), [_ROW], spec
    )
    found = pl.concat([*parts, empty]).select(_ROW, "label", pl.col("state").alias("label_state"))
    joined = asked.select(_ROW).join(found, on=_ROW, how="left").sort(_ROW)
    state = joined["label_state"].fill_null("unlabelled")
    return rows.with_columns(joined["label"], state)


def _typed(rows: pl.DataFrame, labels: pl.DataFrame, key: list[str]) -> list[pl.Expr]:
    """Return the key's columns as the labels have them; a value that cannot be is nobody's."""
    import polars as pl

    return [
        pl.col(c) if rows[c].dtype == labels[c].dtype else pl.col(c).cast(labels[c].dtype, strict=False) for c in key
    ]


def _weighted(labels: pl.DataFrame, by_labeller: dict[str, float]) -> pl.DataFrame:
    import polars as pl

    weight = pl.col("labeller").replace_strict(by_labeller, default=0.5, return_dtype=pl.Float64)
    return labels.with_columns(weight.alias("weight"))
