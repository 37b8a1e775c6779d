"""What the prediction log says of a rollout: how each arm did, and which of two arms was right more often.

What an experiment measures is of all its answers (`tallies`). How a shadow's answers compare (`agreement`), what a
canary is judged by, and the latest latencies are of the rows that `tracking.live` keeps: the last 200,000 of a
deployment. Rows that a tester asked of a variant by its name are no evidence of anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import Corrupt, NotFound
from flyball.rollouts import Arm
from flyball.serving.agreement import agreement, answers_of, compare_paired
from flyball.serving.kinds import Rollout
from flyball.serving.measuring import Measures
from flyball.serving.status import read_status
from flyball.serving.tallies import Tallies
from flyball.stats.comparison import compare_unpaired
from flyball.stats.contexts import ContextSums
from flyball.stats.metrics import metric
from flyball.stats.outcomes import Outcomes
from flyball.tracking.live import LiveTraffic
from flyball.tracking.predictions import VARIANTS

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Evidence", "TrafficEvidence", "answers_of", "measures_of", "unforced"]


@dataclass(frozen=True)
class Evidence:
    """An arm by variant; canary against baseline on their labelled rows, None while there are too few.

    Of experiments, by variant: `units` (keys), `outcomes` (moments of the metric by key), and `guardrails` by metric.
    Of a contextual bandit: `contexts`, rewards against contexts. Of a shadow: `agreement`, see `agreement.agreement`.
    """

    arms: Mapping[str, Arm]
    comparison: Mapping[str, Any] | None = None
    units: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    guardrails: Mapping[str, Mapping[str, Outcomes]] = field(default_factory=dict)
    agreement: Mapping[str, Any] | None = None
    contexts: Mapping[str, ContextSums] = field(default_factory=dict)


class TrafficEvidence:
    """Reads evidence from live traffic."""

    def __init__(self, traffic: LiveTraffic, status_path: Path) -> None:
        self._traffic = traffic
        self._status_path = status_path
        self._tallies = Tallies(traffic.folder)

    def evidence(
        self,
        deployment: str,
        since_revision: int,
        revision: int,
        metric_name: str | None,
        level: float = 0.95,
        rollout: Rollout | None = None,
    ) -> Evidence:
        """Return the evidence of the rows answered from `since_revision` on.

        Args:
            deployment: whose rows.
            since_revision: the revision with which the rollout began.
            revision: the revision of the present step, whose rows are counted apart.
            metric_name: what decides; None: quality is not compared.
            level: of the comparison's intervals.
            rollout: what the strategy measures; None: as a canary.
        """
        import polars as pl

        rows = self._traffic.frame(deployment)
        if rows.is_empty():
            return Evidence({})
        rows = unforced(rows.filter(pl.col("revision") >= since_revision))
        failures = self._failures(deployment)
        arms = {}
        met = set(rows["variant"].unique())
        for variant in (name for name in VARIANTS if name in met or not name.startswith("arm")):
            mine = rows.filter(pl.col("variant") == variant)
            now = mine.filter(pl.col("revision") == revision)
            latency = now["latency_us"].quantile(0.99) if now.height else None
            arms[variant] = Arm(
                requests=now.height,
                requests_total=mine.height,
                errors_total=failures.get(variant, 0),
                labelled_total=int(mine["label"].is_not_null().sum()),
                latency_p99_ms=latency / 1000 if latency is not None else None,
            )
        if rollout is not None and rollout.strategy in ("ab", "bandit"):
            tally = self._tallies.look(deployment, measures_of(rollout, since_revision))
            totals = {v: replace(arms.get(v, Arm()), requests_total=count) for v, count in tally.rows.items()}
            return Evidence(
                {**arms, **totals},
                units=tally.units,
                outcomes=tally.outcomes[rollout.metric],
                guardrails={g.metric: tally.outcomes[g.metric] for g in rollout.guardrails},
                contexts=tally.contexts,
            )
        if rollout is not None and rollout.strategy == "shadow":
            return Evidence(
                arms, compare_paired(metric_name, rows, level) if metric_name else None, agreement=agreement(rows)
            )
        return Evidence(arms, _compare(metric_name, rows, level) if metric_name else None)

    def forget(self, deployment: str) -> None:
        """Give up what was counted of an experiment that ended."""
        self._tallies.forget(deployment)

    def _failures(self, deployment: str) -> Mapping[str, int]:
        try:
            found = read_status(self._status_path).deployments.get(deployment)
        except (NotFound, Corrupt):
            return {}
        return found.failures if found else {}


def unforced(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows but for those that a tester asked of a variant or version by its name."""
    import polars as pl

    return rows.filter(~pl.col("forced").fill_null(False)) if "forced" in rows.columns else rows


def measures_of(rollout: Rollout, since_revision: int) -> Measures:
    """Return what an A/B or a bandit measures."""
    metrics = dict.fromkeys([rollout.metric, *(guardrail.metric for guardrail in rollout.guardrails)])
    return Measures(since_revision, tuple(metrics), rollout.covariate, tuple(rollout.context))


def _compare(metric_name: str, rows: pl.DataFrame, level: float) -> dict[str, Any] | None:
    import polars as pl

    wanted = metric(metric_name)
    labelled = rows.filter(pl.col("label").is_not_null())
    sides = []
    for variant in ("canary", "baseline"):
        mine = labelled.filter(pl.col("variant") == variant)
        answers = answers_of(wanted, mine)
        if answers is None or mine.is_empty():
            return None
        sides.append((mine["label"].cast(pl.Float64, strict=False).to_numpy(), answers))
    found = compare_unpaired(wanted.name, sides[0], sides[1], level=level)
    return found.as_dict()
