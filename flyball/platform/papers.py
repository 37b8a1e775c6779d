"""What people write about a model's versions: model cards and risk assessments, with every edit kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyball.clock import format_instant
from flyball.errors import FlyballError, InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.papers import Paper
from flyball.ledger.refs import Ref, ref, shown_name
from flyball.ledger.versions import Version
from flyball.platform.lifecycle import LifecycleActs, named_version

if TYPE_CHECKING:
    from flyball.models.card import Card, CardFacts, CardText
    from flyball.models.kinds import Question

__all__ = ["PaperActs", "RiskForm"]


@dataclass(frozen=True)
class RiskForm:
    """A version's risk assessment: questions, answers so far, and what keeps the version out.

    `revision` is the edit that is shown, 0 before the first.
    """

    version: Version
    questions: tuple[Question, ...]
    answers: Mapping[str, str]
    missing: tuple[str, ...]
    risk_class: str | None
    revision: int


class PaperActs(LifecycleActs):
    """Cards and assessments. Where a version is named without a number, its newest is meant."""

    def card(self, target: str | Ref, revision: int | None = None) -> Card:
        """Return a version's card; with `revision` what people had written by that edit. Raises NotFound."""
        from flyball.models.card import Card, CardText

        with self._reading() as world:
            version = named_version(world, target)
            paper = _edit(world, "card", version, revision)
            facts = self._facts(world, version)
        content: Mapping[str, Any] = paper.content if paper is not None else {}
        sections = tuple(CardText(one["title"], one["text"]) for one in content.get("sections", ()))
        return Card(facts, content.get("texts", {}), sections, paper.revision if paper is not None else 0)

    def write_card(
        self,
        target: str | Ref,
        texts: Mapping[str, str],
        sections: Sequence[CardText] | None = None,
        note: str = "",
        after: int | None = None,
    ) -> Card:
        """Keep a new edit of a card.

        Args:
            texts: the parts that change, see `models.kinds.CARD_TEXTS`; the empty text removes one.
            sections: people's own sections; None leaves them as they are.
            after: the edit that was read; another by now is a conflict.

        Raises:
            NotFound: there is no such version.
            InvalidInput: there is no such part, or a text is too long.
            Conflict: with `after`, somebody else wrote meanwhile.
        """
        from flyball.models.card import check_texts

        check_texts(texts, sections or ())
        with self._writing("write") as world:
            version = named_version(world, target)
            paper = world.papers.get("card", version.ref)
            before: Mapping[str, Any] = paper.content if paper is not None else {}
            kept = {**before.get("texts", {}), **{name: _lines(text) for name, text in texts.items()}}
            own = before.get("sections", []) if sections is None else [_as_json(section) for section in sections]
            content = {"texts": {name: text for name, text in kept.items() if text}, "sections": list(own)}
            if paper is not None or content["texts"] or content["sections"]:
                world.papers.write("card", version.ref, content, note.strip(), after)
        return self.card(version.ref)

    def card_edits(self, target: str | Ref) -> list[Paper]:
        """Return every edit of a card, newest first. Raises NotFound."""
        with self._reading() as world:
            return world.papers.all("card", named_version(world, target).ref)

    def risk(self, target: str | Ref, revision: int | None = None) -> RiskForm:
        """Return a version's risk assessment; with `revision` as of that edit.

        Raises:
            NotFound: there is no such version or edit.
            InvalidInput: the model's file of questions cannot be read.
        """
        from flyball.delivery.requests import model_of
        from flyball.models.risk import missing_answers, risk_class

        with self._reading() as world:
            version = named_version(world, target)
            questions = tuple(self.known.questions(model_of(world, version.name)))
            paper = _edit(world, "risk", version, revision)
        answers: Mapping[str, str] = paper.content.get("answers", {}) if paper is not None else {}
        edit = paper.revision if paper is not None else 0
        missing = tuple(missing_answers(questions, answers))
        return RiskForm(version, questions, answers, missing, risk_class(answers), edit)

    def assess_risk(
        self, target: str | Ref, answers: Mapping[str, str], note: str = "", after: int | None = None
    ) -> RiskForm:
        """Keep a new edit of a risk assessment: these answers with those given before; the empty text removes one.

        Raises: as `risk`, and InvalidInput, Conflict as `write_card`.
        """
        from flyball.delivery.requests import model_of
        from flyball.models.risk import check_answers

        with self._writing("write") as world:
            version = named_version(world, target)
            questions = self.known.questions(model_of(world, version.name))
            asked = {question.id for question in questions}
            paper = world.papers.get("risk", version.ref)
            before = dict(paper.content.get("answers", {})) if paper is not None else {}
            kept = check_answers(questions, {**{n: a for n, a in before.items() if n in asked}, **answers})
            if paper is not None or kept:
                told = {question.id: question.ask for question in questions if question.id in kept}
                world.papers.write("risk", version.ref, {"answers": kept, "questions": told}, note.strip(), after)
        return self.risk(version.ref)

    def risk_edits(self, target: str | Ref) -> list[Paper]:
        """Return every edit of a risk assessment, newest first. Raises NotFound."""
        with self._reading() as world:
            return world.papers.all("risk", named_version(world, target).ref)

    def _facts(self, world: Transaction, version: Version) -> CardFacts:
        from flyball.delivery.requests import model_of, stage_of
        from flyball.models.bundle import read_manifest
        from flyball.models.card import CardFacts

        packages: Mapping[str, str] = {}
        try:
            environment = read_manifest(self.blobs, version.digest).manifest["environment"]
            packages = {"python": environment.get("python"), **environment.get("packages", {})}
        except FlyballError:
            pass  # its bytes are elsewhere, or gone: the card tells what the ledger knows
        assessed = world.papers.get("risk", version.ref)
        note = world.notes.get("model", version.name).description
        return CardFacts(
            name=shown_name(version.name),
            number=version.number,
            digest=version.digest,
            made_by=f"run {version.run}" if version.run else version.actor,
            made_at=format_instant(version.created_at),
            stage=stage_of(world, version).name,
            metadata=version.metadata,
            description=note or model_of(world, version.name).description,
            data=_data(world, version),
            packages=packages,
            risk=assessed.content.get("answers", {}) if assessed is not None else {},
        )


def _data(world: Transaction, version: Version) -> dict[str, Any]:
    """Return what is known of the data that a version learnt from."""
    trained_on = version.metadata.get("trained_on")
    if not trained_on:
        return {}
    found = ref(trained_on)
    known: dict[str, Any] = {"name": shown_name(found.name), "version": found.version}
    try:
        made = world.versions.get(found.kind, found.name, found.version or "latest")
        known |= {"rows": made.metadata.get("rows"), "note": made.metadata.get("note")}
    except NotFound:
        pass
    resource = world.resources.find(found.kind, found.name)
    spec = resource.spec if resource is not None else {}
    return known | {field: spec[field] for field in ("description", "owner", "licence") if spec.get(field)}


def _edit(world: Transaction, sort: Any, version: Version, revision: int | None) -> Paper | None:
    paper: Paper | None = world.papers.get(sort, version.ref, revision)
    if paper is None and revision is not None:
        raise NotFound(f"the {sort} of {version.ref.short} has no edit {revision}")
    return paper


def _lines(text: str) -> str:
    """Return a text with the line ends of Markdown files; forms of browsers send others."""
    return text.replace("\r\n", "\n").strip()


def _as_json(section: CardText) -> dict[str, str]:
    if not section.title.strip():
        raise InvalidInput("a section of a card needs a title")
    return {"title": section.title.strip(), "text": _lines(section.text)}
