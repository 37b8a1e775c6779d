"""The deployment controller: keeps what is served as wanted, and lets a challenger in by the rollout's rules.

It reads aliases and evidence from the ledger and the prediction log, lets a pure strategy decide, and writes two
things: the deployment's status (with the journal event that says why), and the snapshot that the data plane reads.
The snapshot can always be made again from the statuses, so a crash between the two is mended at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from flyball import plugins
from flyball.clock import format_instant, parse_instant
from flyball.control import Blocked, Outcome, Retry, World
from flyball.errors import Corrupt, FlyballError, InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.rollouts import Decision, Table
from flyball.serving import snapshot
from flyball.serving.calling_keys import calling_keys
from flyball.serving.deployed_features import definitions, unmet
from flyball.serving.deployed_routines import routine_of, uncomposed
from flyball.serving.evidence import Evidence
from flyball.serving.kinds import Deployment, Rollout
from flyball.serving.looking import experiment_of, observed_of, plan_of
from flyball.serving.status import read_status

__all__ = ["CHALLENGER", "CHAMPION", "DeploymentController"]

CHAMPION = "champion"
CHALLENGER = "challenger"

_ROLLOUT_LOOK_S = 0.5  # how often evidence is looked at while a rollout goes on
_EXPERIMENT_LOOK_S = 2.0  # the same of experiments, whose looks cost more
_IDLE_LOOK_S = 5.0  # how often the data plane's state is looked at otherwise
_MASKS_S = 30.0  # so long a change of a contract or policy may take to reach the log's masks
_VERDICTS = {"promote": "promoted", "roll back": "rolled back", "report": "reported"}


class _Traffic(Protocol):
    def evidence(
        self,
        deployment: str,
        since_revision: int,
        revision: int,
        metric_name: str | None,
        level: float = 0.95,
        rollout: Rollout | None = None,
    ) -> Evidence:
        """Return the evidence of all rows from `since_revision` on, with those of `revision` counted apart."""
        ...

    def forget(self, deployment: str) -> None:
        """Give up what was counted of an experiment that ended."""
        ...


class DeploymentController:
    """Controller of the kind `deployment`."""

    kind = "deployment"

    def __init__(
        self,
        serving_folder: Path,
        traffic: _Traffic,
        bundled: Callable[[Version], Version] = lambda made: made,
        protected: Callable[[Ref], Iterable[str]] = lambda _version: (),
    ) -> None:
        """Make the controller.

        Args:
            bundled: gives a version its bundle where it has none yet, or says why it cannot.
            protected: the columns behind a version that not everybody may see, which the log keeps masked.
        """
        self._snapshot_path = serving_folder / "snapshot.json"
        self._status_path = serving_folder / "status.json"
        self._traffic = traffic
        self._bundled = bundled
        self._protected = protected
        self._masks: dict[str, tuple[float, frozenset[str]]] = {}

    def reconcile(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("deployment", name)
            if resource is None:
                self._traffic.forget(name)
                self.render(world)
                return None
            spec = Deployment.model_validate(resource.spec)
            model = ref(spec.model, "model").name
            aliases = reading.versions.aliases("model", model)
            unmet_features = unmet(spec, reading, self._before()) or uncomposed(spec, model, aliases, reading)
        if CHAMPION not in aliases:
            return Blocked(f"model/{model} has no champion yet; register a version that passes its gates")
        if unmet_features is not None:
            return Blocked(unmet_features)  # what is served goes on as it is
        unbundled = self._unbundled(model, {aliases[CHAMPION], aliases.get(CHALLENGER, aliases[CHAMPION])}, world)
        if unbundled is not None:
            return Blocked(unbundled)
        unbundled = self._follow_parts(name, resource, spec, world)
        if unbundled is not None:
            return Blocked(unbundled)
        with world.read() as reading:
            resource = reading.resources.get("deployment", name)
        status = dict(resource.status)
        rollout = status.get("rollout")
        if rollout is not None:
            self._go_on(name, resource, spec, model, world)
        elif self._wants_rollout(aliases, status):
            try:
                arms = _further(spec.rollout, model, aliases, world)
            except InvalidInput as error:
                return Blocked(str(error))
            if (unbundled := self._unbundled(model, set(arms.values()), world)) is not None:
                return Blocked(unbundled)
            self._begin(name, resource, spec, model, aliases, arms, world)
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

    def _follow_parts(self, name: str, resource: Resource, spec: Deployment, world: World) -> str | None:
        """Serve the routine with its parts as they are now; return why one cannot be loaded."""
        with world.read() as reading:
            wanted = routine_of(spec, reading)
        for part in wanted["parts"] if wanted is not None else ():
            unbundled = self._unbundled(part["model"], {int(part["version"].rpartition("@")[2])}, world)
            if unbundled is not None:
                return unbundled
        serving = resource.status.get("serving")
        if serving is None or serving.get("routine") == wanted:
            return None
        with world.write() as writing:
            wanted = routine_of(spec, writing)  # a part that had no bundle has one now
            serving = {**serving, "revision": serving["revision"] + 1, "routine": wanted}
            parts = [part["version"] for part in wanted["parts"]] if wanted is not None else []
            detail = {"version": serving["variants"][0]["version"], "parts": parts, "traffic": _shares(serving)}
            writing.resources.set_status(
                "deployment",
                name,
                {**resource.status, "serving": serving},
                action="serves",
                detail=detail,
                revision=resource.revision,
            )
            for part in parts:
                writing.lineage.link(Ref("model", *part.split("@")), Ref("deployment", name), "serves")
        return None

    # -- serving the champion

    def _serve(self, name: str, resource: Resource, model: str, champion: int, world: World) -> None:
        """Make the champion answer everything, if it does not."""
        serving = resource.status.get("serving", {})
        if [v["version"] for v in serving.get("variants", [])] == [f"{model}@{champion}"]:
            return
        with world.write() as writing:
            moved = [c for c in writing.versions.alias_history("model", model, CHAMPION) if c.number == champion]
            serving = _table(writing, resource, model, {"champion": champion}, Table({"champion": 100.0}))
            writing.resources.set_status(
                "deployment",
                name,
                {**resource.status, "serving": serving},
                action="serves",
                detail={"version": f"{model}@{champion}", "traffic": _shares(serving)},
                cause=moved[-1].event if moved else None,
                revision=resource.revision,
            )
            writing.lineage.link(Ref("model", model, str(champion)), Ref("deployment", name), "serves")

    # -- letting a challenger in

    def _wants_rollout(self, aliases: Mapping[str, int], status: Mapping[str, Any]) -> bool:
        challenger = aliases.get(CHALLENGER)
        return challenger is not None and challenger != aliases[CHAMPION] and "serving" in status

    def _begin(
        self, name: str, resource: Resource, spec: Deployment, model: str, aliases: Mapping[str, int],
        arms: Mapping[str, int], world: World,
    ) -> None:  # fmt: skip
        champion, challenger = aliases[CHAMPION], aliases[CHALLENGER]
        strategy = plugins.find("flyball.rollouts", spec.rollout.strategy)
        table: Table = strategy.begin(plan_of(spec.rollout, {"arms": arms}))
        share = _share(table)
        with world.write() as writing:
            appointed = writing.versions.alias_history("model", model, CHALLENGER)
            serving = _table(writing, resource, model, _numbers(champion, challenger, arms), table)
            rollout: dict[str, Any] = {
                "strategy": spec.rollout.strategy,
                "champion": champion,
                "challenger": challenger,
                "step": 0,
                "share": share,
                "since_revision": serving["revision"],
                "started_at": _now(world),
                "step_at": _now(world),
            }
            if arms:
                rollout["arms"] = dict(arms)
            writing.resources.set_status(
                "deployment",
                name,
                {**resource.status, "serving": serving, "rollout": rollout},
                action="rollout started",
                detail={
                    "challenger": f"{model}@{challenger}",
                    "champion": f"{model}@{champion}",
                    "share": share,
                    "strategy": spec.rollout.strategy,
                    "traffic": _shares(serving),
                },
                cause=appointed[-1].event if appointed else None,
                revision=resource.revision,
            )

    def _go_on(self, name: str, resource: Resource, spec: Deployment, model: str, world: World) -> None:
        rollout = resource.status["rollout"]
        with world.read() as reading:
            metric = reading.resources.get("model", model).spec.get("metric")
            metadata = reading.versions.get("model", model, rollout["challenger"]).metadata
        revision = resource.status["serving"]["revision"]
        # The strategy that began goes on, whatever the spec says meanwhile: another could not read its evidence.
        wanted = spec.rollout.model_copy(update={"strategy": rollout.get("strategy", "canary")})
        evidence = self._traffic.evidence(
            name, rollout["since_revision"], revision, metric or metadata.get("metric"), rollout=wanted
        )
        since = rollout.get("step_at", rollout["started_at"])
        observed = observed_of(
            evidence,
            resource.status["serving"],
            self._refusal(name, revision),
            self._is_applied(name, revision),
            (world.clock.now() - parse_instant(since)).total_seconds(),
        )
        decision: Decision = plugins.find("flyball.rollouts", wanted.strategy).decide(
            plan_of(wanted, rollout), rollout["step"], observed
        )
        if decision.action == "hold":
            return
        detail = {
            "challenger": f"{model}@{rollout['challenger']}",
            "champion": f"{model}@{rollout['champion']}",
            "reason": decision.reason,
            "strategy": wanted.strategy,
            "comparison": evidence.comparison,
            "arms": {variant: asdict(arm) for variant, arm in evidence.arms.items()},
        }
        if evidence.agreement is not None:
            detail["agreement"] = evidence.agreement
        if (experiment := experiment_of(wanted, observed, rollout)) is not None:
            detail["experiment"] = experiment
        if decision.action == "step":
            self._step(name, resource, model, decision, detail, world)
        else:
            self._end(name, resource, model, decision, detail, world)

    def _step(
        self, name: str, resource: Resource, model: str, decision: Decision, detail: Mapping[str, Any], world: World
    ) -> None:
        rollout = resource.status["rollout"]
        with world.write(cause=self._started(name, world)) as writing:
            numbers = _numbers(rollout["champion"], rollout["challenger"], rollout.get("arms", {}))
            table = Table(decision.weights, contextual=decision.contextual)
            serving = _table(writing, resource, model, numbers, table)
            share = _share(table)
            status = {**resource.status, "serving": serving}
            status["rollout"] = {**rollout, "step": decision.step, "share": share, "step_at": _now(world)}
            writing.resources.set_status(
                "deployment",
                name,
                status,
                action="rollout stepped",
                detail={**detail, "share": share, "traffic": _shares(serving)},
                revision=resource.revision,
            )

    def _end(
        self, name: str, resource: Resource, model: str, decision: Decision, detail: Mapping[str, Any], world: World
    ) -> None:
        """Promote, roll back or report: alias and traffic move in one transaction."""
        rollout = resource.status["rollout"]
        is_promoted = decision.action == "promote"
        numbers = _numbers(rollout["champion"], rollout["challenger"], rollout.get("arms", {}))
        number = numbers[decision.winner] if is_promoted else rollout["champion"]
        with world.write(cause=self._started(name, world)) as writing:
            serving = _table(writing, resource, model, {"champion": number}, Table({"champion": 100.0}))
            last = {**rollout, "verdict": _VERDICTS[decision.action], "reason": decision.reason}
            last |= {"ended_at": _now(world), "comparison": detail["comparison"]}
            last |= {name: detail[name] for name in ("agreement", "experiment") if name in detail}
            status = {k: v for k, v in resource.status.items() if k != "rollout"}
            status |= {"serving": serving, "last_rollout": last}
            applied = writing.resources.set_status(
                "deployment",
                name,
                status,
                action=_VERDICTS[decision.action],
                detail={**detail, "traffic": _shares(serving)},
                revision=resource.revision,
            )
            cause = applied.event.seq if applied.event else None
            if is_promoted:
                writing.versions.set_alias("model", model, CHAMPION, number, cause=cause)
                writing.lineage.link(Ref("model", model, str(number)), Ref("deployment", name), "serves")
            writing.versions.set_alias("model", model, CHALLENGER, None, cause=cause)
        self._traffic.forget(name)

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
            keys = calling_keys(reading)
            features = {view.name: dict(view.spec["definition"]) for view in reading.resources.all("feature-view")}
            services = {
                service.name: [pinned["view"] for pinned in service.spec["views"]]
                for service in reading.resources.all("feature-service")
            }
        services = {name: views for name, views in services.items() if all(view in features for view in views)}
        deployments = {name: self._masked(served, world) for name, served in deployments.items()}
        found = snapshot.Snapshot(before.generation, deployments, features=features, services=services, keys=keys)
        if replace(before, deployments=dict(before.deployments)) != found:
            snapshot.write(self._snapshot_path, replace(found, generation=before.generation + 1))

    def _masked(self, served: snapshot.ServedDeployment, world: World) -> snapshot.ServedDeployment:
        """Return a deployment that masks in the log what a contract protects, unless its spec says otherwise."""
        now, found = world.clock.monotonic(), set[str]()
        for version in {v.version for v in (*served.variants, *served.mirrors)}:
            at, columns = self._masks.get(version, (float("-inf"), frozenset[str]()))
            if now - at > _MASKS_S:
                columns = frozenset(self._protected(ref(version, "model")))
                self._masks[version] = now, columns
            found |= columns
        return replace(served, mask=tuple(sorted({*served.mask, *(found - set(served.clear))})))

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

    def _is_applied(self, name: str, revision: int) -> bool:
        """Return whether the data plane serves this revision; true where there never was one to wait for."""
        try:
            found = read_status(self._status_path)
        except (NotFound, Corrupt):
            return True
        served = found.deployments.get(name)
        return served is not None and served.revision == revision

    def _applied(self) -> int:
        """Return the newest generation that the data plane has seen, 0 when there was none."""
        try:
            return read_status(self._status_path).generation or 0
        except (NotFound, Corrupt):
            return 0

    def _look_again(self, name: str, world: World) -> Outcome:
        with world.read() as reading:
            resource = reading.resources.find("deployment", name)
        rollout = resource.status.get("rollout") if resource else None
        if rollout is None:
            return Retry(_IDLE_LOOK_S)
        return Retry(_EXPERIMENT_LOOK_S if rollout.get("strategy") in ("ab", "bandit") else _ROLLOUT_LOOK_S)


def _numbers(champion: int, challenger: int, arms: Mapping[str, int]) -> dict[str, int]:
    """Return the version of each variant that a strategy may name."""
    return {"champion": champion, "canary": challenger, "baseline": champion, "shadow": challenger, **arms}


def _further(wanted: Rollout, model: str, aliases: Mapping[str, int], world: World) -> dict[str, int]:
    """Return the versions that compete beside champion and challenger, by variant; those two are left out.

    Raises:
        InvalidInput: the model has no such alias or version.
    """
    if wanted.strategy not in ("ab", "bandit"):
        return {}
    found: list[int] = []
    for named in wanted.arms:
        if named in aliases:
            number = aliases[named]
        elif named.isdecimal():
            number = int(named)
        else:
            known = sorted(aliases)
            raise InvalidInput(
                f'model/{model} has no alias "{named}"{did_you_mean(named, known)}, which the rollout names as an arm '
                f"(known: {listed(known)})"
            )
        with world.read() as reading:
            try:
                reading.versions.get("model", model, number)
            except NotFound as error:
                raise InvalidInput(f"{error}, which the rollout names as an arm") from None
        if number not in (aliases[CHAMPION], aliases[CHALLENGER], *found):
            found.append(number)
    return {f"arm{place}": number for place, number in enumerate(found, start=2)}


def _table(
    reading: Transaction, resource: Resource, model: str, numbers: Mapping[str, int], table: Table
) -> dict[str, Any]:
    """Return the traffic table with the next revision number and the digests of the bundles.

    The champion stands first and takes what the others leave, then the canary and its baseline (see `router.choose`).
    """

    def variant(name: str, share: float) -> dict[str, Any]:
        digest = reading.versions.get("model", model, numbers[name]).digest
        return {"name": name, "version": f"{model}@{numbers[name]}", "bundle": digest, "weight": share}

    order = ("champion", "canary", "baseline", *(name for name in table.weights if name.startswith("arm")))
    # A baseline without traffic is the champion once more; a champion or canary without traffic is kept warm.
    named = [name for name in order if name in table.weights and (name != "baseline" or table.weights[name])]
    serving: dict[str, Any] = {
        "revision": resource.status.get("serving", {}).get("revision", 0) + 1,
        "variants": [variant(name, table.weights[name]) for name in named],
    }
    routine = routine_of(Deployment.model_validate(resource.spec), reading)
    if routine is not None:
        serving["routine"] = routine
    if table.mirrors:
        serving["mirrors"] = [variant(name, share) for name, share in table.mirrors.items()]
    if table.contextual is not None:
        serving["contextual"] = dict(table.contextual)
    return serving


def _served(resource: Resource, reading: Transaction, before: snapshot.Snapshot) -> snapshot.ServedDeployment:
    spec = Deployment.model_validate(resource.spec)
    known = [d for served in before.deployments.values() for d in served.features]
    serving = resource.status["serving"]
    return snapshot.ServedDeployment(
        revision=serving["revision"],
        salt=resource.name,
        variants=tuple(snapshot.Variant(**v) for v in serving["variants"]),
        key=spec.key,
        mirrors=tuple(snapshot.Variant(**v) for v in serving.get("mirrors", [])),
        routine=snapshot.parse_routine(serving["routine"], str(resource.ref)) if serving.get("routine") else None,
        features=tuple(definitions(spec, reading, known)),
        contextual=snapshot.contextual_of(serving.get("contextual")),
        mask=tuple(spec.log.mask),
        clear=tuple(spec.log.clear),
        log=snapshot.Logging(
            1.0 if spec.log.requests == "all" else spec.log.requests, spec.log.durability, spec.log.when_full
        ),
        limits=snapshot.Limits(**spec.limits.model_dump()),
    )


def _share(table: Table) -> float:
    """Return the challenger's share in percent, of the requests or of the copies."""
    return next((table.weights[v] for v in ("canary",) if v in table.weights), table.mirrors.get("shadow", 0.0))


def _shares(serving: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a traffic table as the journal keeps it: what answers "what served then?"."""
    kept = [{name: v[name] for name in ("name", "version", "weight")} for v in serving["variants"]]
    return kept + [
        {**{name: v[name] for name in ("name", "version", "weight")}, "is_mirror": True}
        for v in serving.get("mirrors", [])
    ]


def _now(world: World) -> str:
    return format_instant(world.clock.now())
