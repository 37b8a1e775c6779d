"""Stages: where a version stands in its life, in an order that people define, and what each asks of who enters.

The default is development → staging → production → archived. A stage may be bound to an alias: then the version at
which the alias points is the one in that stage, whoever moved it, and the deployments that follow the alias serve it.
Pure: specs and plain values in, stages out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flyball.errors import Conflict, InvalidInput, did_you_mean, listed
from flyball.models.kinds import Approvers, Gate, Model, Stage

__all__ = ["BY_HAND", "check_way", "gates_of", "goal_of", "next_step", "stage_named", "stage_now", "stages_of"]

BY_HAND = (Stage(name="None"), Stage(name="Staging"), Stage(name="Production"), Stage(name="Archived"))
"""Of models that an MLflow client made, in its words; nothing is asked there."""


def stages_of(model: Model) -> tuple[Stage, ...]:
    """Return the stages of a model: those declared, else the default ones, which ask what the model itself asks."""
    if model.stages:
        return tuple(model.stages)
    if model.promotion == "by hand":
        return BY_HAND
    agree = Approvers(separate_duties=False) if model.approve.by == "person" else None
    production = Stage(name="production", alias="champion", rollout=True, approvers=agree)
    return Stage(name="development"), Stage(name="staging"), production, Stage(name="archived")


def stage_named(stages: Sequence[Stage], name: str) -> Stage:
    """Return a stage by its name, whatever the case. Raises InvalidInput."""
    found = next((stage for stage in stages if stage.name.lower() == name.strip().lower()), None)
    if found is None:
        names = [stage.name for stage in stages]
        raise InvalidInput(f'there is no stage "{name}"{did_you_mean(name, names)} (the stages: {listed(names)})')
    return found


def stage_now(stages: Sequence[Stage], number: int, noted: str | None, aliases: Mapping[str, int]) -> Stage:
    """Return the stage in which a version is.

    Args:
        noted: the stage that it was put in last.
        aliases: where they point. Who is bound to an alias and not pointed at by it was displaced, and has retired.
    """
    for stage in reversed(stages):
        if stage.alias is not None and aliases.get(stage.alias) == number:
            return stage
    found = next((stage for stage in stages if noted and stage.name.lower() == noted.lower()), stages[0])
    if found.alias is None:
        return found
    retired = next((stage for stage in stages if stage.is_retired), None)
    return retired or stages[max(0, list(stages).index(found) - 1)]


def goal_of(stages: Sequence[Stage]) -> Stage | None:
    """Return the stage in which versions are in use: the last that is bound to an alias; None where none is."""
    return next((stage for stage in reversed(stages) if stage.alias is not None), None)


def gates_of(model: Model, stage: Stage) -> list[Gate]:
    """Return the gates at a stage's entry: its own, and at the goal those of the model."""
    goal = goal_of(stages_of(model))
    return [*(model.gates if goal is not None and goal.name == stage.name else ()), *stage.checks]


def next_step(stages: Sequence[Stage], now: Stage) -> Stage | None:
    """Return the next stage that asks something of a version in `now`; None when none is left."""
    start = -1 if now.is_retired else list(stages).index(now)
    return next((stage for stage in stages[start + 1 :] if _asks(stage) and not stage.is_retired), None)


def check_way(stages: Sequence[Stage], now: Stage, to: Stage, version: str) -> bool:
    """Return whether going from `now` to `to` is going up, for which the entry of `to` is checked.

    Stages that ask something are passed one by one; those that ask nothing may be left out. From a retired stage one
    begins anew. Down, and out of use, one may go at any time.

    Raises:
        Conflict: it is there already, or a stage between was left out.
    """
    if now == to:
        raise Conflict(f"{version} is in {to.name} already")
    if to.is_retired:
        return False
    order = list(stages)
    start = -1 if now.is_retired else order.index(now)
    if order.index(to) < start and to.alias is None:
        return False
    between = [stage for stage in order[start + 1 : order.index(to)] if _asks(stage) and not stage.is_retired]
    if between:
        raise Conflict(
            f"{version} is in {now.name}, and on the way to {to.name} stands {between[0].name}; ask for that first: "
            f"flyball promote {version} --to {between[0].name} --reason …"
        )
    return True


def _asks(stage: Stage) -> bool:
    return bool(stage.checks or stage.requires or stage.approvers is not None or stage.alias is not None)
