"""Stored views as versions: what is computed anew, pushes folded in once, look-ups served after any crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.features.lookup import look_up
from flyball.features.materialise import materialise_stored
from flyball.features.offline import rows_of
from flyball.features.pushes import push
from flyball.features.stored_joins import join_stored
from flyball.features.storing import StoredViews
from flyball.features.training_set import StoredRows, training_set
from flyball.features.views import FeatureView, feature_view
from flyball.features.windows import windowed
from flyball.ledger.sql.database import SqlLedger, open_ledger
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online.sqlite import SqliteOnline
from flyball.storage.streams.log import Log, Reader
from flyball.storage.tables.parquet import ParquetTables
from flyball.testing.clock import FakeClock

START = datetime.fromisoformat("2013-05-01T00:00:00Z")
ACTOR = "user/test"


@feature_view(entity="key", event_time="at", incremental=True)
def doubled(readings: pl.LazyFrame) -> pl.LazyFrame:
    return readings.filter(pl.col("x") != 3).select("key", "at", twice=pl.col("x") * 2)


@feature_view(entity="key", event_time="at", look_back="15m", source="readings")
def in_ten_minutes(readings: pl.LazyFrame) -> pl.LazyFrame:
    return windowed(readings, by="key", time="at", every="5m", period="10m", n=pl.len(), total=pl.sum("x"))


@feature_view(entity="key", event_time="at", source="readings")
def mean_so_far(readings: pl.LazyFrame) -> pl.LazyFrame:
    return readings.select("key", "at", mean=pl.col("x").mean().over("key"))


class World:
    """A ledger, tables, a dataset `readings`, an online store and a log of pushes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger: SqlLedger = open_ledger(folder)
        self.tables = ParquetTables(FileBlobs(folder / "blobs"))
        self.online = SqliteOnline(folder / "online.sqlite")
        self.views = StoredViews(self.ledger, self.tables)
        self.reader = Reader(folder / "pushes")

    def publish(self, rows: pl.DataFrame, *, append: bool = False) -> None:
        with self.ledger.write(ACTOR) as world:
            newest = next(iter(world.versions.all("dataset", "readings", limit=1)), None)
            after = newest.digest if append and newest is not None else None
            table = self.tables.write([rows], after)
            world.versions.publish("dataset", "readings", table.digest)

    def answers(self, view: FeatureView, asked: pl.DataFrame) -> pl.DataFrame:
        stored = self.views.newest(view.name, view.version)
        assert stored is not None
        return join_stored(asked, "asked_at", stored, self.tables)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.close()


def readings(rows: list[tuple[str, int, int]]) -> pl.DataFrame:
    schema = {"key": pl.String, "minute": pl.Int64, "x": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.select("key", (pl.lit(START) + pl.duration(minutes="minute")).alias("at"), "x")


def asked_of(keys: str = "abc", minutes: int = 60) -> pl.DataFrame:
    return pl.DataFrame(
        [(key, START + timedelta(minutes=minute)) for minute in range(0, minutes, 5) for key in keys],
        schema={"key": pl.String, "asked_at": pl.Datetime("us", "UTC")},
        orient="row",
    )


def pushed(key: str, minute: int, twice: int) -> dict[str, Any]:
    return {"key": key, "at": START + timedelta(minutes=minute), "twice": twice}


def test_what_is_added_to_the_source_is_computed_alone_and_lineage_says_from_what(world: World) -> None:
    world.publish(readings([("a", 1, 1), ("a", 2, 3), ("b", 3, 4)]))
    first = world.views.refresh(doubled, actor=ACTOR)
    assert (first.how, first.rows, first.stored.source, first.stored.number) == ("whole", 2, "dataset/readings@1", 1)
    again = world.views.refresh(doubled, actor=ACTOR)
    assert (again.how, again.rows, again.stored.number) == ("unchanged", 0, 1)
    world.publish(readings([("b", 2, 7), ("a", 9, 8)]), append=True)
    more = world.views.refresh(doubled, actor=ACTOR)
    assert (more.how, more.rows, more.stored.rows, more.stored.number) == ("new rows", 2, 4, 2)
    world.publish(readings([("a", 1, 5)]))
    assert world.views.refresh(doubled, actor=ACTOR).how == "whole"
    assert rows_of(world.views.get("doubled"), world.tables).collect()["twice"].to_list() == [10]
    with world.ledger.read() as ledger:
        edges = ledger.lineage.walk(ledger.versions.get("feature", "doubled", 2).ref, "upstream", depth=1).edges
        assert {(edge.source, edge.role) for edge in edges} >= {("dataset/readings@2", "computed from")}
        run = ledger.runs.get(str(more.run))
        assert (run.kind, run.status, run.result["rows"]) == ("materialisation", "succeeded", 2)


row_lists = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 5)), min_size=1, max_size=7)


@settings(max_examples=6, deadline=None)
@given(parts=st.lists(row_lists, min_size=2, max_size=3))
def test_computed_step_by_step_is_what_is_computed_at_once(
    parts: list[list[tuple[str, int, int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    steps, once = (World(tmp_path_factory.mktemp("world")) for _ in range(2))
    every = (doubled, in_ten_minutes, mean_so_far)
    for part in parts:
        steps.publish(readings(part), append=True)
        for view in every:
            steps.views.refresh(view, actor=ACTOR)
    once.publish(readings([row for part in parts for row in part]))
    for view in every:
        once.views.refresh(view, actor=ACTOR)
        assert steps.answers(view, asked_of()).equals(once.answers(view, asked_of())), view.name
    steps.ledger.close()
    once.ledger.close()


def test_a_push_is_visible_at_once_and_trained_on_as_known_when_it_came(world: World) -> None:
    world.publish(readings([("a", 1, 1)]))
    world.views.refresh(doubled, actor=ACTOR)
    clock = FakeClock(START + timedelta(minutes=30))
    with_log = Log(world.folder / "pushes", "feed")
    assert push(doubled, [pushed("a", 20, 7), pushed("a", 10, 5)], world.online, with_log, clock) == 1
    assert look_up(world.online, [doubled.spec()], {"key": "a"}, clock.now())["twice"] == [7]
    folded = world.views.fold_pushes(doubled, world.reader, actor=ACTOR)
    assert (folded.how, folded.rows, folded.refused) == ("new rows", 2, 0)
    assert world.views.fold_pushes(doubled, world.reader, actor=ACTOR).how == "unchanged"
    answers = world.answers(doubled, asked_of("a"))
    by_minute = {t.hour * 60 + t.minute: v for t, v in zip(answers["asked_at"], answers["twice"], strict=True)}
    assert (by_minute[0], by_minute[5], by_minute[25], by_minute[30]) == (None, 2, 2, 7)
    world.publish(readings([("a", 0, 1), ("a", 40, 4)]))
    assert world.views.refresh(doubled, actor=ACTOR).how == "whole"
    answers = world.answers(doubled, asked_of("a"))
    assert answers["twice"].to_list()[5:9] == [2, 7, 7, 8]
    push(doubled, pushed("a", 50, 9), world.online, with_log, clock)
    assert world.views.fold_pushes(doubled, world.reader, actor=ACTOR).rows == 1
    assert world.views.get("doubled").rows == 5
    with_log.close()


def test_a_crash_before_a_fold_is_published_folds_again_and_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(readings([("a", 1, 1)]))
    world.views.refresh(doubled, actor=ACTOR)
    log = Log(world.folder / "pushes", "feed")
    push(doubled, [pushed("a", minute, minute) for minute in range(20)], world.online, log)
    log.close()

    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("flyball.ledger.sql.versions.SqlVersions.publish", crash)
        with pytest.raises(RuntimeError):
            world.views.fold_pushes(doubled, world.reader, actor=ACTOR)
    assert world.views.get("doubled").rows == 1
    assert world.views.fold_pushes(doubled, world.reader, actor=ACTOR).rows == 20
    assert world.views.fold_pushes(doubled, world.reader, actor=ACTOR).rows == 0
    assert world.views.get("doubled").rows == 21


def test_a_pushed_key_that_no_number_equals_is_left_out_and_counted(world: World) -> None:
    @feature_view(entity="id", event_time="at", source="readings")
    def numbered(readings: pl.LazyFrame) -> pl.LazyFrame:
        return readings.select(pl.col("x").alias("id"), "at", pl.col("key").alias("word"))

    world.publish(readings([("a", 1, 1)]))
    world.views.refresh(numbered, actor=ACTOR)
    log = Log(world.folder / "pushes", "feed")
    push(numbered, {"id": "seven", "at": START, "word": "é"}, world.online, log)
    push(numbered, {"id": 7, "at": START, "word": None}, world.online, log)
    log.close()
    folded = world.views.fold_pushes(numbered, world.reader, actor=ACTOR)
    assert (folded.rows, folded.refused) == (1, 1)


def test_two_who_store_one_view_at_once_end_equal_and_lose_nothing(world: World) -> None:
    world.publish(readings([("a", 1, 1)]))
    world.views.refresh(doubled, actor=ACTOR)
    log = Log(world.folder / "pushes", "feed")
    push(doubled, [pushed("a", minute, minute) for minute in range(20)], world.online, log)
    log.close()
    world.publish(readings([("b", 2, 2)]), append=True)
    failures: list[BaseException] = []

    def attempt(act: Any) -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)

    acts = [
        lambda: world.views.refresh(doubled, actor=ACTOR),
        lambda: world.views.fold_pushes(doubled, world.reader, actor=ACTOR),
    ] * 2
    threads = [threading.Thread(target=attempt, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    stored = world.views.get("doubled")
    assert (stored.rows, stored.source) == (22, "dataset/readings@2")


def test_a_changed_definition_needs_a_version_and_versions_do_not_mix(world: World) -> None:
    def declared(factor: int, version: int) -> FeatureView:
        @feature_view(entity="key", event_time="at", source="readings", name="scaled", version=version)
        def scaled(frame: pl.LazyFrame) -> pl.LazyFrame:
            return frame.select("key", "at", scaled=pl.col("x") * factor)

        return scaled

    world.publish(readings([("a", 1, 1)]))
    world.views.refresh(declared(2, 1), actor=ACTOR)
    with pytest.raises(Conflict, match=r"the view scaled has changed .* raise version= in its declaration"):
        world.views.refresh(declared(3, 1), actor=ACTOR)
    second = world.views.refresh(declared(3, 2), actor=ACTOR)
    assert (second.how, second.stored.number) == ("whole", 2)
    world.views.serve(declared(2, 1), world.online, actor=ACTOR)
    world.views.serve(declared(3, 2), world.online, actor=ACTOR)
    spec = declared(3, 2).spec(readings([]))
    assert look_up(world.online, [spec], {"key": "a"}, START + timedelta(hours=1))["scaled"] == [3]
    rows = world.views.newest("scaled", 1)
    assert rows is not None
    with pytest.raises(Conflict, match=r"stored are rows of scaled@1, the definition at hand is scaled@2"):
        training_set(asked_of(), [declared(3, 2)], stored={"scaled": StoredRows(rows, world.tables)})
    with pytest.raises(NotFound, match="mean_so_far@1 is not stored yet"):
        world.views.serve(mean_so_far, world.online, actor=ACTOR)


def test_a_training_set_takes_stored_and_computed_views_in_their_order(world: World) -> None:
    source = readings([("a", 1, 1), ("b", 3, 4), ("a", 9, 2)])
    world.publish(source)
    kept = {"doubled": StoredRows(world.views.refresh(doubled, actor=ACTOR).stored, world.tables)}
    views = [in_ten_minutes, doubled, mean_so_far]
    sources = {"readings": source.lazy()}
    found = training_set(asked_of(), views, sources=sources, stored=kept, ages=True).collect(engine="streaming")
    expected = training_set(asked_of(), views, sources=sources, ages=True).collect()
    assert found.equals(expected) and found.columns == expected.columns
    alone = training_set(asked_of().lazy(), [doubled], stored=kept).collect()
    assert alone["twice"].equals(expected["twice"])
    with pytest.raises(InvalidInput, match='a column "twice" already'):
        training_set(asked_of().with_columns(twice=1), [doubled], stored=kept)


def test_serving_writes_what_is_new_and_nothing_twice(world: World) -> None:
    world.publish(readings([("a", 1, 1), ("b", 3, 4)]))
    world.views.refresh(doubled, actor=ACTOR)
    assert world.views.serve(doubled, world.online, actor=ACTOR).rows == 2
    assert world.views.serve(doubled, world.online, actor=ACTOR).rows == 0
    world.publish(readings([("c", 2, 5), ("b", 2, 9)]), append=True)
    world.views.refresh(doubled, actor=ACTOR)
    done = world.views.serve(doubled, world.online, actor=ACTOR)
    assert (done.rows, done.written) == (2, 1)  # of b there was a newer one
    now = START + timedelta(hours=1)
    assert look_up(world.online, [doubled.spec()], {"key": ["a", "b", "c"]}, now)["twice"] == [2, 8, 10]
    world.online.delete("doubled@1")
    assert world.views.serve(doubled, world.online, actor=ACTOR).rows == 4  # the store was emptied
    assert world.online.count("doubled@1") == 3


_CHILD = """
import sys
from pathlib import Path
from flyball.features import storing
from flyball.storage.online.sqlite import SqliteOnline
from tests.features.test_storing import ACTOR, World, doubled

class Slow(SqliteOnline):
    slices = 0
    def put_encoded(self, *args, **named):
        changed = super().put_encoded(*args, **named)
        Slow.slices += 1
        print(Slow.slices, flush=True)
        if Slow.slices == int(sys.argv[2]):
            sys.stdin.read()
        return changed

folder = Path(sys.argv[1])
world = World(folder)
done = world.views.serve(doubled, Slow(folder / "online.sqlite"), actor=ACTOR, batch_rows=200)
print("done", done.rows, done.written)
"""


@pytest.mark.parametrize("killed_after", [1, 7])
def test_a_kill_between_two_writes_goes_on_and_ends_equal(world: World, killed_after: int) -> None:
    rows = [(f"k{i % 1_500}", i, i % 3) for i in range(6_000)]
    world.publish(readings(rows))
    world.views.refresh(doubled, actor=ACTOR)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", _CHILD, str(world.folder), str(killed_after)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == str(killed_after):
            break
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    child.stdout.close()
    assert child.stdin is not None
    child.stdin.close()
    done = world.views.serve(doubled, world.online, actor=ACTOR, batch_rows=200)
    # The write that was not noted is made again, those before it are not, each entity once.
    assert (done.rows, done.written) == (6_000, 1_500 - 200 * (killed_after - 1))
    fresh = SqliteOnline(world.folder / "fresh.sqlite")
    newest = world.views.newest("doubled", 1)
    assert newest is not None
    materialise_stored(newest, world.tables, fresh)
    keys = [f"k{i}" for i in range(1_500)]
    found = world.online.get("doubled@1", keys)
    assert found == fresh.get("doubled@1", keys)
    assert [value.values["twice"] for value in found if value] == [2 * (i % 3) for i in range(4_500, 6_000)]
    assert world.views.serve(doubled, world.online, actor=ACTOR).rows == 0


def test_two_who_serve_one_view_at_once_end_equal(world: World) -> None:
    world.publish(readings([(f"k{i % 700}", i, i % 3) for i in range(4_000)]))
    world.views.refresh(doubled, actor=ACTOR)
    threads = [
        threading.Thread(
            target=lambda: world.views.serve(
                doubled, SqliteOnline(world.folder / "online.sqlite"), actor=ACTOR, batch_rows=300
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    newest = rows_of(world.views.get("doubled"), world.tables).collect()
    expected = newest.sort("at", maintain_order=True).unique("key", keep="last").sort("key")
    now = START + timedelta(days=30)
    found = look_up(world.online, [doubled.spec()], {"key": expected["key"].to_list()}, now)
    assert found["twice"] == expected["twice"].to_list()
