"""`/deployments`: who answers the requests, how a rollout goes, how quickly; and the button that sends one back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from flyball.clock import parse_duration
from flyball.delivery.states import reason_of
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform import Platform
from flyball.serving.evidence import TrafficEvidence
from flyball.serving.kinds import Deployment
from flyball.web.formats import arms
from flyball.web.pages import figures
from flyball.web.pages.looking import data_plane, instant, monitor_of, serving_versions
from flyball.web.pages.site import File, Goto, Page, Site, parameters

if TYPE_CHECKING:
    import polars as pl

__all__ = ["RANGES", "arms_of", "mount", "rollout_events"]

RANGES = ("15m", "1h", "24h", "7d")
_ROLLOUT_ACTIONS = ("serves", "rollout started", "rollout stepped", "promoted", "rolled back", "reported")
_TITLES = {"ab": "A/B experiment", "bandit": "Bandit", "blue_green": "Blue/green switch", "shadow": "Shadow"}


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(_request: Request) -> Page:
        monitors = platform.resources("monitor")
        rows = []
        for deployment in platform.resources("deployment"):
            variants = deployment.status.get("serving", {}).get("variants", [])
            rows.append(
                {
                    "deployment": deployment,
                    "split": _split(variants, arms_of(platform, deployment)),
                    "requests": platform.traffic.count(deployment.name),
                    "monitor": monitor_of(deployment.name, monitors),
                    "reason": reason_of(deployment),
                }
            )
        values = {
            "title": "Deployments",
            "section": "deployments",
            "crumbs": [("Deployments", None)],
            "rows": rows,
            "plane": data_plane(platform),
        }
        return Page("deployments.html", values)

    def one(request: Request) -> Page:
        deployment = platform.resource(Ref("deployment", request.path_params["name"]))
        given = parameters(request, "range")
        rows = _rows(platform, deployment.name, given.get("range"))
        plane = data_plane(platform)
        served = plane.status.deployments.get(deployment.name) if plane else None
        values = {
            "title": deployment.name,
            "section": "deployments",
            "crumbs": [("Deployments", "/deployments"), (deployment.name, None)],
            "deployment": deployment,
            "reason": reason_of(deployment),
            "plane": plane,
            "served": served,
            "range": given.get("range"),
            "ranges": RANGES,
            "split": _split(deployment.status.get("serving", {}).get("variants", []), arms_of(platform, deployment)),
            "requests": platform.traffic.count(deployment.name),
            "latency": _latency(rows),
            "labelled": int(rows["label"].is_not_null().sum()) if not rows.is_empty() else 0,
            "kept": rows.height,
            "rollout": _rollout(platform, deployment),
            "experiment": _experiment(platform, deployment),
            "last": deployment.status.get("last_rollout"),
            "last_ended": instant(deployment.status.get("last_rollout", {}).get("ended_at")),
            "model": ref(str(deployment.spec["model"]), "model").name,
            "monitor": monitor_of(deployment.name, platform.resources("monitor")),
            "can_roll_back": _can_roll_back(platform, deployment),
            "events": site.told(platform.events(ref=str(deployment.ref), limit=15)),
        }
        return Page("deployment.html", values)

    def traffic(request: Request) -> File:
        deployment = platform.resource(Ref("deployment", request.path_params["name"]))
        rows = _rows(platform, deployment.name, parameters(request, "range").get("range"))
        data = figures.requests_over_time(rows, arms_of(platform, deployment))
        return File.json({**data, "events": _marks(site, deployment, rows)})

    def latency(request: Request) -> File:
        deployment = platform.resource(Ref("deployment", request.path_params["name"]))
        rows = _rows(platform, deployment.name, parameters(request, "range").get("range"))
        return File.json({**figures.latency_over_time(rows), "events": _marks(site, deployment, rows)})

    def experiment(request: Request) -> File:
        name = request.path_params["name"]
        return File.json(figures.difference_over_time(platform.experiment_over_time(name)))

    def roll_back(request: Request, _fields: Mapping[str, str]) -> Goto:
        name = request.path_params["name"]
        platform.rollback(Ref("deployment", name))
        return Goto(f"/deployments/{name}")

    site.page("/deployments", listing)
    site.page("/deployments/{name}", one)
    site.page("/deployments/{name}/traffic", traffic)
    site.page("/deployments/{name}/latency", latency)
    site.page("/deployments/{name}/experiment", experiment)
    site.form("/deployments/{name}/rollback", roll_back)


def arms_of(platform: Platform, deployment: Resource) -> dict[str, int]:
    """Return the colour number of every version that ever served here: the champion's is 0, here and elsewhere."""
    serving = list(serving_versions(deployment).values())
    model = ref(str(deployment.spec["model"]), "model").name
    names = [v.ref.short for v in platform.versions("model", model, limit=100)]
    return arms([*names, *serving], serving[0] if serving else None)


def rollout_events(platform: Platform, deployment: Ref) -> list[Event]:
    """Return what moved a deployment's traffic, oldest first."""
    found = [e for action in _ROLLOUT_ACTIONS for e in platform.events(ref=str(deployment), action=action, limit=100)]
    return sorted(found, key=lambda e: e.seq)


def _marks(site: Site, deployment: Resource, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return what moved the traffic within the time of these rows."""
    if rows.is_empty():
        return []
    first, last = rows["at"].min(), rows["at"].max()
    slack = timedelta(seconds=1)
    events = [
        e
        for e in rollout_events(site.platform, deployment.ref)
        if first - slack <= e.at <= last + slack  # type: ignore[operator]
    ]
    return figures.marks(events, site.platform.sentences(events))


def _rows(platform: Platform, name: str, span: str | None) -> pl.DataFrame:
    import polars as pl

    rows = platform.traffic.frame(name)
    if span is None or rows.is_empty():
        return rows
    since = platform.clock.now() - parse_duration(span)
    return rows.filter(pl.col("at") >= since)


def _split(variants: list[Mapping[str, Any]], colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the traffic table as parts of a bar: one a variant, versions in their colours."""
    return [
        {
            "name": f"{v['version']} ({v['name']})",
            "share": v["weight"] / 100,
            "arm": colours[v["version"]],
            "ref": f"model/{v['version']}",
        }
        for v in variants
    ]


def _latency(rows: pl.DataFrame) -> dict[str, float] | None:
    if rows.is_empty():
        return None
    found = {"p50": rows["latency_us"].quantile(0.5), "p99": rows["latency_us"].quantile(0.99)}
    return {name: value / 1000 for name, value in found.items() if value is not None}


def _rollout(platform: Platform, deployment: Resource) -> dict[str, Any] | None:
    """Return the rollout that goes on: its steps, and the evidence as the controller sees it."""
    rollout = deployment.status.get("rollout")
    if rollout is None or rollout.get("strategy", "canary") != "canary":
        return None
    spec = Deployment.model_validate(deployment.spec)
    model = ref(spec.model, "model").name
    challenger = platform.version(Ref("model", model, str(rollout["challenger"])))
    metric = platform.resource(Ref("model", model)).spec.get("metric") or challenger.metadata.get("metric")
    evidence = TrafficEvidence(platform.traffic, platform.home / "serving" / "status.json").evidence(
        deployment.name, rollout["since_revision"], deployment.status["serving"]["revision"], metric
    )
    return {
        **rollout,
        "steps": [{"share": s, "state": _step(at, rollout["step"])} for at, s in enumerate(spec.rollout.steps)],
        "arms": evidence.arms,
        "comparison": evidence.comparison,
        "metric": metric,
        "hold_requests": spec.rollout.hold_requests,
        "hold_labels": spec.rollout.hold_labels,
        "began": instant(rollout.get("started_at")),
    }


def _experiment(platform: Platform, deployment: Resource) -> dict[str, Any] | None:
    """Return how a rollout that is no canary stands, or how the last one ended; None where there was none."""
    found = platform.experiment_status(deployment.name)
    if found["state"] == "none" or found["strategy"] == "canary":
        return None
    began, ended = instant(found["started_at"]), instant(found["ended_at"])
    title = _TITLES.get(found["strategy"], "Rollout")
    if (found["experiment"] or {}).get("values"):
        title = "Contextual bandit"
    return {**found, "title": title, "began": began, "ended": ended}


def _step(position: int, now: int) -> str:
    return "finished" if position < now else ("running" if position == now else "to come")


def _can_roll_back(platform: Platform, deployment: Resource) -> bool:
    if "rollout" in deployment.status:
        return True
    model = ref(str(deployment.spec["model"]), "model").name
    champions = {c.number for c in platform.alias_changes("model", model) if c.alias == "champion" and c.number}
    return len(champions) > 1
