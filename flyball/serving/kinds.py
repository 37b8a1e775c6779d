"""The kind Deployment: which model answers, how a new version is let in, what is logged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flyball import plugins
from flyball.clock import parse_duration
from flyball.errors import FlyballError, did_you_mean, listed
from flyball.ledger.kinds import RefersTo, Spec, register
from flyball.ledger.refs import ref

__all__ = [
    "Deployment",
    "Guardrail",
    "RollBackIf",
    "RequestLimits",
    "RequestLog",
    "Rollout",
    "Routine",
    "measures_down",
]

_MEASURES = ("reward", "correct", "absolute_error", "squared_error", "latency_ms")
_POLICIES = ("thompson", "thompson_normal", "ucb1", "epsilon_greedy", "linear_ucb", "linear_thompson")
_MOST_ARMS = 8  # beside champion and challenger
_MOST_CONTEXT = 16  # the cost of a request grows with the square of it
_DOWN = frozenset({"absolute_error", "squared_error", "latency_ms"})


def measures_down(metric: str) -> bool:
    """Return whether less of a metric of experiments is better when the spec does not say."""
    return metric in _DOWN


def _check_measure(metric: str) -> str:
    if metric not in _MEASURES and not (metric.startswith("output.") and len(metric) > len("output.")):
        raise ValueError(f"a metric is one of {', '.join(_MEASURES)}, or an output such as output.prediction")
    return metric


class Guardrail(Spec):
    """A metric that must not become worse, whatever the other one gains."""

    metric: str = Field(description="as the rollout's metric")
    worse_by: float = Field(0.0, ge=0, description="how much worse is allowed, in the metric's unit")
    goal: Literal["increase", "decrease"] | None = Field(None, description="default: less of errors and latency")

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str) -> str:
        return _check_measure(metric)


class RollBackIf(Spec):
    """What ends a rollout at once."""

    errors_above: float = Field(0.01, ge=0, le=1, description="share of the canary's answers that were errors")
    latency_p99_ms_above: float | None = Field(None, gt=0)
    quality: Literal["worse", "ignore"] = Field("worse", description="worse: its quality is worse, with evidence")


class Rollout(Spec):
    """How traffic moves from the champion to a challenger."""

    strategy: str = Field("canary", description="a file of flyball/rollouts")
    steps: list[float] = Field(default=[5, 25, 50], description="the canary's share in percent, rising; then 100")
    hold_requests: int = Field(500, ge=1, description="answers that the canary must have given before a step ends")
    hold_labels: int = Field(200, ge=0, description="of its answers with known truth, before the last step ends")
    patience_requests: int = Field(
        20_000, ge=1, description="answers of all arms after which the last step ends on what evidence there is"
    )
    roll_back_if: RollBackIf = Field(default_factory=RollBackIf)
    hold: str = Field("10m", description="blue_green: how long the old version stays warm after the switch, such as 1h")
    share: float = Field(
        50, gt=0, le=100, description="percent: ab, bandit: of all challengers at the start; shadow: requests copied"
    )
    metric: str = Field(
        "reward",
        description="ab, bandit: reward (the label), correct, absolute_error, squared_error, latency_ms or output.NAME",
    )
    goal: Literal["increase", "decrease"] | None = Field(None, description="default: less of errors and latency")
    guardrails: list[Guardrail] = Field(default_factory=list, description="ab: what must not become worse")
    covariate: str | None = Field(
        None, description="ab: an input or feature known before a key met an arm, to narrow the interval (CUPED)"
    )
    minimum_effect: float | None = Field(None, gt=0, description="ab: the smallest difference that matters, to plan")
    alpha: float = Field(0.05, gt=0, lt=1, description="ab: chance of a verdict where there is no difference")
    power: float = Field(0.8, ge=0.5, lt=1, description="ab: chance of a verdict where it is minimum_effect, to plan")
    planned_units: int = Field(
        10_000, ge=1, description="ab, bandit: keys in all arms at which it ends; see flyball experiment plan"
    )
    policy: str = Field(
        "thompson",
        description="bandit: thompson, thompson_normal, ucb1 or epsilon_greedy; by context linear_ucb, linear_thompson",
    )
    context: list[str] = Field(
        default_factory=list, description="bandit: the inputs, as numbers, by which linear_… draws the arm of a request"
    )
    arms: list[str] = Field(
        default_factory=list, description="ab, bandit: aliases or versions of the model that compete beside challenger"
    )
    least_share: float = Field(5, ge=0, le=50, description="bandit: percent that each arm keeps")
    agreement_least: float | None = Field(
        None, ge=0, le=1, description="shadow: share of equal answers below which it is rolled back"
    )
    then: Literal["report", "promote"] = Field("report", description="shadow: what follows when nothing speaks against")

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str) -> str:
        return _check_measure(metric)

    @property
    def hold_s(self) -> float:
        """`hold` in seconds."""
        return parse_duration(self.hold).total_seconds()

    def is_up_better(self) -> bool:
        """Return whether more of the metric is better."""
        return not measures_down(self.metric) if self.goal is None else self.goal == "increase"

    @field_validator("strategy")
    @classmethod
    def _exists(cls, strategy: str) -> str:
        known = plugins.names("flyball.rollouts")
        if strategy not in known:
            raise ValueError(f'no strategy is called "{strategy}"{did_you_mean(strategy, known)} ({listed(known)})')
        return strategy

    @field_validator("policy")
    @classmethod
    def _is_policy(cls, policy: str) -> str:
        if policy not in _POLICIES:
            raise ValueError(f"a policy is one of {', '.join(_POLICIES)}")
        return policy

    @field_validator("hold")
    @classmethod
    def _lasts(cls, hold: str) -> str:
        try:
            parse_duration(hold)
        except FlyballError as error:
            raise ValueError(str(error)) from None
        return hold

    @model_validator(mode="after")
    def _splits(self) -> Rollout:
        if self.strategy in ("ab", "bandit") and not 0.01 <= self.share <= 99.99:
            raise ValueError(f"the share is {self.share:g}; each arm of {self.strategy} needs some of the traffic")
        if len({g.metric for g in self.guardrails}) < len(self.guardrails):
            raise ValueError("two guardrails are on the same metric; keep one of them")
        is_contextual = self.policy.startswith("linear_")
        if self.strategy == "bandit" and is_contextual != bool(self.context):
            raise ValueError(
                "context names the inputs of linear_ucb and linear_thompson, which need one, and of no other"
            )
        if self.strategy == "bandit" and is_contextual and not self.least_share > 0:
            raise ValueError(
                f"{self.policy} needs a least_share above 0, or nothing is learnt of the arms it leaves out"
            )
        if len(self.context) > _MOST_CONTEXT or len(set(self.context)) < len(self.context):
            raise ValueError(f"context names up to {_MOST_CONTEXT} different inputs")
        if self.arms and self.strategy not in ("ab", "bandit"):
            raise ValueError(f"arms compete in an ab or a bandit; {self.strategy} lets one challenger in")
        if len(self.arms) > _MOST_ARMS or len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms names up to {_MOST_ARMS} different aliases or versions")
        if self.strategy == "bandit" and self.least_share * (len(self.arms) + 2) > 100:
            raise ValueError(
                f"{len(self.arms) + 2} arms cannot each keep a least_share of {self.least_share:g} percent"
            )
        return self

    @field_validator("steps")
    @classmethod
    def _rise(cls, steps: list[float]) -> list[float]:
        if not steps or any(not 0 < s <= 100 for s in steps) or sorted(set(steps)) != steps:
            raise ValueError("steps must rise within 0 to 100, such as [5, 25, 50]")
        return steps


class RequestLog(Spec):
    """What the prediction log keeps."""

    requests: Literal["all"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "all", description="all, or the share of requests that are kept, such as 0.1"
    )
    durability: Literal["disk", "os"] = Field(
        "disk", description="disk: what was answered survives a power cut; os: it survives kill -9, and is quicker"
    )
    when_full: Literal["refuse", "drop"] = Field(
        "refuse", description="when a row cannot be kept: refuse the answer (503), or answer, and count the row as lost"
    )
    mask: list[str] = Field(default_factory=list, description="inputs kept only as a keyed hash")
    clear: list[str] = Field(
        default_factory=list, description="inputs kept as they are, though a contract classifies them as protected"
    )


class RequestLimits(Spec):
    """What a deployment may take of the data plane; what is above is refused and counted, others are answered."""

    concurrency: int | None = Field(None, ge=1, description="requests in flight; more are refused (503)")
    timeout_s: float | None = Field(None, gt=0, description="then the answer is 504, though the model computes on")
    body_bytes: int | None = Field(None, ge=1, description="of one request, as sent and decompressed; more is 413")
    rate: float | None = Field(None, gt=0, description="requests a second; more are refused (429, Retry-After)")
    burst: int | None = Field(None, ge=1, description="requests at once after a pause; default: those of a second")
    key_rate: float | None = Field(None, gt=0, description="as rate, of each access key, where keys are required")
    key_burst: int | None = Field(None, ge=1, description="as burst, of each access key")


class RoutinePart(Spec):
    """Another model that answers together with the deployment's own."""

    model: Annotated[str, RefersTo("model")] = Field(
        description="name, name@alias or name@2; the alias that is followed is champion"
    )
    weight: float = Field(1.0, gt=0, description="mean, vote: its share")
    when: list[bool | int | float | str] = Field(
        default_factory=list, description="router: the values of the routine's `by` that it is asked for"
    )


class Routine(Spec):
    """Several models as one; the deployment's own is the last of them."""

    combine: Literal["chain", "mean", "vote", "router"] = Field(
        "chain",
        description="chain: later models take answers of earlier ones, as inputs called MODEL_OUTPUT, which stacks; "
        "mean: of probabilities or numbers; vote: of labels; router: each row to one of them",
    )
    parts: list[RoutinePart] = Field(default_factory=list, description="the other models, in the order of a chain")
    weight: float = Field(1.0, gt=0, description="mean, vote: the deployment's own model's share")
    by: str | None = Field(None, description="router: the input whose value chooses; the rest is the own model's")
    post: list[Annotated[str, RefersTo("feature-view")]] = Field(
        default_factory=list,
        description="request-time functions of inputs and outputs whose results are added to the answer; they say what "
        "they return",
    )

    @model_validator(mode="after")
    def _fits(self) -> Routine:
        if self.combine == "router" and self.by is None:
            raise ValueError("a router needs by: the input whose value chooses")
        if self.combine != "router" and (self.by is not None or any(part.when for part in self.parts)):
            raise ValueError(f"by and when are a router's; combine is {self.combine}")
        found = [ref(part.model, "model") for part in self.parts]
        # In a chain a model's name is what its answers are called by; elsewhere versions of one model may answer too.
        names = [one.name if self.combine == "chain" else one.short for one in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"model/{twice[0]} is in the routine twice")
        if not self.parts and not self.post:
            raise ValueError("a routine has parts or functions after the model (post)")
        return self


@register
class Deployment(Spec):
    """A model in service."""

    description: str = ""
    model: Annotated[str, RefersTo("model")] = Field(
        description="name, or name@alias; the alias that serves is champion"
    )
    features: list[Annotated[str, RefersTo("feature-view")]] = Field(
        default_factory=list, description="looked up, or computed by request-time functions, inside a request"
    )
    service: Annotated[str, RefersTo("feature-service")] | None = Field(
        None, description="a feature service whose pinned views are looked up too"
    )
    key: str | None = Field(None, description="input that keeps a caller on one variant; default: the request's id")
    rollout: Rollout = Field(default_factory=Rollout)
    log: RequestLog = Field(default_factory=RequestLog)
    routine: Routine | None = Field(None, description="other models and functions that take part in every answer")
    limits: RequestLimits = Field(default_factory=RequestLimits)
