"""Look at windows of live traffic: pure functions from frames to findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.data.blocks import Blocks
from flyball.stats.calibration import Calibration, Exceeded, calibrate_blocks
from flyball.stats.drift import distance
from flyball.stats.intervals import Interval, interval
from flyball.stats.metrics import metric
from flyball.stats.profiles import Profile, profile

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DriftFinding", "Reference", "after", "drift_in", "live_column", "make_reference", "quality_of"]


@dataclass(frozen=True)
class Reference:
    """What live windows are compared with: limits and profiles of the rows that the model was trained on."""

    calibration: Calibration
    profiles: Mapping[str, Profile]


@dataclass(frozen=True)
class DriftFinding:
    """One window: each column's statistic and live counts, and those above their limits, the worst first."""

    statistics: Mapping[str, float]
    counts: Mapping[str, list[int]]
    exceeded: tuple[Exceeded, ...]


def make_reference(
    blocks: Blocks,
    columns: Sequence[str],
    *,
    window: int,
    false_alarms: float,
    horizon: int,
    persistence: int,
) -> Reference:
    """Calibrate on what was kept of the rows that the model learnt from; reads none of them.

    Raises:
        NotFound: a column is not kept.
        InvalidInput: there is no column.
    """
    calibration = calibrate_blocks(
        {name: blocks.windows(name, window) for name in columns},
        window=min(window, blocks.rows),
        alpha=false_alarms,
        horizon=horizon,
        persistence=persistence,
        ordered=blocks.event_time is not None,
    )
    return Reference(calibration, {name: blocks.profiles[name] for name in columns})


def drift_in(window: pl.DataFrame, reference: Reference, number: int) -> DriftFinding:
    """Compare a window of the prediction log with the reference. A column that is text where it was numeric drifts."""
    profiles: dict[str, Profile] = {}
    for name in reference.calibration.limits:
        bins = reference.profiles[name].bins
        column = live_column(window, name)
        values: Any = [None] * window.height if column is None else _values(column)
        if bins.is_numeric and column is not None and not column.dtype.is_numeric() and str(column.dtype) != "Boolean":
            values = [None] * window.height
        elif not bins.is_numeric and column is not None:
            values = column.cast(str, strict=False).to_list()
        profiles[name] = profile(values, bins)
    test = reference.calibration.test
    statistics = {
        name: distance(test, reference.profiles[name].counts, found.counts, found.bins)
        for name, found in profiles.items()
    }
    counts = {name: found.counts.tolist() for name, found in profiles.items()}
    return DriftFinding(statistics, counts, tuple(reference.calibration.judge(reference.profiles, profiles, number)))


def quality_of(rows: pl.DataFrame, metric_name: str, level: float) -> Interval | None:
    """Return the metric on labelled rows of the log, None when it cannot be told from them (one class only)."""
    import polars as pl

    wanted = metric(metric_name)
    column = {"score": "output.probability"}.get(wanted.needs, "output.prediction")
    if column not in rows.columns:
        return None
    truth = rows["label"].cast(pl.Float64, strict=False).to_numpy()
    if wanted.needs == "score" and np.unique(truth).size < 2:
        return None
    return interval(wanted.name, truth, rows[column].to_numpy(), level=level)


def after(rows: pl.DataFrame, last_id: str | None) -> pl.DataFrame:
    """Return the rows behind the one with `last_id`; all of them when it is None or no longer kept."""
    if last_id is None or rows.is_empty():
        return rows
    found = (rows["id"] == last_id).arg_max() if (rows["id"] == last_id).any() else None
    return rows if found is None else rows.slice(found + 1)


def live_column(window: pl.DataFrame, name: str) -> pl.Series | None:
    """Return an input of the model as the log has it: received with the request, or looked up for it."""
    for prefix in ("feature.", "input."):
        if prefix + name in window.columns:
            return window[prefix + name]
    return None


def _values(column: pl.Series) -> Any:
    """Return a column as profiles take it: numbers as an array with NaN for null, all else as a list."""
    import polars as pl

    if column.dtype == pl.Boolean:
        return column.cast(pl.Float64).to_numpy()
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).to_numpy()
    return column.cast(pl.String, strict=False).to_list()
