"""The life of a batch that was kept aside: every way out, each once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.data.checking import FAILED_COLUMN
from flyball.data.datasets import ContractBroken
from flyball.data.kinds import Dataset
from flyball.data.quarantine import Quarantine
from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound
from flyball.ledger.refs import ref
from flyball.platform import Platform

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "people",
    "version": "1.0.0",
    "schema": [
        {
            "name": "people",
            "properties": [
                {"name": "age", "logicalType": "integer", "required": True, "logicalTypeOptions": {"minimum": 0}},
                {"name": "name", "logicalType": "string", "unique": True},
            ],
        }
    ],
}
GOOD = {"age": [1, 2], "name": ["a", "b"]}
BAD = {"age": [3, -4], "name": ["c", "d"]}
WHY = "the negative age is agreed with the clinic"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    opened.declare("Dataset", "people", contract=CONTRACT)
    yield opened
    opened.close()


def quarantine(platform: Platform, **options: Any) -> Quarantine:
    def contract_of(name: str) -> Any:
        with platform.ledger.read() as world:
            spec = Dataset.model_validate(world.resources.get("dataset", name).spec)
        return platform.datasets.agreements.of(name, spec)

    doomed = platform.home / "doomed"
    return Quarantine(platform.ledger, platform.tables, platform.blobs, contract_of, doomed, **options)


def refused(platform: Platform, rows: Any = None, **options: Any) -> None:
    with pytest.raises(ContractBroken):
        platform.publish("people", rows or BAD, **options)


def test_each_row_says_why_it_was_kept_aside(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform, {"age": [3, -4, -5], "name": ["c", "d", "d"]})
    held = quarantine(platform).get("people")
    assert (held.state, held.rows, held.is_part, str(held.ref)) == ("held", 3, False, "quarantine/people@1")
    bad = quarantine(platform).inspect("people").collect()
    assert bad[FAILED_COLUMN].to_list() == [["age.range", "name.unique"]] * 2
    whole = quarantine(platform).inspect("people", 1, failing=False).collect()
    assert whole["age"].to_list() == [3, -4, -5] and whole[FAILED_COLUMN].to_list()[0] == []
    with pytest.raises(NotFound):
        quarantine(platform).inspect("people", 2)


@pytest.mark.parametrize(
    "change",
    [
        {"age": pl.col("age").abs()},
        lambda rows: rows.filter(pl.col("age") >= 0),
        pl.DataFrame({"age": [3, 4], "name": ["c", "d"]}),
        pl.LazyFrame({"age": [3], "name": ["c"]}),
    ],
)
def test_a_change_that_keeps_the_contract_is_published_with_its_lineage(platform: Platform, change: Any) -> None:
    platform.publish("people", GOOD)
    refused(platform)
    made = quarantine(platform).fix("people", 1, change, actor="user/ada", reason="sign lost")
    assert str(made.ref) == "dataset/people@2" and made.metadata["contract"]["passed"]
    assert platform.frame("people").collect()["age"].to_list() in ([3, 4], [3])
    held = quarantine(platform).get("people", 1)
    assert (held.state, held.actor, held.outcome, held.reason) == ("fixed", "user/ada", str(made.ref), "sign lost")
    assert held.at is not None and held.report["passed"] is False
    with platform.ledger.read() as world:
        graph = world.lineage.walk(ref("dataset/people@2"), "upstream")
        assert any("quarantine" in str(edge) and "fixed from" in str(edge) for edge in graph.edges)
        assert world.journal.find(ref="quarantine/people@1")[0].action == "fixed"


def test_a_change_that_does_not_help_leaves_it_held(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform)
    room = quarantine(platform)
    with pytest.raises(ContractBroken, match=r"still breaks 1 of .* held as it was") as caught:
        room.fix("people", 1, {"age": pl.col("age") * 2}, actor="user/ada")
    assert caught.value.report.failures[0].id == "age.range"
    for change, message in (({"agee": pl.lit(1)}, 'did you mean "age"'), (lambda _: 3, "gave a int"),
                            (lambda rows: rows.head(0), "no rows")):  # fmt: skip
        with pytest.raises(InvalidInput, match=message):
            room.fix("people", 1, change, actor="user/ada")
    assert room.get("people").state == "held" and platform.frame("people").collect().to_dict(as_series=False) == GOOD


def test_only_a_person_with_a_reason_may_release(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform)
    room = quarantine(platform)
    with pytest.raises(Forbidden, match="a person must"):
        room.release("people", 1, actor="controller/trigger", reason=WHY)
    for empty in ("", "  ", "ok", "..."):
        with pytest.raises(InvalidInput, match="a reason is needed"):
            room.release("people", 1, actor="user/ada", reason=empty)
    made = room.release("people", 1, actor="user/ada", reason=WHY)
    assert platform.frame("people").collect().to_dict(as_series=False) == BAD
    assert made.actor == "user/ada" and WHY in made.metadata["note"] and made.metadata["contract"]["passed"] is False
    assert room.get("people").state == "released"


def test_rows_that_were_split_off_go_back_behind_the_good_ones(platform: Platform) -> None:
    platform.declare("Dataset", "people", contract=CONTRACT, on_failure="split")
    platform.publish("people", {"age": [1, -2, 3], "name": ["a", "b", "c"]})
    room = quarantine(platform)
    assert room.get("people").is_part
    with pytest.raises(ContractBroken, match=r"name.unique"):
        room.fix("people", 1, {"age": pl.lit(7), "name": pl.lit("a")}, actor="user/ada")
    room.fix("people", 1, {"age": pl.col("age").abs()}, actor="user/ada")
    rows = platform.frame("people").collect()
    assert rows.columns == ["age", "name"] and rows["age"].to_list() == [1, 3, 2]


def test_dropped_rows_are_gone_from_the_disk_and_the_report_stays(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform)
    before = set(platform.blobs.digests())
    with platform.ledger.read() as world:
        table = platform.tables.read(world.versions.get("quarantine", "people").digest)
    room = quarantine(platform)
    with pytest.raises(InvalidInput, match="a reason is needed"):
        room.drop("people", 1, actor="user/ada", reason="")
    gone = room.drop("people", 1, actor="user/ada", reason="a test feed, not data")
    assert (gone.state, gone.rows, gone.reason) == ("dropped", 0, "a test feed, not data")
    assert not {table.digest, *(part.digest for part in table.parts)} & set(platform.blobs.digests()) and before
    assert gone.report["rows_failed"] == 1 and all(r["sample"] == [] for r in gone.report["results"])
    with pytest.raises(InvalidInput, match="were dropped by user/ada"):
        room.inspect("people", 1)
    assert platform.frame("people").collect().to_dict(as_series=False) == GOOD
    with pytest.raises(Conflict, match="was dropped by user/ada"):
        room.drop("people", 1, actor="user/ada", reason="a test feed, not data")


def test_blobs_that_a_good_version_shares_are_not_deleted(platform: Platform) -> None:
    refused(platform)
    platform.declare("Dataset", "people", contract=None)
    platform.publish("people", BAD)  # the same rows, the same blobs
    quarantine(platform).drop("people", 1, actor="user/ada", reason="published without contract")
    assert platform.frame("people").collect().to_dict(as_series=False) == BAD


def test_every_decision_is_taken_once(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform)
    room = quarantine(platform)
    room.release("people", 1, actor="user/ada", reason=WHY)
    with pytest.raises(Conflict, match="was released by user/ada, as dataset/people@2"):
        room.release("people", 1, actor="user/bob", reason=WHY)
    with pytest.raises(Conflict):
        room.fix("people", 1, {"age": pl.lit(1)}, actor="user/bob")
    with pytest.raises(Conflict):
        room.drop("people", 1, actor="user/bob", reason=WHY)


def test_of_many_at_once_one_decides(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform)

    def act(number: int) -> str:
        room = quarantine(platform)
        try:
            if number % 3 == 0:
                room.release("people", 1, actor=f"user/u{number}", reason=WHY)
            elif number % 3 == 1:
                room.fix("people", 1, {"age": pl.col("age").abs()}, actor=f"user/u{number}")
            else:
                room.drop("people", 1, actor=f"user/u{number}", reason=WHY)
        except Conflict:
            return "late"
        except (InvalidInput, NotFound):  # its rows were dropped while it was looking
            return "late"
        return "done"

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(act, range(6)))
    assert told.count("done") == 1
    with platform.ledger.read() as world:
        acts = [
            e for e in world.journal.find(ref="quarantine/people@1") if e.action in ("fixed", "released", "dropped")
        ]
        published = world.versions.all("dataset", "people")
    assert len(acts) == 1
    assert len(published) == (1 if acts[0].action == "dropped" else 2)


def test_two_batches_put_behind_the_newest_at_once_are_both_there(platform: Platform) -> None:
    platform.publish("people", GOOD)
    refused(platform, {"age": [-3], "name": ["c"]})
    refused(platform, {"age": [-4], "name": ["d"]})

    def fix(number: int) -> str:
        change = {"age": pl.col("age").abs()}
        return str(quarantine(platform).fix("people", number, change, actor="user/ada", mode="append").ref)

    with ThreadPoolExecutor(2) as pool:
        made = sorted(pool.map(fix, [1, 2]))
    assert made == ["dataset/people@2", "dataset/people@3"]
    assert sorted(platform.frame("people").collect()["age"].to_list()) == [1, 2, 3, 4]


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("act", ["fix", "release", "drop"])
def test_a_crash_before_the_transaction_ends_leaves_it_held(
    platform: Platform, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.publish("people", GOOD)
    refused(platform)
    from flyball.ledger.sql.versions import SqlVersions

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    monkeypatch.setattr(SqlVersions, "rewrite", killed)
    room = quarantine(platform)
    with pytest.raises(Killed):
        if act == "fix":
            room.fix("people", 1, {"age": pl.col("age").abs()}, actor="user/ada")
        else:
            getattr(room, act)("people", 1, actor="user/ada", reason=WHY)
    monkeypatch.undo()
    again = quarantine(platform)
    assert again.get("people").state == "held"
    assert platform.frame("people").collect().to_dict(as_series=False) == GOOD
    assert again.inspect("people", failing=False).collect()["age"].to_list() == BAD["age"]
    again.drop("people", 1, actor="user/ada", reason=WHY)


def test_a_crash_before_the_bytes_are_deleted_is_made_good_by_doing_it_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(platform)
    room = quarantine(platform)
    with platform.ledger.read() as world:
        digest = world.versions.get("quarantine", "people").digest

    def killed(_: Any) -> None:
        raise Killed

    monkeypatch.setattr(room, "_collect", killed)
    with pytest.raises(Killed):
        room.drop("people", 1, actor="user/ada", reason=WHY)
    assert quarantine(platform).get("people").state == "dropped" and platform.blobs.has(digest)
    quarantine(platform).drop("people", 1, actor="user/ada", reason=WHY)
    assert not platform.blobs.has(digest)


def test_batches_are_listed_by_state(platform: Platform) -> None:
    for age in (-1, -2, -3):
        refused(platform, {"age": [age], "name": ["x"]})
    room = quarantine(platform)
    room.drop("people", 2, actor="user/ada", reason=WHY)
    assert [held.version.number for held in room.all()] == [3, 2, 1]
    assert [held.version.number for held in room.all("people", "held")] == [3, 1]
    assert [held.version.number for held in room.all(state="dropped")] == [2]
    assert room.all("nobody") == [] and len(room.all(limit=1)) == 1
    with pytest.raises(InvalidInput, match='did you mean "held"'):
        room.all(state="helt")  # type: ignore[arg-type]


def test_without_a_contract_rows_have_nothing_to_answer_for(platform: Platform) -> None:
    refused(platform)
    platform.declare("Dataset", "people", contract=None)
    room = quarantine(platform)
    assert room.inspect("people").collect().height == 0
    assert room.inspect("people", failing=False).collect().height == 2
    assert str(room.fix("people", 1, lambda rows: rows, actor="user/ada").ref) == "dataset/people@1"
