"""Agreement of online and offline values, with differences put there on purpose."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from scipy.stats import binomtest

from flyball.errors import InvalidInput
from flyball.features.agreement import agreement, sampled_entities
from flyball.features.materialise import materialise_stored
from flyball.features.offline import StoredView
from flyball.features.pushes import push
from flyball.features.views import feature_view
from flyball.features.writing import store_view
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online.sqlite import SqliteOnline
from flyball.storage.tables.parquet import ParquetTables

START = datetime(2020, 1, 1, tzinfo=UTC)
NOW = START + timedelta(hours=10)


@feature_view(entity=["key", "part"], event_time="at", ttl="6h", defaults={"x": -1.0})
def values(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


@pytest.fixture
def world(tmp_path: Path) -> tuple[StoredView, ParquetTables, SqliteOnline]:
    spread = pl.int_range(400)
    frame = pl.select(
        key=pl.format("k{}", spread % 100),
        part=spread % 2,
        at=pl.lit(START) + pl.duration(minutes=spread),
        x=pl.when(spread % 10 > 0).then(spread / 10),
        word=pl.format("w{}", spread),
        seen=pl.lit(START) + pl.duration(seconds=spread),
    )
    tables, online = ParquetTables(FileBlobs(tmp_path / "blobs")), SqliteOnline(tmp_path / "online.sqlite")
    stored = store_view(values, frame.lazy(), tables)
    materialise_stored(stored, tables, online)
    return stored, tables, online


def test_what_was_materialised_agrees_in_every_feature(world: tuple[StoredView, ParquetTables, SqliteOnline]) -> None:
    stored, tables, online = world
    found = agreement(stored, tables, online, NOW)
    assert (found.view, found.entities, found.agree.value, found.online_entities) == ("values@1", 100, 1.0, 100)
    assert found.agree.low < 1.0 == found.agree.high
    assert (found.found, found.only_online, found.only_offline) == (1.0, 0.0, 0.0)
    assert found.features["x"].online_nulls == found.features["x"].offline_nulls == 0.1
    assert found.ages_s == {"p50": 15_030.0, "p90": 17_406.0, "p99": pytest.approx(17_940.6), "max": 18_000.0 + 0}
    assert found.too_old == 0.0
    later = agreement(stored, tables, online, NOW + timedelta(hours=2))
    assert later.too_old == pytest.approx(0.6) and later.agree.value == 1.0
    assert json.loads(json.dumps(found.to_dict()))["features"]["word"]["agree"]["value"] == 1.0


def test_differences_are_counted_by_feature_with_examples(
    world: tuple[StoredView, ParquetTables, SqliteOnline],
) -> None:
    stored, tables, online = world
    row = {"part": 0, "at": NOW - timedelta(minutes=1), "x": 0.5, "word": "other", "seen": START}
    push(values, [{**row, "key": f"k{2 * number}"} for number in range(12)], online)
    push(values, {**row, "key": "k2", "at": NOW + timedelta(hours=1)}, online)
    online.delete("values@1", [json.dumps(["k99", "1"], separators=(",", ":"))])
    found = agreement(stored, tables, online, NOW)
    assert found.agree.value == pytest.approx(0.87)
    oracle = binomtest(87, 100).proportion_ci(0.95, method="wilson")
    assert (found.agree.low, found.agree.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))
    assert found.only_offline == pytest.approx(0.02)  # removed, or not true before an hour from now
    word = found.features["word"]
    assert len(word.examples) == 5 and word.examples[0]["online"] == "other"
    assert word.examples[0]["offline"].startswith("w")


def test_a_sample_is_the_same_for_a_seed_and_each_entity_once(
    world: tuple[StoredView, ParquetTables, SqliteOnline],
) -> None:
    stored, tables, online = world
    first = sampled_entities(stored, tables, 20, seed=1)
    assert first.height == first.unique().height == 20
    assert first.equals(sampled_entities(stored, tables, 20, seed=1))
    assert not first.equals(sampled_entities(stored, tables, 20, seed=2))
    assert agreement(stored, tables, online, NOW, sample=20).entities == 20


def test_nothing_to_compare_is_said(world: tuple[StoredView, ParquetTables, SqliteOnline]) -> None:
    stored, tables, online = world
    with pytest.raises(InvalidInput, match="has no zone; give it one"):
        agreement(stored, tables, online, NOW.replace(tzinfo=None))
    with pytest.raises(InvalidInput, match="a sample of 0 entities compares nothing"):
        agreement(stored, tables, online, NOW, sample=0)
    empty = store_view(values, tables.scan(stored.table).drop("__pushed_at", "__batch").head(0), tables)
    with pytest.raises(InvalidInput, match="values@1 has no stored rows, so there is nothing to compare"):
        agreement(empty, tables, online, NOW)
