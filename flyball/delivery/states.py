"""The state of a resource in one word, from its status; the same word on the command line, in the API and on the pages.

A word is chosen so that nothing looks healthier than it was found to be: what nobody has looked at is `declared`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.ledger.resources import Resource

__all__ = ["reason_of", "state_of"]


def state_of(resource: Resource) -> str:
    """Return the state: `serving`, `rolling out`, `drifting`, `blocked`, `failed`, `declared`…"""
    status = resource.status
    if status.get("error"):
        return "failed"
    if resource.kind == "trigger" and resource.spec.get("paused"):
        return "paused"
    if resource.kind == "feature-view" and resource.spec.get("status", "active") != "active":
        return str(resource.spec["status"])
    found = _of_kind(resource.kind, status)
    if found in _ALARMS:
        return found
    return "blocked" if status.get("blocked") else found


def reason_of(resource: Resource) -> str | None:
    """Return why the resource is not as wanted, None when nothing is the matter."""
    status = resource.status
    failure = status.get("failure")
    if resource.kind == "feature-view" and failure:
        return str(failure["error"])
    conditions: Mapping[str, Any] = status.get("conditions", {})
    summaries = [str(c.get("summary", name)) for name, c in conditions.items() if isinstance(c, Mapping)]
    return status.get("error") or status.get("blocked") or status.get("waiting") or "; ".join(summaries) or None


_ALARMS = frozenset({"decayed", "disagrees", "drifting", "firing", "rolling out", "stale"})


def _of_kind(kind: str, status: Mapping[str, Any]) -> str:
    if kind == "deployment":
        return "rolling out" if "rollout" in status else "serving" if "serving" in status else "declared"
    if kind == "monitor":
        conditions = status.get("conditions", {})
        worst = next((name for name in ("decayed", "drifting") if name in conditions), None)
        return worst or ("watching" if "watching" in status else "declared")
    if kind == "alert":
        return str(status.get("state", "declared"))
    if kind == "feature-view":
        conditions = status.get("conditions", {})
        worst = next((name for name in ("disagrees", "stale") if name in conditions), None)
        return "failed" if "failure" in status else worst or ("fresh" if status.get("measured") else "declared")
    if kind == "pipeline":
        return str(status.get("last", {}).get("status", "declared"))
    if kind == "model":
        decided: Mapping[str, Any] = status.get("decided", {})
        if not decided:
            return "declared"
        return "refused" if decided[max(decided, key=int)].get("outcome") == "refused" else "passed"
    if kind == "data-product":
        return str(status.get("stage", "proposed"))
    if kind == "trigger" and status:
        return "waiting" if status.get("waiting") else "ready"
    return "declared"
