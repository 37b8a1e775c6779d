"""Erasure on real people: one user of MovieLens across versions, views and predictions; one person of the census."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from flyball.features.storing import StoredViews
from flyball.features.views import feature_view
from flyball.platform import Platform
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_ids
from tests.privacy.full_home import eraser

USER, RATINGS = 414, 100_836


@feature_view(entity="userId", event_time="at", ttl="9000d", source="ratings")
def taste(ratings: pl.LazyFrame) -> pl.LazyFrame:
    mean = pl.col("rating").cum_sum().over("userId") / pl.col("rating").cum_count().over("userId")
    return ratings.sort("at", "movieId").select("userId", "at", liked=mean)


def test_one_user_of_movielens_leaves_every_version_view_and_log(shared_data: Path, tmp_path: Path) -> None:
    ratings = pl.read_csv(shared_data / "movielens_small" / "ratings.csv").with_columns(
        at=pl.from_epoch("timestamp").dt.replace_time_zone("UTC")
    )
    mine = ratings.filter(pl.col("userId") == USER).height
    assert ratings.height == RATINGS
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "ratings", subject="userId", event_time="at")
    platform.publish("ratings", ratings.head(60_000))
    platform.publish("ratings", ratings.slice(60_000), mode="append")
    views = StoredViews(platform.ledger, platform.tables)
    views.refresh(taste, "ratings", actor="user/a")
    views.serve(taste, platform.online, actor="user/a")
    assert platform.online.count("taste@1") == 610
    log = PredictionLog(platform.home / "traffic", "data_plane", durability="os")
    asked = (
        ratings.head(2_000)
        .select("userId", "movieId")
        .vstack(ratings.filter(userId=USER).head(50).select("userId", "movieId"))
    )
    inputs = {name: asked[name].to_list() for name in asked.columns}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    batch = PredictionBatch("liking", 1, "champion", "m@1", at, new_ids(2_050), inputs, {"prediction": [1.0] * 2_050})
    log.append_wait(batch)
    log.close()

    done = eraser(platform).erase(USER, ["userId"])

    assert done.certificate["left"] == []
    first = ratings.head(60_000).filter(pl.col("userId") == USER).height
    assert done.certificate["removed"]["dataset"] == first + mine
    assert done.certificate["removed"]["feature"] == mine
    assert done.certificate["removed"]["predictions"] == 50
    assert platform.frame("ratings").collect().equals(ratings.filter(pl.col("userId") != USER))
    assert platform.frame("ratings@1").collect().height == 60_000 - first
    assert platform.online.count("taste@1") == 609
    assert platform.online.get("taste@1", [str(USER)]) == [None]
    assert USER not in platform.traffic.frame("liking")["input.userId"]
    assert platform.traffic.frame("liking").height == 2_000
    again = views.refresh(taste, "ratings", actor="user/a")  # the view stands as the shorter data set gives it
    assert again.rows in (0, RATINGS - mine)
    assert again.stored.rows == RATINGS - mine
    platform.close()


def test_one_person_of_the_census_leaves_and_the_reference_figures_follow(shared_data: Path, tmp_path: Path) -> None:
    adult = pl.read_parquet(shared_data / "adult" / "adult.parquet")
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "adult", subject="person_id", target="over_50k")
    platform.publish("adult", adult)
    person = adult.filter(over_50k=1).row(0, named=True)
    done = eraser(platform).erase(person["person_id"], ["person_id"])
    left = platform.frame("adult").collect()
    assert (done.certificate["removed"]["dataset"], left.height) == (1, 48_842 - 1)
    assert left["over_50k"].sum() == 7_841 + 3_846 - 1
    platform.close()
