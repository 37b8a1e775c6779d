"""Column lineage, told by the engine's own projection pushdown."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pytest

from flyball.data.columns import ColumnSource, column_lineage
from flyball.errors import InvalidInput

FLIGHTS = {"id": pl.Int64, "origin": pl.String, "delay": pl.Float64, "air": pl.Float64, "at": pl.Datetime("us", "UTC")}
WEATHER = {"origin": pl.String, "hour": pl.Datetime("us", "UTC"), "temp": pl.Float64, "wind": pl.Float64}


def sources(found: list[ColumnSource], how: str) -> set[str]:
    return {f"{s.source}.{s.column}" for s in found if s.how == how}


def test_values_are_direct_and_what_chooses_rows_is_indirect() -> None:
    def make(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        return tables["flights"].filter(pl.col("delay") > 0).select("id", total=pl.col("air") + 1)

    found = column_lineage(make, {"flights": FLIGHTS})
    assert sources(found["total"], "direct") == {"flights.air"}
    assert sources(found["total"], "indirect") == {"flights.delay"}
    assert sources(found["id"], "direct") == {"flights.id"}


def test_a_join_as_of_needs_its_keys_and_times_for_every_column() -> None:
    def make(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        joined = tables["flights"].join_asof(
            tables["weather"], left_on="at", right_on="hour", by="origin", check_sortedness=False
        )
        return joined.select("id", warm=pl.col("temp") > 70)

    found = column_lineage(make, {"flights": FLIGHTS, "weather": WEATHER})
    assert "weather.temp" in sources(found["warm"], "direct")
    assert not any(s.column in ("wind", "air") for s in found["warm"])


def test_an_aggregate_is_made_of_its_column_and_its_groups() -> None:
    found = column_lineage(lambda t: t["flights"].group_by("origin").agg(pl.col("delay").mean()), {"flights": FLIGHTS})
    assert sources(found["delay"], "direct") == {"flights.delay"}
    assert sources(found["delay"], "indirect") == {"flights.origin"}


def test_a_column_that_chooses_rows_and_gives_the_value_too_is_direct() -> None:
    found = column_lineage(
        lambda t: t["flights"].filter(pl.col("delay").is_not_null()).select(made_up=pl.col("delay") - pl.col("air")),
        {"flights": FLIGHTS},
    )
    assert sources(found["made_up"], "direct") == {"flights.delay", "flights.air"}


def test_a_column_that_only_chooses_rows_is_not_direct_of_anything() -> None:
    def make(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        return tables["flights"].filter(pl.col("delay") > 0).sort("at").select("id", later=pl.col("air") * 2)

    found = column_lineage(make, {"flights": FLIGHTS})
    assert {name: sources(origins, "direct") for name, origins in found.items()} == {
        "id": {"flights.id"},
        "later": {"flights.air"},
    }


def test_a_function_that_cannot_be_looked_into_needs_everything() -> None:
    found = column_lineage(
        lambda t: t["flights"].map_batches(lambda f: f.select(x=pl.lit(1.0)), schema={"x": pl.Float64}),
        {"flights": FLIGHTS},
    )
    assert {s.column for s in found["x"]} == set(FLIGHTS)


def test_a_plan_that_fails_is_refused_with_its_reason() -> None:
    with pytest.raises(InvalidInput, match="nothere"):
        column_lineage(lambda t: t["flights"].select("nothere"), {"flights": FLIGHTS})
