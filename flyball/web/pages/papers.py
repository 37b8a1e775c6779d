"""What people write about a version: its model card and its risk assessment, each shown, edited, and with its edits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.ledger.refs import Ref
from flyball.models.card import TITLES, CardText, hugging_face, markdown
from flyball.models.kinds import CARD_TEXTS
from flyball.platform import MAY
from flyball.web.formats import ref_url
from flyball.web.markdown import html_of
from flyball.web.pages.site import File, Goto, Page, Site, integer

__all__ = ["mount"]

_MOST = 100  # places for sections that are read from a form
_OWN = 3  # empty places for sections of one's own that the form offers


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def card(request: Request) -> Page:
        made = _ref(request)
        found = platform.card(made, integer(request, "edit"))
        edits = platform.card_edits(made)
        own = [*found.sections, *(CardText("", "") for _ in range(_OWN))]
        values = {
            **_frame(made, "card", "Model card"),
            "card": found,
            "html": html_of(markdown(found).partition("\n")[2]),  # the page has its own title
            "parts": [(name, TITLES[name], found.texts.get(name, "")) for name in CARD_TEXTS],
            "own": own,
            "edits": edits,
            "newest": edits[0].revision if edits else 0,
            "may_write": platform.principal.has(MAY["write"]),
        }
        return Page("model_card.html", values)

    def write_card(request: Request, fields: Mapping[str, str]) -> Goto:
        made = _ref(request)
        texts = {name: fields[name] for name in CARD_TEXTS if name in fields}
        own = []
        for place in range(_MOST):
            title, text = fields.get(f"title{place}", "").strip(), fields.get(f"text{place}", "").strip()
            if text and not title:
                raise InvalidInput(f"a section of the card has a text but no title: {text[:60]!r}")
            if title and text:
                own.append(CardText(title, text))
        platform.write_card(made, texts, own, fields.get("note", ""), _after(fields))
        return Goto(f"{ref_url(made)}/card")

    def export(request: Request) -> File:
        made = _ref(request)
        found = platform.card(made)
        text = hugging_face(found) if request.path_params["form"] == "README.md" else markdown(found)
        return File(text.encode(), f"{made.name}-{found.facts.number}-{request.path_params['form']}", "text/markdown")

    def risk(request: Request) -> Page:
        made = _ref(request)
        form = platform.risk(made, integer(request, "edit"))
        edits = platform.risk_edits(made)
        values = {
            **_frame(made, "risk", "Risk assessment"),
            "form": form,
            "sections": [(title, list(group)) for title, group in groupby(form.questions, key=lambda q: q.section)],
            "edits": edits,
            "newest": edits[0].revision if edits else 0,
            "may_write": platform.principal.has(MAY["write"]),
        }
        return Page("risk.html", values)

    def assess(request: Request, fields: Mapping[str, str]) -> Goto:
        made = _ref(request)
        answers = {name.removeprefix("q."): text for name, text in fields.items() if name.startswith("q.")}
        platform.assess_risk(made, answers, fields.get("note", ""), _after(fields))
        return Goto(f"{ref_url(made)}/risk")

    site.page("/models/{name}/{version}/card", card)
    site.form("/models/{name}/{version}/card", write_card)
    site.page("/models/{name}/{version}/card/{form}", export)
    site.page("/models/{name}/{version}/risk", risk)
    site.form("/models/{name}/{version}/risk", assess)


def _frame(made: Ref, word: str, title: str) -> dict[str, Any]:
    crumbs: list[tuple[str, str | None]] = [("Models", "/models"), (made.name, f"/models/{made.name}")]
    crumbs += [(f"version {made.version}", ref_url(made)), (word, None)]
    return {"title": f"{title} of {made.short}", "section": "models", "crumbs": crumbs, "made": made}


def _ref(request: Request) -> Ref:
    return Ref("model", request.path_params["name"], request.path_params["version"])


def _after(fields: Mapping[str, str]) -> int | None:
    text = fields.get("after", "")
    return int(text) if text.isdecimal() and len(text) < 9 else None
