"""`/experiments` and `/experiments/ID`: what is tried, and how far each came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.platform import Platform
from flyball.platform.tracking import View
from flyball.web.markdown import html_of
from flyball.web.pages.run import NOTE_TAG
from flyball.web.pages.runs import deciding_metrics, local, took
from flyball.web.pages.site import Goto, Page, Site, integer, parameters

__all__ = ["mount"]

SIZE = 50
_RUNS = 20


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        given = parameters(request, "name", "filter", "view", "sort")
        view: View = "deleted" if given.get("view") == "deleted" else "active"
        page = max(integer(request, "page", 1) or 1, 1)
        name = given.get("name", "")
        parts = [given.get("filter", "")]
        if name:
            escaped = name.replace("'", "''")
            parts.append(f"name ILIKE '%{escaped}%'")
        order = [_order(given["sort"])] if "sort" in given else []
        text = " AND ".join(part for part in parts if part.strip())
        found, is_more = platform.search_experiments(text, order, view, limit=SIZE, offset=(page - 1) * SIZE)
        values = {
            "title": "Experiments",
            "section": "runs",
            "crumbs": [("Runs", "/runs"), ("Experiments", None)],
            "rows": [{"id": e.id, "experiment": e, **_newest(platform, e.id, view)} for e in found],
            "view": view,
            "page": page,
            "size": SIZE,
            "total": None if is_more else (page - 1) * SIZE + len(found),
            "sort": given.get("sort", ""),
            "name": name,
            "filter": given.get("filter", ""),
        }
        return Page("experiments.html", values)

    def one(request: Request) -> Page:
        experiment = platform.experiment(request.path_params["id"])
        runs = platform.runs(experiment=experiment.id, deleted=None if experiment.is_deleted else False, limit=_RUNS)
        metrics = deciding_metrics(platform, runs)
        note = experiment.tags.get(NOTE_TAG, "")
        values = {
            "title": experiment.name,
            "section": "runs",
            "crumbs": [("Runs", "/runs"), ("Experiments", "/experiments"), (experiment.name, None)],
            "experiment": experiment,
            "is_told_of": bool(platform.events(ref=str(experiment.ref), limit=1)),  # of "Default" nothing is at first
            "note": html_of(note),
            "note_text": note,
            "tags": [(k, v) for k, v in sorted(experiment.tags.items()) if not k.startswith("mlflow.")],
            "rows": [{"ref": str(r.ref), "run": r, "took": took(platform, r)} for r in runs],
            "metrics": metrics,
            "datasets": platform.input_datasets([experiment.id])[:50],
            "is_live": any(not r.is_finished for r in runs),
        }
        return Page("experiment.html", values)

    def change(request: Request, fields: Mapping[str, str]) -> Goto:
        id = platform.experiment(request.path_params["id"]).id
        what, key, value = fields.get("act", ""), fields.get("key", "").strip(), fields.get("value", "")
        if what == "rename":
            platform.rename_experiment(id, value.strip())
        elif what == "note":
            platform.tag_experiment(id, NOTE_TAG, value.replace("\r\n", "\n"))
        elif what == "tag":
            if not key:
                raise InvalidInput("the tag has no key; write one before its value")
            platform.tag_experiment(id, key, value)
        elif what == "untag":
            platform.untag_experiment(id, key)
        elif what == "delete":
            platform.delete_experiment(id)
        elif what == "restore":
            platform.restore_experiment(id)
        else:
            raise InvalidInput(f"{what[:40]!r} is nothing that can be done with an experiment")
        return Goto(local(fields.get("back", ""), f"/experiments/{id}"))

    def make(_request: Request, fields: Mapping[str, str]) -> Goto:
        name = fields.get("name", "").strip()
        if not name:
            raise InvalidInput("the experiment has no name; write one")
        return Goto(f"/experiments/{platform.create_experiment(name).id}")

    site.page("/experiments", listing)
    site.form("/experiments", make)
    site.page("/experiments/{id}", one)
    site.form("/experiments/{id}/change", change)


def _order(sort: str) -> str:
    name = sort.removeprefix("-")
    return f"{name} {'DESC' if sort.startswith('-') else 'ASC'}"


def _newest(platform: Platform, id: str, view: View) -> dict[str, Any]:
    """Return the newest run of an experiment."""
    found = platform.runs(experiment=id, deleted=None if view == "deleted" else False, limit=1)
    return {"newest": found[0] if found else None}
