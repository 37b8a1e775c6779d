"""Acts on experiments and runs, as a person of a role does them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.ledger.experiments import InputDataset, InputSummary
from flyball.ledger.points import Point
from flyball.platform import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def _names(found: tuple[list[object], bool]) -> list[str]:
    return [each.name for each in found[0]]  # type: ignore[attr-defined]


def test_experiments_are_searched_by_filter_order_view_and_page(platform: Platform) -> None:
    made = [platform.create_experiment(f"flights-{n}", tags={"team": "ops" if n % 2 else "ml"}) for n in range(6)]
    platform.delete_experiment(made[5].id)
    assert _names(platform.search_experiments()) == [f"flights-{n}" for n in (4, 3, 2, 1, 0)] + ["Default"]
    assert _names(platform.search_experiments("tags.team = 'ops'")) == ["flights-3", "flights-1"]
    assert _names(platform.search_experiments("name LIKE 'FLIGHTS%'")) == []
    assert len(platform.search_experiments("name ILIKE 'FLIGHTS%' AND tags.team != 'ops'")[0]) == 3
    assert _names(platform.search_experiments("tags.team IS NULL")) == ["Default"]
    assert _names(platform.search_experiments(view="deleted")) == ["flights-5"]
    assert len(platform.search_experiments(view="all")[0]) == 7
    assert _names(platform.search_experiments(f"creation_time >= {int(made[0].created_at.timestamp() * 1000)}",
                                              ["name DESC"], limit=2)) == ["flights-4", "flights-3"]  # fmt: skip
    page, is_more = platform.search_experiments(order_by=["experiment_id ASC"], limit=4)
    rest, is_over = platform.search_experiments(order_by=["experiment_id ASC"], limit=4, offset=4)
    assert ([e.id for e in page + rest], is_more, is_over) == (["0", "1", "2", "3", "4", "5"], True, False)
    with pytest.raises(InvalidInput):
        platform.search_experiments("name = 'a' OR name = 'b'")
    with pytest.raises(InvalidInput, match="expected active, deleted or all"):
        platform.search_experiments(view="gone")  # type: ignore[arg-type]


def test_an_experiment_is_renamed_tagged_deleted_and_restored_with_its_runs(platform: Platform) -> None:
    made = platform.create_experiment("x")
    run = platform.recorder.create_run(made.id).result()
    platform.rename_experiment(made.id, "y")
    platform.tag_experiment(made.id, "a", "b")
    assert platform.experiment_by_name("y").tags == {"a": "b"}
    assert platform.untag_experiment(made.id, "a").tags == {}
    platform.delete_experiment(made.id)
    assert platform.experiment(made.id).is_deleted
    with pytest.raises(Conflict, match="Current state is deleted"):
        platform.recorder.create_run(made.id).result()
    with pytest.raises(Conflict, match="Current state is deleted"):
        platform.recorder.log(run.id, [Point("loss", 1.0, 0, 0)]).result()
    platform.restore_experiment(made.id)
    platform.tag_run(run.id, "a", "b")
    platform.untag_run(run.id, "a")
    assert list(platform.experiments_by_ids([made.id, "0", "77"])) == ["0", made.id]


def test_a_run_marked_deleted_is_listed_only_when_asked_for(platform: Platform) -> None:
    run = platform.recorder.create_run("0", "x").result()
    platform.delete_run(run.id)
    assert (platform.runs(), [r.id for r in platform.runs(deleted=True)]) == ([], [run.id])
    assert platform.run_whole(run.id).is_deleted
    platform.restore_run(run.id)
    assert [r.id for r in platform.runs()] == [run.id]


@pytest.mark.parametrize("id", ["", "a", "%", "' OR 1=1 --", "A" * 32, "a" * 31, "\0"])
def test_only_the_whole_id_of_an_experiments_run_finds_it(platform: Platform, id: str) -> None:
    with platform.recording() as world:
        world.runs.start("training", "x", id="a" * 32)
        step = world.runs.start("step", "x").id
    assert platform.run_whole("a" * 32).name == "x"
    for wrong in (id, step):
        with pytest.raises(NotFound):
            platform.run_whole(wrong)


def test_points_of_many_runs_are_read_in_bulk_up_to_a_limit(platform: Platform) -> None:
    ids = [platform.recorder.create_run("0", id=letter * 32).result().id for letter in "cab"]
    for id in ids:
        platform.recorder.log(id, [Point("loss", 1.0, step, 9 - step) for step in range(3)]).result()
    found = platform.metric_bulk(ids, "loss", 5)
    assert {id[0]: [p.step for p in points] for id, points in found.items()} == {"a": [2, 1, 0], "b": [2, 1]}
    assert platform.metric_page(ids[0], "loss", 2, 2)[0] == [Point("loss", 1.0, 0, 9)]
    assert platform.metric_sample(ids, "none") == {}


def test_data_sets_that_runs_named_are_summed_up(platform: Platform) -> None:
    run = platform.recorder.create_run("0").result()
    flights = InputDataset("flights", "d1", "local", "{}")
    platform.log_inputs(run.id, [(flights, {"mlflow.data.context": "training"})], ["m-1"])
    platform.log_outputs(run.id, [("m-2", 3)])
    assert platform.input_datasets(["0", "0"]) == [InputSummary("0", "flights", "d1", "training")]
    assert platform.input_dataset_details("0", [("flights", "d1")]) == {("flights", "d1"): flights}
    assert platform.run_whole(run.id).outputs == ({"model": "m-2", "step": 3},)


def test_who_only_reads_changes_nothing(platform: Platform) -> None:
    viewer = platform.as_(Principal("user/eve", "viewer"))
    assert viewer.search_experiments()[0][0].name == "Default"
    assert viewer.search_runs(["0"]) == ([], False)
    for act in (
        lambda: viewer.create_experiment("x"),
        lambda: viewer.delete_experiment("0"),
        lambda: viewer.delete_run("a" * 32),
        lambda: viewer.tag_run("a" * 32, "a", "b"),
    ):
        with pytest.raises(Forbidden):
            act()


def test_runs_are_searched_with_what_was_logged_a_moment_ago(platform: Platform) -> None:
    for n in range(5):
        run = platform.recorder.create_run("0", f"r{n}").result()
        platform.recorder.log(run.id, [Point("loss", n / 10, 0, 0)], {"depth": str(n)}).result()
    found = platform.search_runs(["0"], "metrics.loss > 0.15 AND params.depth != '3'", ["metrics.loss DESC"], limit=1)
    assert (_names(found), found[1]) == (["r4"], True)  # type: ignore[arg-type]
    platform.recorder.log(run.id, [Point("loss", 0.0, 1, 1)]).result()
    found = platform.search_runs(["0"], "metrics.loss > 0.15", ["metrics.loss DESC"])
    assert (_names(found), found[1]) == (["r3", "r2"], False)  # type: ignore[arg-type]
    assert platform.search_runs([]) == ([], False)
