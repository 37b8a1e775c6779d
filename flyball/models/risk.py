"""Risk assessment: questions as data, answers that are checked against them, and what the answers say.

The default questions follow the classes of Regulation (EU) 2024/1689, the AI Act (prohibited practices: Article 5;
high risk: Article 6 with Annex III; transparency: Article 50), and the four functions of the NIST AI Risk Management
Framework 1.0 (Govern, Map, Measure, Manage). A model adds its own questions, or uses only those. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.models.kinds import Question, RiskForm

__all__ = ["DEFAULT_QUESTIONS", "check_answers", "missing_answers", "questions_of", "risk_class"]

_LONGEST = 20_000  # characters of an answer
_CLASS = "risk_class"

DEFAULT_QUESTIONS = (
    Question(
        id=_CLASS,
        section="EU AI Act",
        ask="Which risk class does the system that uses this model belong to?",
        choices=["minimal", "limited", "high", "unacceptable"],
        forbids=["unacceptable"],
        help="unacceptable: a practice of Article 5. high: a use of Annex III or a safety component (Article 6). "
        "limited: it meets people or makes content (Article 50). minimal: none of these.",
    ),
    Question(
        id="class_reason",
        section="EU AI Act",
        ask="Why that class? Name the use and the article or the entry of Annex III.",
    ),
    Question(
        id="human_oversight",
        section="EU AI Act",
        ask="Who can overrule or stop it, and how do they notice that they should? (Article 14)",
    ),
    Question(
        id="accountable",
        section="NIST AI RMF: Govern",
        ask="Who is accountable for this model in use, by name or role?",
    ),
    Question(
        id="affected",
        section="NIST AI RMF: Map",
        ask="Who is affected by its answers, and what happens to them when it is wrong?",
    ),
    Question(
        id="misuse",
        section="NIST AI RMF: Map",
        ask="For what must it not be used?",
    ),
    Question(
        id="measured",
        section="NIST AI RMF: Measure",
        ask="On which groups or conditions was it measured, and where is it weakest?",
    ),
    Question(
        id="personal_data",
        section="NIST AI RMF: Measure",
        ask="Does it learn from or answer about personal data?",
        choices=["no", "yes, with a legal basis", "yes, not settled"],
        forbids=["yes, not settled"],
    ),
    Question(
        id="response",
        section="NIST AI RMF: Manage",
        ask="What is done when it drifts, decays or harms, and how fast?",
    ),
    Question(
        id="residual",
        section="NIST AI RMF: Manage",
        ask="Which risk stays after all that?",
        choices=["low", "medium", "high, accepted", "high, not accepted"],
        forbids=["high, not accepted"],
    ),
    Question(id="remarks", section="NIST AI RMF: Manage", ask="What else should be known?", is_required=False),
)


def questions_of(form: RiskForm, project: Path) -> tuple[Question, ...]:
    """Return a model's questions: the default ones unless left out, those of its file, those of its spec.

    Args:
        project: the folder that the file's path is relative to.

    Raises:
        InvalidInput: the file cannot be read, or a question is written wrong or twice.
    """
    found = [*(DEFAULT_QUESTIONS if form.with_default else ()), *(_read(project / form.file) if form.file else ())]
    found += form.questions
    names = [question.id for question in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f'two risk questions have the id "{twice}"; give one of them another')
    return tuple(found)


def check_answers(questions: Sequence[Question], answers: Mapping[str, Any]) -> dict[str, str]:
    """Return the answers that say something. Raises InvalidInput: an unknown question, or a choice not offered."""
    by_id = {question.id: question for question in questions}
    kept: dict[str, str] = {}
    for name, value in answers.items():
        question = by_id.get(name)
        if question is None:
            raise InvalidInput(
                f'there is no risk question "{name}"{did_you_mean(name, by_id)} (the questions: {listed(by_id)})'
            )
        text = value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""
        if not isinstance(value, str) or len(text) > _LONGEST:
            raise InvalidInput(f'the answer to "{name}" must be a text of at most {_LONGEST:,} characters')
        if text and question.choices and text not in question.choices:
            raise InvalidInput(
                f'the answer to "{name}" is {text[:60]!r}; expected one of: {listed(map(repr, question.choices))}'
            )
        if text:
            kept[name] = text
    return kept


def missing_answers(questions: Sequence[Question], answers: Mapping[str, str]) -> list[str]:
    """Return what keeps a version out, a phrase each: questions not answered, and answers that forbid its use."""
    found = []
    for question in questions:
        answer = answers.get(question.id, "")
        if not answer and question.is_required:
            found.append(f"{question.id} is not answered")
        elif answer in question.forbids:
            found.append(f"{question.id} is {answer!r}")
    return found


def risk_class(answers: Mapping[str, str]) -> str | None:
    """Return the class of the EU AI Act that was answered."""
    return answers.get(_CLASS)


def _read(path: Path) -> list[Question]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"the risk questions in {path.name} cannot be read: {error}") from None
    if not isinstance(document, list):
        raise InvalidInput(f"{path.name} must be a list of risk questions, each with id, section and ask")
    try:
        return [Question.model_validate(item) for item in document]
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidInput(f'{path.name}: "{where}": {problem["msg"].removeprefix("Value error, ")}') from None
