"""`/approvals`: what waits for me, what waits for others, what was decided; one request with its evidence; history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.ledger.refs import Ref
from flyball.platform.lifecycle import Case
from flyball.web.pages.site import Goto, Page, Site, integer, parameters

__all__ = ["mount"]

SIZE = 50


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def inbox(request: Request) -> Page:
        before = integer(request, "before")
        found = platform.inbox()
        decided = platform.requests(states=["approved", "refused", "withdrawn", "expired"], limit=SIZE, before=before)
        values = {
            "title": "Approvals",
            "section": "approvals",
            "crumbs": [("Approvals", None)],
            "mine": [_row(case) for case in found.mine],
            "others": [_row(case) for case in found.others],
            "decided": [_row(case) for case in decided],
            "is_first": before is None,
            "next": decided[-1].request.id if len(decided) == SIZE else None,
            "you": platform.actor.removeprefix("user/"),
        }
        return Page("approvals.html", values)

    def one(request: Request) -> Page:
        case = platform.request(_id(request))
        asked = case.request
        evidence: Mapping[str, Any] = asked.evidence
        version, current = evidence.get("version", {}), evidence.get("current", {})
        names = dict.fromkeys([*version.get("metrics", {}), *current.get("metrics", {})])
        compared = evidence.get("comparison", {})
        values = {
            "title": f"Request {asked.id}",
            "section": "approvals",
            "crumbs": [("Approvals", "/approvals"), (f"Request {asked.id}", None)],
            "case": case,
            "asked": asked,
            "candidate": version,
            "current": current,
            "comparison": compared if compared.get("champion") == _short(current.get("ref")) else {},
            "metrics": list(names),
            "is_asker": platform.actor == asked.asked_by or platform.principal.has("admin"),
            "approvers": case.stage.approvers if case.stage is not None else None,
            "role": platform.principal.role,
            "events": site.told(e for e in platform.events(ref=str(asked.ref), limit=60) if _is_of(e.detail, asked.id)),
        }
        return Page("approval.html", values)

    def review(request: Request, fields: Mapping[str, str]) -> Goto:
        id, verdict = _id(request), fields.get("verdict", "")
        if verdict not in ("approved", "refused"):
            raise InvalidInput("the form says neither approved nor refused; press one of its buttons")
        platform.review(id, "approved" if verdict == "approved" else "refused", fields.get("comment", ""))
        return Goto(f"/approvals/{id}")

    def withdraw(request: Request, fields: Mapping[str, str]) -> Goto:
        id = _id(request)
        platform.withdraw(id, fields.get("reason", ""))
        return Goto(f"/approvals/{id}")

    def promote(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = request.path_params["name"], request.path_params["version"]
        made = platform.promote(Ref("model", name, number), fields.get("to", ""), fields.get("reason", ""))
        return Goto(f"/approvals/{made.id}")

    def history(request: Request) -> Page:
        name = request.path_params["name"]
        model = platform.resource(Ref("model", name))
        given = parameters(request, "at").get("at")
        values = {
            "title": f"History of {name}",
            "section": "models",
            "crumbs": [("Models", "/models"), (name, f"/models/{name}"), ("history", None)],
            "model": model,
            "at": given,
            "found": platform.history(name, _instant(given) if given else None),
            "stages": platform.stages(name),
        }
        return Page("model_history.html", values)

    site.page("/approvals", inbox)
    site.page("/approvals/{id}", one)
    site.form("/approvals/{id}/review", review)
    site.form("/approvals/{id}/withdraw", withdraw)
    site.page("/models/{name}/history", history)
    site.form("/models/{name}/{version}/promote", promote)


def _row(case: Case) -> dict[str, Any]:
    checks = case.request.evidence.get("checks", [])
    return {"case": case, "asked": case.request, "passed": sum(c["passed"] for c in checks), "checks": len(checks)}


def _id(request: Request) -> int:
    text = request.path_params["id"]
    if not text.isdecimal() or len(text) > 9:
        raise InvalidInput(f"{text[:40]!r} is no number of a request; /approvals lists them")
    return int(text)


def _is_of(detail: Mapping[str, Any], id: int) -> bool:
    return detail.get("request") == id


def _short(reference: str | None) -> str | None:
    return reference.removeprefix("model/") if reference else None


def _instant(text: str) -> datetime:
    """Return a time of a form: without a zone it is meant where this process runs."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidInput(f'"at" in the address is {text[:40]!r}; expected a time like 2026-05-03T14:00') from None
