"""Alerts of feature views: whoever keeps a view finds it stale or disagreeing, and here people are told of it.

It goes by what stands in the view's status, so it does not matter who measured, nor whether this process was there.
"""

from __future__ import annotations

from typing import Any

from flyball.clock import format_instant
from flyball.control import Outcome, World
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref
from flyball.monitoring.alerts import fire, name_of, resolve

__all__ = ["FeatureAlertController"]

_CONDITIONS = ("stale", "disagrees")


class FeatureAlertController:
    """Controller of the kind `feature-view`, beside the one that keeps views."""

    kind = "feature-view"

    def reconcile(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            changed = _changes(reading, name)
        if not changed:
            return None
        with world.write() as writing:
            view = Ref(self.kind, name)
            for condition, found in _changes(writing, name).items():
                action = f"no longer {condition}" if found is None else condition
                told = writing.journal.find(ref=str(view), action=action, limit=1)
                cause = told[0].seq if told else None
                if found is None:
                    resolve(writing, view, condition, world.clock.now(), cause)
                else:
                    fire(
                        writing, view, condition, found, found.get("since") or format_instant(world.clock.now()), cause
                    )
        return None


def _changes(world: Transaction, name: str) -> dict[str, dict[str, Any] | None]:
    """Return the conditions whose alert is not as they are: what was found, None of one that has ended.

    A retired view is served no more, so nothing is wrong with it.
    """
    view = world.resources.find("feature-view", name)
    if view is None:
        return {}
    holding = {} if view.spec.get("status") == "retired" else view.status.get("conditions", {})
    changed: dict[str, dict[str, Any] | None] = {}
    for condition in _CONDITIONS:
        alert = world.resources.find("alert", name_of(view.ref, condition))
        is_firing = alert is not None and alert.status.get("state") == "firing"
        if (condition in holding) != is_firing:
            changed[condition] = dict(holding[condition]) if condition in holding else None
    return changed
