"""Experiments: how one stands, and how large one must be before it is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyball.clock import parse_instant
from flyball.errors import Conflict, InvalidInput
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform.home import Home

if TYPE_CHECKING:
    import polars as pl

    from flyball.rollouts import Observed
    from flyball.serving.kinds import Rollout

__all__ = ["ExperimentActs"]

_DAY_S = 86_400.0
_LOOKS = 24  # of the interval over time: each is a pass over the rows


class ExperimentActs(Home):
    """Experiments: how one stands, and how large one must be before it is started."""

    def experiment_status(self, deployment: str) -> dict[str, Any]:
        """Return how a deployment's rollout stands, or how the last one ended, as JSON values.

        Returns:
            `deployment`, `strategy`, `state` (running, ended or none), `champion`, `challenger`, `versions` by variant,
            `started_at`, `ended_at`, `verdict` (None while it runs), `reason` in a sentence; of an A/B and a bandit
            `experiment` (see `serving.looking.experiment_of`), of a shadow `agreement` (see
            `serving.agreement.agreement`).

        Raises:
            NotFound: no such deployment.
        """
        from flyball.serving.looking import experiment_of, plan_of

        self._may("read")
        resource = self.resource(Ref("deployment", _name(deployment)))  # type: ignore[attr-defined]
        model = ref(str(resource.spec["model"]), "model").name
        running, last = resource.status.get("rollout"), resource.status.get("last_rollout")
        told = running or last
        found: dict[str, Any] = {
            "deployment": resource.name,
            "strategy": told.get("strategy", "canary") if told else _wanted(resource).strategy,
            "state": "running" if running else "ended" if last else "none",
            "versions": _versions(model, told) if told else {},
            "champion": f"{model}@{told['champion']}" if told else None,
            "challenger": f"{model}@{told['challenger']}" if told else None,
            "started_at": told.get("started_at") if told else None,
            "ended_at": told.get("ended_at") if told else None,
            "verdict": None,
            "reason": "no challenger was let in yet",
            "experiment": None,
            "agreement": None,
        }
        if running:
            wanted, observed = self._look(resource)
            strategy = _strategy(wanted)
            decision = strategy.decide(plan_of(wanted, running), running["step"], observed)
            found |= {"reason": decision.reason, "agreement": observed.agreement}
            found["experiment"] = experiment_of(wanted, observed, running)
        elif last:
            found |= {"verdict": last["verdict"], "reason": last["reason"]}
            found |= {name: last.get(name) for name in ("experiment", "agreement")}
        return found

    def experiment_over_time(self, deployment: str) -> list[dict[str, Any]]:
        """Return how the difference of a running A/B or bandit stood at looks evenly spread over its rows.

        Each look has `at` (Unix seconds), `low`, `value` and `high` of challenger − champion, None while nothing could
        be said; of several challengers it is the first. The looks are over the rows that are in memory, the newest
        200,000. Empty while none runs. Raises NotFound.
        """
        import polars as pl

        from flyball.serving.evidence import unforced
        from flyball.serving.experiments import covered, outcomes
        from flyball.serving.looking import plan_of
        from flyball.stats.outcomes import Outcomes
        from flyball.stats.sequential import compare

        self._may("read")
        resource = self.resource(Ref("deployment", _name(deployment)))  # type: ignore[attr-defined]
        rollout = resource.status.get("rollout")
        wanted = _wanted(resource)
        rows = self.traffic.frame(resource.name)
        if rollout is None or wanted.strategy not in ("ab", "bandit") or rows.is_empty():
            return []
        rows = covered(unforced(rows.filter(pl.col("revision") >= rollout["since_revision"])), wanted.covariate)
        plan, found = plan_of(wanted), []
        for look in range(1, _LOOKS + 1):
            until = rows.head(max(1, rows.height * look // _LOOKS)) if rows.height else rows
            if until.is_empty():
                return []
            arms = outcomes(until, wanted.metric)
            one = compare(
                arms.get("canary", Outcomes()), arms.get("champion", Outcomes()), plan.planned_units, plan.alpha,
                plan.is_adjusted,
            ).as_dict()  # fmt: skip
            found.append({"at": until["at"][-1].timestamp(), **{name: one[name] for name in ("low", "value", "high")}})
        return found

    def experiment_plan(
        self,
        deployment: str,
        effect: float | None = None,
        alpha: float | None = None,
        power: float | None = None,
        share: float | None = None,
    ) -> dict[str, Any]:
        """Return how many keys an A/B needs, and how long it lasts, from the answers that the log has of the champion.

        Args:
            effect: the smallest difference to find, in the metric's unit; this and the others default to the spec.

        Returns:
            `metric`, `baseline` (`units`, `mean`, `deviation`, `correlation` with the covariate, `units_a_day`) and
            `size` (see `stats.planning.Size`), whose `sequential_units` belong in `planned_units`.

        Raises:
            NotFound: no such deployment.
            InvalidInput: no effect is given, or a value is out of range.
            Conflict: the log has too few answers with a known outcome to plan from.
        """
        import polars as pl

        from flyball.serving.experiments import covered, outcomes
        from flyball.stats.planning import of_means, of_proportions

        self._may("read")
        resource = self.resource(Ref("deployment", _name(deployment)))  # type: ignore[attr-defined]
        wanted = _wanted(resource)
        smallest = effect if effect is not None else wanted.minimum_effect
        if smallest is None:
            raise InvalidInput(
                f"deployment/{resource.name} has no minimum_effect; say the smallest difference of {wanted.metric} "
                "that matters, with --effect or in its rollout"
            )
        rows = self.traffic.frame(resource.name)
        if not rows.is_empty():
            rows = rows.filter(pl.col("variant").is_in(["champion", "baseline"]))
        rows = (
            rows
            if rows.is_empty()
            else covered(rows, wanted.covariate).with_columns(pl.lit("champion").alias("variant"))
        )
        base = None if rows.is_empty() else outcomes(rows, wanted.metric).get("champion")
        if base is None or base.units < 2 or not base.squares > 0:
            known = 0 if base is None else int(base.units)
            raise Conflict(
                f"the log knows the {wanted.metric} of {known} keys of deployment/{resource.name}, all alike or too "
                "few; ask it, tell the truth of its answers, and plan again"
            )
        spread = float(base.variance) ** 0.5
        scale = float(base.squares * base.covariate_squares) ** 0.5
        correlation = max(-0.999, min(0.999, float(base.products) / scale)) if scale else 0.0
        a_day = _units_a_day(rows)
        errors = (wanted.alpha if alpha is None else alpha, wanted.power if power is None else power)
        part = (wanted.share if share is None else share) / 100
        mean = float(base.mean)
        is_share = abs(float(base.squares) - float(base.units) * mean * (1 - mean)) < 1e-6 * float(base.units)
        if is_share and correlation == 0 and 0 < mean + smallest < 1:
            size = of_proportions(mean, smallest, *errors, part, a_day)
        else:
            size = of_means(smallest, spread, *errors, part, correlation, a_day)
        return {
            "deployment": resource.name,
            "metric": wanted.metric,
            "baseline": {
                "units": int(base.units),
                "mean": mean,
                "deviation": spread,
                "correlation": correlation if wanted.covariate is not None else None,
                "units_a_day": a_day,
            },
            "size": size.as_dict(),
        }

    def _look(self, resource: Resource) -> tuple[Rollout, Observed]:
        """Return the rollout that goes on as its strategy sees it; what the data plane says is the controller's."""
        from flyball.serving.evidence import TrafficEvidence
        from flyball.serving.looking import observed_of

        rollout = resource.status["rollout"]
        wanted = _wanted(resource).model_copy(update={"strategy": rollout.get("strategy", "canary")})
        model = ref(str(resource.spec["model"]), "model").name
        challenger = self.version(Ref("model", model, str(rollout["challenger"])))  # type: ignore[attr-defined]
        declared = self.resource(Ref("model", model)).spec.get("metric")  # type: ignore[attr-defined]
        evidence = TrafficEvidence(self.traffic, self.home / "serving" / "status.json").evidence(
            resource.name,
            rollout["since_revision"],
            resource.status["serving"]["revision"],
            declared or challenger.metadata.get("metric"),
            rollout=wanted,
        )
        since = parse_instant(rollout.get("step_at", rollout["started_at"]))
        elapsed = (self.clock.now() - since).total_seconds()
        return wanted, observed_of(evidence, resource.status["serving"], step_s=elapsed)


def _versions(model: str, told: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of each variant of a rollout."""
    numbers = {"champion": told["champion"], "canary": told["challenger"], **told.get("arms", {})}
    return {variant: f"{model}@{number}" for variant, number in numbers.items()}


def _wanted(resource: Resource) -> Rollout:
    from flyball.serving.kinds import Deployment

    return Deployment.model_validate(resource.spec).rollout


def _strategy(wanted: Rollout) -> Any:
    from flyball import plugins

    return plugins.find("flyball.rollouts", wanted.strategy)


def _name(deployment: str) -> str:
    return ref(deployment, "deployment").name if "/" in deployment else deployment


def _units_a_day(rows: pl.DataFrame) -> float | None:
    """Return how many different keys came a day while these rows came, None where they came at one instant."""
    from flyball.serving.experiments import units

    seconds = (rows["at"].max() - rows["at"].min()).total_seconds()  # type: ignore[operator, union-attr]
    return sum(units(rows).values()) * _DAY_S / seconds if seconds > 0 else None
