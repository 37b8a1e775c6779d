"""Declaring views: what is accepted, what is refused and how it is said; the digest of a definition."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from flyball.errors import InvalidInput, StepFailed
from flyball.features.definitions import digest_of_function
from flyball.features.lookup import ViewSpec
from flyball.features.views import feature_view

NOW = datetime(2013, 5, 1, tzinfo=UTC)
FLIGHTS = pl.LazyFrame(
    {"tailnum": ["N1"], "arr_ts": [NOW], "arr_delay": pl.Series([3], dtype=pl.Int32), "distance": [1.5]}
)


@feature_view(entity="tailnum", event_time="arr_ts", ttl="2d", owner="ops", tags=["legs"])
def previous_leg(flights: pl.LazyFrame) -> pl.LazyFrame:
    """The aircraft's newest landing."""
    return flights.select("tailnum", "arr_ts", previous_delay="arr_delay", previous_distance="distance")


def test_a_declared_view_knows_its_source_its_text_and_its_features() -> None:
    assert (previous_leg.name, previous_leg.source, previous_leg.entity) == ("previous_leg", "flights", ("tailnum",))
    assert previous_leg.__doc__ == "The aircraft's newest landing."
    assert "def previous_leg" in previous_leg.text
    spec = previous_leg.spec(FLIGHTS.collect_schema())
    assert spec == ViewSpec(
        "previous_leg",
        ("tailnum",),
        "arr_ts",
        {"previous_delay": "int64", "previous_distance": "float64"},
        ttl_s=172_800.0,
    )
    assert ViewSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_features_are_known_without_a_source_once_a_view_was_computed() -> None:
    @feature_view(entity="tailnum", event_time="arr_ts")
    def delays(flights: pl.LazyFrame) -> pl.LazyFrame:
        return flights.select("tailnum", "arr_ts", "arr_delay")

    with pytest.raises(InvalidInput, match=r'has not been computed yet.*give spec\(\) the data set "flights"'):
        delays.spec()
    delays.compute(FLIGHTS)
    assert delays.spec().features == {"arr_delay": "int64"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["arr_ts", "arr_delay"], 'no column "tailnum", its entity'),
        (["tailnum", "arr_delay"], 'no column "arr_ts", its event_time'),
        (["tailnum", "arr_ts"], "no feature beside its entity and times"),
        (["tailnum", "arr_ts", pl.lit([1]).alias("many")], '"many" of the view v is List.*cannot be looked up'),
        (["tailnum", "arr_ts", pl.lit(None).alias("none")], '"none" of the view v is Null'),
        ([pl.lit(1.5).alias("tailnum"), "arr_ts", "arr_delay"], 'entity "tailnum" of the view v is Float64.*cast it'),
        (["tailnum", pl.lit(1).alias("arr_ts"), "arr_delay"], '"arr_ts" of the view v is Int32; expected a time'),
    ],
)
def test_a_result_that_cannot_be_served_is_refused(columns: list[Any], message: str) -> None:
    view = feature_view(entity="tailnum", event_time="arr_ts", name="v")(lambda flights: flights.select(columns))
    with pytest.raises(InvalidInput, match=message):
        view.compute(FLIGHTS)


def test_a_function_that_fails_is_named_with_its_reason() -> None:
    view = feature_view(entity="tailnum", event_time="arr_ts", name="v")(lambda flights: flights.select("tail"))
    with pytest.raises(StepFailed, match=r"the view v could not be computed .*tail"):
        view.compute(FLIGHTS)

    def nothing(flights: pl.LazyFrame) -> Any:
        flights.collect_schema()

    none = feature_view(entity="tailnum", event_time="arr_ts")(nothing)
    with pytest.raises(InvalidInput, match="returned a NoneType; expected a LazyFrame"):
        none.compute(FLIGHTS)


def test_a_wrong_declaration_is_refused() -> None:
    def two(flights: pl.LazyFrame, weather: pl.LazyFrame) -> pl.LazyFrame:
        return flights.join(weather, on="origin")

    with pytest.raises(InvalidInput, match="takes flights, weather; expected one argument"):
        feature_view(entity="a", event_time="t")(two)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="each once"):
        feature_view(entity=["a", "a"], event_time="t", name="v")(lambda f: f)
    with pytest.raises(InvalidInput, match="not a duration"):
        feature_view(entity="a", event_time="t", ttl="two days")
    with pytest.raises(InvalidInput, match='default for what is no feature, "arr_dela"; did you mean "arr_delay"'):
        feature_view(entity="tailnum", event_time="arr_ts", name="v", defaults={"arr_dela": 0})(lambda f: f).compute(
            FLIGHTS
        )


def test_how_far_back_a_view_looks_is_said_once() -> None:
    def same(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame

    row_wise = feature_view(entity="a", event_time="t", incremental=True)(same)
    assert row_wise.is_row_wise and row_wise.source_time is None
    windows = feature_view(entity="a", event_time="t", look_back="1h")(same)
    assert (windows.is_row_wise, windows.source_time) == (False, "t")
    assert not feature_view(entity="a", event_time="t")(same).is_row_wise
    with pytest.raises(InvalidInput, match="either incremental, row by row, or has a look_back"):
        feature_view(entity="a", event_time="t", incremental=True, look_back="1h")
    with pytest.raises(InvalidInput, match="write incremental=True instead"):
        feature_view(entity="a", event_time="t", look_back="0s")


def test_values_take_the_form_that_serving_gives_them() -> None:
    frame = FLIGHTS.with_columns(
        distance=pl.lit(float("nan")),
        kind=pl.lit("a").cast(pl.Categorical),
        seen=pl.col("arr_ts").dt.convert_time_zone("Asia/Tokyo"),
    )
    view = feature_view(entity="tailnum", event_time="arr_ts", name="v")(lambda flights: flights)
    found = view.compute(frame).collect()
    assert found["distance"].to_list() == [None]
    assert found.schema["kind"] == pl.String
    assert found.schema["seen"] == pl.Datetime("us", "UTC")
    assert view.check(found.lazy()).collect().equals(found)


def digest_in(tmp_path: Path, name: str, source: str) -> str:
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    module = ModuleType(name)
    exec(compile(source, str(path), "exec"), vars(module))  # the way of a file that a project loads
    return digest_of_function(module.feature)


SOURCE = "ZONE = {'b', 'a'}\ndef helper(x):\n    return x + 1\ndef feature(frame):\n    return helper(frame), ZONE\n"


def test_a_digest_follows_what_is_computed_and_nothing_else(tmp_path: Path) -> None:
    first = digest_in(tmp_path, "one", SOURCE)
    assert len(first) == 64
    assert digest_in(tmp_path, "two", SOURCE.replace("x + 1", "x  +  1  # more")) == first
    assert (
        digest_in(tmp_path, "three", SOURCE.replace("def feature(frame):", 'def feature(frame):\n    "What it is."'))
        == first
    )
    assert digest_in(tmp_path, "four", SOURCE + "\ndef other():\n    return 2\n") == first
    assert digest_in(tmp_path, "five", SOURCE.replace("x + 1", "x + 2")) != first
    assert digest_in(tmp_path, "six", SOURCE.replace("'b'", "'c'")) != first


def test_the_light_description_imports_no_data_frame_library() -> None:
    code = (
        "import sys, flyball.features.lookup, flyball.features.pushes;"
        "print('polars' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
