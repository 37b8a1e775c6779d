"""Which version was in which stage, when, who put it there and on what evidence.

Of a stage that is bound to an alias the alias's own history tells, whoever moved it; of the others the changes of
stages that were noted. Both are append-only, so an answer about the past never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flyball.errors import NotFound
from flyball.ledger import Transaction
from flyball.ledger.promotions import Request
from flyball.ledger.refs import Ref
from flyball.models.kinds import Model
from flyball.models.stages import stages_of

__all__ = ["Standing", "standings"]

_CHECKED = frozenset({"passed", "promoted"})  # events whose detail holds what was found


@dataclass(frozen=True)
class Standing:
    """A version's time in a stage.

    `until` is None while it lasts. `request` is the promotion request that led there, where there was one; `gates`
    what its checks found; `rollout` what a canary measured.
    """

    stage: str
    ref: Ref
    since: datetime
    until: datetime | None
    actor: str
    event: int
    request: Request | None = None
    gates: tuple[Mapping[str, Any], ...] = ()
    rollout: Mapping[str, Any] | None = None


def standings(world: Transaction, name: str, at: datetime | None = None) -> list[Standing]:
    """Return every time of every version in a stage, newest first; with `at` those that lasted at that instant.

    Raises:
        NotFound: there is no such model.
    """
    stages = stages_of(Model.model_validate(world.resources.get("model", name).spec))
    found: list[Standing] = []
    for stage in stages:
        if stage.alias is not None:
            found += _by_alias(world, name, stage.name, stage.alias)
    found += _by_notes(world, name, {stage.name for stage in stages if stage.alias is not None})
    if at is not None:
        found = [one for one in found if one.since <= at and (one.until is None or at < one.until)]
    return sorted((_with_evidence(world, one) for one in found), key=lambda one: (one.since, one.event), reverse=True)


def _by_alias(world: Transaction, name: str, stage: str, alias: str) -> list[Standing]:
    changes = world.versions.alias_history("model", name, alias)
    ends = [*(change.at for change in changes[1:]), None]
    return [
        Standing(stage, Ref("model", name, str(change.number)), change.at, end, change.actor, change.event)
        for change, end in zip(changes, ends, strict=False)
        if change.number is not None
    ]


def _by_notes(world: Transaction, name: str, bound: set[str]) -> list[Standing]:
    found: list[Standing] = []
    changes = world.notes.stage_history("model", name)
    for index, change in enumerate(changes):
        if change.stage is None or change.stage in bound:
            continue
        end = next((later.at for later in changes[index + 1 :] if later.number == change.number), None)
        made = Ref("model", name, str(change.number))
        found.append(Standing(change.stage, made, change.at, end, change.actor, change.event))
    return found


def _with_evidence(world: Transaction, standing: Standing) -> Standing:
    """Add what the chain of causes knows: the request, the gates, the rollout's figures."""
    request, gates, rollout = None, (), None
    for event in world.journal.chain(standing.event):
        detail = event.detail
        if request is None and isinstance(detail.get("request"), int):
            try:
                request = world.promotions.get(detail["request"])
            except NotFound:
                continue
        if not gates and event.action in _CHECKED and detail.get("gates"):
            gates = tuple(detail["gates"])
        if rollout is None and event.action == "promoted":
            rollout = {
                "reason": detail.get("reason"),
                "comparison": detail.get("comparison"),
                "arms": detail.get("arms"),
            }
    if not gates and request is not None:
        gates = tuple(request.evidence.get("checks", ()))
    facts = (standing.stage, standing.ref, standing.since, standing.until, standing.actor, standing.event)
    return Standing(*facts, request=request, gates=gates, rollout=rollout)
