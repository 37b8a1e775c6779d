"""Cards and risk assessments of versions: edited by people, every edit kept, and asked for by stages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.models.card import CardText, markdown
from flyball.platform import Platform
from tests.web.lifecycle_home import ANSWERS


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home", Principal("user/root", "admin"))
    opened.declare("Dataset", "flights", description="departures")
    stages = [
        {"name": "lab"},
        {"name": "field", "requires": ["card", "risk"], "alias": "champion"},
        {"name": "vault", "requires": ["signature"]},
    ]
    opened.declare("Model", "late", description="late or not", stages=stages, promotion="by hand")
    with opened.ledger.write("user/ann") as world:
        world.versions.publish("model", "late", "a" * 64, metadata={"trained_on": "dataset/flights@1"})
    yield opened
    opened.close()


def test_every_edit_of_a_card_is_kept_and_figures_are_made_anew(platform: Platform) -> None:
    ann, bob = (platform.as_(Principal(f"user/{name}", "editor")) for name in ("ann", "bob"))
    assert platform.card("late").revision == 0
    ann.write_card("late@1", {"limits": "only winter", "licence": "mit"}, [CardText("More", "text")], "first")
    bob.write_card("late@1", {"limits": "all seasons"}, note="measured in June")
    same = bob.write_card("late@1", {"limits": "all seasons"})
    assert (same.revision, dict(same.texts)) == (2, {"limits": "all seasons", "licence": "mit"})
    assert platform.card("late@1", 1).texts["limits"] == "only winter"
    assert [(p.revision, p.actor, p.note) for p in platform.card_edits("late@1")] == [
        (2, "user/bob", "measured in June"), (1, "user/ann", "first")
    ]  # fmt: skip
    assert bob.write_card("late@1", {"licence": ""}, []).texts == {"limits": "all seasons"}
    text = markdown(platform.card("late@1"))
    assert "late or not" in text and "- What it is: departures" in text and "- Stage: lab" in text
    told = platform.sentences(platform.events(ref="model/late@1", action="card written"))
    assert told[1] == "bob wrote edit 2 of the model card of late@1: measured in June"
    with pytest.raises(NotFound, match="has no edit 9"):
        platform.card("late@1", 9)


def test_of_two_that_edit_the_same_card_the_second_is_told(platform: Platform) -> None:
    platform.write_card("late@1", {"limits": "x"}, after=0)
    with pytest.raises(Conflict, match="the card of late@1 has edit 1 by user/root by now, not 0"):
        platform.write_card("late@1", {"limits": "y"}, after=0)
    errors: list[Exception] = []

    def write(number: int) -> None:
        try:
            platform.write_card("late@1", {"limits": f"limit {number}"})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and [p.revision for p in platform.card_edits("late@1")] == list(range(9, 0, -1))


def test_a_viewer_reads_cards_and_assessments_and_writes_none(platform: Platform) -> None:
    vera = platform.as_(Principal("user/vera", "viewer"))
    assert vera.card("late@1").title == "late@1" and len(vera.risk("late").missing) == 10
    for act in (lambda: vera.write_card("late@1", {}), lambda: vera.assess_risk("late@1", {})):
        with pytest.raises(Forbidden, match="is viewer and may not write"):
            act()


def test_a_stage_waits_for_card_and_risk_and_the_sentence_says_what_is_missing(platform: Platform) -> None:
    with pytest.raises(Conflict, match="card: nobody wrote intended_use, limits, licence, owner: flyball card late@1"):
        platform.promote("late@1", "field")
    platform.write_card("late@1", {"intended_use": "a", "limits": "b", "licence": "mit", "owner": "ops"})
    with pytest.raises(Conflict, match="risk: it was not assessed"):
        platform.promote("late@1", "field")
    form = platform.assess_risk("late@1", {**ANSWERS, "residual": "high, not accepted"})
    assert form.missing == ("residual is 'high, not accepted'",)
    with pytest.raises(Conflict, match="risk: residual is 'high, not accepted'"):
        platform.promote("late@1", "field")
    platform.assess_risk("late@1", {"residual": "low"}, "accepted by the board")
    assert platform.promote("late@1", "field").state == "approved"
    assert [p.revision for p in platform.risk_edits("late@1")] == [2, 1]
    assert platform.risk("late@1", 1).answers["residual"] == "high, not accepted"
    with pytest.raises(Conflict, match="signature: no trusted key signed it: flyball model sign late@1"):
        platform.promote("late@1", "vault")


def test_an_answer_to_a_question_that_is_gone_stays_in_the_edits(platform: Platform) -> None:
    platform.assess_risk("late@1", ANSWERS)
    own = {"with_default": False, "questions": [{"id": "noise", "ask": "Is it loud?"}]}
    platform.declare("Model", "late", promotion="by hand", risk=own)
    assert platform.assess_risk("late@1", {"noise": "no"}).answers == {"noise": "no"}
    assert platform.risk_edits("late@1")[1].content["answers"] == ANSWERS
    with pytest.raises(InvalidInput, match="no risk question"):
        platform.assess_risk("late@1", {"residual": "low"})


def test_what_was_written_moves_with_a_model_that_gets_another_name(platform: Platform) -> None:
    platform.write_card("late@1", {"limits": "x"})
    platform.rename_model("late", "tardy")
    assert platform.card("tardy@1").texts == {"limits": "x"}
