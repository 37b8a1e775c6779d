"""The life of a model's versions over HTTP: stages, promotion requests, reviews, history, cards, risk assessments.

GET  /api/stages/MODEL · /api/history/model/MODEL?at=… · /api/history/deployment/NAME?at=… · /api/promotions[/ID]
POST /api/promotions · /api/promotions/ID/reviews · /api/promotions/ID/withdraw
GET, PUT  /api/cards/MODEL@N[?form=markdown|hugging-face] · /api/risk/MODEL@N; with ?edit=2 as of an edit
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Response
from pydantic import BaseModel, ConfigDict

from flyball.clock import format_instant, parse_instant
from flyball.delivery.served import Served
from flyball.delivery.standing import Standing
from flyball.errors import InvalidInput
from flyball.ledger.promotions import Request
from flyball.models.card import Card, CardText, hugging_face, markdown, parse
from flyball.platform import Platform
from flyball.platform.lifecycle import Case
from flyball.platform.papers import RiskForm
from flyball.wire.native.values import encode, listing

__all__ = ["add_lifecycle", "card_value", "case_value", "request_value", "risk_value", "served_value", "standing_value"]

Limit = Annotated[int, Query(ge=1, le=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Promotion(_Body):
    version: str
    to: str
    reason: str = ""


class _Review(_Body):
    verdict: Literal["approved", "refused"]
    comment: str = ""


class _Comment(_Body):
    comment: str = ""


class _Section(_Body):
    title: str
    text: str = ""


class _Card(_Body):
    texts: dict[str, str] = {}
    sections: list[_Section] | None = None
    markdown: str | None = None
    note: str = ""
    after: int | None = None


class _Answers(_Body):
    answers: dict[str, str]
    note: str = ""
    after: int | None = None


def add_lifecycle(app: FastAPI, platform: Platform) -> None:
    """Add the routes."""

    @app.get("/api/stages/{name}")
    def stages(name: str) -> Response:
        found = platform.stages(name)
        return _json(listing({"stage": s.stage.model_dump(), "versions": list(map(str, s.versions))} for s in found))

    @app.get("/api/history/model/{name}")
    def history(name: str, at: str | None = None) -> Response:
        found = platform.history(name, parse_instant(at) if at is not None else None)
        return _json(listing(map(standing_value, found)))

    @app.get("/api/history/deployment/{name}")
    def served(name: str, at: str | None = None) -> Response:
        found = platform.served(name, parse_instant(at) if at is not None else None)
        return _json(listing(map(served_value, found)))

    @app.get("/api/promotions")
    def promotions(
        model: str | None = None,
        state: Annotated[list[str] | None, Query()] = None,
        limit: Limit = 50,
        before: int | None = None,
    ) -> Response:
        found = platform.requests(model, state, limit + 1, before)
        return _json(
            listing(map(case_value, found[:limit]), found[limit - 1].request.id if len(found) > limit else None)
        )

    @app.post("/api/promotions")
    def promote(wanted: _Promotion) -> Response:
        return _json(request_value(platform.promote(wanted.version, wanted.to, wanted.reason)), 201)

    @app.get("/api/promotions/{id}")
    def promotion(id: int) -> Response:
        return _json(case_value(platform.request(id)))

    @app.post("/api/promotions/{id}/reviews")
    def review(id: int, said: _Review) -> Response:
        return _json(request_value(platform.review(id, said.verdict, said.comment)))

    @app.post("/api/promotions/{id}/withdraw")
    def withdraw(id: int, said: _Comment) -> Response:
        return _json(request_value(platform.withdraw(id, said.comment)))

    _add_papers(app, platform)


def _add_papers(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/cards/{version}")
    def card(
        version: str, form: Literal["json", "markdown", "hugging-face"] = "json", edit: int | None = None
    ) -> Response:
        found = platform.card(version, edit)
        if form == "json":
            return _json(card_value(found))
        text = markdown(found) if form == "markdown" else hugging_face(found)
        return Response(text, media_type="text/markdown; charset=utf-8")

    @app.put("/api/cards/{version}")
    def write_card(version: str, given: _Card) -> Response:
        texts: dict[str, str] = given.texts
        sections = None if given.sections is None else [CardText(s.title, s.text) for s in given.sections]
        if given.markdown is not None:
            if texts or sections is not None:
                raise InvalidInput("send markdown, or texts and sections, not both")
            texts, sections = parse(given.markdown)
        return _json(card_value(platform.write_card(version, texts, sections, given.note, given.after)))

    @app.get("/api/risk/{version}")
    def risk(version: str, edit: int | None = None) -> Response:
        return _json(risk_value(platform.risk(version, edit)))

    @app.put("/api/risk/{version}")
    def assess(version: str, given: _Answers) -> Response:
        return _json(risk_value(platform.assess_risk(version, given.answers, given.note, given.after)))


def request_value(request: Request) -> dict[str, Any]:
    """Return a request as JSON values."""
    return {
        "id": request.id,
        "version": str(request.ref),
        "from": request.before,
        "to": request.to,
        "state": request.state,
        "asked_by": request.asked_by,
        "asked_at": format_instant(request.asked_at),
        "reason": request.reason,
        "expires_at": format_instant(request.expires_at) if request.expires_at else None,
        "decided_by": request.decided_by,
        "decided_at": format_instant(request.decided_at) if request.decided_at else None,
        "event": request.event,
        "evidence": dict(request.evidence),
        "reviews": [
            {"by": r.actor, "verdict": r.verdict, "comment": r.comment, "at": format_instant(r.at), "event": r.event}
            for r in request.reviews
        ],
    }


def case_value(case: Case) -> dict[str, Any]:
    """Return a request with what it is for whoever asks."""
    value = {**request_value(case.request), "state": case.state}
    return {
        **value,
        "may_review": case.why_not is None,
        "why_not": case.why_not,
        "missing": case.missing,
        "waits_for": case.waits_for,
    }


def card_value(card: Card) -> dict[str, Any]:
    """Return what people wrote on a card, and the whole of it as Markdown."""
    sections = [{"title": section.title, "text": section.text} for section in card.sections]
    written = {"version": card.title, "edit": card.revision, "texts": dict(card.texts), "sections": sections}
    return {**written, "markdown": markdown(card)}


def risk_value(form: RiskForm) -> dict[str, Any]:
    """Return a risk assessment as JSON values."""
    return {
        "version": str(form.version.ref),
        "edit": form.revision,
        "risk_class": form.risk_class,
        "missing": list(form.missing),
        "questions": [
            {**question.model_dump(), "answer": form.answers.get(question.id)} for question in form.questions
        ],
    }


def standing_value(standing: Standing) -> dict[str, Any]:
    """Return a version's time in a stage as JSON values."""
    return {
        "stage": standing.stage,
        "version": str(standing.ref),
        "since": format_instant(standing.since),
        "until": format_instant(standing.until) if standing.until else None,
        "by": standing.actor,
        "event": standing.event,
        "request": request_value(standing.request) if standing.request is not None else None,
        "checks": [dict(gate) for gate in standing.gates],
        "rollout": dict(standing.rollout) if standing.rollout is not None else None,
    }


def served_value(served: Served) -> dict[str, Any]:
    """Return a traffic table's time as JSON values."""
    return {
        "traffic": [dict(variant) for variant in served.traffic],
        "since": format_instant(served.since),
        "until": format_instant(served.until) if served.until else None,
        "action": served.action,
        "by": served.actor,
        "event": served.event,
        "reason": served.reason,
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")
