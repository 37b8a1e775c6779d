"""`/journal`, one event, and `/why/KIND/NAME`: who did what, and because of what."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flyball.errors import Corrupt, InvalidInput, NotFound
from flyball.ledger.journal import Event
from flyball.ledger.refs import ref
from flyball.platform import Platform
from flyball.web.pages.site import Page, Site, integer, parameters

__all__ = ["mount"]

SIZE = 60
_EFFECTS_LOOKED_AT = 1000  # events after one among which its effects are sought
_KINDS = (
    "alert",
    "dataset",
    "deployment",
    "feature-view",
    "model",
    "monitor",
    "pipeline",
    "quarantine",
    "run",
    "trigger",
)


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        given = parameters(request, "ref", "kind", "actor", "action", "verify")
        before = integer(request, "before")
        filters = {k: v for k, v in given.items() if k != "verify"}
        found = platform.events(**filters, before=before, limit=SIZE + 1)
        shown, more = found[:SIZE], found[SIZE:]
        values: dict[str, Any] = {
            "title": "Journal",
            "section": "journal",
            "crumbs": [("Journal", None)],
            "rows": site.told(shown),
            "is_first": before is None,
            "next_key": shown[-1].seq if more else None,
            "is_filtered": bool(filters),
            "total": platform.last_event(),
            "verified": _verified(platform) if "verify" in given else None,
            "fields": [
                {"name": "ref", "label": "About", "value": given.get("ref"), "hint": "model/late"},
                {"name": "kind", "label": "Kind", "value": given.get("kind"), "options": _KINDS},
                {"name": "action", "label": "What", "value": given.get("action"), "hint": "promoted"},
                {"name": "actor", "label": "By", "value": given.get("actor"), "hint": "user/alice"},
            ],
        }
        return Page("journal.html", values)

    def one(request: Request) -> Page:
        text = request.path_params["seq"]
        if not text.isdecimal() or len(text) > 15:
            raise InvalidInput(f"{text[:40]!r} is not the number of an event; expected a whole number")
        event = platform.event(int(text))
        effects = [e for e in platform.events_since(event.seq, _EFFECTS_LOOKED_AT) if e.cause == event.seq]
        values = {
            "title": f"Event {event.seq}",
            "section": "journal",
            "crumbs": [("Journal", "/journal"), (f"event {event.seq}", None)],
            "one": site.told([event])[0],
            "causes": site.told(platform.why(f"event/{event.seq}")[1:]),
            "effects": site.told(effects[:50]),
            "last": platform.last_event(),
        }
        return Page("event.html", values)

    def why(request: Request) -> Page:
        target = ref(f"{request.path_params['kind']}/{request.path_params['name']}")
        chain = _chain(platform, str(target))
        values = {
            "title": f"Why {target.short}",
            "section": "journal",
            "crumbs": [("Journal", "/journal"), (f"Why {target.short}", None)],
            "target": target,
            "chain": site.told(chain),
        }
        return Page("why.html", values)

    site.page("/journal", listing)
    site.page("/journal/{seq}", one)
    site.page("/why/{kind}/{name}", why)


def _verified(platform: Platform) -> dict[str, Any]:
    try:
        return {"count": platform.verify_journal(), "error": None}
    except Corrupt as error:
        return {"count": 0, "error": str(error)}


def _chain(platform: Platform, target: str) -> list[Event]:
    """Return the chain of causes of a thing; of one that is no resource (a quarantined batch) of its newest event."""
    try:
        return platform.why(target)
    except InvalidInput:
        newest = platform.events(ref=target, limit=1)
        if not newest:
            raise NotFound(f"the journal knows nothing of {target}") from None
        return platform.why(f"event/{newest[0].seq}")
