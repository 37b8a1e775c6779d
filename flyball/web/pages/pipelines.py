"""`/pipelines`: what can be run, what starts it, what its last runs did; and a form that starts one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform import Platform
from flyball.web.pages.looking import instant
from flyball.web.pages.site import Goto, Page, Site
from flyball.web.pages.triggers import budget_of, used_of

__all__ = ["mount"]

_RUNS = 30
_PARAM = "param."  # of the form's fields that are parameters


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(_request: Request) -> Page:
        triggers = platform.resources("trigger")
        rows = [
            {
                "pipeline": p,
                "last": next(iter(platform.runs(of=str(p.ref), kind="pipeline", limit=1)), None),
                "triggers": _starting(p, triggers),
            }
            for p in platform.resources("pipeline")
        ]
        values = {"title": "Pipelines", "section": "pipelines", "crumbs": [("Pipelines", None)], "rows": rows}
        return Page("pipelines.html", values)

    def one(request: Request) -> Page:
        pipeline = platform.resource(Ref("pipeline", request.path_params["name"]))
        runs = platform.runs(of=str(pipeline.ref), kind="pipeline", limit=_RUNS)
        values = {
            "title": pipeline.name,
            "section": "pipelines",
            "crumbs": [("Pipelines", "/pipelines"), (pipeline.name, None)],
            "pipeline": pipeline,
            "reason": reason_of(pipeline),
            "runs": [{"run": r, "took": _took(platform, r)} for r in runs],
            "triggers": [_due(platform, t) for t in _starting(pipeline, platform.resources("trigger"))],
            "params": {k: json.dumps(v) for k, v in dict(pipeline.spec.get("params", {})).items()},
            "events": site.told(platform.events(ref=str(pipeline.ref), limit=12)),
        }
        return Page("pipeline.html", values)

    def start(request: Request, fields: Mapping[str, str]) -> Goto:
        pipeline = platform.resource(Ref("pipeline", request.path_params["name"]))
        declared = dict(pipeline.spec.get("params", {}))
        given = {name.removeprefix(_PARAM): _value(text) for name, text in fields.items() if name.startswith(_PARAM)}
        changed = {name: value for name, value in given.items() if name not in declared or declared[name] != value}
        return Goto(f"/runs/{platform.start_pipeline(pipeline.name, changed).id}")

    site.page("/pipelines", listing)
    site.page("/pipelines/{name}", one)
    site.form("/pipelines/{name}/start", start)


def _starting(pipeline: Resource, triggers: list[Resource]) -> list[Resource]:
    return [t for t in triggers if ref(str(t.spec["start"]), "pipeline") == pipeline.ref]


def _due(platform: Platform, trigger: Resource) -> dict[str, Any]:
    """Return a trigger with what its status says of the budget, the next start and why it waits."""
    return {
        "trigger": trigger,
        "budget": budget_of(trigger),
        "used": used_of(trigger, platform.clock.now()),
        "next": instant(trigger.status.get("next")),
        "reason": reason_of(trigger) or trigger.status.get("waiting"),
    }


def _took(platform: Platform, run: Any) -> float | None:
    if run.status == "pending":
        return None
    return float(((run.finished_at or platform.clock.now()) - run.started_at).total_seconds())


def _value(text: str) -> Any:
    """Return a parameter as JSON, or as the text that it is where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text
