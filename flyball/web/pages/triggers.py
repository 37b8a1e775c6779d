"""`/pipelines/triggers/NAME`: what starts a pipeline, what its budget has left, when it is due next."""

from __future__ import annotations

from datetime import datetime, timedelta

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.web.pages.looking import instant
from flyball.web.pages.site import Page, Site

__all__ = ["budget_of", "mount", "used_of"]

_WINDOWS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def one(request: Request) -> Page:
        trigger = platform.resource(Ref("trigger", request.path_params["name"]))
        pipeline = ref(str(trigger.spec["start"]), "pipeline")
        values = {
            "title": trigger.name,
            "section": "pipelines",
            "crumbs": [
                ("Pipelines", "/pipelines"),
                (pipeline.name, f"/pipelines/{pipeline.name}"),
                (trigger.name, None),
            ],
            "trigger": trigger,
            "reason": reason_of(trigger) or trigger.status.get("waiting"),
            "budget": budget_of(trigger),
            "used": used_of(trigger, platform.clock.now()),
            "next": instant(trigger.status.get("next")),
            "pipeline": pipeline,
            "runs": [r for r in platform.runs(of=str(pipeline), limit=100) if r.tags.get("trigger") == trigger.name],
            "events": site.told(platform.events(ref=str(trigger.ref), limit=20)),
        }
        return Page("trigger.html", values)

    site.page("/pipelines/triggers/{name}", one)


def budget_of(trigger: Resource) -> str:
    """Return how many starts a trigger has, as it is declared: `3 a day`."""
    return str(trigger.spec.get("budget", "3 a day"))


def used_of(trigger: Resource, now: datetime) -> int:
    """Return how many of them the window that ends now has used."""
    window = _WINDOWS[budget_of(trigger).rpartition(" ")[2]]
    starts = [instant(text) for text in trigger.status.get("starts", [])]
    return sum(start is not None and start > now - window for start in starts)
