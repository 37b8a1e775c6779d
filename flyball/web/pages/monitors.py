"""`/monitors`: is what is asked still what was learnt from, and are the answers still right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.errors import NotFound, did_you_mean, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform import Platform
from flyball.web.pages import figures
from flyball.web.pages.deployments import arms_of, rollout_events
from flyball.web.pages.histograms import histogram
from flyball.web.pages.looking import instant
from flyball.web.pages.site import File, Page, Site, integer, parameters

__all__ = ["mount"]

_SPARK_WINDOWS = 40
_QUALITY_WINDOWS = 300

Result = Mapping[str, Any]


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(_request: Request) -> Page:
        alerts = platform.resources("alert")
        rows = [
            {
                "monitor": monitor,
                "deployment": _deployment(monitor),
                "reason": reason_of(monitor),
                "drift": _last(platform.monitor_results.of(monitor.name, "drift")),
                "quality": _last(platform.monitor_results.of(monitor.name, "quality")),
                "firing": [a for a in alerts if a.owner == str(monitor.ref) and a.status.get("state") == "firing"],
            }
            for monitor in platform.resources("monitor")
        ]
        values = {
            "title": "Monitors",
            "section": "monitors",
            "crumbs": [("Monitors", None)],
            "rows": rows,
            "alerts": [
                {"alert": a, "since": instant(a.status.get("since")) or instant(a.status.get("at"))} for a in alerts
            ],
        }
        return Page("monitors.html", values)

    def one(request: Request) -> Page:
        monitor = platform.resource(Ref("monitor", request.path_params["name"]))
        results = platform.monitor_results.of(monitor.name, "drift")
        quality = platform.monitor_results.of(monitor.name, "quality")
        versions = list(dict.fromkeys(r["version"] for r in [*results, *quality]))
        version = request.query_params.get("version") or monitor.status.get("watching", {}).get("version")
        if version not in versions:
            version = versions[-1] if versions else version
        windows = [r for r in results if r["version"] == version]
        window = _chosen(windows, integer(request, "window"))
        features = _features(windows, window)
        feature = _feature(features, request.query_params.get("feature"))
        values = {
            "title": monitor.name,
            "section": "monitors",
            "crumbs": [("Monitors", "/monitors"), (monitor.name, None)],
            "monitor": monitor,
            "deployment": _deployment(monitor),
            "conditions": [
                {"name": n, "since": instant(c.get("since")), "summary": c.get("summary", n)}
                for n, c in monitor.status.get("conditions", {}).items()
            ],
            "blocked": monitor.status.get("blocked") or monitor.status.get("error"),
            "unwatched": monitor.status.get("waiting"),
            "watched": version,
            "versions": versions,
            "window": window,
            "window_at": instant(window["to_at"]) if window else None,
            "is_newest": window is windows[-1] if windows else True,
            "features": features,
            "feature": feature,
            "histogram": _histogram(platform, monitor.name, window, feature, version) if window and feature else None,
            "quality": quality[-1] if quality else None,
            "quality_at": instant(quality[-1]["to_at"]) if quality else None,
            "spec": monitor.spec,
            "alerts": [
                {"alert": a, "since": instant(a.status.get("since")) or instant(a.status.get("at"))}
                for a in platform.resources("alert")
                if a.owner == str(monitor.ref)
            ],
            "events": site.told(platform.events(ref=str(monitor.ref), limit=15)),
        }
        return Page("monitor.html", values)

    def drift(request: Request) -> File:
        monitor = platform.resource(Ref("monitor", request.path_params["name"]))
        given = parameters(request, "version", "feature")
        results = [
            r
            for r in platform.monitor_results.of(monitor.name, "drift")
            if r["version"] == given.get("version") and given.get("feature") in r["statistics"]
        ]
        return File.json(_drift_chart(results, given.get("feature", ""), _marks(site, monitor, results)))

    def quality(request: Request) -> File:
        monitor = platform.resource(Ref("monitor", request.path_params["name"]))
        results = platform.monitor_results.of(monitor.name, "quality")[-_QUALITY_WINDOWS:]
        colours = _colours(platform, monitor)
        return File.json(_quality_chart(results, colours, _marks(site, monitor, results)))

    site.page("/monitors", listing)
    site.page("/monitors/{name}", one)
    site.page("/monitors/{name}/drift", drift)
    site.page("/monitors/{name}/quality", quality)


def _deployment(monitor: Resource) -> Ref:
    return ref(str(monitor.spec["of"]), "deployment").resource


def _last(results: Sequence[Result]) -> Result | None:
    return results[-1] if results else None


def _chosen(windows: Sequence[Result], number: int | None) -> Result | None:
    """Return the window of that number, the newest without one. Raises NotFound."""
    if number is None:
        return _last(windows)
    found = next((w for w in windows if w["number"] == number), None)
    if found is None:
        known = f"{windows[0]['number']} to {windows[-1]['number']}" if windows else "none"
        raise NotFound(f"there is no window {number}; kept are {known}")
    return found


def _features(windows: Sequence[Result], window: Result | None) -> list[dict[str, Any]]:
    """Return a row for each watched feature, those nearest to or farthest beyond their thresholds first."""
    if window is None:
        return []
    standing = {e["column"] for e in window["standing"]}
    exceeded = {e["column"] for e in window["exceeded"]}
    rows = []
    for name, statistic in window["statistics"].items():
        threshold = window["thresholds"].get(name)
        state = "drifting" if name in standing else "exceeded" if name in exceeded else "steady"
        recent = [w["statistics"].get(name) for w in windows[-_SPARK_WINDOWS:]]
        ratio = statistic / threshold if threshold else None
        rows.append(
            {"name": name, "statistic": statistic, "threshold": threshold, "ratio": ratio, "state": state,
             "recent": recent}
        )  # fmt: skip
    return sorted(rows, key=lambda row: -(row["ratio"] or 0.0))


def _feature(features: Sequence[Mapping[str, Any]], wanted: str | None) -> str | None:
    names = [row["name"] for row in features]
    if wanted is None:
        return names[0] if names else None
    if wanted not in names:
        raise NotFound(f'no feature "{wanted[:60]}" is watched{did_you_mean(wanted, names)} (watched: {listed(names)})')
    return wanted


def _histogram(
    platform: Platform, monitor: str, window: Result, feature: str, version: str | None
) -> dict[str, Any] | None:
    """Return the reference's and the window's counts of a feature, None where the reference was not kept."""
    reference = platform.monitor_results.reference(monitor, str(version))
    if reference is None or feature not in reference["columns"]:
        return None
    row = next(r for r in _features([window], window) if r["name"] == feature)
    return {
        **histogram(reference["columns"][feature], window["counts"].get(feature)),
        "reference_name": str(reference.get("trained_on") or "reference").removeprefix("dataset/"),
        "live_name": f"window {window['number']}, {window['rows']:,} requests",
        "statistic": {
            "name": window["test"],
            "value": row["statistic"],
            "threshold": row["threshold"],
            "verdict": row["state"],
            "tone": "ok" if row["state"] == "steady" else "warn",
        },
    }


def _drift_chart(results: Sequence[Result], feature: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    if not results:
        return {"xs": [], "series": [], "empty": "No window is full yet."}
    threshold = results[-1]["thresholds"].get(feature)
    lines = [] if threshold is None else [{"at": threshold, "label": f"threshold {threshold:.3g}"}]
    return {
        "x": "time",
        "zero": True,
        "xs": [_seconds(r["to_at"]) for r in results],
        "series": [{"name": results[-1]["test"], "arm": 1, "ys": [r["statistics"][feature] for r in results]}],
        "lines": lines,
        "events": events,
    }


def _quality_chart(
    results: Sequence[Result], colours: Mapping[str, int], events: list[dict[str, Any]]
) -> dict[str, Any]:
    if not results:
        return {"xs": [], "series": [], "empty": "No window of labelled answers is full yet."}
    series, lines = [], []
    for version in dict.fromkeys(r["version"] for r in results):
        mine = [r for r in results if r["version"] == version]
        found = [r["interval"] for r in mine]
        series.append(
            {"name": version, "arm": colours.get(version, 7), "xs": [_seconds(r["to_at"]) for r in mine],
             "ys": [f["value"] for f in found], "low": [f["low"] for f in found], "high": [f["high"] for f in found]}
        )  # fmt: skip
        if mine[-1]["threshold"] is not None:
            lines.append({"at": mine[-1]["threshold"], "label": f"limit of {version} {mine[-1]['threshold']:.3g}"})
    return {"x": "time", "unit": results[-1]["metric"], "series": series, "lines": lines[-2:], "events": events}


def _colours(platform: Platform, monitor: Resource) -> dict[str, int]:
    try:
        return arms_of(platform, platform.resource(_deployment(monitor)))
    except NotFound:
        return {}


def _marks(site: Site, monitor: Resource, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return alarms and what moved the traffic, within the time of these windows."""
    if not results:
        return []
    first, last = instant(results[0]["to_at"]), instant(results[-1]["to_at"])
    if first is None or last is None:
        return []
    platform, slack = site.platform, timedelta(seconds=2)
    alarms = [e for action in ("drifting", "decayed") for e in platform.events(ref=str(monitor.ref), action=action)]
    found = [*alarms, *rollout_events(platform, _deployment(monitor))]
    events = sorted((e for e in found if first - slack <= e.at <= last + slack), key=lambda e: e.seq)
    return figures.marks(events, platform.sentences(events))


def _seconds(text: str) -> float:
    found = instant(text)
    return found.timestamp() if found is not None else 0.0
