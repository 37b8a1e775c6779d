"""The features of the flights job, each defined once: training joins them, serving looks them up.

A flight is asked about at its scheduled departure, cut to ten minutes. Everything here is what was known by then.
"""

from __future__ import annotations

import polars as pl

import flyball as fb
from flyball.features.windows import windowed

WEATHER = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"]


@fb.feature_view(entity="origin", event_time="time_hour", known_at="known_at")
def weather_then(weather: pl.LazyFrame) -> pl.LazyFrame:
    """The newest observation at the airport that is at least two hours old: the feed is that late."""
    return weather.select(
        "origin", "time_hour", pl.col(WEATHER).cast(pl.Float64), known_at=pl.col("time_hour") + pl.duration(hours=2)
    )


@fb.feature_view(entity="tailnum", event_time="arr_ts")
def previous_leg(flown: pl.LazyFrame) -> pl.LazyFrame:
    """How late, in minutes, the aircraft landed last."""
    landed = flown.drop_nulls(["tailnum", "arr_ts", "arr_delay"]).sort("arr_ts", "flight_id")
    return landed.select("tailnum", "arr_ts", previous_delay=pl.col("arr_delay").cast(pl.Float64))


@fb.feature_view(entity="origin", event_time="dep_ts")
def departures(flown: pl.LazyFrame) -> pl.LazyFrame:
    """How many flights left the airport within the last hour, and how late, in minutes and on the mean, those of the
    last day were; every ten minutes.

    Not how late those of the last hour were: that tells the model the hour of the day, and hides when the hour itself
    goes wrong.
    """
    number, delay = pl.len().cast(pl.Float64), pl.col("dep_delay").cast(pl.Float64).mean()
    hour = windowed(flown, by="origin", time="dep_ts", every="10m", period="1h", departures_1h=number)
    day = windowed(flown, by="origin", time="dep_ts", every="10m", period="1d", delay_24h=delay)
    # Where the hour holds nothing any more it has a last row, of 0, that holds on.
    both = day.join(hour, on=["origin", "dep_ts"], how="left").sort("dep_ts", "origin")
    return both.with_columns(pl.col("departures_1h").forward_fill().over("origin"))


VIEWS = (weather_then, previous_leg, departures)
