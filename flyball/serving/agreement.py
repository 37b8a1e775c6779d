"""How a shadow's answers compare with the champion's to the same requests: equal, how far apart, how much slower.

Copies have the ids of the requests they are of, so the log's rows are joined by id. Called by `evidence` for the
rollout and for its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.stats.comparison import compare
from flyball.stats.exact import of_counts, of_numbers
from flyball.stats.metrics import Metric, metric

if TYPE_CHECKING:
    import polars as pl

__all__ = ["agreement", "answers_of", "compare_paired"]

_CLOSE = 1e-6  # of numbers, relative to the champion's or to 1: what another order of additions may change
_MOST_NAMES = 50
_FEWEST_OF_A_SHAPE = 20  # answers whose distribution is worth a PSI


def agreement(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Return how both answered the same requests, None while no request was answered by both.

    Returns:
        `requests`, and in `outputs` by name: `equal` (share), and of numbers `difference` (mean absolute), `psi` of the
        shadow's answers against the champion's where there are enough; `latency_ms` by variant: `p50` and `p99`, from
        the request's arrival, so that the shadow's includes the champion's, after which it is answered.
    """
    joined = _joined(rows)
    if joined is None:
        return None
    outputs = {}
    for name in (column for column in joined.columns if column.startswith("output.")):
        if (other := f"shadow.{name}") in joined.columns:
            outputs[name.removeprefix("output.")] = _output(joined[name], joined[other])
    latency = {
        variant: {f"p{q}": float(joined[column].quantile(q / 100) or 0.0) / 1000 for q in (50, 99)}
        for variant, column in (("champion", "latency_us"), ("shadow", "shadow.latency_us"))
    }
    return {"requests": joined.height, "outputs": outputs, "latency_ms": latency}


def compare_paired(metric_name: str, rows: pl.DataFrame, level: float) -> dict[str, Any] | None:
    """Return the shadow against the champion on the labelled requests that both answered, None without any."""
    import polars as pl

    joined = _joined(rows.filter(pl.col("label").is_not_null()))
    if joined is None:
        return None
    wanted = metric(metric_name)
    theirs = answers_of(wanted, joined)
    ours = answers_of(wanted, joined, "shadow.")
    if ours is None or theirs is None:
        return None
    truth = joined["label"].cast(pl.Float64, strict=False).to_numpy()
    return compare(wanted.name, truth, ours, theirs, level=level).as_dict()


def answers_of(wanted: Metric, rows: pl.DataFrame, prefix: str = "") -> np.ndarray[Any, Any] | None:
    """Return the logged answers that a metric judges, None when the model gives no such output."""
    names = {"score": "output.probability", "label": "output.prediction", "value": "output.prediction"}
    name = prefix + names.get(wanted.needs, "")
    return rows[name].to_numpy() if name in rows.columns else None


def _joined(rows: pl.DataFrame) -> pl.DataFrame | None:
    import polars as pl

    shadow = rows.filter(pl.col("variant") == "shadow")
    if shadow.is_empty():
        return None
    wanted = ["id", "latency_us", *(name for name in rows.columns if name.startswith("output."))]
    copies = shadow.select(wanted).rename({name: f"shadow.{name}" for name in wanted[1:]}).unique("id", keep="last")
    joined = rows.filter(pl.col("variant") == "champion").join(copies, on="id", how="inner")
    return None if joined.is_empty() else joined


def _output(champion: pl.Series, shadow: pl.Series) -> dict[str, float | None]:
    import polars as pl

    if champion.dtype.is_numeric() and shadow.dtype.is_numeric():
        ours, theirs = shadow.cast(pl.Float64).to_numpy(), champion.cast(pl.Float64).to_numpy()
        both = np.isfinite(ours) & np.isfinite(theirs)
        apart = np.abs(ours - theirs)
        is_equal = (apart <= _CLOSE * np.maximum(1.0, np.abs(theirs))) | (np.isnan(ours) & np.isnan(theirs))
        psi = None
        if both.sum() >= _FEWEST_OF_A_SHAPE:
            psi = of_numbers(np.sort(theirs[both]), np.sort(ours[both])).psi
        return {
            "equal": float(is_equal.mean()),
            "difference": float(apart[both].mean()) if both.any() else None,
            "psi": psi,
        }
    texts, others = shadow.cast(pl.String), champion.cast(pl.String)
    names = pl.concat([texts, others]).unique(maintain_order=True).head(_MOST_NAMES)
    counts = [np.asarray([int(side.eq_missing(name).sum()) for name in names]) for side in (others, texts)]
    is_enough = all(count.sum() >= _FEWEST_OF_A_SHAPE for count in counts)
    return {
        "equal": float(np.mean(texts.eq_missing(others).to_numpy())),
        "difference": None,
        "psi": of_counts(counts[0], counts[1]).psi if is_enough else None,
    }
