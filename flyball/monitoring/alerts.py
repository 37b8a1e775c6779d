"""Alerts: opened when a condition begins, resolved when it ends, in the transaction that knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flyball.clock import format_instant
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref

__all__ = ["fire", "name_of", "resolve"]

# What is answered is wrong already; of other conditions that is not known.
_CRITICAL = frozenset({"decayed", "disagrees"})
_FIELDS = {"monitor": "monitor", "feature-view": "view"}


def name_of(owner: Ref, condition: str) -> str:
    """Return the name of the alert of a condition: `late-drifting`."""
    return f"{owner.name}-{condition}"


def fire(
    world: Transaction, owner: Ref, condition: str, found: Mapping[str, Any], since: str, cause: int | None = None
) -> None:
    """Open the alert of a condition, or open it again.

    Args:
        owner: the monitor or feature view whose condition it is.
        found: what was found; `summary` is the sentence that people see.
        since: the instant at which the condition began.
        cause: the event that began it.
    """
    name = name_of(owner, condition)
    spec = {_FIELDS[owner.kind]: owner.name, "what": condition, "summary": found["summary"], "detail": dict(found)}
    spec["severity"] = "critical" if condition in _CRITICAL else "warning"
    world.resources.apply("alert", name, spec, owner=str(owner))
    state = {"state": "firing", "since": since}
    world.resources.set_status("alert", name, state, action="fired", detail=found, cause=cause)


def resolve(
    world: Transaction,
    owner: Ref,
    condition: str,
    at: datetime,
    cause: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Resolve the alert of a condition; nothing happens when there is none that fires."""
    name = name_of(owner, condition)
    alert = world.resources.find("alert", name)
    if alert is not None and alert.status.get("state") == "firing":
        state = {"state": "resolved", "at": format_instant(at)}
        world.resources.set_status("alert", name, state, action="resolved", detail=detail, cause=cause)
