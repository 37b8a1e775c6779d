"""What every ledger must do with notes on models and versions: subclass and give it a `ledger` fixture."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from flyball.errors import Conflict, Forbidden, NotFound
from flyball.ledger.notes import NO_NOTE, NoteCondition, NoteOrder
from flyball.ledger.refs import Ref, ledger_name
from flyball.ledger.sql.database import SqlLedger
from flyball.models.kinds import Model
from flyball.testing.ledger import together

__all__ = ["NoteCases"]

ME = "user/a"
BY_HAND = {"promotion": "by hand"}
assert Model.kind == "model"  # importing it makes the kind known
NAME = ledger_name("late ✈ 10%_a")


def publish(ledger: SqlLedger, name: str = NAME, digest: str = "d", **told: Any) -> int:
    with ledger.write(ME) as world:
        if world.resources.find("model", name) is None:
            world.resources.apply("model", name, BY_HAND)
        made = world.versions.publish("model", name, digest)
        world.notes.change("model", name, made.number, is_new=True, **told)
    return made.number


def equal(kind: str, key: str, value: Any) -> NoteCondition:
    return NoteCondition(kind, key, "=", value, lambda found: bool(found == value))


def test(kind: str, key: str, holds: Callable[[Any], bool]) -> NoteCondition:
    return NoteCondition(kind, key, "LIKE", None, holds)


class NoteCases:
    """Cases of `Notes`."""

    def test_what_is_said_is_read_back_and_each_change_is_an_event(self, ledger: SqlLedger) -> None:
        number = publish(ledger, description="first", tags={"k": "v", "é": ""}, source="s3://b/x", run="r")
        with ledger.write("user/b") as world:
            world.notes.change("model", NAME, number, description="", tags={"k": "w", "é": ""}, remove_tags=["no"])
            world.notes.change("model", NAME, number, remove_tags=["é"], stage="Staging")
            world.notes.change("model", NAME, description="the model")
        with ledger.read() as world:
            note, of_model = world.notes.get("model", NAME, number), world.notes.get("model", NAME)
            events = world.journal.find(ref=f"model/{NAME}@{number}", actor="user/b")
            world.journal.verify()
        assert (note.description, note.tags, note.stage, note.source, note.run) == (
            None, {"k": "w"}, "Staging", "s3://b/x", "r",
        )  # fmt: skip
        assert (of_model.description, of_model.tags) == ("the model", {})
        assert note.updated_at is not None
        assert of_model.updated_at is not None
        assert of_model.updated_at >= note.updated_at
        assert [e.action for e in reversed(events)] == ["described", "tagged", "untagged", "staged"]
        assert events[0].detail == {"from": None, "to": "Staging"}

    def test_saying_the_same_again_writes_nothing(self, ledger: SqlLedger) -> None:
        number = publish(ledger, description="d", tags={"k": "v"})
        with ledger.write(ME) as world:
            before = world.notes.get("model", NAME, number), world.journal.last()
            world.notes.change("model", NAME, number, description="d", tags={"k": "v"}, stage="", remove_tags=["x"])
            assert (world.notes.get("model", NAME, number), world.journal.last()) == before

    def test_nothing_is_said_of_what_is_not_there(self, ledger: SqlLedger) -> None:
        publish(ledger)
        with ledger.write(ME) as world:
            assert world.notes.get("model", "nobody") == NO_NOTE
            for name, number in ((NAME, 9), ("nobody", 1), ("nobody", None)):
                with pytest.raises(NotFound):
                    world.notes.change("model", name, number, description="x")
        with pytest.raises(Forbidden), ledger.read() as world:
            world.notes.change("model", NAME, 1, description="x")

    def test_a_forgotten_version_is_gone_and_its_number_is_never_given_again(self, ledger: SqlLedger) -> None:
        for digest in ("one", "two"):
            publish(ledger, digest=digest, source="s3://secret", run="r", description="x")
        with ledger.write(ME) as world:
            world.versions.set_alias("model", NAME, "champion", 2)
            world.notes.forget("model", NAME, 2)
        with ledger.read() as world:
            assert [v.number for v in world.versions.all("model", NAME)] == [1]
            assert [v.number for v in world.versions.all("model")] == [1]
            assert world.versions.get("model", NAME).number == 1
            assert world.versions.aliases("model", NAME) == {}
            for version in ("2", "champion"):
                with pytest.raises(NotFound):
                    world.versions.get("model", NAME, version)
            assert world.notes.get("model", NAME, 2).source is None
            assert [made.number for made, _ in world.notes.versions("model")[0]] == [1]
            assert world.search.find("is:version").hits[0].name.endswith("@1")
        with pytest.raises(NotFound), ledger.write(ME) as world:
            world.notes.forget("model", NAME, 2)
        assert publish(ledger, digest="two") == 3

    def test_a_dropped_name_begins_at_one_again_without_what_was_said(self, ledger: SqlLedger) -> None:
        publish(ledger, digest="one", tags={"k": "v"}, stage="Staging")
        publish(ledger, digest="two")
        with ledger.write(ME) as world:
            world.lineage.link(Ref("run", "r"), Ref("model", NAME, "1"), "made by")
            world.versions.set_alias("model", NAME, "champion", 1)
            world.notes.change("model", NAME, description="the model")
            world.notes.drop("model", NAME)
            world.resources.apply("model", "other", {})
        with ledger.read() as world:
            assert world.versions.all("model", NAME) == []
            assert world.resources.find("model", NAME) is None
            assert world.lineage.walk(Ref("run", "r")).edges == ()
        assert publish(ledger, digest="new") == 1
        with ledger.read() as world:
            assert world.notes.get("model", NAME).description is None
            assert world.notes.get("model", NAME, 1).tags == {}
            assert world.notes.stage_history("model", NAME) == []
            assert world.versions.aliases("model", NAME) == {}
            world.journal.verify()

    def test_a_renamed_model_keeps_everything_and_takes_nothing_of_names_that_look_alike(
        self, ledger: SqlLedger
    ) -> None:
        for name in ("late", "LATE", "late2"):
            publish(ledger, name, tags={"is": name})
            with ledger.write(ME) as world:
                world.versions.set_alias("model", name, "champion", 1)
                world.lineage.link(Ref("run", name), Ref("model", name, "1"), "made by")
                world.notes.change("model", name, 1, stage="Staging")
                world.notes.change("model", name, description=name)
        with ledger.write(ME) as world:
            world.notes.rename("model", "late", NAME)
        with ledger.read() as world:
            for name, told in ((NAME, "late"), ("LATE", "LATE"), ("late2", "late2")):
                assert world.resources.get("model", name).name == name
                assert world.versions.get("model", name, "champion").number == 1
                assert world.notes.get("model", name).description == told
                assert world.notes.get("model", name, 1).tags == {"is": told}
                assert len(world.notes.stage_history("model", name, 1)) == 1
                edge = world.lineage.walk(Ref("run", told), "downstream").edges[0]
                assert edge.target == f"model/{name}@1"
            assert world.versions.all("model", "late") == []
            assert world.resources.find("model", "late") is None
            assert [hit.name for hit in world.search.find("✈").hits] == ["late ✈ 10%_a", "late ✈ 10%_a@1"]
            assert f"model/{NAME}" in {str(hit.ref) for hit in world.search.find("late").hits}
            assert "model/late" not in {str(hit.ref) for hit in world.search.find("late").hits}
            world.journal.verify()

    def test_a_name_is_not_taken_from_another_or_from_those_who_refer_to_it(self, ledger: SqlLedger) -> None:
        publish(ledger, "late")
        publish(ledger, "later")
        with ledger.write(ME) as world:
            with pytest.raises(Conflict, match="already"):
                world.notes.rename("model", "late", "later")
            with pytest.raises(NotFound):
                world.notes.rename("model", "nobody", "somebody")
            before = world.journal.last()
            assert world.notes.rename("model", "late", "late").name == "late"
            assert world.journal.last() == before

    def test_stages_have_a_history_and_the_newest_of_each_is_known(self, ledger: SqlLedger) -> None:
        for digest in "abcd":
            publish(ledger, digest=digest)
        with ledger.write(ME) as world:
            for number, stage in ((1, "Staging"), (2, "Staging"), (4, "Production"), (4, "")):
                world.notes.change("model", NAME, number, stage=stage)
            world.notes.change("model", NAME, 1, stage="Archived")
        with ledger.read() as world:
            history = world.notes.stage_history("model", NAME)
            assert [(c.number, c.stage) for c in history] == [
                (1, "Staging"), (2, "Staging"), (4, "Production"), (4, None), (1, "Archived"),
            ]  # fmt: skip
            assert [c.stage for c in world.notes.stage_history("model", NAME, 4)] == ["Production", None]
            assert world.notes.newest_by_stage("model", [NAME, "nobody"]) == {NAME: [1, 2, 4]}

    def test_searches_find_what_looking_at_each_would_find(self, ledger: SqlLedger) -> None:
        chosen = random.Random(7)
        letters = ["a", "A", "é", "z z", "10%", "日本", "_", "b"]
        names = [ledger_name(f"{chosen.choice(letters)}{chosen.choice(letters)}{n}") for n in range(24)]
        kept = []
        for name in names:
            for digest in range(chosen.randint(1, 3)):
                tags = {key: chosen.choice(letters) for key in "kl" if chosen.random() < 0.7}
                run, source = chosen.choice(["r1", "r2", ""]), chosen.choice(["s3://a", "s3://b"])
                number = publish(ledger, name, str(digest), tags=tags, run=run, source=source)
                kept.append((name, number, tags, run, source))
        hidden = {name for name, _, tags, _, _ in kept if tags.get("l") == "b"}
        questions: list[tuple[list[NoteCondition], Callable[[Any], bool]]] = [
            ([], lambda _one: True),
            ([equal("tag", "k", "é")], lambda one: one[2].get("k") == "é"),
            ([test("tag", "k", lambda v: v != "a")], lambda one: one[2].get("k", "a") != "a"),
            ([equal("tag", "k", "a"), test("tag", "l", lambda v: v < "b")],
             lambda one: one[2].get("k") == "a" and one[2].get("l", "z") < "b"),
            ([equal("attribute", "run", "r1")], lambda one: one[3] == "r1"),
            ([NoteCondition("attribute", "run", "IN", ("r1", "r2"), lambda v: v in ("r1", "r2"))],
             lambda one: one[3] != ""),
            ([equal("attribute", "source", "s3://b"), equal("attribute", "number", 2)],
             lambda one: one[4] == "s3://b" and one[1] == 2),
            ([test("attribute", "name", lambda v: v.startswith("é"))], lambda one: one[0].startswith("%C3%A9")),
            ([equal("attribute", "name", "nobody")], lambda _one: False),
        ]  # fmt: skip
        with ledger.read() as world:
            for conditions, holds in questions:
                found, more = world.notes.versions("model", conditions, order=[NoteOrder("number", False)], limit=500)
                expected = {(name, number) for name, number, *rest in kept if holds((name, number, *rest))}
                assert {(made.name, made.number) for made, _ in found} == expected
                assert [made.number for made, _ in found] == sorted((n for _, n in expected), reverse=True)
                assert not more
            shown, _ = world.notes.versions("model", without_tag=("l", "b"), limit=500)
            assert {made.name for made, _ in shown} == set(names) - hidden
            paged = [
                (made.name, made.number)
                for offset in range(0, len(kept), 7)
                for made, _ in world.notes.versions("model", limit=7, offset=offset)[0]
            ]
            assert sorted(paged) == sorted((name, number) for name, number, *_ in kept)

    def test_models_are_found_by_name_and_tag_and_sorted_as_people_read_them(self, ledger: SqlLedger) -> None:
        texts = ["z", "Z", "a b", "a", "é", "10%", "日本"]
        with ledger.write(ME) as world:
            for number, text in enumerate(texts):
                world.resources.apply("model", ledger_name(text), {})
                if number % 2:
                    world.notes.change("model", ledger_name(text), tags={"odd": "yes"}, description=text)
        with ledger.read() as world:
            found, more = world.notes.resources("model", limit=4)
            rest, end = world.notes.resources("model", limit=4, offset=4)
            tagged, _ = world.notes.resources("model", [equal("tag", "odd", "yes")], order=[NoteOrder("name", False)])
            plain, _ = world.notes.resources("model", without_tag=("odd", "yes"))
        assert [r.name for r, _ in [*found, *rest]] == [ledger_name(text) for text in sorted(texts)]
        assert (more, end) == (True, False)
        assert [note.description for _, note in tagged] == sorted(texts[1::2], reverse=True)
        assert [r.name for r, _ in plain] == [ledger_name(text) for text in sorted(texts[::2])]

    def test_writers_at_once_lose_nothing(self, ledger: SqlLedger) -> None:
        publish(ledger)

        def tag(number: int) -> None:
            with ledger.write(f"user/{number}") as world:
                world.notes.change("model", NAME, 1, tags={str(number): "x"})

        assert together(6, tag) == [None] * 6
        with ledger.read() as world:
            assert set(world.notes.get("model", NAME, 1).tags) == {str(n) for n in range(6)}
            world.journal.verify()

    def test_an_alias_may_be_any_text_but_a_version(self, ledger: SqlLedger) -> None:
        publish(ledger)
        with ledger.write(ME) as world:
            for alias in ("champion", ledger_name("é"), "%312"):
                world.versions.set_alias("model", NAME, alias, 1)
            assert world.versions.aliases_of("model", [NAME, "nobody"]) == {
                NAME: {"champion": 1, "%C3%A9": 1, "%312": 1}
            }
            assert world.versions.get("model", NAME, "%312").number == 1
