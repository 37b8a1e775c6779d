"""Model cards: generated around what people write, written out, read back; and the form of risk assessments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyball.errors import InvalidInput
from flyball.models.card import UNWRITTEN, Card, CardFacts, CardText, check_texts, hugging_face, markdown, parse
from flyball.models.kinds import CARD_TEXTS, RiskForm
from flyball.models.risk import DEFAULT_QUESTIONS, check_answers, missing_answers, questions_of, risk_class

METADATA: dict[str, Any] = {
    "task": "binary",
    "flavor": "sklearn",
    "metric": "auc",
    "size_bytes": 12_345,
    "note": "all | columns\n## Limits",
    "signature": {"inputs": [{"name": "a|b", "dtype": "float64", "nullable": True}], "outputs": []},
    "evaluation": {
        "rows": 1500,
        "metric": "auc",
        "metrics": {"auc": {"low": 0.7, "value": 0.75, "high": 0.8}, "recall": {"low": 0.1, "value": 0.2, "high": 0.3}},
        "worst_slices": [
            {"column": "c", "value": "<b>x</b>", "rows": 20, "interval": {"low": 0.5, "value": 0.6, "high": 0.7}}
        ],
    },
    "comparison": {"champion": "late@1", "metrics": {"auc": {"verdict": "better", "reason": "by 0.02"}}},
}
FACTS = CardFacts(
    name="late ✈",
    number=2,
    digest="ab" * 32,
    made_by="user/ann",
    made_at="2026-05-01T12:00:00.000000Z",
    stage="staging",
    metadata=METADATA,
    description="arrives late?",
    data={"name": "flights", "version": "12", "rows": 48_210},
    packages={"python": "3.11"},
    risk={"risk_class": "minimal"},
)
TEXTS = {
    "intended_use": "plan gates\n\n```\n## not a heading\n```",
    "limits": "only\n### winter\nrows",
    "licence": "MIT",
}


def test_a_card_is_read_back_as_people_wrote_it() -> None:
    own = (CardText("How to retrain", "call | ann"), CardText("Über uns", "naïve ☃"))
    card = Card(FACTS, TEXTS, own, 3)
    texts, sections = parse(markdown(card))
    assert {name: text for name, text in texts.items() if text} == {**TEXTS, "summary": "arrives late?"}
    assert tuple(sections) == own
    again, _ = parse(hugging_face(card).replace("\n", "\r\n"))
    assert again == texts
    assert parse(markdown(Card(FACTS, texts, own)))[0] == texts


def test_what_is_generated_is_made_anew_whatever_an_edited_file_says() -> None:
    forged = markdown(Card(FACTS, TEXTS)).replace("0.75", "0.99")
    texts, sections = parse(forged)
    assert sections == []
    assert "0.99" not in markdown(Card(FACTS, texts)) and "| **auc** | 0.75 | [0.7, 0.8] |" in markdown(
        Card(FACTS, texts)
    )


def test_values_that_others_chose_make_no_markup() -> None:
    text = markdown(Card(FACTS, {}))
    assert text.count("## Limits") == 1 + 1  # the section, and the words of the note on its line
    assert "- Note: all \\| columns ## Limits" in text
    assert "<b>" not in text and "&lt;b&gt;x" in text and "| in | a\\|b | float64 | may be missing |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5) for row in rows)


def test_a_card_without_anything_says_what_nobody_wrote() -> None:
    bare = CardFacts("x", 1, "", "user/a", "2026-05-01T12:00:00.000000Z", "development", {})
    text = markdown(Card(bare, {}))
    assert text.count(UNWRITTEN) == len(CARD_TEXTS)
    assert parse(text) == (dict.fromkeys(CARD_TEXTS, ""), [])
    assert "It was registered without an evaluation." in text


def test_the_hub_reads_the_metadata_with_the_results() -> None:
    card = hugging_face(Card(FACTS, TEXTS))
    _, front, body = card.split("---\n", 2)
    found = yaml.safe_load(front)
    assert found["license"] == "mit" and found["library_name"] == "sklearn"
    assert found["pipeline_tag"] == "tabular-classification" and found["datasets"] == ["flights"]
    [entry] = found["model-index"]
    [result] = entry["results"]
    # huggingface.co/docs/hub/model-cards: a result has task.type, dataset.type and name, metrics.type and value.
    assert (entry["name"], result["task"]["type"]) == ("late ✈", "tabular-classification")
    assert {"type", "name"} <= set(result["dataset"]) and result["dataset"]["revision"] == "12"
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [("roc_auc", 0.75), ("recall", 0.2)]
    assert body.lstrip().startswith("# late ✈@2")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("CC BY 4.0 licence\nsee the file", {"license": "cc-by-4.0"}),
        ("Ours alone", {"license": "other", "license_name": "ours-alone"}),
        ("", {"license": "unknown"}),
    ],
)
def test_a_licence_is_named_as_the_hub_names_it(text: str, wanted: dict[str, str]) -> None:
    found = yaml.safe_load(hugging_face(Card(FACTS, {"licence": text})).split("---\n")[1])
    assert {name: found.get(name) for name in wanted} == wanted


def test_a_card_that_cannot_be_kept_is_refused_with_the_part() -> None:
    with pytest.raises(InvalidInput, match='no part "limit"; did you mean "limits"'):
        check_texts({"limit": "x"})
    with pytest.raises(InvalidInput, match="at most 50,000 characters"):
        check_texts({"limits": "x" * 50_001})
    with pytest.raises(InvalidInput, match="its YAML never ends"):
        parse("---\nlicense: mit\n# x\n")


def test_default_questions_forbid_what_the_law_forbids() -> None:
    answers = dict.fromkeys((q.id for q in DEFAULT_QUESTIONS if q.is_required), "said")
    answers |= {"risk_class": "high", "personal_data": "no", "residual": "low"}
    assert missing_answers(DEFAULT_QUESTIONS, check_answers(DEFAULT_QUESTIONS, answers)) == []
    assert risk_class(answers) == "high"
    worse = {**answers, "risk_class": "unacceptable", "misuse": " "}
    assert missing_answers(DEFAULT_QUESTIONS, check_answers(DEFAULT_QUESTIONS, worse)) == [
        "risk_class is 'unacceptable'", "misuse is not answered"
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="the answer to \"risk_class\" is 'none'; expected one of"):
        check_answers(DEFAULT_QUESTIONS, {"risk_class": "none"})
    with pytest.raises(InvalidInput, match='no risk question "risk_clas"; did you mean "risk_class"'):
        check_answers(DEFAULT_QUESTIONS, {"risk_clas": "high"})


def test_a_model_asks_questions_of_its_own_from_its_spec_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "risk.yaml").write_text("- {id: noise, ask: 'Is it loud?', choices: ['yes', 'no'], forbids: ['yes']}\n")
    form = RiskForm.model_validate(
        {"with_default": False, "file": "risk.yaml", "questions": [{"id": "why", "ask": "Why?", "is_required": False}]}
    )
    questions = questions_of(form, tmp_path)
    assert [q.id for q in questions] == ["noise", "why"]
    assert missing_answers(questions, {"noise": "yes"}) == ["noise is 'yes'"]
    assert len(questions_of(RiskForm(), tmp_path)) == len(DEFAULT_QUESTIONS)
    (tmp_path / "risk.yaml").write_text("- {id: why, ask: 'Why?'}\n")
    with pytest.raises(InvalidInput, match='two risk questions have the id "why"'):
        questions_of(form, tmp_path)
    (tmp_path / "risk.yaml").write_text("- {id: why, ask: 'Why?', forbids: [x]}\n")
    with pytest.raises(InvalidInput, match=r'risk\.yaml: .*"x" is forbidden but not among the choices'):
        questions_of(form, tmp_path)
    (tmp_path / "risk.yaml").unlink()
    with pytest.raises(InvalidInput, match=r"the risk questions in risk.yaml cannot be read"):
        questions_of(form, tmp_path)
