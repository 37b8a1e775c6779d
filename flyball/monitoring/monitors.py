"""The monitor controller: reads live traffic window by window, and keeps conditions and alerts true.

A monitor watches what the deployment's champion was trained on against what is asked now. When the champion changes
it starts anew: with the new champion's reference, from its first answer, and with no condition. A condition ends when
two windows in a row are quiet, so that an alert does not flap.

The reference is what training kept beside the version (`references`). What is not watched, and why, stands in the
status as `waiting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from flyball.clock import format_instant
from flyball.control import Blocked, Outcome, Retry, World
from flyball.ledger.refs import ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.monitoring.alerts import fire, resolve
from flyball.monitoring.kinds import Monitor
from flyball.monitoring.quality import is_decayed, limit_of
from flyball.monitoring.references import Ask, References
from flyball.monitoring.results import Results
from flyball.monitoring.windows import Reference, after, drift_in, quality_of
from flyball.stats.calibration import Exceeded
from flyball.storage.blobs import BlobStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MonitorController"]

_QUIET_WINDOWS = 2  # in a row, after which a condition ends
_QUALITY_LEVEL = 0.95


class _Traffic(Protocol):
    def frame(self, deployment: str) -> pl.DataFrame: ...


class MonitorController:
    """Controller of the kind `monitor`.

    Args:
        traffic: the prediction log.
        blobs: where training keeps references.
        results: where windows are kept.
        ask: the policies.
    """

    kind = "monitor"

    def __init__(self, traffic: _Traffic, blobs: BlobStore, results: Results, ask: Ask) -> None:
        self._traffic = traffic
        self._references = References(blobs, ask)
        self._results = results

    def reconcile(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("monitor", name)
            if resource is None:
                return None
            spec = Monitor.model_validate(resource.spec)
            deployment = reading.resources.find("deployment", ref(spec.of, "deployment").name)
        variants = deployment.status.get("serving", {}).get("variants", []) if deployment else []
        if deployment is None or not variants:
            return Blocked(f"{spec.of} does not serve yet")
        serving = deployment.status["serving"]
        champion = variants[0]["version"]
        if resource.status.get("watching", {}).get("version") != champion:
            self._start_watching(resource, champion, serving["revision"], world)
            return Retry(0.0)
        version = self._version(champion, world)
        rows = self._rows(deployment.name, resource.status["watching"]["from_revision"])
        self._tell(name, self._watch_drift(resource, spec, version, rows, world), world)
        self._watch_quality(name, spec, version, rows, world)
        return Retry(spec.every_s)

    # -- drift

    def _watch_drift(
        self, resource: Resource, spec: Monitor, version: Version, rows: pl.DataFrame, world: World
    ) -> str | None:
        """Judge the windows that are full by now; return what is not watched and why, None when all is."""
        if spec.drift is None:
            return None
        done = [r for r in self._results.of(resource.name, "drift") if r["version"] == version.ref.short]
        waiting = after(rows, done[-1]["to"] if done else None)
        is_due = waiting.height >= spec.drift.window
        watched = self._references.of(resource.name, spec, version, is_due=is_due)
        reference = watched.reference
        if reference is None:
            return watched.why
        self._keep_reference(resource.name, version, reference, world)
        size = spec.drift.window
        for start in range(0, waiting.height - size + 1, size):
            window = waiting.slice(start, size)
            number = (done[-1]["number"] + 1) if done else 1
            found = drift_in(window, reference, number)
            result = {
                "monitor": resource.name,
                "what": "drift",
                "version": version.ref.short,
                "number": number,
                "at": format_instant(world.clock.now()),
                "from": window["id"][0],
                "to": window["id"][-1],
                "from_at": format_instant(window["at"][0]),
                "to_at": format_instant(window["at"][-1]),
                "rows": size,
                "at_request": number * size,
                "test": reference.calibration.test,
                "statistics": found.statistics,
                "thresholds": {n: limit.threshold for n, limit in reference.calibration.limits.items()},
                "counts": found.counts,
                "exceeded": [asdict(e) for e in found.exceeded],
            }
            judged = [[Exceeded(**e) for e in r["exceeded"]] for r in [*done, result][-spec.drift.persistence :]]
            standing = reference.calibration.persisting(judged)
            result["standing"] = [asdict(e) for e in standing]
            self._results.append(result)
            done.append(result)
            self._set(
                "drifting", resource.name, done, _drifting(result, done[-spec.drift.persistence :][0]["from"]), world
            )
        return watched.why

    def _keep_reference(self, name: str, version: Version, reference: Reference, world: World) -> None:
        """Keep the reference's profiles with the results, once a version, for whoever shows a window beside them."""
        kept = self._results.reference(name, version.ref.short)
        if kept is not None and set(kept["columns"]) == set(reference.profiles):
            return
        columns = {column: found.to_json() for column, found in reference.profiles.items()}
        result = {"monitor": name, "what": "reference", "version": version.ref.short, "number": 0, "columns": columns}
        result |= {"at": format_instant(world.clock.now()), "trained_on": version.metadata.get("trained_on")}
        self._results.append(result)

    # -- quality

    def _watch_quality(self, name: str, spec: Monitor, version: Version, rows: pl.DataFrame, world: World) -> None:
        import polars as pl

        if spec.quality is None or rows.is_empty():
            return
        metric_name = spec.quality.metric or version.metadata.get("metric")
        if metric_name is None:
            return
        own = pl.col("version").str.split("+").list.first()  # of a routine, the deployment's own model
        mine = rows.filter((own == version.ref.short) & pl.col("label").is_not_null())
        done = [r for r in self._results.of(name, "quality") if r["version"] == version.ref.short]
        size = spec.quality.window
        number = mine.height // size
        if number == 0 or (done and done[-1]["number"] >= number):
            return
        window = mine.slice((number - 1) * size, size)
        found = quality_of(window, metric_name, _QUALITY_LEVEL)
        if found is None:
            return
        floor = limit_of(spec, version, metric_name)
        result = {
            "monitor": name,
            "what": "quality",
            "version": version.ref.short,
            "number": number,
            "at": format_instant(world.clock.now()),
            "from": window["id"][0],
            "to": window["id"][-1],
            "to_at": format_instant(window["at"][-1]),
            "rows": size,
            "at_request": int((rows["id"] == window["id"][-1]).arg_max() or 0) + 1,
            "metric": metric_name,
            "interval": asdict(found),
            "threshold": floor,
            "exceeded": is_decayed(metric_name, found.value, floor),
        }
        self._results.append(result)
        done.append(result)
        self._set("decayed", name, done, _decayed(result), world)

    # -- conditions and alerts

    def _set(
        self, condition: str, name: str, done: list[Mapping[str, Any]], found: Mapping[str, Any] | None, world: World
    ) -> None:
        """Begin, keep or end a condition after the newest result."""
        with world.read() as reading:
            resource = reading.resources.get("monitor", name)
        conditions = dict(resource.status.get("conditions", {}))
        is_on = condition in conditions
        if found is not None and not is_on:
            conditions[condition] = {**found, "since": format_instant(world.clock.now())}
            self._note(resource, conditions, condition, found, world)
        elif found is None and is_on and not any(r["exceeded"] for r in done[-_QUIET_WINDOWS:]):
            ended = conditions.pop(condition)
            self._note(resource, conditions, f"no longer {condition}", ended, world)

    def _note(
        self, resource: Resource, conditions: Mapping[str, Any], action: str, detail: Mapping[str, Any], world: World
    ) -> None:
        """Write the conditions and the alert that follows from them, in one transaction."""
        condition = action.removeprefix("no longer ")
        with world.write() as writing:
            status = {**resource.status, "conditions": dict(conditions)}
            applied = writing.resources.set_status("monitor", resource.name, status, action=action, detail=detail)
            cause = applied.event.seq if applied.event else None
            if action == condition:
                fire(writing, resource.ref, condition, detail, conditions[condition]["since"], cause)
            else:
                resolve(writing, resource.ref, condition, world.clock.now(), cause)

    def _tell(self, name: str, why: str | None, world: World) -> None:
        """Keep in the status what is not watched and why; writes nothing when that is known."""
        with world.read() as reading:
            status = reading.resources.get("monitor", name).status
        if status.get("waiting") == why:
            return
        with world.write() as writing:
            current = writing.resources.get("monitor", name).status
            kept = {k: v for k, v in {**current, "waiting": why}.items() if v is not None}
            detail = {"summary": why or "all that it shall is watched"}
            action = "does not watch all" if why else "watches all"
            writing.resources.set_status("monitor", name, kept, action=action, detail=detail)

    def _start_watching(self, resource: Resource, champion: str, revision: int, world: World) -> None:
        deployment = ref(Monitor.model_validate(resource.spec).of, "deployment")
        with world.write() as writing:
            moved = writing.journal.find(ref=str(deployment), limit=20)
            cause = next((e.seq for e in moved if e.action in ("promoted", "serves", "rolled back")), None)
            because = {"because": f"{champion} serves now"}
            for condition in resource.status.get("conditions", {}):
                resolve(writing, resource.ref, condition, world.clock.now(), cause, because)
            status = {"watching": {"version": champion, "from_revision": revision}, "conditions": {}}
            writing.resources.set_status(
                "monitor", resource.name, status, action="watches", detail={"version": champion}, cause=cause
            )

    def _version(self, champion: str, world: World) -> Version:
        target = ref(champion, "model")
        with world.read() as reading:
            return reading.versions.get("model", target.name, target.version or "latest")

    def _rows(self, deployment: str, from_revision: int) -> pl.DataFrame:
        import polars as pl

        rows = self._traffic.frame(deployment)
        return rows if rows.is_empty() else rows.filter(pl.col("revision") >= from_revision)


def _drifting(result: Mapping[str, Any], since: str) -> dict[str, Any] | None:
    if not result["standing"]:
        return None
    worst = result["standing"][0]
    feature, statistic, threshold = worst["column"], worst["statistic"], worst["threshold"]
    return {
        "feature": feature,
        "test": result["test"],
        "statistic": statistic,
        "threshold": threshold,
        "at_request": result["at_request"],
        "window": result["number"],
        "from": since,
        "rows": result["rows"],
        "others": [e["column"] for e in result["standing"][1:]],
        "summary": f"{feature} drifted: {result['test']} {statistic:.3g} > {threshold:.3g} "
        f"in a window of {result['rows']:,} requests",
    }


def _decayed(result: Mapping[str, Any]) -> dict[str, Any] | None:
    if not result["exceeded"]:
        return None
    found, name = result["interval"], result["metric"]
    return {
        "metric": name,
        "value": found["value"],
        "interval": [found["low"], found["value"], found["high"]],
        "threshold": result["threshold"],
        "at_request": result["at_request"],
        "from": result["from"],
        "rows": result["rows"],
        "summary": f"{name} is {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}] on {result['rows']:,} "
        f"labelled answers; the limit is {result['threshold']:.3f}",
    }
