"""Searching runs in memory: beside MLflow's own store (recorded) and beside plain Python, while runs change."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import InvalidInput
from flyball.ledger.experiments import InputDataset
from flyball.ledger.points import Point
from flyball.ledger.runs import Run
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.tracking import run_tables
from flyball.tracking.filters import Comparison, Order, holds, parse_filter, parse_order
from flyball.tracking.grammars import RUNS
from flyball.tracking.runs_index import RunsIndex
from tests.services import postgres_server

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data/mlflow_searches.json").read_text(encoding="utf-8"))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATUSES: dict[str, Any] = {"FINISHED": "succeeded", "FAILED": "failed", "KILLED": "cancelled", "RUNNING": "running"}
WORDS = {ours: theirs for theirs, ours in STATUSES.items()} | {"pending": "SCHEDULED"}
VIEWS: dict[str, Any] = {"active_only": "active", "all": "all", "deleted_only": "deleted"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    opened = open_ledger(tmp_path, LedgerSettings(synchronous="NORMAL"))
    yield opened
    opened.close()


def at(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def ask(
    index: RunsIndex, experiments: Sequence[str], text: str = "", order: Sequence[str] = (), **page: Any
) -> list[str]:
    return index.search(experiments, parse_filter(text, RUNS), parse_order(order, RUNS), **page)[0]


# -- beside MLflow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunsIndex, str]]:
    """The runs that MLflow's store was asked about, half of them there when the index is first used."""
    ledger = open_ledger(tmp_path_factory.mktemp("recorded"), LedgerSettings(synchronous="NORMAL"))
    with ledger.write("user/a") as world:
        experiment = world.experiments.create("searched").id
    index = RunsIndex(ledger)
    for number, run in enumerate(RECORDED["runs"]):
        with ledger.write("user/a") as world:
            world.runs.start(
                "training", run["name"], id=run["id"], experiment=experiment, user=run["user"], params=run["params"],
                tags=run["tags"], started_at=at(run["start"]),
            )  # fmt: skip
            points = [Point(key, float(value), step, ms) for key, (value, step, ms) in run["metrics"].items()]
            world.runs.record(run["id"], points=points)
            datasets = [(InputDataset(n, d), {"mlflow.data.context": c} if c else {}) for n, d, c in run["datasets"]]
            world.runs.add_inputs(run["id"], datasets)
            if run["status"] != "RUNNING":
                world.runs.revise(run["id"], status=STATUSES[run["status"]], ended_at=at(run["end"]))
            if run["deleted"]:
                world.runs.discard(run["id"])
        if number == 40:
            ask(index, [experiment])
    yield index, experiment
    ledger.close()


def test_every_search_finds_what_mlflows_store_finds_in_the_same_order(recorded: tuple[RunsIndex, str]) -> None:
    index, experiment = recorded
    ids = [run["id"] for run in RECORDED["runs"]]
    assert len(RECORDED["queries"]) >= 300 and sum(1 for query in RECORDED["queries"] if query[3]) > 150
    for text, order, view, numbers in RECORDED["queries"]:
        found = ask(index, [experiment], text, order, view=VIEWS[view])
        assert found == [ids[number] for number in numbers], (text, order, view)


def test_pages_put_together_are_the_whole_answer(recorded: tuple[RunsIndex, str]) -> None:
    index, experiment = recorded
    for text, order, view, numbers in RECORDED["queries"][::7]:
        comparisons, orders = parse_filter(text, RUNS), parse_order(order, RUNS)
        found: list[str] = []
        more = True
        while more:
            page, more = index.search([experiment], comparisons, orders, VIEWS[view], limit=7, offset=len(found))
            found += page
            assert more == (len(found) < len(numbers))
        assert found == ask(index, [experiment], text, order, view=VIEWS[view])


# -- beside plain Python, while everything changes


def expected(runs: Sequence[Run], text: str, order: Sequence[str], view: str) -> list[str]:
    """What a search must answer, by looking at each run."""
    shown = [run for run in runs if view == "all" or run.is_deleted == (view == "deleted")]
    comparisons, orders = parse_filter(text, RUNS), parse_order(order, RUNS)
    found = [run for run in shown if all(satisfies(run, comparison) for comparison in comparisons)]
    found.sort(key=lambda run: (-milliseconds(run.started_at), run.id))
    for by in reversed(orders):
        found.sort(key=lambda run: rank(value_of(run, by.kind, by.key)[0], by), reverse=not by.ascending)
    return [run.id for run in found]


def satisfies(run: Run, comparison: Comparison) -> bool:
    values = value_of(run, comparison.kind, comparison.key)
    return any(holds(value, comparison) for value in values)


def rank(value: Any, by: Order) -> tuple[int, Any]:
    missing = value is None
    is_nan = isinstance(value, float) and math.isnan(value)
    group = 2 if missing else 1 if is_nan else 0
    return group if by.ascending else -group, 0 if group else value


def value_of(run: Run, kind: str, key: str) -> list[Any]:
    if kind == "dataset":
        used = [i for i in run.inputs if "digest" in i]
        return [i["tags"].get("mlflow.data.context") if key == "context" else i[key] for i in used]
    if kind == "metric":
        return [run.metrics.get(key)]
    if kind in ("param", "tag"):
        return [(run.params if kind == "param" else run.tags).get(key)]
    ended = None if run.finished_at is None else milliseconds(run.finished_at)
    attributes: dict[str, Any] = {
        "run_id": run.id, "run_name": run.name, "user_id": run.user, "status": WORDS[run.status], "end_time": ended,
        "start_time": milliseconds(run.started_at),
        "artifact_uri": f"mlflow-artifacts:/{run.experiment}/{run.id}/artifacts",
    }  # fmt: skip
    return [attributes[key]]


def milliseconds(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(milliseconds=1)


class Life:
    """Runs of some experiments that change at random, as trackers change them."""

    def __init__(self, ledger: SqlLedger, seed: int) -> None:
        self.ledger, self.chance = ledger, random.Random(seed)
        self.ids: list[str] = []
        with ledger.write("user/a") as world:
            self.experiments = ["0", world.experiments.create("one").id, world.experiments.create("two").id]

    def step(self) -> None:
        chance = self.chance
        with self.ledger.write("user/a") as world:
            act = chance.randrange(12) if self.ids else 0
            id = chance.choice(self.ids) if self.ids else ""
            if act <= 2:
                start = 1_700_000_000_000 + chance.choice([0, 0, 1, chance.randrange(10**6)])
                run = world.runs.start(
                    "training",
                    chance.choice(["a", "B", "ß"]),
                    experiment=chance.choice(self.experiments),
                    started_at=at(start),
                    params={k: chance.choice(["1", "x", "日本"]) for k in ("p", "q") if chance.random() < 0.7},
                    tags={"t": chance.choice(["u", "v"])} if chance.random() < 0.5 else {},
                    user=chance.choice(["ann", "bob"]),
                )
                self.ids.append(run.id)
                return
            run = world.runs.get(id)
            if act == 10 and run.is_finished:
                world.runs.delete(id)
                self.ids.remove(id)
            if act == 10 or (run.is_deleted and act != 9):
                return
            if act <= 5:
                values = [0.5, -0.0, 0.0, math.nan, math.inf, chance.random()]
                points = [
                    Point(chance.choice("mn"), chance.choice(values), chance.randrange(3), chance.randrange(100))
                    for _ in range(chance.choice([1, 3, 200]))
                ]
                world.runs.record(id, points=points)
            elif act == 6:
                world.runs.record(id, tags={chance.choice(["t", "s"]): chance.choice(["u", "w"])})
            elif act == 7:
                if "t" in run.tags:
                    world.runs.untag(id, "t")
                world.runs.revise(id, name=chance.choice(["a", "C"]))
            elif act == 8:
                status: Any = chance.choice(["succeeded", "failed", "running"])
                world.runs.revise(id, status=status, ended_at=None if status == "running" else at(1_800_000_000_000))
            elif act == 9:
                world.runs.restore(id) if run.is_deleted else world.runs.discard(id)
            elif act == 11:
                tags = {"mlflow.data.context": "train"} if chance.random() < 0.5 else {}
                world.runs.add_inputs(id, [(InputDataset(chance.choice(["d1", "d2"]), "x"), tags)])

    def runs(self, experiments: Sequence[str]) -> list[Run]:
        with self.ledger.read() as world:
            return [run for run in world.runs.named(self.ids) if run.experiment in experiments]

    def query(self) -> tuple[list[str], str, list[str], str]:
        clauses = [
            "metrics.m > 0.5", "metrics.m != 0", "metrics.n <= 0", "metrics.absent > 1", "params.p = 'x'",
            "params.p != 'x'", "params.q IS NULL", "tags.t IS NOT NULL", "tags.s LIKE '_'", "run_name ILIKE 'A'",
            "status = 'RUNNING'", "status LIKE 'F%'", "user_id != 'ann'", "end_time > 5", "start_time <= 1700000000001",
            "datasets.name = 'd1'", "datasets.context != 'eval'", f"run_id IN ('{self.ids[0]}', '{self.ids[-1]}')",
            f"run_id NOT IN ('{self.ids[0]}')", "artifact_uri LIKE '%:/1/%'",
        ]  # fmt: skip
        keys = [
            "metrics.m", "metrics.n", "params.p", "tags.t", "run_name", "status", "start_time", "end_time", "run_id",
            "artifact_uri",
        ]  # fmt: skip
        text = " AND ".join(self.chance.sample(clauses, self.chance.choice([0, 1, 1, 2])))
        order = [
            f"{key} {self.chance.choice(['ASC', 'DESC'])}"
            for key in self.chance.sample(keys, self.chance.choice([0, 1, 2]))
        ]
        some = self.chance.sample(self.experiments, self.chance.choice([1, 2, 3]))
        return some, text, order, self.chance.choice(["active", "active", "all", "deleted"])


def live(ledger: SqlLedger, seed: int, steps: int) -> None:
    life = Life(ledger, seed)
    index, small = RunsIndex(ledger), RunsIndex(ledger, budget_bytes=1)
    for number in range(steps):
        life.step()
        if number % 3 == 0:
            experiments, text, order, view = life.query()
            answer = expected(life.runs(experiments), text, order, view)
            for searched in (index, small, RunsIndex(ledger)) if number % 30 == 0 else (index, small):
                assert ask(searched, experiments, text, order, view=view) == answer, (
                    number,
                    experiments,
                    text,
                    order,
                    view,
                )
    shown = [run for run in life.runs(life.experiments) if not run.is_deleted]
    keys = index.keys(life.experiments)
    assert keys.metrics.get("m", 0) == sum("m" in run.latest for run in shown) > 0
    assert keys.params.get("p", 0) == sum("p" in run.params for run in shown) > 0
    assert keys.tags.get("t", 0) == sum("t" in run.tags for run in shown)


@pytest.mark.parametrize(("seed", "remembered"), [(1, 4096), (2, 1)])
def test_a_search_sees_everything_that_was_done_before_it(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, seed: int, remembered: int
) -> None:
    monkeypatch.setattr(run_tables, "_LIVE", remembered)
    live(ledger, seed, 300)


def test_a_search_sees_everything_on_postgresql(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        ledger = open_ledger(tmp_path, LedgerSettings(url=f"{url}/postgres"))
        live(ledger, 3, 120)
        ledger.close()


def test_deleting_an_experiment_hides_its_runs_and_restoring_shows_them(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as world:
        experiment = world.experiments.create("gone").id
        run = world.runs.start("training", "r", experiment=experiment).id
    index = RunsIndex(ledger)
    assert ask(index, [experiment]) == [run]
    with ledger.write("user/a") as world:
        world.experiments.discard(experiment)
    assert ask(index, [experiment]) == [] and ask(index, [experiment], view="deleted") == [run]
    with ledger.write("user/a") as world:
        world.experiments.restore(experiment)
    assert ask(index, [experiment]) == [run]


def test_a_run_that_took_the_id_of_a_removed_one_has_nothing_of_it(ledger: SqlLedger) -> None:
    index = RunsIndex(ledger)
    with ledger.write("user/a") as world:
        id = world.runs.start("training", "r", experiment="0", params={"p": "x"}).id
        world.runs.record(id, points=[Point("m", 1.0, 5, 5)])
    assert ask(index, ["0"], "metrics.m = 1") == [id]
    with ledger.write("user/a") as world:
        world.runs.finish(id, "succeeded")
        world.runs.delete(id)
    assert ask(index, ["0"], view="all") == [] and not index.keys(["0"]).metrics
    with ledger.write("user/a") as world:
        world.runs.start("training", "again", id=id, experiment="0")
        world.runs.record(id, points=[Point("m", 2.0, 0, 0)])
    assert ask(index, ["0"], "metrics.m = 2 AND params.p IS NULL") == [id]


def test_experiments_that_are_not_there_have_no_runs(ledger: SqlLedger) -> None:
    index = RunsIndex(ledger)
    assert index.search(["77", "abc", "", "٣", "9" * 30]) == ([], False) == index.search([])
    with ledger.write("user/a") as world:
        experiment = world.experiments.create("new").id
        run = world.runs.start("training", "r", experiment=experiment).id
    assert ask(index, [experiment, experiment, f"00{experiment}"]) == [run]


def test_an_experiment_that_had_to_make_room_is_found_by_whoever_asks_meanwhile(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as world:
        experiments = [world.experiments.create(f"e{n}").id for n in range(4)]
        runs = {id: world.runs.start("training", "r", experiment=id).id for id in experiments}
    index = RunsIndex(ledger, budget_bytes=1)
    wrong: list[object] = []

    def search(first: int) -> None:
        for number in range(60):
            some = [experiments[(first + number) % 4], experiments[(first + 3 * number + 1) % 4]]
            found = ask(index, some)
            if sorted(found) != sorted({runs[id] for id in some}):
                wrong.append((some, found))

    threads = [threading.Thread(target=search, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_a_page_that_is_none_is_refused(ledger: SqlLedger) -> None:
    with pytest.raises(InvalidInput, match="offset -1"):
        RunsIndex(ledger).search(["0"], offset=-1)
    assert RunsIndex(ledger).search(["0"], limit=0) == ([], False)


def test_searches_beside_writers_see_what_was_acknowledged_and_nothing_twice(ledger: SqlLedger) -> None:
    index = RunsIndex(ledger)
    with ledger.write("user/a") as world:
        ids = [world.runs.start("training", f"r{n}", experiment="0").id for n in range(4)]
    steps, acknowledged, wrong = 60, dict.fromkeys(ids, -1), []
    stop = threading.Event()

    def write(id: str) -> None:
        for step in range(steps):
            with ledger.write("user/a") as world:
                world.runs.record(id, points=[Point("m", float(step), step, step)], tags={"step": str(step)})
            acknowledged[id] = step

    def search() -> None:
        try:
            while not stop.is_set():
                before = dict(acknowledged)
                least = min(before.values())
                found = ask(
                    index, ["0"], f"metrics.m >= {least}" if least >= 0 else "", ["metrics.m DESC", "tags.step ASC"]
                )
                if sorted(found) != sorted(ids):
                    wrong.append((least, found))
        except Exception as error:
            wrong.append((-1, [repr(error)]))

    writers = [threading.Thread(target=write, args=(id,)) for id in ids]
    readers = [threading.Thread(target=search) for _ in range(3)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    for thread in readers:
        thread.join(60)
    assert not wrong and set(acknowledged.values()) == {steps - 1}
    assert sorted(ask(index, ["0"], f"metrics.m = {steps - 1} AND tags.step = '{steps - 1}'")) == sorted(ids)


def test_twenty_thousand_keys_stay_usable(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as world:
        for start in range(0, 20_000, 400):
            id = world.runs.start("training", f"r{start}", experiment="0").id
            world.runs.record(id, points=[Point(f"k{n}", float(n), 0, 0) for n in range(start, start + 400)])
    index = RunsIndex(ledger)
    assert len(index.keys(["0"]).metrics) == 20_000
    assert (
        len(ask(index, ["0"], "metrics.k19999 = 19999")) == 1 and len(ask(index, ["0"], "", ["metrics.k5 DESC"])) == 50
    )


def test_parameters_that_are_no_text_are_found_by_what_clients_see(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as world:
        run = world.runs.start("training", "r", experiment="0", params={"depth": 3, "fit": True, "layers": [1, 2]}).id
    index = RunsIndex(ledger)
    assert ask(index, ["0"], "params.depth = '3' AND params.fit = 'True' AND params.layers LIKE '[1, 2]'") == [run]
