"""Which versions answered a deployment's requests, when, with which shares, and what moved them.

Told from the journal, where each move of the traffic stands with its table, so an answer about the past never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flyball.errors import NotFound
from flyball.ledger import Transaction
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref

__all__ = ["Served", "served"]

_MOVES = frozenset({"serves", "rollout started", "rollout stepped", "promoted", "rolled back", "reported", "deleted"})
_PAGE = 500


@dataclass(frozen=True)
class Served:
    """A traffic table's time: `traffic` has `name`, `version`, `weight` of each variant, mirrors with `is_mirror`.

    `until` is None while it lasts.
    """

    traffic: tuple[Mapping[str, Any], ...]
    since: datetime
    until: datetime | None
    action: str
    actor: str
    event: int
    reason: str | None = None

    @property
    def text(self) -> str:
        """The table in words: `late@2 25 %, late@1 75 %`; shares of one version added up, mirrors named."""
        shares: dict[str, float] = {}
        for variant in self.traffic:
            if not variant.get("is_mirror"):
                shares[variant["version"]] = shares.get(variant["version"], 0.0) + variant["weight"]
        answered = [f"{version} {share:g} %" for version, share in shares.items() if share]
        copies = [f"{v['version']} in the shadow of {v['weight']:g} %" for v in self.traffic if v.get("is_mirror")]
        return ", ".join(answered + copies)


def served(world: Transaction, name: str, at: datetime | None = None) -> list[Served]:
    """Return every traffic table of a deployment, newest first; with `at` the one that held at that instant, if any.

    A deployment that was deleted is still told of.

    Raises:
        NotFound: there is and was no such deployment.
    """
    found: list[Served] = []
    until: datetime | None = None
    is_known = world.resources.find("deployment", name) is not None
    for event in _moves(world, Ref("deployment", name)):
        is_known = True
        if event.action != "deleted":
            reason = event.detail.get("reason")
            table = Served(_traffic(event), event.at, until, event.action, event.actor, event.seq, reason)
            if at is None or (table.since <= at and (until is None or at < until)):
                found.append(table)
        until = event.at
        if at is not None and event.at <= at:
            break
    if not is_known:
        raise NotFound(f"there is no deployment/{name}")
    return found


def _moves(world: Transaction, target: Ref) -> Iterator[Event]:
    """Yield the events that moved the traffic, newest first."""
    before: int | None = None
    while True:
        page = world.journal.find(ref=str(target), limit=_PAGE, before=before)
        yield from (event for event in page if event.action in _MOVES)
        if len(page) < _PAGE:
            return
        before = page[-1].seq


def _traffic(event: Event) -> tuple[Mapping[str, Any], ...]:
    """Return the table of an event; of one that was noted before tables were, what its versions and share say."""
    detail = event.detail
    if "traffic" in detail:
        return tuple(detail["traffic"])
    share = float(detail.get("share", 100.0 if event.action == "promoted" else 0.0))
    champion = detail.get("version") or detail.get("champion")
    found = []
    if champion and share < 100:
        found.append({"name": "champion", "version": champion, "weight": 100.0 - share})
    if share and detail.get("challenger"):
        found.append({"name": "canary", "version": detail["challenger"], "weight": share})
    return tuple(found)
