"""The model controller: a new version goes up the stages by itself as far as their checks and people let it.

On the way it asks for people's agreement by a promotion request (`delivery.requests`), as a person would. At the goal,
the stage bound to the alias champion, the first version that passes becomes champion at once, for there is nothing to
compare it with; where the stage is entered by a rollout a later one becomes challenger, and the deployment's rollout
decides the rest. Each version is decided once; what was decided stays in the status with the gates' sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flyball.clock import parse_duration
from flyball.control import Blocked, Outcome, Retry, World
from flyball.delivery.entering import NOTHING_KNOWN, Known, check_entry, evidence_of, unmet
from flyball.delivery.requests import ask, expire, keep_stages, stages_to_keep
from flyball.errors import Conflict
from flyball.evaluation.gates import GateResult
from flyball.ledger import Transaction
from flyball.ledger.promotions import Request
from flyball.ledger.refs import ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.models.kinds import Model, Stage
from flyball.models.stages import gates_of, goal_of, next_step, stage_now, stages_of

__all__ = ["PromotionController", "roll_back", "roll_back_model"]

_KEPT = 50  # decisions that stay in the status
_SOON_S = 0.05  # requests run out a little after their time, never before it


@dataclass(frozen=True)
class _Case:
    """The version that is looked at, the stage that it would enter, and what that asks."""

    resource: Resource
    model: Model
    version: Version
    stage: Stage
    is_goal: bool
    champion: int | None
    aliases: Mapping[str, int]
    results: list[GateResult]
    request: Request | None  # the newest for this version and stage


class PromotionController:
    """Controller of the kind `model`.

    Args:
        known: what is known of signatures and of questions in files.
    """

    kind = "model"

    def __init__(self, known: Known = NOTHING_KNOWN) -> None:
        self._known = known

    def reconcile(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("model", name)
            if resource is None:
                return None
            model = Model.model_validate(resource.spec)
            waiting = reading.promotions.find(kind="model", name=name, states=["open"], limit=1000)
        if any(request.standing(world.clock.now()) == "expired" for request in waiting):
            with world.write() as writing:
                expire(writing, name, world.clock.now())
        if model.stages:
            self._follow_aliases(name, model, world)
        outcome = None if model.promotion == "by hand" else self._promote(resource, model, world)
        ends = [request.expires_at for request in waiting if request.standing(world.clock.now()) == "open"]
        left = [(end - world.clock.now()).total_seconds() for end in ends if end is not None]
        return outcome or (Retry(min(left) + _SOON_S) if left else None)

    def _promote(self, resource: Resource, model: Model, world: World) -> Outcome:
        with world.read() as reading:
            case = self._case(reading, resource, model)
        if case is None:
            return None
        version, stage, request = case.version, case.stage, case.request
        gates = len(gates_of(model, stage))
        if not all(result.passed for result in case.results[:gates]):
            self._decide(case, "refused", world)
            return None
        if missing := unmet(case.results[gates:]):
            return Blocked(f"{version.ref.short} passed its gates, but may not enter {stage.name} yet: {missing}")
        if stage.approvers is not None and (request is None or request.state != "approved"):
            return self._wait(case, world)
        if not case.is_goal:
            reason = "it meets what the stage asks"
            with world.write(cause=version.event) as writing:
                ask(writing, version, stage.name, reason, world.clock.now(), self._known)
            return None
        if "challenger" in case.aliases and stage.rollout:
            tried = f"{version.name}@{case.aliases['challenger']}"
            return Blocked(f"{version.ref.short} waits until {tried} has been tried")
        self._decide(case, "challenger" if stage.rollout and case.champion is not None else "champion", world)
        return None

    def _case(self, reading: Transaction, resource: Resource, model: Model) -> _Case | None:
        """Return the newest version that was never decided, and where it would go; older ones are passed over."""
        name, stages = resource.name, stages_of(model)
        goal = goal_of(stages)
        if goal is None or goal.alias != "champion":
            return None
        aliases = reading.versions.aliases("model", name)
        decided: Mapping[str, Any] = resource.status.get("decided", {})
        champion = aliases.get("champion")
        undecided = [
            version
            for version in reading.versions.all("model", name, limit=_KEPT)
            if str(version.number) not in decided and version.number > (champion or 0)
        ]
        if not undecided or aliases.get("challenger") == undecided[0].number:
            return None
        version = undecided[0]
        now_in = stage_now(stages, version.number, reading.notes.get("model", name, version.number).stage, aliases)
        stage = goal if not model.stages else next_step(stages, now_in)
        if stage is None:
            return None
        results = check_entry(reading, model, stage, version, champion, self._known)
        place: dict[str, Any] = {"kind": "model", "name": name, "number": version.number, "to": stage.name}
        request = next(iter(reading.promotions.find(**place, limit=1)), None)
        return _Case(resource, model, version, stage, stage == goal, champion, aliases, results, request)

    def _wait(self, case: _Case, world: World) -> Outcome:
        """Ask people, once; what they refuse is decided."""
        version, stage, request = case.version, case.stage, case.request
        if request is None:
            expires = world.clock.now() + parse_duration(stage.expires)
            with world.write(cause=version.event) as writing:
                evidence = evidence_of(writing, case.results, version, case.champion)
                now_in = self._now_in(writing, case).name
                reason = "it passed its gates" if case.results else "it is new, and there are no gates"
                request = writing.promotions.ask(version.ref, now_in, stage.name, reason, evidence, expires)
        if request.state == "refused":
            self._decide(case, "refused", world)
            return None
        if request.state != "open":
            again = f"flyball promote {version.ref} --to {stage.name} --reason …"
            return Blocked(
                f"{version.ref.short}: request {request.id} for {stage.name} {_ENDED[request.state]}; {again}"
            )
        return Blocked(f"{version.ref.short} passed its gates and waits for a person: flyball approve {version.ref}")

    def _now_in(self, reading: Transaction, case: _Case) -> Stage:
        noted = reading.notes.get("model", case.version.name, case.version.number).stage
        return stage_now(stages_of(case.model), case.version.number, noted, case.aliases)

    def _decide(self, case: _Case, outcome: str, world: World) -> None:
        resource, version = case.resource, case.version
        decision: dict[str, Any] = {"outcome": outcome, "gates": [asdict(r) for r in case.results]}
        if case.request is not None and case.request.reviews:
            decision["request"] = case.request.id
            decision["reviews"] = [
                {"by": r.actor, "verdict": r.verdict, "comment": r.comment} for r in case.request.reviews
            ]
        decided = {**resource.status.get("decided", {}), str(version.number): decision}
        kept = dict(sorted(decided.items(), key=lambda item: -int(item[0]))[:_KEPT])
        cause = case.request.decided_event if case.request is not None else None
        with world.write(cause=cause or version.event) as writing:
            applied = writing.resources.set_status(
                "model",
                resource.name,
                {**resource.status, "decided": kept},
                action="refused" if outcome == "refused" else "passed",
                detail={"version": version.ref.short, **decision},
                revision=resource.revision,
            )
            if outcome != "refused" and applied.event is not None:
                writing.versions.set_alias("model", version.name, outcome, version.number, cause=applied.event.seq)
                if case.model.stages:
                    keep_stages(writing, version.name, case.model, applied.event.seq)

    def _follow_aliases(self, name: str, model: Model, world: World) -> None:
        """Note the stages of versions whose alias a rollout or a person has moved."""
        with world.read() as reading:
            is_kept = not stages_to_keep(reading, name, model)
            moves = reading.versions.alias_history("model", name)
        if is_kept:
            return
        with world.write(cause=moves[-1].event if moves else None) as writing:
            keep_stages(writing, name, model)


_ENDED = {"expired": "ran out", "withdrawn": "was withdrawn"}


def roll_back_model(model: str, writing: Transaction) -> str:
    """Give the place in use back to the version before, or end the rollout that goes on; return who is in use then.

    Stage and alias move together, and with the alias the deployments that follow it.

    Raises:
        NotFound: no such model.
        Conflict: no stage of the model is bound to an alias, or there is neither a rollout nor an earlier version.
    """
    resource = writing.resources.get("model", model)
    followers = [one.name for one in writing.resources.referrers(resource.ref) if one.kind == "deployment"]
    for follower in followers:
        if "rollout" in writing.resources.get("deployment", follower).status:
            return roll_back(follower, writing)
    spec = Model.model_validate(resource.spec)
    goal = goal_of(stages_of(spec))
    if goal is None or goal.alias is None:
        raise Conflict(f"no stage of model/{model} is bound to an alias, so nothing of it is in use")
    return _go_back(f"model/{model}", model, goal.alias, writing)


def _go_back(whose: str, model: str, alias: str, writing: Transaction) -> str:
    now_at = writing.versions.aliases("model", model).get(alias)
    there = {version.number for version in writing.versions.all("model", model, limit=100_000)}
    history = [c.number for c in writing.versions.alias_history("model", model, alias) if c.number in there]
    earlier = [number for number in history if number is not None and number != now_at]
    if not earlier:
        raise Conflict(f"{whose} has no rollout to end and no earlier {alias} to go back to")
    event = writing.versions.set_alias("model", model, alias, earlier[-1])
    spec = Model.model_validate(writing.resources.get("model", model).spec)
    if spec.stages:
        keep_stages(writing, model, spec, event)
    return f"{model}@{earlier[-1]}"


def roll_back(deployment: str, writing: Transaction) -> str:
    """End a deployment's rollout, or give the champion's place back to the champion before; return who serves then.

    The deployment's controller moves the traffic; the alias that it follows moves here, with the person as actor.

    Raises:
        NotFound: no such deployment.
        Conflict: there is neither a rollout nor an earlier champion.
    """
    resource = writing.resources.get("deployment", deployment)
    model = ref(str(resource.spec["model"]), "model").name
    rollout = resource.status.get("rollout")
    if rollout is not None:
        status = {k: v for k, v in resource.status.items() if k != "rollout"}
        status["serving"] = _champion_alone(resource.status["serving"])
        status["last_rollout"] = {**rollout, "verdict": "rolled back", "reason": "a person ended it"}
        alone = status["serving"]["variants"][0]
        detail = {
            "challenger": f"{model}@{rollout['challenger']}",
            "reason": "a person ended it",
            "traffic": [{name: alone[name] for name in ("name", "version", "weight")}],
        }
        applied = writing.resources.set_status("deployment", deployment, status, action="rolled back", detail=detail)
        writing.versions.set_alias(
            "model", model, "challenger", None, cause=applied.event.seq if applied.event else None
        )
        return f"{model}@{rollout['champion']}"
    return _go_back(f"deployment/{deployment}", model, "champion", writing)


def _champion_alone(serving: Mapping[str, Any]) -> dict[str, Any]:
    champion = next(v for v in serving["variants"] if v["name"] == "champion")
    return {"revision": serving["revision"] + 1, "variants": [{**champion, "weight": 100.0}]}
