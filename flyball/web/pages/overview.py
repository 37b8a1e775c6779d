"""`/`: what is wrong, what waits for a person, what runs now, what changed today."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from markupsafe import Markup
from starlette.requests import Request

from flyball.delivery.states import reason_of, state_of
from flyball.ledger.resources import Resource
from flyball.web.formats import ref_url, state_tone
from flyball.web.pages.looking import data_plane, instant, model_ref, monitor_of, serving_versions, start_of_day
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]

_FAILED_FOR = timedelta(hours=24)  # failed runs of so long ago are still something to look at
_FAILED_RUNS = 5
_ASKED = 20  # promotion requests that are told one by one
_HELD = 10  # batches in quarantine that are told one by one
_CHANGES = 25
_EVENTS_LOOKED_AT = 400  # newest events among which the told ones are sought

# Events that say nothing which their neighbours do not say.
_PASSING = frozenset({"rollout started", "queued", "started", "watches", "unblocked", "blocked", "fired", "measured"})


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def overview(_request: Request) -> Page:
        resources = platform.resources()
        by_kind: dict[str, list[Resource]] = {}
        for resource in resources:
            by_kind.setdefault(resource.kind, []).append(resource)
        plane = data_plane(platform)
        running = platform.runs(status=("running", "pending"), limit=20)
        last_event = platform.last_event()
        monitors = by_kind.get("monitor", [])
        deployments: list[dict[str, Any]] = [
            {
                "resource": d,
                "version": next(iter(serving_versions(d).values()), None),
                "requests": platform.traffic.count(d.name),
                "monitor": monitor_of(d.name, monitors),
            }
            for d in by_kind.get("deployment", [])
        ]
        today = start_of_day(platform)
        newest = platform.events(limit=_EVENTS_LOOKED_AT) if last_event else []
        telling = [e for e in newest if e.action not in _PASSING]
        todays = [e for e in telling if e.at >= today]
        values: dict[str, Any] = {
            "title": "Overview",
            "section": "overview",
            "crumbs": [("Overview", None)],
            "is_fresh": last_event == 0,
            "wrong": _wrong(site, resources, bool(plane and not plane.is_alive and by_kind.get("deployment"))),
            "waiting": _waiting(site),
            "running": [r for r in running if r.parent is None],
            "rollouts": [_rollout(d) for d in by_kind.get("deployment", []) if "rollout" in d.status],
            "deployments": deployments,
            "unwatched": [d["resource"].ref for d in deployments if d["monitor"] is None],
            "data_plane": plane,
            "events": site.told((todays or telling)[:_CHANGES]),
            "is_today": bool(todays),
            "journal_aside": Markup('<a href="/journal">journal</a>'),
        }
        return Page("overview.html", values)

    site.page("/", overview)


def _wrong(site: Site, resources: list[Resource], plane_is_dead: bool) -> list[dict[str, Any]]:
    """Return what is not as wanted, the worst first."""
    found: list[dict[str, Any]] = []
    if plane_is_dead:
        text = "The data plane does not run: deployments do not answer until it is started again with flyball up."
        found.append({"tone": "bad", "word": "dead", "parts": [(text, None)], "href": "/settings", "since": None})
    alarmed = {r.owner for r in resources if r.kind == "alert" and r.status.get("state") == "firing"}
    for resource in resources:
        reason = reason_of(resource)
        if resource.kind == "alert" and resource.status.get("state") == "firing":
            text = str(resource.spec.get("summary", resource.name))
            href, since = ref_url(resource.owner or resource.ref), instant(resource.status.get("since"))
            tone = "bad" if resource.spec.get("severity") == "critical" else "warn"
            found.append({"tone": tone, "word": "firing", "parts": site.said(text), "href": href, "since": since})
        elif reason and (resource.status.get("error") or resource.status.get("blocked")) and not _is_waiting(resource):
            word = state_of(resource) if resource.status.get("error") else "blocked"
            text = f"{resource.ref}: {resource.status.get('error') or resource.status.get('blocked')}"
            found.append(
                {"tone": state_tone(word), "word": word, "parts": site.said(text), "href": ref_url(resource.ref),
                 "since": resource.updated_at}
            )  # fmt: skip
        elif reason and resource.kind == "feature-view" and state_of(resource) in ("failed", "stale", "disagrees"):
            word = state_of(resource)
            if word != "failed" and str(resource.ref) in alarmed:
                continue  # its alert says it
            found.append(
                {"tone": state_tone(word), "word": word, "parts": site.said(f"{resource.ref}: {reason}"),
                 "href": ref_url(resource.ref), "since": resource.updated_at}
            )  # fmt: skip
    since = site.platform.clock.now() - _FAILED_FOR
    failed = [r for r in site.platform.runs(status=("failed", "lost"), limit=50) if r.parent is None]
    for run in [r for r in failed if (r.finished_at or r.started_at) >= since][:_FAILED_RUNS]:
        last = (run.error or "no reason was kept").strip().splitlines()[-1]
        parts = [("", None), (run.ref.short, str(run.ref)), (f" of {run.name}: {last}", None)]
        found.append(
            {"tone": "bad", "word": run.status, "parts": parts, "href": ref_url(run.ref), "since": run.finished_at}
        )
    order = ("bad", "warn")
    return sorted(found, key=lambda one: order.index(one["tone"]) if one["tone"] in order else len(order))


def _is_waiting(resource: Resource) -> bool:
    return "waits for a person" in str(resource.status.get("blocked"))


def _waiting(site: Site) -> list[dict[str, Any]]:
    """Return what only a person can move on: approvals, and quarantined batches newer than the last good one."""
    found: list[dict[str, Any]] = []
    for case in site.platform.requests(states=["open"], limit=_ASKED):
        asked = case.request
        text = f"{asked.ref.short} asks for {asked.to}" + (f": {asked.reason}" if asked.reason else "")
        act = "look and decide" if case.why_not is None else "look"
        found.append(
            {"word": "approval needed", "parts": site.said(text), "href": f"/approvals/{asked.id}", "act": act,
             "since": asked.asked_at}
        )  # fmt: skip
    for held in site.platform.held(state="held", limit=_HELD):
        text = f"{held.ref} broke the contract of dataset/{held.version.name}"
        found.append(
            {"word": "quarantined", "parts": site.said(text), "href": ref_url(held.ref),
             "act": "see which rows, and why", "since": held.version.created_at}
        )  # fmt: skip
    return found


def _rollout(deployment: Resource) -> dict[str, Any]:
    rollout = deployment.status["rollout"]
    model = next(iter(serving_versions(deployment).values())).partition("@")[0]
    return {
        "deployment": deployment.ref,
        "challenger": model_ref(f"{model}@{rollout['challenger']}"),
        "share": rollout["share"],
        "since": instant(rollout.get("started_at")),
    }
