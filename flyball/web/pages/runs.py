"""`/runs` and `/runs/ID`: which run was best, and all that one recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from flyball.clock import format_instant, parse_instant
from flyball.errors import InvalidInput, NotFound
from flyball.ledger.runs import Artifact, Run
from flyball.platform import Platform
from flyball.web.formats import state_tone
from flyball.web.pages import figures
from flyball.web.pages.site import File, Page, Site, file_name, parameters

__all__ = ["deciding_metrics", "mount", "position_of", "run_named"]

SIZE = 50
KINDS = ("training", "pipeline", "step")
STATUSES = ("pending", "running", "succeeded", "failed", "cancelled", "lost")
_METRIC_COLUMNS = 3
_PARAM_COLUMNS = 5
_CURVES = 12  # metrics with a history that are drawn; the table lists all
_LOG_CHARACTERS = 40_000
_PREVIEW_BYTES = 64 * 1024
_COMMON_METRICS = ("auc", "accuracy", "rmse", "r2", "f1", "log_loss", "loss")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        given = parameters(request, "kind", "name", "status", "of", "before", "show", "metrics")
        filters: dict[str, Any] = {k: given[k] for k in ("kind", "name", "of") if k in given}
        if "status" in given:
            filters["status"] = given["status"].split(",")
        before = _position(given["before"]) if "before" in given else None
        found = platform.runs(**filters, before=before, limit=SIZE + 1)
        shown, more = found[:SIZE], found[SIZE:]
        columns = given["metrics"].split(",") if "metrics" in given else deciding_metrics(platform, shown)
        values = {
            "title": "Runs",
            "section": "runs",
            "crumbs": [("Runs", None)],
            "rows": [{"ref": str(r.ref), "run": r, "took": _took(platform, r)} for r in shown],
            "metrics": columns[:8],
            "params": _commonest(r.params for r in shown) if given.get("show") == "params" else [],
            "is_first": before is None,
            "next_key": position_of(shown[-1]) if more else None,
            "fields": [
                {"name": "kind", "label": "Kind", "value": given.get("kind"), "options": KINDS},
                {"name": "status", "label": "State", "value": given.get("status"), "options": STATUSES},
                {"name": "name", "label": "Name", "value": given.get("name")},
                {"name": "of", "label": "Of", "value": given.get("of"), "hint": "pipeline/late"},
            ],
            "is_filtered": bool(filters),
        }
        return Page("runs.html", values)

    def one(request: Request) -> Page:
        run = run_named(platform, request.path_params["id"])
        steps = sorted(platform.runs(parent=run.id, limit=500), key=lambda step: step.started_at)
        logged = platform.run_log(run.id)
        histories = {key: platform.metric(run.id, key) for key in list(run.metrics)[:_CURVES]}
        graph = platform.lineage(run.ref, depth=3, limit=60)
        values = {
            "title": run.ref.short,
            "section": "runs",
            "crumbs": [("Runs", "/runs"), (run.ref.short, None)],
            "run": run,
            "took": _took(platform, run),
            "curves": [key for key, points in histories.items() if len(points) > 1],
            "steps": [{"run": s, "took": _took(platform, s)} for s in steps],
            "step_graph": _step_graph(run, steps) if steps or run.result.get("graph") else None,
            "artifacts": [_shown(a) for a in platform.artifacts(run.id)],
            "log": logged[-_LOG_CHARACTERS:],
            "log_is_cut": len(logged) > _LOG_CHARACTERS,
            "lineage": figures.graph(graph, {str(run.ref): (run.status, state_tone(run.status))}),
            "events": site.told(platform.events(ref=str(run.ref), limit=20)),
        }
        return Page("run.html", values)

    def series(request: Request) -> File:
        key = request.query_params.get("key", "")
        points = platform.metric(run_named(platform, request.path_params["id"]).id, key)
        return File.json({"x": "step", "series": [figures.curve(key, points)]})

    def artifact(request: Request) -> File:
        found = _artifact(platform, request)
        return File(platform.blobs.get(found.digest), file_name(found.path))

    def preview(request: Request) -> Page:
        run = run_named(platform, request.path_params["id"])
        found = _artifact(platform, request)
        with platform.blobs.open(found.digest) as stream:
            data = stream.read(_PREVIEW_BYTES)
        text = data.decode("utf-8", errors="replace") if b"\x00" not in data else None
        values = {
            "title": found.path,
            "section": "runs",
            "crumbs": [("Runs", "/runs"), (run.ref.short, f"/runs/{run.id}"), (found.path, None)],
            "run": run,
            "artifact": found,
            "text": text,
            "is_cut": found.size_bytes > _PREVIEW_BYTES,
        }
        return Page("artifact.html", values)

    site.page("/runs", listing)
    site.page("/runs/{id}", one)
    site.page("/runs/{id}/series", series)
    site.page("/runs/{id}/artifact", artifact)
    site.page("/runs/{id}/preview", preview)


def run_named(platform: Platform, id: str) -> Run:
    """Return a run by its id or the beginning of it. Raises NotFound."""
    return platform.run(id)


def deciding_metrics(platform: Platform, runs: Sequence[Run]) -> list[str]:
    """Return the metrics of these runs that decide: those that models are judged by, then the usual ones."""
    counted = Counter(key for run in runs for key in run.metrics)
    declared = [str(m.spec["metric"]) for m in platform.resources("model") if m.spec.get("metric")]
    wanted = [*declared, *_COMMON_METRICS, *(key for key, _ in counted.most_common())]
    return list(dict.fromkeys(key for key in wanted if key in counted))[:_METRIC_COLUMNS]


def position_of(run: Run) -> str:
    """Return where a run stands in the list, as the address holds it."""
    return f"{format_instant(run.started_at)}~{run.id}"


def _position(text: str) -> tuple[Any, str]:
    at, tilde, id = text.partition("~")
    if not tilde:
        raise InvalidInput(f'"before" in the address is {text[:60]!r}; go back to the newest runs and page from there')
    return parse_instant(at), id


def _took(platform: Platform, run: Run) -> float | None:
    if run.status == "pending":
        return None
    return ((run.finished_at or platform.clock.now()) - run.started_at).total_seconds()


def _commonest(params: Any) -> list[str]:
    return [key for key, _ in Counter(key for one in params for key in one).most_common(_PARAM_COLUMNS)]


def _artifact(platform: Platform, request: Request) -> Artifact:
    path = request.query_params.get("path", "")
    run = run_named(platform, request.path_params["id"])
    found = next((a for a in platform.artifacts(run.id) if a.path == path), None)
    if found is None:
        raise NotFound(f"{run.ref.short} has left no file {path[:80]!r}")
    return found


def _shown(artifact: Artifact) -> dict[str, Any]:
    return {"path": artifact.path, "size_bytes": artifact.size_bytes, "digest": artifact.digest}


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
