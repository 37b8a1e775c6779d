"""What an entity's past says, against brute force and the reference figures of MovieLens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.features.history import encoded, lagged, running, seasonal
from flyball.features.joins import join_as_of
from flyball.features.views import feature_view

T0 = datetime(2020, 1, 1, tzinfo=UTC)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]), st.integers(0, 6), st.one_of(st.none(), st.integers(-3, 3).map(float))
    ),
    max_size=30,
)


def frame(events: list[tuple[str | None, int, float | None]]) -> pl.LazyFrame:
    schema: dict[str, Any] = {"key": pl.String, "hour": pl.Int64, "x": pl.Float64}
    rows = pl.LazyFrame(events, schema=schema, orient="row")
    return rows.select("key", "x", at=pl.lit(T0) + pl.duration(hours=pl.col("hour")))


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_running_aggregates_are_those_of_all_events_up_to_then(
    events: list[tuple[str | None, int, float | None]],
) -> None:
    found = running(
        frame(events), by="key", time="at",
        n="count", known=("count", "x"), total=("sum", "x"), mean=("mean", "x"), least=("min", "x"),
        most=("max", "x"), newest=("last", "x"), oldest=("first", "x"), kinds=("distinct", "x"),
    ).collect()  # fmt: skip
    expected = []
    for key, hour in sorted({(k, h) for k, h, _ in events if k is not None}, key=lambda p: (p[1], p[0])):
        past = [(h, x) for k, h, x in events if k == key and h <= hour]
        xs = [x for _, x in sorted(past, key=lambda p: p[0]) if x is not None]
        expected.append(
            (
                key, T0 + timedelta(hours=hour), len(past), len(xs), sum(xs),
                pytest.approx(sum(xs) / len(xs)) if xs else None, min(xs, default=None), max(xs, default=None),
                xs[-1] if xs else None, xs[0] if xs else None, len(set(xs)),
            )
        )  # fmt: skip
    got = found.sort("at", "key").select(
        "key", "at", "n", "known", "total", "mean", "least", "most", "newest", "oldest", "kinds"
    )
    assert got.rows() == expected


@given(EVENTS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_lags_are_the_newest_values_one_after_the_other(
    events: list[tuple[str | None, int, float | None]], lags: int
) -> None:
    found = lagged(frame(events), by="key", time="at", columns="x", lags=lags).collect()
    for key, at, *values in found.rows():
        past = [(h, x) for k, h, x in events if k == key and T0 + timedelta(hours=h) <= at]
        newest = [x for _, x in sorted(past, key=lambda p: p[0])][::-1]
        assert values == [newest[n] if n < len(newest) else None for n in range(lags)]


def test_a_season_ago_is_found_though_today_is_not_known_yet() -> None:
    days = [("a", 24 * day, float(day)) for day in range(8)]
    found = seasonal(frame(days), by="key", time="at", columns="x", ago=("1d", "7d")).collect()
    at = {row[1]: row[2:] for row in found.rows()}
    assert at[T0 + timedelta(days=8)] == (7.0, 1.0)
    assert at[T0 + timedelta(days=3)] == (2.0, None)


@given(EVENTS, st.sampled_from([0.0, 1.0, 20.0]))
@settings(max_examples=40, deadline=None)
def test_an_encoding_knows_nothing_of_what_comes_after(
    events: list[tuple[str | None, int, float | None]], weight: float
) -> None:
    found = encoded(frame(events), by="key", time="at", target="x", weight=weight).collect()
    known = [(k, T0 + timedelta(hours=h), x) for k, h, x in events if k is not None and x is not None]
    assert {(k, at) for k, at, _ in found.rows()} == {(k, at) for k, at, _ in known}
    for key, at, value in found.rows():
        own = [x for k, t, x in known if k == key and t <= at]
        prior = [x for _, t, x in known if t <= at]
        mean = sum(prior) / len(prior)
        assert value == pytest.approx((sum(own) + weight * mean) / (len(own) + weight))


def test_the_mean_of_a_users_earlier_ratings_is_the_reference(shared_data: Path) -> None:
    ratings = pl.scan_csv(shared_data / "movielens_small" / "ratings.csv").with_columns(
        at=pl.from_epoch("timestamp").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    )

    @feature_view(entity="userId", event_time="at")
    def earlier(ratings: pl.LazyFrame) -> pl.LazyFrame:
        return running(ratings, by="userId", time="at", earlier="count", mean_rating=("mean", "rating"))

    view = earlier.compute(ratings)
    rows = join_as_of(ratings.select("userId", "at"), "at", view, earlier, offset=timedelta(microseconds=1)).collect()
    assert rows.height == 100_836
    assert rows["mean_rating"].null_count() == 1_159
    assert rows["earlier"].sum() == 30_344_571
    assert rows["mean_rating"].mean() == pytest.approx(3.553771, abs=5e-7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: running(f, by="kye", time="at", n="count"), 'did you mean "key"'),
        (lambda f: running(f, by="key", time="x", n="count"), "expected a time with a zone"),
        (lambda f: running(f, by="key", time="at"), "nothing to compute"),
        (lambda f: running(f, by="key", time="at", m=("maen", "x")), 'did you mean "mean"'),
        (lambda f: running(f, by="key", time="at", m="mean"), "of which column"),
        (lambda f: running(f, by="key", time="at", m=("mean", "y")), 'no column "y"'),
        (lambda f: lagged(f, by="key", time="at", columns="x", lags=0), "from 1 to 1000"),
        (lambda f: lagged(f, by="key", time="at", columns=[]), "name at least one"),
        (lambda f: seasonal(f, by="key", time="at", columns="x", ago=("1d", "24h")), "each once"),
        (lambda f: seasonal(f, by="key", time="at", columns="x", ago=("0s",)), "positive durations"),
        (lambda f: encoded(f, by="key", time="at", target="key"), "expected numbers or booleans"),
        (lambda f: encoded(f, by="key", time="at", target="x", weight=-1), "0 or more"),
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(call: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        call(frame([("a", 1, 2.0)]))
