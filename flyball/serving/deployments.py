"""The deployment controller: keeps what is served as wanted, and lets a challenger in by the rollout's rules.

It reads aliases and evidence from the ledger and the prediction log, lets a pure strategy decide, and writes two
things: the deployment's status (with the journal event that says why), and the snapshot that the data plane reads.
The snapshot can always be made again from the statuses, so a crash between the two is mended at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from flyball import plugins
from flyball.clock import format_instant
from flyball.control import Blocked, Outcome, Retry, World
from flyball.errors import Corrupt, FlyballError, InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.rollouts import Arm, Decision, Observed, RolloutPlan, weights
from flyball.serving import snapshot
from flyball.serving.deployed_features import definitions, unmet
from flyball.serving.evidence import Evidence
from flyball.serving.kinds import Deployment
from flyball.serving.status import read_status

__all__ = ["CHALLENGER", "CHAMPION", "DeploymentController"]

CHAMPION = "champion"
CHALLENGER = "challenger"

_ROLLOUT_LOOK_S = 0.5  # how often evidence is looked at while a rollout goes on
_IDLE_LOOK_S = 5.0  # how often the data plane's state is looked at otherwise


class _Traffic(Protocol):
    def evidence(self, deployment: str, since_revision: int, revision: int, metric: str | None) -> Evidence:
        """Return the evidence of all rows from `since_revision` on, with those of `revision` counted apart."""
        ...


class DeploymentController:
    """Controller of the kind `deployment`."""

    kind = "deployment"

    def __init__(
        self, serving_folder: Path, traffic: _Traffic, bundled: Callable[[Version], Version] = lambda made: made
    ) -> None:
        """Make the controller; `bundled` gives a version its bundle where it has none yet, or says why it cannot."""
        self._snapshot_path = serving_folder / "snapshot.json"
        self._status_path = serving_folder / "status.json"
        self._traffic = traffic
        self._bundled = bundled

    def reconcile(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("deployment", name)
            if resource is None:
                self.render(world)
                return None
            spec = Deployment.model_validate(resource.spec)
            model = ref(spec.model, "model").name
            aliases = reading.versions.aliases("model", model)
            unmet_features = unmet(spec, reading, self._before())
        if CHAMPION not in aliases:
            return Blocked(f"model/{model} has no champion yet; register a version that passes its gates")
        if unmet_features is not None:
            return Blocked(unmet_features)  # what is served goes on as it is
        unbundled = self._unbundled(model, {aliases[CHAMPION], aliases.get(CHALLENGER, aliases[CHAMPION])}, world)
        if unbundled is not None:
            return Blocked(unbundled)
        status = dict(resource.status)
        rollout = status.get("rollout")
        if rollout is not None:
            self._go_on(name, resource, spec, model, world)
        elif self._wants_rollout(aliases, status):
            self._begin(name, resource, spec, model, aliases, world)
        else:
            self._serve(name, resource, model, aliases[CHAMPION], world)
        self.render(world)
        return self._look_again(name, world)

    def _unbundled(self, model: str, numbers: set[int], world: World) -> str | None:
        """Return why one of some versions cannot be loaded by the data plane, such as a pickle of an MLflow client."""
        for number in sorted(numbers):
            with world.read() as reading:
                made = reading.versions.get("model", model, number)
            try:
                self._bundled(made)
            except FlyballError as error:
                return f"{made.ref.short} cannot be served: {error}"
        return None

    # -- serving the champion

    def _serve(self, name: str, resource: Resource, model: str, champion: int, world: World) -> None:
        """Make the champion answer everything, if it does not."""
        serving = resource.status.get("serving", {})
        if [v["version"] for v in serving.get("variants", [])] == [f"{model}@{champion}"]:
            return
        with world.write() as writing:
            moved = [c for c in writing.versions.alias_history("model", model, CHAMPION) if c.number == champion]
            status = {
                **resource.status,
                "serving": _table(writing, resource, model, {"champion": (champion, 100.0)}),
            }
            writing.resources.set_status(
                "deployment",
                name,
                status,
                action="serves",
                detail={"version": f"{model}@{champion}"},
                cause=moved[-1].event if moved else None,
                revision=resource.revision,
            )
            writing.lineage.link(Ref("model", model, str(champion)), Ref("deployment", name), "serves")

    # -- letting a challenger in

    def _wants_rollout(self, aliases: Mapping[str, int], status: Mapping[str, Any]) -> bool:
        challenger = aliases.get(CHALLENGER)
        return challenger is not None and challenger != aliases[CHAMPION] and "serving" in status

    def _begin(
        self, name: str, resource: Resource, spec: Deployment, model: str, aliases: Mapping[str, int], world: World
    ) -> None:
        champion, challenger = aliases[CHAMPION], aliases[CHALLENGER]
        share = spec.rollout.steps[0]
        with world.write() as writing:
            appointed = writing.versions.alias_history("model", model, CHALLENGER)
            serving = _table(writing, resource, model, _arms(champion, challenger, weights(share)))
            rollout = {
                "champion": champion,
                "challenger": challenger,
                "step": 0,
                "share": share,
                "since_revision": serving["revision"],
                "started_at": _now(world),
            }
            writing.resources.set_status(
                "deployment",
                name,
                {**resource.status, "serving": serving, "rollout": rollout},
                action="rollout started",
                detail={"challenger": f"{model}@{challenger}", "champion": f"{model}@{champion}", "share": share},
                cause=appointed[-1].event if appointed else None,
                revision=resource.revision,
            )

    def _go_on(self, name: str, resource: Resource, spec: Deployment, model: str, world: World) -> None:
        rollout = resource.status["rollout"]
        with world.read() as reading:
            metric = reading.resources.get("model", model).spec.get("metric")
            metadata = reading.versions.get("model", model, rollout["challenger"]).metadata
        revision = resource.status["serving"]["revision"]
        evidence = self._traffic.evidence(name, rollout["since_revision"], revision, metric or metadata.get("metric"))
        observed = Observed(
            canary=evidence.arms.get("canary", Arm()),
            baseline=evidence.arms.get("baseline", Arm()),
            champion=evidence.arms.get("champion", Arm()),
            comparison=evidence.comparison,
            refused=self._refusal(name, revision),
        )
        strategy = plugins.find("flyball.rollouts", spec.rollout.strategy)
        decision: Decision = strategy.decide(_plan(spec), rollout["step"], observed)
        if decision.action == "hold":
            return
        detail = {
            "challenger": f"{model}@{rollout['challenger']}",
            "champion": f"{model}@{rollout['champion']}",
            "reason": decision.reason,
            "comparison": evidence.comparison,
            "arms": {variant: asdict(arm) for variant, arm in evidence.arms.items()},
        }
        if decision.action == "step":
            self._step(name, resource, spec, model, decision, detail, world)
        else:
            self._end(name, resource, model, decision, detail, world)

    def _step(
        self, name: str, resource: Resource, spec: Deployment, model: str, decision: Decision,
        detail: Mapping[str, Any], world: World,
    ) -> None:  # fmt: skip
        rollout = resource.status["rollout"]
        with world.write(cause=self._started(name, world)) as writing:
            serving = _table(
                writing, resource, model, _arms(rollout["champion"], rollout["challenger"], decision.weights)
            )
            share = spec.rollout.steps[decision.step]
            status = {**resource.status, "serving": serving}
            status["rollout"] = {**rollout, "step": decision.step, "share": share}
            writing.resources.set_status(
                "deployment", name, status, action="rollout stepped", detail={**detail, "share": share},
                revision=resource.revision,
            )  # fmt: skip

    def _end(
        self, name: str, resource: Resource, model: str, decision: Decision, detail: Mapping[str, Any], world: World
    ) -> None:
        """Promote or roll back: alias and traffic move in one transaction."""
        rollout = resource.status["rollout"]
        is_promoted = decision.action == "promote"
        number = rollout["challenger"] if is_promoted else rollout["champion"]
        with world.write(cause=self._started(name, world)) as writing:
            serving = _table(writing, resource, model, {"champion": (number, 100.0)})
            last = {**rollout, "verdict": "promoted" if is_promoted else "rolled back", "reason": decision.reason}
            last |= {"ended_at": _now(world), "comparison": detail["comparison"]}
            status = {k: v for k, v in resource.status.items() if k != "rollout"}
            status |= {"serving": serving, "last_rollout": last}
            applied = writing.resources.set_status(
                "deployment",
                name,
                status,
                action="promoted" if is_promoted else "rolled back",
                detail=detail,
                revision=resource.revision,
            )
            cause = applied.event.seq if applied.event else None
            if is_promoted:
                writing.versions.set_alias("model", model, CHAMPION, number, cause=cause)
                writing.lineage.link(Ref("model", model, str(number)), Ref("deployment", name), "serves")
            writing.versions.set_alias("model", model, CHALLENGER, None, cause=cause)

    def _started(self, name: str, world: World) -> int | None:
        """Return the event that began the rollout: the cause of what follows from it."""
        with world.read() as reading:
            found = reading.journal.find(ref=f"deployment/{name}", action="rollout started", limit=1)
        return found[0].seq if found else None

    # -- the data plane

    def render(self, world: World) -> None:
        """Write the snapshot that follows from all statuses, if it differs from the one on disk."""
        before = self._before()
        deployments = {}
        with world.read() as reading:
            for resource in reading.resources.all("deployment"):
                if "serving" not in resource.status:
                    continue
                try:
                    deployments[resource.name] = _served(resource, reading, before)
                except InvalidInput:  # said by `reconcile` of that deployment; the others must not wait for it
                    if resource.name in before.deployments:
                        deployments[resource.name] = before.deployments[resource.name]
            features = {view.name: dict(view.spec["definition"]) for view in reading.resources.all("feature-view")}
            services = {
                service.name: [pinned["view"] for pinned in service.spec["views"]]
                for service in reading.resources.all("feature-service")
            }
        services = {name: views for name, views in services.items() if all(view in features for view in views)}
        found = snapshot.Snapshot(before.generation, deployments, features=features, services=services)
        if replace(before, deployments=dict(before.deployments)) != found:
            snapshot.write(self._snapshot_path, replace(found, generation=before.generation + 1))

    def _before(self) -> snapshot.Snapshot:
        """Return the snapshot that is there; an empty one of the right generation where it cannot be read."""
        try:
            return snapshot.read(self._snapshot_path)
        except NotFound:
            return snapshot.Snapshot(0)
        except (Corrupt, InvalidInput):
            return snapshot.Snapshot(self._applied())

    def _refusal(self, name: str, revision: int) -> str | None:
        """Return why the data plane does not serve this revision, None when it does or has not tried yet."""
        try:
            found = read_status(self._status_path)
            newest = snapshot.read(self._snapshot_path)
        except (NotFound, Corrupt, InvalidInput):
            return None
        served = found.deployments.get(name)
        wanted = newest.deployments.get(name)
        if found.generation != newest.generation or served is None or wanted is None or wanted.revision != revision:
            return None
        return served.error if served.revision != revision else None

    def _applied(self) -> int:
        """Return the newest generation that the data plane has seen, 0 when there was none."""
        try:
            return read_status(self._status_path).generation or 0
        except (NotFound, Corrupt):
            return 0

    def _look_again(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("deployment", name)
        return Retry(_ROLLOUT_LOOK_S if resource and "rollout" in resource.status else _IDLE_LOOK_S)


def _plan(spec: Deployment) -> RolloutPlan:
    wanted = spec.rollout
    return RolloutPlan(
        tuple(wanted.steps),
        wanted.hold_requests,
        wanted.hold_labels,
        wanted.patience_requests,
        wanted.roll_back_if.errors_above,
        wanted.roll_back_if.latency_p99_ms_above,
        wanted.roll_back_if.quality,
    )


def _arms(champion: int, challenger: int, shares: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """Return version number and share by variant; the champion stands first and takes what the others leave."""
    found = {"champion": (champion, shares["champion"])}
    found["canary"] = (challenger, shares["canary"])
    if shares.get("baseline"):
        found["baseline"] = (champion, shares["baseline"])
    return found


def _table(
    reading: Transaction, resource: Resource, model: str, arms: Mapping[str, tuple[int, float]]
) -> dict[str, Any]:
    """Return the traffic table with the next revision number and the digests of the bundles."""
    variants = [
        {
            "name": variant,
            "version": f"{model}@{number}",
            "bundle": reading.versions.get("model", model, number).digest,
            "weight": share,
        }
        for variant, (number, share) in arms.items()
    ]
    return {"revision": resource.status.get("serving", {}).get("revision", 0) + 1, "variants": variants}


def _served(resource: Resource, reading: Transaction, before: snapshot.Snapshot) -> snapshot.ServedDeployment:
    spec = Deployment.model_validate(resource.spec)
    known = [d for served in before.deployments.values() for d in served.features]
    serving = resource.status["serving"]
    return snapshot.ServedDeployment(
        revision=serving["revision"],
        salt=resource.name,
        variants=tuple(snapshot.Variant(**v) for v in serving["variants"]),
        key=spec.key,
        features=tuple(definitions(spec, reading, known)),
        mask=tuple(spec.log.mask),
    )


def _now(world: World) -> str:

    return format_instant(world.clock.now())
