"""What every ledger must do with files, logged models and removal: subclass and give it a `ledger` fixture."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest

from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.ledger.artifacts import NOBODY, Entry
from flyball.ledger.logged_models import ModelCondition, ModelOrder, ModelPoint
from flyball.ledger.points import Point
from flyball.ledger.refs import Ref
from flyball.ledger.removal import Marked
from flyball.ledger.runs import Artifact
from flyball.ledger.sql.database import SqlLedger

__all__ = ["FileCases", "ModelCases", "RemovalCases"]

ME = "user/a"
D1, D2 = "1" * 64, "2" * 64


def keep(ledger: SqlLedger, owner: str, *paths: str) -> None:
    with ledger.write(ME) as world:
        for path in paths:
            world.artifacts.keep(owner, Artifact(path, D1, len(path)))


class FileCases:
    """Cases of `Artifacts`."""

    def test_a_listing_is_what_a_file_system_would_show(self, ledger: SqlLedger) -> None:
        names = ["a", "a-b", "a.b", "a0", "A", "é", "e\u0301", "日本", "z z", "~", "_", "Ä", "!"]
        chosen = random.Random(7)
        paths: set[str] = set()
        while len(paths) < 120:
            path = "/".join(chosen.choice(names) for _ in range(chosen.randint(1, 4)))
            folders = {str(parent) for parent in PurePosixPath(path).parents}
            if not folders & paths and not any(other.startswith(f"{path}/") for other in paths):
                paths.add(path)
        keep(ledger, "r", *paths)
        keep(ledger, "other", "a/of another", "zz")
        for folder in ["", *{str(p) for path in paths for p in PurePosixPath(path).parents} - {"."}]:
            prefix = f"{folder}/" if folder else ""
            below = [path[len(prefix) :] for path in paths if path.startswith(prefix)]
            expected = sorted(
                {
                    Entry(n, True) if "/" in p else Entry(n, False, D1, len(prefix + p))
                    for p in below
                    for n in [p.split("/")[0]]
                }
            )
            with ledger.read() as world:
                assert world.artifacts.listing("r", folder) == expected, folder

    def test_a_page_that_ends_within_a_folder_or_between_files_loses_nothing(self, ledger: SqlLedger) -> None:
        many = [f"big/{number:05d}" for number in range(520)]
        keep(ledger, "r", "a", "big-", *many, "c/d/e", "z")
        with ledger.read() as world:
            assert [e.name for e in world.artifacts.listing("r")] == ["a", "big", "big-", "c", "z"]
            assert [f"big/{e.name}" for e in world.artifacts.listing("r", "big")] == many
            assert world.artifacts.listing("r", "nothing") == world.artifacts.listing("x") == []
            first = world.artifacts.below("r", "big", limit=300)
            assert [f.path for f in first + world.artifacts.below("r", "big", after=first[-1].path)] == many

    def test_a_file_is_no_folder_and_a_folder_no_file(self, ledger: SqlLedger) -> None:
        keep(ledger, "r", "a/b", "c")
        with ledger.write(ME) as world:
            with pytest.raises(Conflict, match="'a' is a folder"):
                world.artifacts.keep("r", Artifact("a", D1, 1))
            with pytest.raises(Conflict, match="'c' is a file"):
                world.artifacts.keep("r", Artifact("c/d/e", D1, 1))
            world.artifacts.keep("s", Artifact("a", D1, 1))
            world.artifacts.keep("r", Artifact("a/b", D2, 9))
            assert world.artifacts.get("r", "a/b") == Artifact("a/b", D2, 9)
            assert world.artifacts.get("r", "a") is None

    def test_removing_takes_a_file_or_a_folder_and_nothing_beside_it(self, ledger: SqlLedger) -> None:
        keep(ledger, "r", "a/b/c", "a/b/d", "a/bc", "a/b-", "e")
        with ledger.write(ME) as world:
            assert world.artifacts.remove("r", "a/b") == 2
            assert [f.path for f in world.artifacts.below("r")] == ["a/b-", "a/bc", "e"]
            assert world.artifacts.remove("r", "e") == 1
            assert world.artifacts.remove("r", "e") == 0
            assert world.artifacts.size("r") == (2, 8)
            assert world.artifacts.remove("r") == 2
            assert list(world.artifacts.digests()) == []

    def test_the_address_of_a_tree_is_below_that_of_its_experiment(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            mine = world.experiments.create("mine", artifact_location="s3://bucket/place/").id
            run = world.runs.start("training", "x").id
            far = world.runs.start("training", "y", experiment=mine).id
            model = world.logged_models.create("0", "net").id
            assert world.artifacts.location(run) == f"mlflow-artifacts:/0/{run}/artifacts"
            assert world.artifacts.location(far) == f"s3://bucket/place/{far}/artifacts"
            assert world.artifacts.location(model) == f"mlflow-artifacts:/0/models/{model}/artifacts"
            assert world.artifacts.location("0" * 32) is None
            for owner in (run, far, model):
                world.artifacts.keep(owner, Artifact("f", D1, 1))
            assert world.artifacts.experiments() == ["0", mine]
            assert world.artifacts.owners("0") == [run, model]


class ModelCases:
    """Cases of `LoggedModels`."""

    def test_a_model_waits_is_ready_and_is_deleted(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            made = world.logged_models.create("0", "net", type="sk", params={"a": "1"}, tags={"t": "x"})
            assert (made.status, made.params, made.tags, made.points) == ("pending", {"a": "1"}, {"t": "x"}, ())
            changed = world.logged_models.update(made.id, status="ready", params={"b": ""}, tags={"t": "y"})
            assert (changed.status, changed.params, changed.tags) == ("ready", {"a": "1", "b": ""}, {"t": "y"})
            with pytest.raises(Conflict, match="cannot become"):
                world.logged_models.update(made.id, params={"a": "2"})
            assert world.logged_models.update(made.id, without_tag="t").tags == {}
            with pytest.raises(NotFound, match="No tag with key 't'"):
                world.logged_models.update(made.id, without_tag="t")
            world.logged_models.discard(made.id)
            with pytest.raises(NotFound):
                world.logged_models.get(made.id)
            assert world.logged_models.get(made.id, deleted=True).deleted_at is not None
            assert world.logged_models.search(["0"]) == ([], False)
            told = [event.action for event in world.journal.find(ref=str(made.ref))]
            assert told == ["deleted", "ready", "logged"]

    def test_a_model_needs_an_experiment_that_is_there(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            gone = world.experiments.create("gone").id
            world.experiments.discard(gone)
            with pytest.raises(Conflict):
                world.logged_models.create(gone, "net")
            with pytest.raises(NotFound):
                world.logged_models.create("999", "net")
            with pytest.raises(InvalidInput):
                world.logged_models.create("abc", "net")

    def test_repeats_of_a_point_are_one_and_nan_comes_back(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            model = world.logged_models.create("0", "net").id
            point = ModelPoint(model, "loss", math.nan, 1, 5, "r", "flights", "d1")
            for _ in range(2):
                world.logged_models.log([point, point, point._replace(value=0.0), point._replace(dataset="trains")])
            world.logged_models.log([point._replace(key="big", value=math.inf), point._replace(key="zero", value=-0.0)])
            world.logged_models.log([point._replace(key="zero", value=0.0)])
            kept = world.logged_models.get(model).points
            assert len(kept) == 5
            assert math.isnan(next(p.value for p in kept if p.key == "loss" and p.value != 0))
            assert [p.value for p in kept if p.key == "big"] == [1.7976931348623157e308]
            with pytest.raises(NotFound, match="m-none"):
                world.logged_models.log([point._replace(model="m-none")])

    def test_a_search_finds_and_orders_as_asked(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            made = {
                name: world.logged_models.create("0", name, type=kind, tags={"n": str(place)}, created_ms=1000 + place)
                for place, (name, kind) in enumerate((("a", "sk"), ("b", None), ("c", "xgb"), ("d", "sk")))
            }

            def point(name: str, key: str, value: float, at: int = 1, **more: str) -> ModelPoint:
                return ModelPoint(made[name].id, key, value, 0, at, "r", **more)

            world.logged_models.log([point("a", "acc", 0.9, 1), point("a", "acc", 0.1, 2), point("b", "acc", math.nan)])
            world.logged_models.log([point("c", "acc", 0.5, dataset="x", digest="1"), point("c", "loss", 2.0)])

            def names(*conditions: ModelCondition, **more: object) -> str:
                found, _ = world.logged_models.search(["0"], conditions, **more)  # type: ignore[arg-type]
                return "".join(model.name for model in found)

            def metric(key: str, operator: str, value: float) -> ModelCondition:
                return ModelCondition("metric", key, operator, value, lambda _: True)

            assert names() == "dcba"
            assert names(metric("acc", ">", 0.4)) == "ca"
            assert names(metric("acc", "!=", 0.5)) == "ba"  # NaN differs from every number
            assert names(metric("acc", ">", 0.4), metric("loss", "<", 3)) == "c"
            assert names(datasets=[("x", None)]) == names(datasets=[("x", "1")]) == "c"
            assert names(datasets=[("x", "2")]) == ""
            assert names(metric("loss", ">", 0), datasets=[("x", None)]) == ""
            assert names(order=[ModelOrder("metric", "acc")]) == "acbd"  # newest by time; NaN, then missing last
            assert names(order=[ModelOrder("metric", "acc", False)]) == "cabd"
            assert names(order=[ModelOrder("metric", "acc", True, "x")]) == "cdba"
            assert names(order=[ModelOrder("attribute", "type"), ModelOrder("attribute", "name")]) == "adcb"
            assert names(ModelCondition("attribute", "created_ms", ">=", 1002, lambda _: True)) == "dc"
            assert names(ModelCondition("tag", "n", "=", "1", lambda v: v == "1")) == "b"
            assert names(ModelCondition("attribute", "type", "=", "sk", lambda v: v == "sk")) == "da"
            is_sk = ModelCondition("attribute", "type", "=", "sk", lambda v: v == "sk")
            pages = [world.logged_models.search(["0"], [is_sk], limit=1, offset=n) for n in range(3)]
            assert [("".join(m.name for m in found), more) for found, more in pages] == [
                ("d", True),
                ("a", False),
                ("", False),
            ]
            plain = [world.logged_models.search(["0"], limit=3, offset=n) for n in (0, 3)]
            assert [("".join(m.name for m in found), more) for found, more in plain] == [("dcb", True), ("a", False)]
            assert world.logged_models.search(["7"]) == ([], False)


class RemovalCases:
    """Cases of `Removal`."""

    def test_a_run_goes_with_everything_but_its_place_in_lineage(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            data, run = Ref("dataset", "flights", "1"), world.runs.start("training", "fit")
            stays = world.runs.start("training", "stays")
            model = world.logged_models.create("0", "net", run=run.id)
            world.lineage.link(data, run.ref, "used by")
            world.runs.record(run.id, points=[Point("loss", 0.5, 1, 1), Point("loss", 0.4, 2, 2)])
            world.logged_models.log([ModelPoint(model.id, "acc", 0.5, 0, 1, run.id)])
            world.artifacts.keep(run.id, Artifact("a/b", D1, 7))
            world.artifacts.keep(stays.id, Artifact("a/b", D1, 7))
            assert list(world.removal.marked("run")) == []
            world.runs.discard(run.id)
        with ledger.write(ME) as world:
            (marked,) = world.removal.marked("run")
            assert (marked.id, marked.name, marked.files, marked.size_bytes) == (run.id, "fit", 1, 7)
            (stone,) = world.removal.remove([marked, marked])
            assert world.removal.remove([marked]) == []
        with ledger.read() as world:
            with pytest.raises(NotFound):
                world.runs.get(run.id)
            assert world.points.history(run.id, "loss") == []
            assert world.logged_models.get(model.id).points == ()
            assert list(world.artifacts.digests()) == [(stays.id, D1)]
            assert [edge.target for edge in world.lineage.around(data)] == [str(run.ref)]
            assert world.removal.tombstone(str(run.ref)) == stone
            assert world.removal.tombstone(str(stays.ref)) is None
            event = world.journal.get(stone.event)
            assert (event.action, event.ref, event.detail["files"]) == ("removed", str(run.ref), 1)
            assert world.journal.verify() > 0

    def test_what_was_restored_meanwhile_stays(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            run = world.runs.start("training", "fit")
            world.runs.discard(run.id)
            (marked,) = world.removal.marked("run")
            world.runs.restore(run.id)
            assert world.removal.remove([marked]) == []
            world.runs.discard(run.id)
            old = marked._replace(deleted_at=datetime(2001, 1, 1, tzinfo=UTC))
            assert world.removal.remove([old]) == []
            assert world.runs.get(run.id).is_deleted

    def test_an_experiment_goes_when_nothing_is_left_in_it_and_the_default_never(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            experiment = world.experiments.create("gone")
            run = world.runs.start("training", "fit", experiment=experiment.id)
            model = world.logged_models.create(experiment.id, "net")
            world.artifacts.keep(NOBODY, Artifact(f"{experiment.id}/traces/tr-1/artifacts/t.json", D1, 1))
            world.artifacts.keep(NOBODY, Artifact(f"{experiment.id}0/other", D1, 1))
            for id in (experiment.id, "0"):
                world.experiments.discard(id)
        with ledger.write(ME) as world:
            (marked,) = world.removal.marked("experiment")
            assert marked.id == experiment.id
            assert sorted(world.removal.contents(experiment.id)) == sorted([run.id, model.id])
            assert world.removal.remove([marked]) == []
            within: list[Marked] = [*world.removal.marked("run"), *world.removal.marked("logged-model")]
            assert [one.id for one in within] == [run.id, model.id]
            assert len(world.removal.remove(within)) == 2
            assert len(world.removal.remove([marked])) == 1
        with ledger.read() as world:
            with pytest.raises(NotFound):
                world.experiments.get(experiment.id)
            assert world.experiments.get("0").is_deleted
            assert [f.path for f in world.artifacts.below(NOBODY)] == [f"{experiment.id}0/other"]
