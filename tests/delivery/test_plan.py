"""Documents, plans and applying them, over a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.delivery.documents import document, read_documents, write_documents
from flyball.errors import Conflict, InvalidInput
from flyball.platform import Platform

DECLARED = """
kind: Deployment
name: late
model: late@champion
rollout: {steps: [10, 50]}
---
kind: Model
name: late
dataset: flights
gates: [{metric: auc, at_least: 0.68}]
---
kind: Dataset
name: flights
"""


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    path = tmp_path / "flyball.yaml"
    path.write_text(DECLARED, encoding="utf-8")
    return path


def test_a_plan_creates_each_thing_after_what_it_refers_to(platform: Platform, declared: Path) -> None:
    plan = platform.plan(read_documents([declared]))
    assert [(c.action, str(c.document.ref)) for c in plan.changes] == [
        ("create", "dataset/flights"),
        ("create", "model/late"),
        ("create", "deployment/late"),
    ]
    assert platform.resources() == []


def test_applying_twice_changes_nothing_the_second_time(platform: Platform, declared: Path) -> None:
    platform.apply(read_documents([declared]))
    events = platform.events()
    assert platform.apply(read_documents([declared])).is_empty
    assert platform.events() == events


def test_a_change_shows_the_field_and_who_looks_again(platform: Platform, declared: Path) -> None:
    platform.apply(read_documents([declared]))
    declared.write_text(DECLARED.replace("0.68", "0.7"), encoding="utf-8")
    change = next(c for c in platform.plan(read_documents([declared])).changes if c.action == "change")
    assert list(change.fields) == ["gates"]
    assert [str(w) for w in change.wakes] == ["deployment/late"]


def test_a_reference_to_nothing_is_refused_and_nothing_is_applied(platform: Platform) -> None:
    documents = [
        document({"kind": "Dataset", "name": "flights"}),
        document({"kind": "Model", "name": "late", "dataset": "flight"}),
    ]
    with pytest.raises(InvalidInput, match=r'refers to dataset/flight, .* did you mean "flights"'):
        platform.apply(documents)
    assert platform.resources() == []


def test_what_is_written_is_read_back(declared: Path, tmp_path: Path) -> None:
    documents = read_documents([declared])
    again = tmp_path / "again.yaml"
    again.write_text(write_documents(documents), encoding="utf-8")
    assert [(d.ref, dict(d.spec)) for d in read_documents([again])] == [(d.ref, dict(d.spec)) for d in documents]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Dataset\nnam: x", "'name' is missing"),
        ("kind: Datset\nname: x", 'did you mean "Dataset"'),
        ("- 1", "expected fields"),
        ("kind: Dataset\nname: x\n  bad: [", "line"),
        ("kind: Deployment\nname: x\nmodle: y", 'unknown field "modle"; did you mean "model"'),
        ("kind: Deployment\nname: x\nmodel: y\nrollout: {steps: [50, 5]}", "steps must rise"),
        ("kind: Deployment\nname: x\nmodel: a b", "cannot be a name"),
        ("kind: Trigger\nname: x\non: [monitor/late.drifting]\nstart: p\nbudget: many", "write it like 3 a day"),
        ("kind: Dataset\nname: x\n---\nkind: Dataset\nname: x", "and again in"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_where(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "flyball.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=sentence) as caught:
        read_documents([path])
    assert "flyball.yaml" in str(caught.value)


def test_on_is_a_word_and_not_true(tmp_path: Path) -> None:
    path = tmp_path / "flyball.yaml"
    path.write_text("kind: Trigger\nname: x\non: [monitor/late.drifting]\nstart: p\npaused: true\n", encoding="utf-8")
    assert read_documents([path])[0].spec == {"on": ["monitor/late.drifting"], "start": "p", "paused": True}


def test_a_field_that_begins_like_a_boolean_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "flyball.yaml"
    path.write_text("kind: Monitor\nname: x\nof: late\ndrift: {false_alarms: 0.02}\n", encoding="utf-8")
    assert read_documents([path])[0].spec["drift"] == {"false_alarms": 0.02}


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "flyball.yaml"
    path.write_bytes(b"kind: Dataset\nname: \xff\xfe")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_documents([path])


def test_a_plan_that_the_world_has_overtaken_is_a_conflict(platform: Platform, declared: Path) -> None:
    from flyball.delivery.plan import carry_out

    plan = platform.plan(read_documents([declared]))
    platform.declare("Dataset", "flights", description="somebody was quicker")
    with pytest.raises(Conflict), platform.ledger.write("user/late") as world:
        carry_out(plan, world)
    assert [r.name for r in platform.resources("model")] == []
