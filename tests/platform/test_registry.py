"""The registry's acts: who may do what, what the rest of the home sees of it, and many at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.platform import Platform
from flyball.testing.ledger import together


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path / "home")) as opened:
        yield opened


def test_a_registered_model_is_a_resource_with_versions_and_aliases(platform: Platform) -> None:
    platform.create_model("late ✈", {"team": "ops"}, "what it is")
    run = platform.recorder.create_run(name="fit").result()
    made = platform.create_version("late ✈", "s3://b/x", run=run.id)
    platform.set_alias("late ✈", "champion", 1)
    ref = "model/late%20%E2%9C%88"
    assert platform.resource(ref).spec == {"promotion": "by hand"}
    assert platform.version(f"{ref}@champion") == made.made
    assert f"run/{run.id}" in platform.lineage(made.made.ref).nodes
    assert {hit.name for hit in platform.search("what it is").hits} == {"late ✈"}
    assert {hit.name for hit in platform.search("tag:ops").hits} == {"late ✈"}
    platform.verify_journal()


def test_nobody_appoints_a_version_of_a_model_that_is_promoted_by_hand(platform: Platform) -> None:
    for name, spec in (("by-hand", None), ("itself", {})):
        if spec is None:
            platform.create_model(name)
        else:
            with platform.ledger.write("user/a") as world:
                world.resources.apply("model", name, spec)
        platform.create_version(name, "s3://b/x")
    platform.loop().settle()
    assert platform.aliases("model", "by-hand") == {}
    assert platform.aliases("model", "itself") == {"champion": 1}


def test_a_run_that_is_not_here_is_told_but_not_linked(platform: Platform) -> None:
    platform.create_model("m")
    made = platform.create_version("m", "s3://b/x", run="of another server/1")
    assert (made.run, made.made.run) == ("of another server/1", None)
    assert platform.lineage(made.made.ref).edges == ()


def test_a_model_that_something_refers_to_is_neither_renamed_nor_deleted(platform: Platform) -> None:
    platform.create_model("m")
    platform.create_version("m", "s3://b/x")
    platform.set_alias("m", "champion", 1)
    with platform.ledger.write("user/a") as world:
        world.resources.apply("deployment", "d", {"model": "m"})
    for act in (lambda: platform.rename_model("m", "n"), lambda: platform.delete_model("m")):
        with pytest.raises(Conflict, match="deployment/d"):
            act()
    assert platform.model("m").aliases == {"champion": 1}


def test_viewers_only_look(platform: Platform) -> None:
    platform.create_model("m")
    platform.create_version("m", "s3://b/x")
    viewer = platform.as_(Principal("user/v", "viewer"))
    assert viewer.model("m").latest[0].number == 1
    for act in (
        lambda: viewer.create_model("n"),
        lambda: viewer.tag_model("m", "k", "v"),
        lambda: viewer.create_version("m", "s3://b/x"),
        lambda: viewer.set_alias("m", "champion", 1),
        lambda: viewer.set_stage("m", 1, "Staging"),
        lambda: viewer.delete_version("m", 1),
        lambda: viewer.delete_model("m"),
    ):
        with pytest.raises(Forbidden):
            act()


def test_many_at_once_get_a_version_each_and_one_of_them_makes_the_model(platform: Platform) -> None:
    made = together(6, lambda _n: platform.create_model("m"))
    assert sum(isinstance(one, Conflict) for one in made) == 5
    versions = together(12, lambda n: platform.create_version("m", f"s3://b/{n}").number)
    assert sorted(versions, key=str) == sorted(range(1, 13), key=str)


def test_what_does_not_fit_is_refused_and_nothing_is_written(platform: Platform) -> None:
    platform.create_model("m")
    before = platform.last_event()
    with pytest.raises(InvalidInput, match="too long"):
        platform.create_model("日" * 100)
    with pytest.raises(InvalidInput):
        platform.tag_model("m", "", "v")
    with pytest.raises(NotFound):
        platform.create_version("m", "models:/m-" + "0" * 32)
    with pytest.raises(NotFound):
        platform.create_version("nobody", "s3://b/x")
    assert platform.last_event() == before
