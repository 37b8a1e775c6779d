"""Ready-made request-time functions: the form by column gives, to the bit, what the form by row gives."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.features.prepared import PARTS, Prepared, buckets, calendar, hashed, holidays

TIMES = st.datetimes(datetime(1901, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))
ZONES = st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Dublin"])
EVERY_PART = [*PARTS, "minute_sin", "hour_cos", "weekday_sin", "month_cos", "quarter_sin"]


def agree(function: Prepared, column: str, values: list[Any], dtype: Any) -> list[dict[str, Any]]:
    frame = pl.LazyFrame({column: pl.Series(values, dtype=dtype)})
    by_column = function.apply(frame).drop(column).collect()
    by_row = [function.compute({column: value}) or dict.fromkeys(function.outputs or ()) for value in values]
    assert by_column.to_dicts() == by_row
    return by_row


@given(st.lists(st.one_of(st.none(), TIMES), min_size=1, max_size=20), ZONES)
@settings(max_examples=60, deadline=None)
def test_calendar_by_column_is_calendar_by_row(times: list[datetime | None], zone: str) -> None:
    agree(calendar("at", zone=zone, parts=EVERY_PART), "at", times, pl.Datetime("us", "UTC"))


@given(st.lists(st.one_of(st.none(), TIMES), min_size=1, max_size=20), ZONES)
@settings(max_examples=40, deadline=None)
def test_holidays_by_column_are_holidays_by_row(times: list[datetime | None], zone: str) -> None:
    agree(holidays("at", country="US", subdivision="NY", zone=zone), "at", times, pl.Datetime("us", "UTC"))


@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=True, allow_nan=False)), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_buckets_by_column_are_buckets_by_row(values: list[float | None]) -> None:
    agree(buckets("x", [-1.0, 0.0, 2.5]), "x", values, pl.Float64)


@given(st.lists(st.one_of(st.none(), st.text()), min_size=1, max_size=20), st.integers(2, 1000))
@settings(max_examples=60, deadline=None)
def test_hashes_by_column_are_hashes_by_row(values: list[str | None], size: int) -> None:
    agree(hashed("x", size), "x", values, pl.String)


def test_the_clock_is_that_of_the_place_on_both_sides_of_a_change_of_time() -> None:
    at = datetime(2013, 3, 10, 6, 59, tzinfo=UTC)  # 01:59 in New York; a minute later it is 03:00
    hour = calendar("at", zone="America/New_York", parts=["hour"])
    assert [row["hour"] for row in agree(hour, "at", [at, at + timedelta(minutes=1)], pl.Datetime("us", "UTC"))] == [
        1,
        3,
    ]


def test_midnight_is_next_to_eleven_on_the_circle() -> None:
    circle = calendar("at", parts=["hour_sin", "hour_cos"])
    late, early = (circle.compute({"at": f"2020-01-0{d}T{h}:00:00Z"}) or {} for d, h in ((1, "23"), (2, "00")))
    assert math.dist(late.values(), early.values()) == pytest.approx(2 * math.sin(math.pi / 24))


def test_thanksgiving_is_found_and_how_far_it_is() -> None:
    days = [datetime(2013, 11, d, 12, tzinfo=UTC) for d in (26, 28, 29)]
    rows = agree(holidays("at", country="US"), "at", days, pl.Datetime("us", "UTC"))
    assert [(r["is_holiday"], r["days_to_holiday"]) for r in rows] == [(False, 2), (True, 0), (False, 26)]
    assert rows[2]["days_since_holiday"] == 1
    nothing = holidays("at", country="US", years=(2013, 2013)).compute({"at": datetime(2014, 1, 1, tzinfo=UTC)})
    assert nothing == {"is_holiday": None, "days_since_holiday": None, "days_to_holiday": None}
    assert date(2013, 12, 25).isoweekday() == 3


def test_a_definition_is_another_when_its_parameters_are() -> None:
    assert calendar("at", zone="UTC").digest != calendar("at", zone="America/New_York").digest
    assert buckets("x", [1]).digest != buckets("x", [2]).digest
    assert hashed("x", 8).digest == hashed("x", 8).digest


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: calendar("at", zone="America/NewYork"), 'did you mean "America/New_York"'),
        (lambda: calendar("at", parts=["huor"]), 'did you mean "hour"'),
        (lambda: calendar("at", parts=[]), "at least one"),
        (lambda: holidays("at", country="USA!"), "unknown country"),
        (lambda: holidays("at", country="US", subdivision="XX"), "unknown subdivision"),
        (lambda: holidays("at", country="US", years=(2020, 2010)), "range within"),
        (lambda: buckets("x", [2, 1]), "ascend"),
        (lambda: buckets("x", [math.nan]), "finite"),
        (lambda: hashed("x", 1), "from 2"),
        (lambda: calendar("at").apply(pl.LazyFrame({"at": [datetime(2020, 1, 1)]})), "a time with a zone"),
        (lambda: calendar("at").apply(pl.LazyFrame({"ta": [1]})), 'needs the column "at"'),
        (lambda: hashed("x", 4).apply(pl.LazyFrame({"x": [1]})), "needs a text"),
        (lambda: buckets("x", [1]).apply(pl.LazyFrame({"x": ["a"]})), "needs a number"),
    ],
)
def test_a_wrong_definition_is_refused_in_a_sentence(call: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        call()
