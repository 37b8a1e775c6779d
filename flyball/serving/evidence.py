"""What the prediction log says of a rollout: how each arm did, and which of two arms was right more often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import Corrupt, NotFound
from flyball.rollouts import Arm
from flyball.serving.status import read_status
from flyball.stats.comparison import compare_unpaired
from flyball.stats.metrics import Metric, metric
from flyball.tracking.live import LiveTraffic

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Evidence", "TrafficEvidence", "answers_of"]


@dataclass(frozen=True)
class Evidence:
    """An arm by variant; canary against baseline on their labelled rows, None while there are too few."""

    arms: Mapping[str, Arm]
    comparison: Mapping[str, Any] | None = None


class TrafficEvidence:
    """Reads evidence from live traffic."""

    def __init__(self, traffic: LiveTraffic, status_path: Path) -> None:
        self._traffic = traffic
        self._status_path = status_path

    def evidence(
        self, deployment: str, since_revision: int, revision: int, metric_name: str | None, level: float = 0.95
    ) -> Evidence:
        """Return the evidence of the rows answered from `since_revision` on.

        Args:
            deployment: whose rows.
            since_revision: the revision with which the rollout began.
            revision: the revision of the present step, whose rows are counted apart.
            metric_name: what decides; None: quality is not compared.
            level: of the comparison's intervals.
        """
        import polars as pl

        rows = self._traffic.frame(deployment)
        if rows.is_empty():
            return Evidence({})
        rows = rows.filter(pl.col("revision") >= since_revision)
        failures = self._failures(deployment)
        arms = {}
        for variant in ("champion", "canary", "baseline"):
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
        return Evidence(arms, _compare(metric_name, rows, level) if metric_name else None)

    def _failures(self, deployment: str) -> Mapping[str, int]:
        try:
            found = read_status(self._status_path).deployments.get(deployment)
        except (NotFound, Corrupt):
            return {}
        return found.failures if found else {}


def answers_of(wanted: Metric, rows: pl.DataFrame) -> np.ndarray[Any, Any] | None:
    """Return the logged answers that a metric judges, None when the model gives no such output."""
    names = {"score": "output.probability", "label": "output.prediction", "value": "output.prediction"}
    name = names.get(wanted.needs)
    return rows[name].to_numpy() if name in rows.columns else None


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
