"""The model controller: a new version passes the gates and whoever must agree, and becomes challenger or is refused.

The first version that passes becomes champion at once, for there is nothing to compare it with; a later one becomes
challenger, and the deployment's rollout decides the rest. Each version is decided once; what was decided stays in
the status with the gates' sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flyball.control import Blocked, Outcome, World
from flyball.errors import Conflict
from flyball.evaluation.gates import GateResult, judge
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.models.kinds import Model

__all__ = ["APPROVED", "PromotionController", "approve", "roll_back"]

APPROVED = "approved"

_KEPT = 50  # decisions that stay in the status


class PromotionController:
    """Controller of the kind `model`."""

    kind = "model"

    def reconcile(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("model", name)
            if resource is None:
                return None
            versions = reading.versions.all("model", name, limit=_KEPT)
            aliases = reading.versions.aliases("model", name)
        decided: Mapping[str, Any] = resource.status.get("decided", {})
        champion = aliases.get("champion")
        waiting = [v for v in versions if str(v.number) not in decided and v.number > (champion or 0)]
        if not waiting:
            return None
        version = waiting[0]  # the newest; older ones that were never decided are passed over with it
        results = self._judge(resource, version, champion)
        if not all(r.passed for r in results):
            self._decide(resource, version, "refused", results, world)
            return None
        if Model.model_validate(resource.spec).approve.by == "person" and not self._is_approved(version, world):
            return Blocked(
                f"{version.ref.short} passed its gates and waits for a person: flyball approve {version.ref}"
            )
        if "challenger" in aliases:
            return Blocked(f"{version.ref.short} waits until {name}@{aliases['challenger']} has been tried")
        self._decide(resource, version, "champion" if champion is None else "challenger", results, world)
        return None

    def _judge(self, resource: Resource, version: Version, champion: int | None) -> list[GateResult]:
        spec = Model.model_validate(resource.spec)
        compared = version.metadata.get("comparison", {})
        is_same = champion is None or compared.get("champion") == f"{resource.name}@{champion}"
        return judge(
            [gate.model_dump(exclude_none=True) for gate in spec.gates],
            version.metadata.get("evaluation", {}).get("metrics", {}),
            compared.get("metrics", {}) if is_same else {},
            has_champion=champion is not None,
        )

    def _is_approved(self, version: Version, world: World) -> bool:
        with world.read() as reading:
            return bool(reading.journal.find(ref=str(version.ref), action=APPROVED, limit=1))

    def _decide(
        self, resource: Resource, version: Version, outcome: str, results: list[GateResult], world: World
    ) -> None:
        number = str(version.number)
        decision = {"outcome": outcome, "gates": [asdict(r) for r in results]}
        decided = {**resource.status.get("decided", {}), number: decision}
        kept = dict(sorted(decided.items(), key=lambda item: -int(item[0]))[:_KEPT])
        with world.write(cause=self._cause(version, world)) as writing:
            applied = writing.resources.set_status(
                "model",
                resource.name,
                {**resource.status, "decided": kept},
                action="refused" if outcome == "refused" else "passed",
                detail={"version": version.ref.short, **decision},
                revision=resource.revision,
            )
            if outcome != "refused" and applied.event is not None:
                self._appoint(writing, version, outcome, applied.event.seq)

    def _appoint(self, writing: Transaction, version: Version, alias: str, cause: int) -> None:
        writing.versions.set_alias("model", version.name, alias, version.number, cause=cause)

    def _cause(self, version: Version, world: World) -> int | None:
        """Return the approval where there was one, else the publication."""
        with world.read() as reading:
            approvals = reading.journal.find(ref=str(version.ref), action=APPROVED, limit=1)
        return approvals[0].seq if approvals else version.event


def approve(version: Version, writing: Transaction) -> Ref:
    """Note that a person agrees to a version."""
    writing.journal.note(APPROVED, str(version.ref), {}, version.event)
    return version.ref


def roll_back(deployment: str, writing: Transaction) -> str:
    """End a deployment's rollout, or give the champion's place back to the champion before; return who serves then.

    The deployment's controller moves the traffic; the alias that it follows moves here, with the person as actor.

    Raises:
        NotFound: no such deployment.
        Conflict: there is neither a rollout nor an earlier champion.
    """
    resource = writing.resources.get("deployment", deployment)
    model = ref(str(resource.spec["model"]), "model").name
    aliases = writing.versions.aliases("model", model)
    rollout = resource.status.get("rollout")
    if rollout is not None:
        status = {k: v for k, v in resource.status.items() if k != "rollout"}
        status["serving"] = _champion_alone(resource.status["serving"])
        status["last_rollout"] = {**rollout, "verdict": "rolled back", "reason": "a person ended it"}
        detail = {"challenger": f"{model}@{rollout['challenger']}", "reason": "a person ended it"}
        applied = writing.resources.set_status("deployment", deployment, status, action="rolled back", detail=detail)
        writing.versions.set_alias(
            "model", model, "challenger", None, cause=applied.event.seq if applied.event else None
        )
        return f"{model}@{rollout['champion']}"
    champions = [c.number for c in writing.versions.alias_history("model", model, "champion") if c.number is not None]
    earlier = [number for number in champions if number != aliases.get("champion")]
    if not earlier:
        raise Conflict(f"deployment/{deployment} has no rollout to end and no earlier champion to go back to")
    writing.versions.set_alias("model", model, "champion", earlier[-1])
    return f"{model}@{earlier[-1]}"


def _champion_alone(serving: Mapping[str, Any]) -> dict[str, Any]:
    champion = next(v for v in serving["variants"] if v["name"] == "champion")
    return {"revision": serving["revision"] + 1, "variants": [{**champion, "weight": 100.0}]}
