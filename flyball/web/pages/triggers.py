"""`/pipelines/triggers/NAME`: what starts a pipeline, what its budget has left, when it is due next."""

from __future__ import annotations

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.ledger.refs import Ref, ref
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def one(request: Request) -> Page:
        trigger = platform.resource(Ref("trigger", request.path_params["name"]))
        pipeline = ref(str(trigger.spec["start"]), "pipeline")
        values = {
            "title": trigger.name,
            "section": "pipelines",
            "crumbs": [("Pipelines", "/pipelines"), (pipeline.name, f"/pipelines/{pipeline.name}"), (trigger.name, None)],
            "trigger": trigger,
            "reason": reason_of(trigger),
            "pipeline": pipeline,
            "runs": [r for r in platform.runs(of=str(pipeline), limit=100) if r.tags.get("trigger") == trigger.name],
            "events": site.told(platform.events(ref=str(trigger.ref), limit=20)),
        }
        return Page("trigger.html", values)

    site.page("/pipelines/triggers/{name}", one)
