"""Chart data from what the platform returns: values in, what `static/fb-*.js` draws out. Pure functions.

Long series are thinned here, so that a page stays small however much was recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flyball.ledger.journal import Event
from flyball.ledger.lineage import Graph
from flyball.ledger.points import Point
from flyball.ledger.refs import ref
from flyball.web.formats import ref_label, ref_url

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "POINTS",
    "curve",
    "difference_over_time",
    "graph",
    "latency_over_time",
    "marks",
    "requests_over_time",
    "thinned",
]

POINTS = 1500  # of a curve; a screen has about as many columns
BUCKETS = 60

_TONES = {
    "promoted": "ok",
    "serves": "ok",
    "rolled back": "bad",
    "reported": "off",
    "drifting": "warn",
    "decayed": "bad",
    "rollout started": "busy",
    "rollout stepped": "busy",
}


def thinned(xs: Sequence[float], ys: Sequence[float], most: int = POINTS) -> tuple[list[float], list[float | None]]:
    """Return at most about `most` of the points, the least and the greatest of each stretch among them."""
    if len(xs) <= most:
        return list(xs), [_finite(y) for y in ys]
    size = math.ceil(len(xs) / (most // 2))
    kept: list[int] = []
    for start in range(0, len(xs), size):
        stretch = [at for at in range(start, min(start + size, len(xs))) if not math.isnan(ys[at])]
        if stretch:
            kept += sorted({min(stretch, key=ys.__getitem__), max(stretch, key=ys.__getitem__)})
    if kept[-1] != len(xs) - 1:
        kept.append(len(xs) - 1)
    return [xs[at] for at in kept], [_finite(ys[at]) for at in kept]


def curve(name: str, points: Sequence[Point], arm: int = 1) -> dict[str, Any]:
    """Return one metric's history as a series over steps; of equal steps the last point counts, as in the run."""
    by_step = {point.step: point.value for point in points}
    if len(by_step) == 1 and len(points) > 1:  # nobody counted steps: the order of arrival does
        by_step = {at: point.value for at, point in enumerate(points)}
    xs, ys = thinned([float(step) for step in by_step], list(by_step.values()))
    return {"name": name, "arm": arm, "xs": xs, "ys": ys}


def marks(events: Iterable[Event], sentences: Iterable[str], since: datetime | None = None) -> list[dict[str, Any]]:
    """Return journal events as marks on a time axis, with their reason."""
    return [
        {
            "at": event.at.timestamp(),
            "label": event.action,
            "reason": text,
            "tone": _TONES.get(event.action, "off"),
            "href": f"/journal/{event.seq}",
        }
        for event, text in zip(events, sentences, strict=True)
        if since is None or event.at >= since
    ]


def requests_over_time(rows: pl.DataFrame, arms: Mapping[str, int]) -> dict[str, Any]:
    """Return who answered which share of the requests, over time, in at most 60 stretches; empty rows: no series."""
    counted = _bucketed(rows, ["version"])
    if counted is None:
        return {"xs": [], "series": [], "empty": "No request has come yet."}
    frame, starts = counted
    totals = dict.fromkeys(starts, 0)
    by_version: dict[str, dict[datetime, int]] = {}
    for start, version, count in frame.select("start", "version", "rows").iter_rows():
        totals[start] += count
        by_version.setdefault(version, {})[start] = count
    known = [start for start in starts if totals[start]]
    series = [
        {
            "name": version,
            "arm": arms.get(version, 7),
            "ys": [by_version[version].get(start, 0) / totals[start] for start in known],
        }
        for version in sorted(by_version, key=lambda v: arms.get(v, 99))
    ]
    return {"xs": [start.timestamp() for start in known], "series": series}


def latency_over_time(rows: pl.DataFrame) -> dict[str, Any]:
    """Return the median and the 99th percentile of the data plane's latency over time, in milliseconds."""
    counted = _bucketed(rows, [])
    if counted is None:
        return {"xs": [], "series": [], "empty": "No request has come yet."}
    frame, _ = counted
    xs = [start.timestamp() for start in frame["start"]]
    medians, tails = ([v / 1000 for v in frame[name].to_list()] for name in ("median_us", "p99_us"))
    return {
        "xs": xs,
        "unit": "ms",
        "zero": True,
        "series": [{"name": "median", "arm": 0, "ys": medians}, {"name": "p99", "arm": 1, "ys": tails}],
    }


def difference_over_time(looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the difference of an experiment's arms with its sequential interval as a band, and zero as a line."""
    known = [look for look in looks if look["value"] is not None and look["low"] is not None]
    if not known:
        return {"xs": [], "series": [], "empty": "Too few keys to say anything yet."}
    band = {name: [look[name] for look in known] for name in ("low", "high")}
    ys = [look["value"] for look in known]
    return {
        "x": "time",
        "xs": [look["at"] for look in known],
        "series": [{"name": "challenger − champion", "arm": 1, "ys": ys, **band}],
        "lines": [{"at": 0.0, "label": "no difference"}],
    }


def graph(
    found: Graph, states: Mapping[str, tuple[str, str]], labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a lineage graph to draw; `states` maps references to (word, tone), `labels` to what they are called."""
    nodes = []
    for name in found.nodes:
        word, tone = states.get(name, ("", ""))
        kind = ref(name).kind
        nodes.append(
            {
                "id": name,
                "label": (labels or {}).get(name) or ref_label(name),
                "kind": kind,
                "state": word,
                "tone": tone,
                "href": ref_url(name),
            }
        )
    pairs = {(e.source, e.target) for e in found.edges}
    runs = {name for name in found.nodes if name.startswith("run/")}
    # What a run used and made is also linked directly ("trained on"); drawn too, that edge would run behind the run.
    edges = [
        {"from": e.source, "to": e.target, "label": e.role}
        for e in found.edges
        if not any((e.source, run) in pairs and (run, e.target) in pairs for run in runs)
    ]
    return {"focus": found.root, "nodes": nodes, "edges": edges}


def _bucketed(rows: pl.DataFrame, by: list[str]) -> tuple[pl.DataFrame, list[datetime]] | None:
    """Return counts and latencies by stretch of time, and the starts of all stretches that hold rows."""
    import polars as pl

    if rows.is_empty():
        return None
    first, last = rows["at"].min(), rows["at"].max()
    assert isinstance(first, datetime) and isinstance(last, datetime)
    width = max((last - first) / BUCKETS, timedelta(milliseconds=100))
    # Counted from the first row and not from the epoch, so that a short burst fills its stretches.
    number = ((pl.col("at") - first).dt.total_microseconds() // round(width.total_seconds() * 1e6)).clip(0, BUCKETS - 1)
    frame = (
        rows.lazy()
        .group_by(number.alias("stretch"), *by)
        .agg(
            pl.len().alias("rows"),
            pl.col("latency_us").quantile(0.5).alias("median_us"),
            pl.col("latency_us").quantile(0.99).alias("p99_us"),
        )
        .sort("stretch", *by)
        .collect()
    )
    starts = [first + width * int(stretch) for stretch in frame["stretch"]]
    return frame.with_columns(pl.Series("start", starts)), sorted(set(starts))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
