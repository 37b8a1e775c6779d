"""`/runs/ID`: all that one run was given, measured, used, left and ran on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from flyball.errors import FlyballError, InvalidInput
from flyball.ledger.runs import Artifact, Run, as_text
from flyball.platform import Platform
from flyball.web.formats import state_tone
from flyball.web.markdown import html_of
from flyball.web.pages import figures
from flyball.web.pages.curves import AXES, curves, view_of
from flyball.web.pages.runs import local, run_named, took
from flyball.web.pages.site import File, Goto, Page, Site

__all__ = ["mount"]

NOTE_TAG = "mlflow.note.content"
"""The tag that is the description of a run or an experiment, as MLflow's page has it."""
PARENT_TAG = "mlflow.parentRunId"
SYSTEM = "system/"

_CURVES = 12  # metrics that are drawn; the table lists more, and each can be drawn
_KEYS = 300  # of parameters or metrics on the page; the search box finds the others
_CHILDREN = 100
_FILES = 2000  # of the tree on the page
_LOG_CHARACTERS = 40_000
_CONTEXT = "mlflow.data.context"


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def one(request: Request) -> Page:
        run = run_named(platform, request.path_params["id"])
        view = view_of(request)
        words = request.query_params.get("q", "").strip()
        wanted = [key for key in request.query_params.getlist("metric") if key in run.latest]
        measured = sorted(key for key in run.latest if not key.startswith(SYSTEM))
        system = sorted(key for key in run.latest if key.startswith(SYSTEM))
        drawn = wanted or [key for key in measured if _has_curve(run, key)][:_CURVES]
        below = sorted(platform.runs(parent=run.id, limit=500), key=lambda step: step.started_at)
        steps = [one for one in below if one.kind == "step"]
        logged = platform.run_log(run.id)
        files = platform.artifacts(run.id)
        graph = platform.lineage(run.ref, depth=3, limit=60)
        params = [(key, as_text(value)) for key, value in sorted(run.params.items()) if _has(words, key)]
        metrics = [key for key in measured if _has(words, key)]
        values = {
            "title": run.name or run.ref.short,
            "section": "runs",
            "crumbs": [("Runs", "/runs"), *_experiment_crumb(platform, run), (run.ref.short, None)],
            "run": run,
            "view": view,
            "axes": AXES,
            "query": urlencode(view.query),
            "words": words,
            "took": took(platform, run),
            "metrics": metrics[:_KEYS],
            "metric_count": len(measured),
            "params": params[:_KEYS],
            "left_out": {"metrics": len(metrics) - _KEYS, "params": len(params) - _KEYS},
            "curves": drawn,
            "system": system[:_CURVES],
            "note": html_of(run.tags.get(NOTE_TAG, "")),
            "note_text": run.tags.get(NOTE_TAG, ""),
            "tags": [(k, v) for k, v in sorted(run.tags.items()) if not k.startswith("mlflow.")],
            "inner_tags": [(k, v) for k, v in sorted(run.tags.items()) if k.startswith("mlflow.") and k != NOTE_TAG],
            "inputs": [_input(one) for one in run.inputs],
            "outputs": run.outputs,
            "children": _children(platform, run, [one for one in below if one.kind != "step"]),
            "parent": run.tags.get(PARENT_TAG),
            "source": _source(run),
            "steps": [{"run": s, "took": took(platform, s)} for s in steps],
            "step_graph": _step_graph(run, steps) if steps or run.result.get("graph") else None,
            "tree": _tree(files[:_FILES]),
            "files": len(files),
            "files_left_out": max(len(files) - _FILES, 0),
            "log": logged[-_LOG_CHARACTERS:],
            "log_is_cut": len(logged) > _LOG_CHARACTERS,
            "lineage": figures.graph(graph, {str(run.ref): (run.status, state_tone(run.status))}),
            "events": site.told(platform.events(ref=str(run.ref), limit=20)),
        }
        return Page("run.html", values)

    def series(request: Request) -> File:
        run = run_named(platform, request.path_params["id"])
        key = request.query_params.get("key", "")
        view = view_of(request)
        drawn = curves(platform, [(run.id, key)], key, view)
        for one in drawn["series"]:
            one["arm"] = 1
        return File.json(drawn)

    def change(request: Request, fields: Mapping[str, str]) -> Goto:
        run = run_named(platform, request.path_params["id"])
        what, key, value = fields.get("act", ""), fields.get("key", "").strip(), fields.get("value", "")
        if what == "rename":
            if not value.strip():
                raise InvalidInput("the name is empty; a run needs one")
            platform.recorder.update_run(run.id, name=value.strip()).result()
        elif what == "note":
            platform.tag_run(run.id, NOTE_TAG, value.replace("\r\n", "\n"))
        elif what == "tag":
            if not key:
                raise InvalidInput("the tag has no key; write one before its value")
            platform.tag_run(run.id, key, value)
        elif what == "untag":
            platform.untag_run(run.id, key)
        elif what == "delete":
            platform.delete_run(run.id)
        elif what == "restore":
            platform.restore_run(run.id)
        else:
            raise InvalidInput(f"{what[:40]!r} is nothing that can be done with a run")
        return Goto(local(fields.get("back", ""), f"/runs/{run.id}"))

    site.page("/runs/{id}", one)
    site.page("/runs/{id}/series", series)
    site.form("/runs/{id}/change", change)


def _has(words: str, key: str) -> bool:
    return all(word in key.lower() for word in words.lower().split())


def _has_curve(run: Run, key: str) -> bool:
    """Whether a metric may have more than one point: its newest stands at a step, or it may have come several times."""
    return run.latest[key].step != 0 or not run.is_finished


def _experiment_crumb(platform: Platform, run: Run) -> list[tuple[str, str | None]]:
    if run.experiment is None:
        return []
    try:
        return [(platform.experiment(run.experiment).name, f"/experiments/{run.experiment}")]
    except FlyballError:
        return []


def _input(given: Mapping[str, Any]) -> dict[str, Any]:
    tags = given.get("tags", {})
    return {
        "name": given.get("name"),
        "digest": given.get("digest", ""),
        "model": given.get("model"),
        "context": tags.get(_CONTEXT, ""),
    }


def _children(platform: Platform, run: Run, below: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the runs that this one contains, or that name it as their parent by MLflow's tag, without its steps."""
    found = {one.id: one for one in below}
    if run.experiment is not None:
        named = f"tags.`{PARENT_TAG}` = '{run.id}'"
        marks, _ = platform.search_run_marks([run.experiment], named, ["start_time ASC"], limit=_CHILDREN)
        found |= {id: one for id, (_, one) in platform.runs_whole([id for id in marks if id not in found]).items()}
    listed = sorted(found.values(), key=lambda one: one.started_at)
    return [{"run": one, "took": took(platform, one)} for one in listed]


def _source(run: Run) -> Mapping[str, Any]:
    """Return where the run's code was, as our client recorded it or as MLflow's tags say."""
    if run.source:
        return run.source
    told = {
        "script": run.tags.get("mlflow.source.name"),
        "commit": run.tags.get("mlflow.source.git.commit"),
        "branch": run.tags.get("mlflow.source.git.branch"),
    }
    return {key: value for key, value in told.items() if value}


def _tree(files: Sequence[Artifact]) -> dict[str, Any]:
    """Return files as folders: {"folders": {name: tree}, "files": [(name, file)], "count", "size_bytes"}."""
    root: dict[str, Any] = {"folders": {}, "files": [], "count": 0, "size_bytes": 0}
    for file in files:
        *folders, name = file.path.split("/")
        at = root
        for folder in folders:
            at = at["folders"].setdefault(folder, {"folders": {}, "files": [], "count": 0, "size_bytes": 0})
            at["count"] += 1
            at["size_bytes"] += file.size_bytes
        at["files"].append((name, file))
    return root


def _step_graph(run: Run, steps: Sequence[Run]) -> dict[str, Any]:
    """Return the steps and what they handed to one another, as the pipeline's run recorded it.

    Steps that have not started yet stand in the record but have no run; without a record the runs stand unconnected.
    """
    recorded: Mapping[str, Any] = run.result.get("graph") or {}
    if not recorded.get("steps"):
        return {"focus": "", "nodes": [_step_node(s.id, s.name, s.status, s.id) for s in steps], "edges": []}
    nodes = [_step_node(str(s["number"]), s["name"], s["status"], s.get("run")) for s in recorded["steps"]]
    edges = [{"from": str(source), "to": str(target)} for source, target in recorded.get("edges", ())]
    return {"focus": "", "nodes": nodes, "edges": edges}


def _step_node(id: str, name: str, status: str, run: str | None) -> dict[str, Any]:
    node = {"id": id, "label": name, "kind": "run", "state": status, "tone": state_tone(status)}
    return {**node, "href": f"/runs/{run}"} if run else node
