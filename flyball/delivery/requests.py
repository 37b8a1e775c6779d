"""Promotion requests: asking, reviewing, withdrawing, running out, and what follows when enough people agree.

One way into a stage, whoever asks: a person, the promotion controller, an MLflow client. All functions work inside a
transaction of whoever acts, so that a request, its reviews, the stage and the alias change together or not at all.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flyball.clock import parse_duration
from flyball.delivery.entering import Known, check_entry, evidence_of, unmet
from flyball.errors import Conflict, FlyballError, Forbidden
from flyball.governance.identity import Principal
from flyball.ledger import Transaction
from flyball.ledger.promotions import Request, Verdict
from flyball.ledger.refs import ref
from flyball.ledger.versions import Version
from flyball.models.kinds import Approvers, Model, Stage
from flyball.models.stages import check_way, goal_of, stage_named, stage_now, stages_of

__all__ = [
    "ask",
    "check_free",
    "expire",
    "keep_stages",
    "makers_of",
    "model_of",
    "review",
    "stage_by_hand",
    "stage_of",
    "stages_to_keep",
    "why_not",
    "withdraw",
]

CHALLENGER = "challenger"
CONTROLLER = "controller/model"


def model_of(world: Transaction, name: str) -> Model:
    """Return a model's spec. Raises NotFound."""
    return Model.model_validate(world.resources.get("model", name).spec)


def stage_of(world: Transaction, version: Version) -> Stage:
    """Return the stage in which a version is. Raises NotFound: its model is not there."""
    stages = stages_of(model_of(world, version.name))
    noted = world.notes.get("model", version.name, version.number).stage
    return stage_now(stages, version.number, noted, world.versions.aliases("model", version.name))


def makers_of(world: Transaction, version: Version) -> set[str]:
    """Return who made a version: who registered it, and who started the run that did."""
    found = {version.actor}
    id: str | None = version.run
    while id is not None:
        try:
            run = world.runs.get(id)
        except FlyballError:
            break
        found |= {run.actor, run.user} - {""}
        id = run.parent
    return found


def why_not(world: Transaction, request: Request, stage: Stage, principal: Principal) -> str | None:
    """Return why somebody may not review a request, as a sentence; None when they may."""
    approvers = stage.approvers or Approvers()
    who, role = principal.actor, approvers.asked_role
    if who not in approvers.people and not (role is not None and principal.has(role)):
        named = [f"the role {role}" if role else "", ", ".join(approvers.people)]
        allowed = " or ".join(part for part in named if part)
        return f"{who} is {principal.role} and may not decide about {stage.name}; that is for {allowed}"
    if approvers.separate_duties:
        if who == request.asked_by:
            return f"{who} asked for it, and another person must decide"
        version = world.versions.get(request.ref.kind, request.ref.name, request.ref.version or "latest")
        if who in makers_of(world, version):
            return f"{who} made {request.ref.short}, and another person must decide"
    return None


def ask(world: Transaction, version: Version, to: str, reason: str, now: datetime, known: Known) -> Request:
    """Ask that a version enters a stage; where nobody needs to agree it does at once.

    Raises:
        InvalidInput: there is no such stage.
        Conflict: it is there, it left out a stage, it does not meet what the stage asks, or this was asked already.
    """
    world.versions.hold()
    model = model_of(world, version.name)
    stages = stages_of(model)
    now_in, stage = stage_of(world, version), stage_named(stages, to)
    is_up = check_way(stages, now_in, stage, version.ref.short)
    expire(world, version.name, now)
    place: dict[str, Any] = {"kind": "model", "name": version.name, "number": version.number}
    if there := world.promotions.find(**place, to=stage.name, states=["open"], limit=1):
        first = there[0]
        raise Conflict(f"{first.asked_by} asked for that already, as request {first.id}; it waits for its reviews")
    champion = _in_use(world, model, version.name)
    results = check_entry(world, model, stage, version, champion, known) if is_up else []
    if missing := unmet(results):
        raise Conflict(f"{version.ref.short} may not enter {stage.name} yet: {missing}")
    evidence = evidence_of(world, results, version, champion)
    waits = is_up and stage.approvers is not None
    expires = now + parse_duration(stage.expires) if waits else None
    request = world.promotions.ask(version.ref, now_in.name, stage.name, reason, evidence, expires)
    if waits:
        return request
    if not is_up:
        _leave(world, version, now_in, request.event)
    _enter(world, model, version, stage, request.event)
    return world.promotions.decide(request.id, "approved", request.event)


def review(
    world: Transaction, id: int, verdict: Verdict, comment: str, principal: Principal, now: datetime, known: Known
) -> Request:
    """Agree to a request or refuse it; with the last approval that was needed the version enters the stage.

    A refusal by one who may decide ends the request. What the stage asks is checked once more: it may have changed.

    Raises:
        Conflict: the request is decided or over, or the version may no longer enter.
        Forbidden: it is not for this person to decide.
    """
    world.versions.hold()
    request = world.promotions.get(id, hold=True)
    _check_open(request, now)
    model = model_of(world, request.ref.name)
    version = world.versions.get("model", request.ref.name, request.ref.version or "latest")
    stage = stage_named(stages_of(model), request.to)
    if (reason := why_not(world, request, stage, principal)) is not None:
        raise Forbidden(reason)
    said = {one.actor: one.verdict for one in request.reviews}.get(principal.actor)
    if said == verdict:
        return request
    request = world.promotions.review(id, verdict, comment)
    event = request.reviews[-1].event
    if verdict == "refused":
        return world.promotions.decide(id, "refused", event)
    if len(request.approvals()) < (stage.approvers or Approvers()).at_least:
        return request
    champion = _in_use(world, model, version.name)
    if missing := unmet(check_entry(world, model, stage, version, champion, known)):
        raise Conflict(f"{version.ref.short} may no longer enter {stage.name}: {missing}; ask anew when it may")
    if not (request.asked_by == CONTROLLER and _is_goal(model, stage)):  # then the controller lets it in, in its turn
        _enter(world, model, version, stage, event)
    return world.promotions.decide(id, "approved", event)


def withdraw(world: Transaction, id: int, comment: str, principal: Principal, now: datetime) -> Request:
    """Take a request back: who asked may, and an admin. Raises Conflict, Forbidden."""
    request = world.promotions.get(id, hold=True)
    _check_open(request, now)
    if principal.actor != request.asked_by and not principal.has("admin"):
        raise Forbidden(f"{request.asked_by} asked for it; only they, or an admin, may withdraw request {id}")
    return world.promotions.decide(id, "withdrawn", comment=comment)


def expire(world: Transaction, name: str | None, now: datetime) -> list[Request]:
    """Close the open requests whose time is over, of one model or of all, and return them."""
    found = world.promotions.find(kind="model", name=name, states=["open"], limit=1000)
    return [world.promotions.decide(one.id, "expired") for one in found if one.standing(now) == "expired"]


def stages_to_keep(world: Transaction, name: str, model: Model) -> dict[int, str]:
    """Return the stages that follow from where aliases point by now and are not noted so yet, by version."""
    stages = stages_of(model)
    aliases = world.versions.aliases("model", name)
    bound = {stage.name: aliases.get(stage.alias) for stage in stages if stage.alias is not None}
    last = {change.number: change.stage for change in world.notes.stage_history("model", name)}
    found = {
        n: stage_now(stages, n, noted, aliases).name for n, noted in last.items() if bound.get(noted or "", n) != n
    }
    found |= {number: stage for stage, number in bound.items() if number is not None and last.get(number) != stage}
    there = {made.number for made, _ in world.notes.of_versions("model", ((name, number) for number in found))}
    return {number: stage for number, stage in found.items() if number in there}


def keep_stages(world: Transaction, name: str, model: Model, cause: int | None = None) -> None:
    """Note the stages that follow from where aliases point, for those who read notes only."""
    for number, stage in stages_to_keep(world, name, model).items():
        world.notes.change("model", name, number, stage=stage, cause=cause)


def stage_by_hand(world: Transaction, version: Version, to: str, now: datetime, known: Known) -> bool:
    """Put a version in a stage as an MLflow client asks for it; False where the model leaves that to whoever asks.

    On a model with stages, declared or the default ones, it is a promotion like any other, which is done at once or
    refused: the client cannot wait for reviews. Where it is there already, nothing is done, as MLflow has it.

    Args:
        to: the empty text is the first stage.

    Raises:
        Forbidden: people must agree to the stage; the sentence names the request to make.
        InvalidInput, Conflict: as `ask`.
    """
    model = model_of(world, version.name)
    if not model.stages and model.promotion == "by hand":
        return False
    stages = stages_of(model)
    stage = stage_named(stages, to) if to else stages[0]
    if stage_of(world, version) == stage:
        return True
    if stage.approvers is not None:
        raise Forbidden(
            f"people must agree before {version.ref.short} enters {stage.name}; ask them: "
            f"flyball promote {version.ref.short} --to {stage.name} --reason …"
        )
    ask(world, version, stage.name, "by an MLflow client", now, known)
    return True


def check_free(world: Transaction, name: str, *, alias: str | None = None, number: int | None = None) -> None:
    """Refuse that an alias which a declared stage is bound to is moved past it, or that who is in use is deleted.

    Raises:
        Forbidden: the sentence names the request to make instead.
    """
    model = model_of(world, name)
    aliases = world.versions.aliases("model", name)
    for stage in model.stages:
        if stage.alias is None:
            continue
        if alias == stage.alias:
            raise Forbidden(
                f"the alias {alias} of model/{name} is bound to its stage {stage.name}; ask for the stage: "
                f"flyball promote {name}@N --to {stage.name} --reason …"
            )
        if number is not None and aliases.get(stage.alias) == number:
            raise Forbidden(f"{name}@{number} is in {stage.name} and stays; let another version in first")


def _check_open(request: Request, now: datetime) -> None:
    state = request.standing(now)
    if state == "open":
        return
    if state == "expired":
        raise Conflict(
            f"request {request.id} ran out at {request.expires_at:%Y-%m-%d %H:%M} UTC; ask again: "
            f"flyball promote {request.ref.short} --to {request.to} --reason …"
        )
    raise Conflict(f"request {request.id} is {state} already, by {request.decided_by}")


def _in_use(world: Transaction, model: Model, name: str) -> int | None:
    """Return the number of the version in use: where the goal's alias points."""
    goal = goal_of(stages_of(model))
    return world.versions.aliases("model", name).get(goal.alias or "") if goal is not None else None


def _is_goal(model: Model, stage: Stage) -> bool:
    goal = goal_of(stages_of(model))
    return goal is not None and goal.name == stage.name


def _followers(world: Transaction, name: str) -> list[str]:
    """Return the deployments that follow a model."""
    return [one.name for one in world.resources.referrers(ref(f"model/{name}")) if one.kind == "deployment"]


def _leave(world: Transaction, version: Version, now_in: Stage, cause: int) -> None:
    """Take a version out of use. Raises Conflict: it serves."""
    if now_in.alias is None:
        return
    if followers := _followers(world, version.name):
        raise Conflict(
            f"{version.ref.short} serves deployment/{followers[0]}; let another version into {now_in.name}, or go back "
            f"to the one before: flyball rollback model/{version.name}"
        )
    world.versions.set_alias("model", version.name, now_in.alias, None, cause=cause)


def _enter(world: Transaction, model: Model, version: Version, stage: Stage, cause: int) -> None:
    """Put a version in a stage, and move the alias that the stage is bound to; who was there before has retired."""
    name, aliases = version.name, world.versions.aliases("model", version.name)
    if stage.alias is not None:
        followers = _followers(world, name)
        for follower in followers:
            rollout = world.resources.get("deployment", follower).status.get("rollout")
            if rollout is not None and rollout["challenger"] != version.number:
                raise Conflict(
                    f"deployment/{follower} is letting {name}@{rollout['challenger']} in; wait, or end that: "
                    f"flyball rollback {follower}"
                )
        if stage.rollout and followers and aliases.get(stage.alias, version.number) != version.number:
            world.versions.set_alias("model", name, CHALLENGER, version.number, cause=cause)
            return  # the rollout moves the alias on evidence, and the stage follows the alias
        world.versions.set_alias("model", name, stage.alias, version.number, cause=cause)
        if aliases.get(CHALLENGER) == version.number:
            world.versions.set_alias("model", name, CHALLENGER, None, cause=cause)
    first = stages_of(model)[0]
    noted = "" if stage.name == first.name and not model.stages else stage.name
    world.notes.change("model", name, version.number, stage=noted, cause=cause)
    keep_stages(world, name, model, cause)
