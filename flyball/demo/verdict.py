"""What came of the demo: the JSON object of `--json`, and what did not go as it should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.data.datasets import Published
from flyball.delivery.explain import story
from flyball.demo.job import Job
from flyball.demo.replay import Replayed
from flyball.demo.report import Quality
from flyball.demo.watcher import Seen
from flyball.platform import Platform

__all__ = ["failures_of", "result_of", "why_of"]


def why_of(platform: Platform, job: Job) -> list[str]:
    """Return the chain of causes of who serves now, a sentence a link, newest first."""
    with platform.ledger.read() as world:
        return story(platform.why(f"deployment/{job.name}"), world)


def result_of(
    job: Job, published: Published, champions: tuple[str, str], state: Replayed, logged: int, seen: Seen,
    quality: Quality, why: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return the object; `champions` are those before and after, `logged` the rows in the prediction log."""
    version, report, aside = published.version, published.report, published.quarantined
    drift = next((event.detail for event, _ in seen.conditions if event.action == "drifting"), None)
    return {
        "dataset": {"name": job.dataset, "version": version.number, "rows": version.metadata["rows"]},
        "contract": {
            "checks": report.checks if report else 0,
            "rows_failed": report.rows_failed if report else 0,
            "rows_quarantined": aside.metadata["rows"] if aside else 0,
        },
        "champion_before": champions[0],
        "champion_after": champions[1],
        "requests": {"sent": state.sent, "answered": state.answered, "logged": logged},
        "drift": None
        if drift is None
        else {key: drift[key] for key in ("feature", "test", "statistic", "threshold", "at_request")},
        "alerts": [
            {"name": event.ref.partition("/")[2], "summary": event.detail.get("summary", "")} for event in seen.alerts
        ],
        "retrained": next(reversed(seen.retrainings), None),
        "canary": _canary(seen),
        "quality": quality.to_dict(),
        "why": why,
    }


def failures_of(platform: Platform, job: Job, result: Mapping[str, Any], seen: Seen, quality: Quality) -> list[str]:
    """Return what did not go as it should, a sentence each."""
    failures = list(seen.failures)
    requests = result["requests"]
    if set(requests.values()) != {len(job.stream)}:
        failures.append(f"of {len(job.stream):,} requests {requests} were sent, answered and logged; expected all")
    failures += [
        f"{event.ref} {event.action}, and the journal does not say why"
        for event in seen.decisions
        if len(platform.why(f"event/{event.seq}")) < (2 if event.action in ("promoted", "rolled back") else 1)
    ]
    if job.is_watched_only:
        return failures
    if job.fault is None:
        found = [name for name in ("drift", "alerts", "retrained", "canary") if result[name]]
        return [*failures, *(f"nothing was wrong, yet there is {name}: {result[name]}" for name in found)]
    if job.fault.is_in_inputs and result["drift"] is None:
        failures.append(f"{job.fault.column} changed and no drift was found")
    elif not seen.conditions:
        failures.append(f"{job.fault.column} changed and nothing was noticed")
    if not job.is_strict:
        return failures
    if result["retrained"] is None:
        failures.append("nothing was retrained")
    elif not seen.promotions:
        failures.append("no retrained version was promoted")
    elif quality.verdict != "better":
        failures.append(
            f"the new champion is not shown to be better than the old one on the same rows: {quality.verdict}"
        )
    return failures


def _canary(seen: Seen) -> dict[str, Any] | None:
    if not seen.ends:
        return None
    verdict = seen.ends[-1][0].action
    last = 100.0 if verdict == "promoted" else 0.0
    steps = [{"share": e.detail.get("share", last), "reason": e.detail.get("reason", "")} for e in seen.rollout]
    return {"verdict": verdict, "steps": steps}
