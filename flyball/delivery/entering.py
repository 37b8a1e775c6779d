"""Whether a version may enter a stage: its gates, the papers that must be written, and who signed it.

Everything that is found is told as a `GateResult`, so that people read gates, card, risk and signature alike; together
with the version's and the champion's figures it is the evidence that a request keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from flyball.errors import FlyballError, listed
from flyball.evaluation.gates import GateResult, judge
from flyball.ledger import Transaction
from flyball.ledger.versions import Version
from flyball.models.kinds import CARD_TEXTS, Model, Question, Stage
from flyball.models.risk import DEFAULT_QUESTIONS, missing_answers
from flyball.models.stages import gates_of

__all__ = ["CARD_REQUIRED", "NOTHING_KNOWN", "Known", "check_entry", "evidence_of", "unmet"]

CARD_REQUIRED = ("intended_use", "limits", "licence", "owner")  # what `requires: [card]` asks to be written
_KEPT_SLICES = 5


class Known(Protocol):
    """What is known outside the ledger: signatures in the home, questions in a file."""

    def is_signed(self, version: Version) -> bool:
        """Whether a key that the home trusts signed the version."""
        ...

    def questions(self, model: Model) -> Sequence[Question]:
        """Return a model's risk questions. Raises InvalidInput."""
        ...


class _NothingKnown:
    def is_signed(self, version: Version) -> bool:  # noqa: ARG002 (the names are the protocol's)
        return False

    def questions(self, model: Model) -> Sequence[Question]:
        return (*(DEFAULT_QUESTIONS if model.risk.with_default else ()), *model.risk.questions)


NOTHING_KNOWN: Known = _NothingKnown()


def check_entry(
    world: Transaction, model: Model, stage: Stage, version: Version, champion: int | None, known: Known
) -> list[GateResult]:
    """Return what the entry of a stage asks of a version, and whether it is so: gates first, then requirements."""
    compared = version.metadata.get("comparison", {})
    is_same = champion is None or compared.get("champion") == f"{version.name}@{champion}"
    found = judge(
        [gate.model_dump(exclude_none=True) for gate in gates_of(model, stage)],
        version.metadata.get("evaluation", {}).get("metrics", {}),
        compared.get("metrics", {}) if is_same else {},
        has_champion=champion is not None,
    )
    return [*found, *(_required(world, model, word, version, known) for word in stage.requires)]


def unmet(results: Sequence[GateResult]) -> str:
    """Return what is not met, in a phrase; empty when all is."""
    return "; ".join(f"{result.gate}: {result.reason}" for result in results if not result.passed)


def evidence_of(
    world: Transaction, results: Sequence[GateResult], version: Version, champion: int | None
) -> dict[str, Any]:
    """Return what a reviewer needs beside the version that is in use, as JSON values."""
    current = world.versions.get("model", version.name, champion) if champion is not None else None
    found: dict[str, Any] = {"checks": [asdict(result) for result in results], **_figures(version, "version")}
    if current is not None and current.number != version.number:
        found |= _figures(current, "current")
    compared = version.metadata.get("comparison")
    if compared:
        found["comparison"] = compared
    return found


def _figures(version: Version, word: str) -> dict[str, Any]:
    evaluation: Mapping[str, Any] = version.metadata.get("evaluation", {})
    figures = {
        "ref": str(version.ref),
        "digest": version.digest,
        "metrics": evaluation.get("metrics", {}),
        "rows": evaluation.get("rows"),
        "worst_slices": list(evaluation.get("worst_slices", []))[:_KEPT_SLICES],
        "trained_on": version.metadata.get("trained_on"),
    }
    return {word: {key: value for key, value in figures.items() if value}}


def _required(world: Transaction, model: Model, word: str, version: Version, known: Known) -> GateResult:
    if word == "signature":
        if known.is_signed(version):
            return GateResult("signature", True, "a trusted key signed it")
        return GateResult("signature", False, f"no trusted key signed it: flyball model sign {version.ref.short}")
    if word == "risk":
        return _assessed(world, model, version, known)
    paper = world.papers.get("card", version.ref)
    written = paper.content.get("texts", {}) if paper is not None else {}
    wanted = CARD_REQUIRED if word == "card" else (word.removeprefix("card."),)
    missing = [text for text in CARD_TEXTS if text in wanted and not written.get(text)]
    if missing:
        return GateResult(word, False, f"nobody wrote {listed(missing)}: flyball card {version.ref.short} --edit FILE")
    return GateResult(word, True, "written")


def _assessed(world: Transaction, model: Model, version: Version, known: Known) -> GateResult:
    paper = world.papers.get("risk", version.ref)
    try:
        missing = missing_answers(known.questions(model), paper.content.get("answers", {}) if paper else {})
    except FlyballError as error:  # its file of questions is gone or wrong: nobody can have answered it
        return GateResult("risk", False, str(error))
    if paper is None:
        return GateResult("risk", False, f"it was not assessed: flyball risk {version.ref.short}")
    return GateResult("risk", not missing, listed(missing, 4) if missing else f"assessed, edit {paper.revision}")
