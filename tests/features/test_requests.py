"""Request-time functions: the same result row by row online and over a table offline."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput, StepFailed
from flyball.features.requests import on_request


@on_request
def calendar(sched_dep_ts: datetime) -> dict[str, int]:
    return {"hour": sched_dep_ts.hour, "weekday": sched_dep_ts.weekday()}


@on_request(returns={"ratio": float, "label": str, "is_long": bool, "at": datetime, "legs": int})
def trip(distance: float, seats: int | None, name: str, at: datetime, factor: float = 2.0) -> dict[str, Any]:
    ratio = float("nan") if seats is None else distance * factor / (seats or 1)
    return {"ratio": ratio, "label": name.upper(), "is_long": distance > 100, "at": at, "legs": seats}


moments = st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
record = st.fixed_dictionaries(
    {
        "distance": st.none() | st.floats(allow_nan=True, allow_infinity=False, width=32),
        "seats": st.none() | st.integers(-(2**31), 2**31),
        "name": st.none() | st.text(max_size=5),
        "at": moments,
    }
)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(record, min_size=1, max_size=8), zone=st.sampled_from(["UTC", "America/New_York"]))
def test_a_table_gets_what_each_of_its_rows_gets_as_a_request(records: list[dict[str, Any]], zone: str) -> None:
    schema = {"distance": pl.Float64, "seats": pl.Int64, "name": pl.String, "at": pl.Datetime("us", "UTC")}
    frame = pl.DataFrame(records, schema=schema).with_columns(pl.col("at").dt.convert_time_zone(zone))
    # one column is an input and an output, so the inputs are renamed away afterwards
    with pytest.raises(InvalidInput, match='a column "at" already'):
        trip.apply(frame.lazy())
    renamed = on_request(returns={f"{k}_": v for k, v in (trip.outputs or {}).items()})(_trip_renamed)
    offline = renamed.apply(frame.lazy()).collect().select(f"{k}_" for k in trip.outputs or {}).to_dicts()
    for found, row in zip(offline, records, strict=True):
        sent = json.loads(json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}))
        online = renamed.compute(sent)
        assert found == (online if online is not None else dict.fromkeys(found))


def _trip_renamed(distance: float, seats: int | None, name: str, at: datetime) -> dict[str, Any]:
    return {f"{k}_": v for k, v in trip(distance, seats, name, at, factor=2.0).items()}


def test_names_and_types_are_learned_from_the_first_rows() -> None:
    moment = datetime(2013, 5, 3, 14, tzinfo=UTC)
    rows = pl.LazyFrame({"sched_dep_ts": [moment, None]})
    found = calendar.apply(rows).collect()
    assert found.drop("sched_dep_ts").rows() == [(14, 4), (None, None)]
    assert found.schema["hour"] == pl.Int64
    with pytest.raises(InvalidInput, match="cannot be learned from rows without its fields; declare it"):
        calendar.apply(rows.filter(False))


def test_wrong_functions_and_fields_are_refused() -> None:
    with pytest.raises(InvalidInput, match='parameter "x" of bare needs an annotation'):

        @on_request
        def bare(x) -> dict[str, int]:  # type: ignore[no-untyped-def]
            return {"y": x}

    with pytest.raises(InvalidInput, match='needs "sched_dep_ts"; did you mean "sched_dep_t"'):
        calendar.compute({"sched_dep_t": "2013-05-03T14:00:00Z"})
    with pytest.raises(InvalidInput, match='"sched_dep_ts" given to calendar is a int; expected datetime'):
        calendar.compute({"sched_dep_ts": 5})
    with pytest.raises(InvalidInput, match="has no zone"):
        calendar.compute({"sched_dep_ts": "2013-05-03T14:00:00"})

    @on_request
    def broken(x: int) -> dict[str, float]:
        return {"y": 1 / x}

    with pytest.raises(StepFailed, match="the function broken raised ZeroDivisionError"):
        broken.compute({"x": 0})

    @on_request(returns={"y": float})
    def other(x: int) -> dict[str, float]:
        return {"z": float(x)}

    with pytest.raises(StepFailed, match="returned z; declared were y"):
        other.compute({"x": 0})
