"""Point-in-time joins: for each row, the newest values of its entity that were known at the row's time.

Two times count, as in a bitemporal table: when a value became true (`event_time`) and when it arrived (`known_at`).
A value may be used at an instant t when event_time + offset ≤ t and known_at ≤ t, that is, from

    available = max(event_time + offset, known_at)

on. A row that becomes available no sooner than a newer one of its entity can never be the answer; without such rows
availability grows with event time, so one as-of join on `available` gives the newest event. Where rows arrive at once
nothing has to be dropped. (Times of a bitemporal table: R. Snodgrass, *Developing Time-Oriented Database Applications
in SQL*, 1999, ch. 10.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import polars as pl

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.views import FeatureView, instant

__all__ = ["attach", "in_order_of", "in_own_order", "join_as_of", "same_type"]

# Columns of the plan that no user's column should be called.
_ROW, _AT, _EVENT, _KNOWN, _AVAILABLE = "__row", "__at", "__event", "__known", "__available"


def join_as_of(
    rows: pl.LazyFrame,
    at: str,
    view_frame: pl.LazyFrame,
    view: FeatureView,
    offset: str | timedelta = "0s",
    *,
    age: bool = False,
) -> pl.LazyFrame:
    """Return `rows` with a view's features as known at each row's time; same rows, same order.

    Of the view's rows with the same entity, event_time ≤ at − offset and known_at ≤ at, the newest by event time is
    taken, of ties the one that arrived last, of ties again the last in the frame; none when at − event_time > ttl. A
    null key or time matches nothing. Times are compared in UTC at the microsecond.

    Args:
        rows: any columns, among them the view's entity and `at`.
        at: a time column with a zone.
        view_frame: what `view.compute` returned. Rows sorted by event time are found to be so and not sorted again.
        offset: only values at least this old count, for feeds that are late by a known time.
        age: add `<view>_age_s`: Float64 seconds from event time to `at`.

    Raises:
        InvalidInput: a column is missing or would be there twice, a time has no zone, a key's type differs.
    """
    return in_own_order(attach(in_order_of(rows, at), view_frame, view, offset, age=age))


def in_order_of(rows: pl.LazyFrame, at: str) -> pl.LazyFrame:
    """Return rows ordered by time, ready for any number of `attach`; `in_own_order` undoes it."""
    schema = rows.collect_schema()
    if at not in schema:
        raise InvalidInput(
            f'the rows have no time column "{at}"{did_you_mean(at, schema)} (they have {listed(schema)})'
        )
    moment = instant(at, schema[at], "the rows").alias(_AT)
    return rows.with_row_index(_ROW).with_columns(moment).sort(_AT, maintain_order=True)


def in_own_order(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return rows as they were before `in_order_of`, with what was attached."""
    return rows.sort(_ROW).drop(_ROW, _AT)


def attach(
    rows: pl.LazyFrame,
    view_frame: pl.LazyFrame,
    view: FeatureView,
    offset: str | timedelta = "0s",
    *,
    age: bool = False,
) -> pl.LazyFrame:
    """Add a view's features to rows from `in_order_of`; the rules are those of `join_as_of`."""
    known = view.check(view_frame)
    there, new = rows.collect_schema(), known.collect_schema()
    features = [c for c in new if c not in (*view.entity, view.event_time, view.known_at)]
    age_column = f"{view.name}_age_s"
    for column in (*features, *([age_column] if age else [])):
        if column in there:
            raise InvalidInput(
                f'the rows have a column "{column}" already, which is a feature of the view {view.name}; '
                "drop or rename one of them"
            )
    keys = [f"__key_{i}" for i in range(len(view.entity))]
    left, right = zip(*(same_type(name, there, new, view.name) for name in view.entity), strict=True)
    available = pl.col(view.event_time) + parse_duration(offset)
    if view.is_bitemporal:
        available = pl.max_horizontal(available, view.known_at)
    usable = known.drop_nulls([*view.entity, view.event_time, view.known_at]).select(
        *(expression.alias(key) for key, expression in zip(keys, right, strict=True)),
        pl.col(view.event_time).alias(_EVENT),
        *([pl.col(view.known_at).alias(_KNOWN)] if view.is_bitemporal else []),
        available.alias(_AVAILABLE),
        *features,
    )
    prepare = _answers(keys) if view.is_bitemporal else _sorted_by_event
    usable = usable.map_batches(prepare, schema=usable.collect_schema())
    elapsed = pl.col(_AT) - pl.col(_EVENT)
    values = [pl.col(c) for c in features]
    if view.ttl is not None:
        values = [pl.when(elapsed <= view.ttl).then(value).alias(c) for c, value in zip(features, values, strict=True)]
    values = [
        value.fill_null(pl.lit(view.defaults[c]).cast(new[c])) if c in view.defaults else value
        for c, value in zip(features, values, strict=True)
    ]
    if age:
        seconds = elapsed.dt.total_microseconds() / 1e6
        fresh = seconds if view.ttl is None else pl.when(elapsed <= view.ttl).then(seconds)
        values.append(fresh.alias(age_column))
    return (
        rows.with_columns(expression.alias(key) for key, expression in zip(keys, left, strict=True))
        .join_asof(
            usable,
            left_on=_AT,
            right_on=_AVAILABLE,
            by=keys,
            strategy="backward",
            coalesce=False,
            check_sortedness=False,  # cannot be checked with keys; both sides are sorted above
        )
        .with_columns(values)
        .select(*there, *features, *([age_column] if age else []))
    )


def _sorted_by_event(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort a frame unless it is sorted already: looking costs next to nothing."""
    return frame if frame[_EVENT].is_sorted() else frame.sort(_EVENT, maintain_order=True)


def _answers(keys: Sequence[str]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return what keeps the rows that can be an answer, each entity's in order of event time and of availability."""
    event, known, available = (pl.col(c).to_physical() for c in (_EVENT, _KNOWN, _AVAILABLE))
    is_sorted = ((event.diff() > 0) | ((event.diff() == 0) & (known.diff() >= 0))).all()
    is_overtaken = available > available.cum_min(reverse=True).over(keys)  # by a newer row, available no later

    def keep(frame: pl.DataFrame) -> pl.DataFrame:
        in_order = frame if frame.select(is_sorted).item() else frame.sort(_EVENT, _KNOWN, maintain_order=True)
        overtaken = in_order.select(is_overtaken).to_series()
        return in_order.filter(~overtaken) if overtaken.any() else in_order

    return keep


def same_type(name: str, rows: pl.Schema, view_schema: pl.Schema, view: str) -> tuple[pl.Expr, pl.Expr]:
    """Return the expressions by which the rows' and the view's column of a key have one type.

    Raises:
        InvalidInput: the rows lack the key, or its types have nothing in common.
    """
    if name not in rows:
        raise InvalidInput(f'the rows lack the entity of the view {view}, "{name}"{did_you_mean(name, rows)}')
    ours, theirs, key = rows[name], view_schema[name], pl.col(name)
    texts = pl.String | pl.Categorical | pl.Enum
    if isinstance(ours, texts) and isinstance(theirs, texts):
        return key.cast(pl.String), key.cast(pl.String)
    if ours == theirs:
        return key, key
    if ours.is_integer() and theirs.is_integer():
        return key.cast(pl.Int64), key.cast(pl.Int64)
    raise InvalidInput(
        f'the key "{name}" is {ours} in the rows and {theirs} in the view {view}; cast one of them to the other'
    )
