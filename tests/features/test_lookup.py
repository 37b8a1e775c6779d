"""Look-up plans over rows of every origin, against rows looked at one by one; and what they count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.clock import format_instant
from flyball.errors import Corrupt, InvalidInput
from flyball.features.encoding import encoded_keys, encoded_rows
from flyball.features.freshness import AGE_BOUNDS_S, Freshness
from flyball.features.lookup import LookUpPlan, ViewSpec, look_up
from flyball.storage.online import OnlineValue, micros_of
from flyball.storage.online.sqlite import SqliteOnline

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VIEW = ViewSpec(
    "v", ("k",), "at", {"x": "float64", "y": "int64", "m": "datetime"}, "known", ttl_s=60.0, defaults={"y": 7}
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SqliteOnline:
    return SqliteOnline(tmp_path_factory.mktemp("online") / "online.sqlite")


rows = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["a", "b", "c", "a long key of text", "17"]),
            "event": st.integers(-70, 5),
            "arrival": st.none() | st.integers(-70, 5),
            "form": st.sampled_from(["all", "fewer", "more", "arrival among values"]),
            "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "m": st.none() | st.integers(-9, 9),
        }
    ),
    max_size=8,
)


def written(row: dict[str, Any]) -> OnlineValue:
    """A value as one of the ways in writes it."""
    moment = None if row["m"] is None else format_instant(NOW + timedelta(seconds=row["m"]))
    values: dict[str, Any] = {"x": row["x"], "y": None if row["x"] is None else 3, "m": moment}
    if row["form"] == "fewer":
        del values["y"]
    if row["form"] == "more":
        values = {"z": 1, **values}
    event = NOW + timedelta(seconds=row["event"])
    arrival = None if row["arrival"] is None else NOW + timedelta(seconds=row["arrival"])
    if row["form"] == "arrival among values" and arrival is not None:
        return OnlineValue(event, {**values, "known": format_instant(arrival)})
    return OnlineValue(event, values, arrival)


@pytest.mark.parametrize("fewest_together", [1, 100])
@settings(max_examples=120, deadline=None)
@given(
    given_rows=rows, asked=st.lists(st.sampled_from(["a", "b", "c", "a long key of text", "17", None, "z"]), max_size=9)
)
def test_a_plan_says_what_each_row_says_alone(
    store: SqliteOnline, fewest_together: int, given_rows: list[dict[str, Any]], asked: list[str | None]
) -> None:
    store.delete(VIEW.stored_as)
    vars(VIEW).pop("_compiled", None)  # which knows whether rows were alike before
    for row in given_rows:
        store.put(VIEW.stored_as, [(row["key"], written(row))])
    expected: dict[str, list[Any]] = {"x": [], "y": [], "m": [], "v_age_s": []}
    counts = {"missing": 0, "stale": 0}
    for key in asked:
        found = store.get(VIEW.stored_as, [key])[0] if key is not None else None
        known = None if found is None else found.values.get("known", found.known_at)
        arrived = known is None or (datetime.fromisoformat(known) if isinstance(known, str) else known) <= NOW
        age = None if found is None else (NOW - found.event_time).total_seconds()
        is_used = found is not None and age is not None and 0 <= age <= 60 and arrived
        values = found.values if is_used and found is not None else {}
        moment = values.get("m")
        expected["x"].append(values.get("x"))
        expected["y"].append(7 if values.get("y") is None else values["y"])
        expected["m"].append(None if moment is None else datetime.fromisoformat(moment))
        expected["v_age_s"].append(age if is_used else None)
        counts["missing"] += found is None
        counts["stale"] += age is not None and age > 60
    freshness = Freshness()
    with patch("flyball.features.lookup._FEWEST_TOGETHER", fewest_together):
        found_columns = LookUpPlan([VIEW]).look_up(store, {"k": asked}, NOW, ages=True, freshness=freshness)
    assert found_columns == expected
    if asked:
        seen = freshness.views["v"]
        ages = [age for age in expected["v_age_s"] if age is not None]
        assert (seen.rows, seen.missing, seen.stale) == (len(asked), counts["missing"], counts["stale"])
        assert seen.early == len(asked) - len(ages) - seen.missing - seen.stale
        assert sum(seen.age_counts) == len(ages)
        assert seen.age_sum_s == pytest.approx(sum(ages))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 4_000_000), min_size=1, max_size=20), max_size=5))
def test_ages_are_counted_as_numpy_counts_them(batches: list[list[int]]) -> None:
    freshness = Freshness()
    for ages in batches:
        freshness.observe("v", 10**15, [10**15 - age * 1_000_000 for age in ages], 0, 0, 0)
    flat = [age for ages in batches for age in ages]
    wanted = np.bincount(np.searchsorted(AGE_BOUNDS_S, flat, side="left"), minlength=len(AGE_BOUNDS_S) + 1)
    if flat:
        assert freshness.views["v"].age_counts == wanted.tolist()
        assert freshness.views["v"].age_sum_s == sum(flat)


texts = st.none() | st.text(max_size=6)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.floats(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.booleans(),
            texts,
            st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
            st.text(max_size=4),
            st.integers(0, 3),
        ),
        max_size=6,
    )
)
def test_a_frame_encoded_is_what_pushing_its_rows_writes(store: SqliteOnline, rows: list[tuple[Any, ...]]) -> None:
    types = {"x": "float64", "n": "int64", "b": "bool", "s": "string", "m": "datetime"}
    view = ViewSpec("encoded", ("k", "j"), "at", types)
    kinds = [pl.Float64, pl.Int64, pl.Boolean, pl.String, pl.Datetime("us"), pl.String, pl.Int32]
    frame = pl.DataFrame(rows, schema=dict(zip([*types, "k", "j"], kinds, strict=True)), orient="row")
    frame = frame.with_columns(pl.col("m").dt.replace_time_zone("UTC"))
    keys = encoded_keys(frame, view.entity)
    assert keys == [view.key_of([row[5], row[6]]) for row in rows]
    store.delete(view.stored_as)
    store.put_encoded(view.stored_as, list(types), keys, [0] * len(rows), encoded_rows(frame, types))
    for row in dict(zip(keys, rows, strict=True)).values():
        found = look_up(store, [view], {"k": row[5], "j": row[6]}, NOW)
        x = None if row[0] is None or not np.isfinite(row[0]) else row[0]
        moment = None if row[4] is None else row[4].replace(tzinfo=UTC)
        assert [values[0] for values in found.values()] == [x, row[1], row[2], row[3], moment]


def test_bytes_that_are_no_values_are_told(tmp_path: Path) -> None:
    store = SqliteOnline(tmp_path / "online.sqlite")
    view = ViewSpec("v", ("k",), "at", {"x": "float64", "y": "float64"})
    store.put_encoded(
        "v@1", ["x", "y"], ["half", "short", "long", "good"], [0] * 4, [b"[1,", b"[1]", b"[1,2,3]", b"[1,2]"]
    )
    for keys in (["half"], ["short"], ["long"], ["good", "short"], ["half", "good"], ["short", "short"]):
        with pytest.raises(Corrupt, match="an online value of the view v cannot be read back; materialise it again"):
            look_up(store, [view], {"k": keys}, NOW)
    assert look_up(store, [view], {"k": ["good", "good"]}, NOW) == {"x": [1, 1], "y": [2, 2]}
    moments = ViewSpec("w", ("k",), "at", {"m": "datetime"})
    store.put("w@1", [("k", OnlineValue(NOW, {"m": "noon"}))])
    with pytest.raises(Corrupt, match=r"w\.m cannot be read back as a time"):
        look_up(store, [moments], {"k": "k"}, NOW)


def test_a_plan_of_two_views_reads_each_once_and_names_never_clash(store: SqliteOnline) -> None:
    one = ViewSpec("one", ("k",), "at", {"a": "int64"})
    two = ViewSpec("two", ("k", "j"), "at", {"b": "int64"})
    store.put("one@1", [("5", OnlineValue(NOW, {"a": 1}))])
    store.put("two@1", [('["5","x"]', OnlineValue(NOW, {"b": 2}))])
    plan = LookUpPlan([one, two])
    assert plan.look_up(store, {"k": [5, 6], "j": ["x", "x"]}, NOW) == {"a": [1, None], "b": [2, None]}
    assert plan.look_up(store, {"k": np.array([5, 6]).tolist(), "j": "x"}, NOW) == {"a": [1, None], "b": [2, None]}
    with pytest.raises(InvalidInput, match='two of the views have a feature "a"'):
        LookUpPlan([one, ViewSpec("three", ("k",), "at", {"a": "int64"})])
    assert micros_of(NOW) == int(NOW.timestamp() * 1e6)


ALIKE = ViewSpec("alike", ("k",), "at", {"x": "float64", "m": "datetime"}, "known", ttl_s=60.0, defaults={"x": -1.0})
times = st.lists(st.tuples(st.integers(-62, 1), st.integers(-3, 1)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(kept=times, asked=st.lists(st.integers(0, 9), min_size=1, max_size=12), is_text=st.booleans())
def test_rows_that_are_alike_give_together_what_they_give_one_by_one(
    store: SqliteOnline, kept: list[tuple[int, int]], asked: list[int], is_text: bool
) -> None:
    store.delete(ALIKE.stored_as)
    keys = [f"customer number {n}" if is_text else str(n) for n in range(10)]
    now_us = micros_of(NOW)
    events = [now_us + event * 1_000_000 for event, _ in kept]
    arrivals = [now_us + max(late, 0) * 1_000_000 for _, late in kept]
    values = [b'[null,"2026-01-01T00:00:00Z"]' if n % 3 else b"[%d.5,null]" % n for n in range(len(kept))]
    store.put_encoded(ALIKE.stored_as, ["x", "m"], keys[: len(kept)], events, values, arrivals)
    answers = []
    for fewest in (1, 1_000):
        vars(ALIKE).pop("_compiled", None)
        freshness = Freshness()
        with patch("flyball.features.lookup._FEWEST_TOGETHER", fewest):
            plan = LookUpPlan([ALIKE])
            found = plan.look_up(store, {"k": [keys[n] for n in asked]}, NOW, ages=True, freshness=freshness)
        answers.append((found, freshness.views["alike"]))
    assert answers[0] == answers[1]
