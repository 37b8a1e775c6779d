"""`/settings/webhooks`: who is told what, how it was taken; making, testing, pausing one, and sending again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import Request

from flyball.delivery.webhooks.events import MLFLOW_EVENTS
from flyball.errors import InvalidInput
from flyball.platform import MAY
from flyball.platform.webhooks import Hook
from flyball.web.pages.site import Goto, Page, Site, integer

__all__ = ["mount"]

SIZE = 50
_STATES = ("delivered", "waiting", "failed")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def overview(_request: Request) -> Page:
        values = {
            "title": "Webhooks",
            "section": "settings",
            "crumbs": [("Settings", "/settings"), ("Webhooks", None)],
            "hooks": [_row(hook) for hook in platform.webhooks()],
            "mlflow_events": MLFLOW_EVENTS,
            "may_change": platform.principal.has(MAY["apply"]),
        }
        return Page("webhooks.html", values)

    def show(request: Request) -> Page:
        return _page(request, None)

    def _page(request: Request, answer: Any) -> Page:
        hook = platform.webhook(request.path_params["name"])
        before = integer(request, "before")
        found = platform.deliveries(hook.name, limit=SIZE + 1, before=before)
        values = {
            "title": hook.title,
            "section": "settings",
            "crumbs": [("Settings", "/settings"), ("Webhooks", "/settings/webhooks"), (hook.title, None)],
            "hook": _row(hook),
            "deliveries": found[:SIZE],
            "address": _address(hook),
            "is_first": before is None,
            "next": found[SIZE - 1].event if len(found) > SIZE else None,
            "answer": answer,
            "may_change": platform.principal.has(MAY["apply"]),
        }
        return Page("webhook.html", values)

    def make(_request: Request, fields: Mapping[str, str]) -> Goto:
        events = fields.get("events", "").replace(",", " ").split()
        form = "mlflow" if fields.get("format") == "mlflow" else "cloudevents"
        made = platform.create_webhook(
            fields.get("url", "").strip(),
            events,
            name=fields.get("name", "").strip() or None,
            description=fields.get("description", "").strip(),
            secret=fields.get("secret") or None,
            format="mlflow" if form == "mlflow" else "cloudevents",
        )
        return Goto(_address(made))

    def test(request: Request, _fields: Mapping[str, str]) -> Page:
        return _page(request, platform.test_webhook(request.path_params["name"]))

    def change(request: Request, fields: Mapping[str, str]) -> Goto:
        name = request.path_params["name"]
        if "active" in fields:
            return Goto(_address(platform.update_webhook(name, active=fields["active"] == "yes")))
        if not fields.get("secret"):
            raise InvalidInput(
                "the form holds no secret; type one, or make one with: flyball webhooks secret --generate"
            )
        return Goto(_address(platform.update_webhook(name, secret=fields["secret"])))

    def again(request: Request, fields: Mapping[str, str]) -> Goto:
        name = request.path_params["name"]
        event = fields.get("event", "")
        if not event.isascii() or not event.isdecimal():
            raise InvalidInput(f"the form names the event {event[:40]!r}; expected its number")
        platform.redeliver(name, int(event))
        return Goto(f"/settings/webhooks/{quote(name)}")

    def delete(request: Request, _fields: Mapping[str, str]) -> Goto:
        platform.delete_webhook(request.path_params["name"])
        return Goto("/settings/webhooks")

    site.page("/settings/webhooks", overview)
    site.form("/settings/webhooks", make)
    site.page("/settings/webhooks/{name}", show)
    for act, handler in (("test", test), ("change", change), ("again", again), ("delete", delete)):
        site.form(f"/settings/webhooks/{{name}}/{act}", handler)


def _address(hook: Hook) -> str:
    return f"/settings/webhooks/{quote(hook.name)}"


def _row(hook: Hook) -> dict[str, Any]:
    """Return a webhook as the pages show it: of its address in a list the host, since paths often hold a token."""
    return {
        "name": hook.name,
        "called": hook.title,
        "at": _address(hook),
        "host": urlsplit(hook.url).netloc,
        "url": hook.url,
        "events": hook.events,
        "format": hook.format,
        "is_active": hook.is_active,
        "is_signed": hook.is_signed,
        "description": hook.description,
        "created_at": hook.created_at,
        "counts": {state: hook.counts.get(state, 0) for state in _STATES},
    }
