"""The values that the gallery is rendered with: the story of deployment/late, by formula, so that pictures compare."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2013, 5, 3, 14, 30, tzinfo=UTC)
HOSTILE = "</script><script>document.title='owned'</script><!-- <b>\"'&"


def sample(now: datetime = NOW) -> dict[str, Any]:
    """Return every value that gallery.html reads."""
    return {
        "now": now - timedelta(minutes=3),
        "earlier": now - timedelta(hours=2),
        "hostile": HOSTILE,
        "quality": _quality(now),
        "traffic": _traffic(now),
        "split": [
            {"name": "late@1", "share": 0.7, "arm": 0, "ref": "model/late@1"},
            {"name": "late@2", "share": 0.25, "arm": 1, "ref": "model/late@2"},
            {"name": "late@3 (shadow)", "share": 0.05, "arm": 2, "ref": None},
        ],
        "drifted": {
            "unit": "min",
            "edges": list(range(-40, 130, 5)),
            "reference": [_bell(x, 2, 14) * 900 for x in range(-40, 125, 5)],
            "live": [_bell(x, 31, 19) * 500 for x in range(-40, 125, 5)],
            "reference_name": "flights@11",
            "live_name": "live",
            "statistic": {"name": "W1", "value": 0.4123, "threshold": 0.05, "verdict": "drifting", "tone": "warn"},
        },
        "carriers": {
            "categories": ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX"],
            "reference": [5866, 5463, 5417, 4811, 3273, 2640, 2054, 1846, 1228, 516],
            "live": [310, 270, 281, 250, 165, 139, 101, 92, 66, 26],
            "reference_name": "flights@11",
            "statistic": {"name": "PSI", "value": 0.0021, "threshold": 0.1, "verdict": "steady", "tone": "ok"},
        },
        "unseen": {
            "unit": "mi",
            "edges": [80, 250, 500, 750, 1000, 1250, 1500, 2000, 2600],
            "reference": [4100, 5200, 9800, 4200, 9100, 3800, 2600, 7400],
            "live": None,
            "statistic": {"name": "W1", "value": None, "threshold": 0.05, "verdict": "not checked", "tone": "unknown"},
        },
        "runs": _runs(now),
        "lineage": _lineage(),
        "loss": _loss(),
        "before": {"kind": "Deployment", "name": "late", "model": "late@1", "features": ["previous_leg"], "log": "all"},
        "after": {"kind": "Deployment", "name": "late", "model": "late@2", "features": ["previous_leg", "calendar"]},
    }


def _bell(x: float, mean: float, deviation: float) -> float:
    return math.exp(-(((x - mean) / deviation) ** 2) / 2)


def _quality(now: datetime) -> dict[str, Any]:
    start = now.timestamp() - 48 * 3600
    xs = [start + hour * 3600 for hour in range(49)]

    def wave(hour: int) -> float:
        return 0.006 * math.sin(hour * 1.7) + 0.004 * math.sin(hour * 0.6 + 1)

    first = [0.715 + wave(h) - (0.058 / (1 + math.exp(-(h - 30) / 1.5))) for h in range(49)]
    second: list[float | None] = [None if h < 36 else 0.712 + wave(h + 5) for h in range(49)]
    return {
        "x": "time",
        "xs": xs,
        "series": [
            _with_interval("late@1", 0, list(first), 0.010),
            _with_interval("late@2", 1, second, 0.016),
        ],
        "lines": [{"at": 0.66, "label": "at least 0.66"}],
        "events": [
            {"at": xs[28], "label": "fault", "reason": "the feed's local hour became UTC", "tone": "bad"},
            {"at": xs[33], "label": "retrained", "reason": "previous_delay drifted, W1 0.41 > 0.05", "tone": "busy"},
            {"at": xs[36], "label": "canary of late@2", "reason": "5 % of requests", "tone": "busy"},
            {"at": xs[45], "label": "late@2 promoted", "reason": "auc 0.712 against 0.655", "tone": "ok"},
        ],
    }


def _with_interval(name: str, arm: int, ys: list[float | None], half: float) -> dict[str, Any]:
    low = [None if y is None else y - half for y in ys]
    high = [None if y is None else y + half for y in ys]
    return {"name": name, "arm": arm, "ys": ys, "low": low, "high": high}


def _traffic(now: datetime) -> dict[str, Any]:
    start = now.timestamp() - 12 * 3600
    xs = [start + step * 3600 for step in range(13)]
    second = [0, 0, 0, 0.05, 0.05, 0.25, 0.25, 0.1, 0.25, 0.5, 0.5, 0.25, 0.25]
    third = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.05, 0.05, 0.05]
    first = [1 - a - b for a, b in zip(second, third, strict=True)]
    return {
        "xs": xs,
        "series": [
            {"name": "late@1", "arm": 0, "ys": first},
            {"name": "late@2", "arm": 1, "ys": second},
            {"name": "late@3", "arm": 2, "ys": third},
        ],
        "events": [
            {"at": xs[3], "label": "canary of late@2", "reason": "late@2 passed 3 of 3 gates", "tone": "busy"},
            {"at": xs[7], "label": "held", "reason": "latency p99 22 ms > 20 ms", "tone": "warn"},
        ],
    }


def _runs(now: datetime) -> list[dict[str, Any]]:
    states = ["running", "finished", "finished", "failed", "finished", "cancelled", "finished", "queued"] + [
        "finished"
    ] * 4
    return [
        {
            "id": f"{0x41F3A2B1C09D + 0x1010F0F0F1 * number:012x}",
            "state": state,
            "auc": 0.69 + 0.03 * math.sin(number) if state == "finished" else None,
            "loss": [math.exp(-step / (6 + number)) + 0.04 * math.sin(step * (number + 1)) for step in range(30)],
            "rows": 48210 - 731 * number,
            "seconds": 0.041 * 7.3**number if number < 7 else 251.4 + number,
            "by": ["alice", "bob", "flyball"][number % 3],
            "started": now - timedelta(seconds=40) * 3.1**number,
        }
        for number, state in enumerate(states)
    ]


def _lineage() -> dict[str, Any]:
    def node(ref: str, label: str, tone: str = "", state: str = "") -> dict[str, str]:
        kind = ref.partition("/")[0]
        return {"id": ref, "label": label, "kind": kind, "tone": tone, "state": state, "href": f"/lineage/{ref}"}

    return {
        "focus": "model/late@2",
        "nodes": [
            node("dataset/flights@12", "flights@12", "ok", "passed"),
            node("dataset/weather@4", "weather@4", "ok", "passed"),
            node("feature-view/previous_leg", "previous_leg", "ok", "fresh"),
            node("feature-view/weather_then", "weather_then", "warn", "stale"),
            node("run/41f3", "run 41f3", "ok", "finished"),
            node("model/late@2", "late@2", "ok", "serving"),
            node("model/late@1", "late@1", "off", "retired"),
            node("deployment/late", "deployment/late", "busy", "rolling out"),
            node("monitor/late", "monitor/late", "bad", "firing"),
        ],
        "edges": [
            {"from": "dataset/flights@12", "to": "feature-view/previous_leg"},
            {"from": "dataset/flights@12", "to": "run/41f3", "label": "read"},
            {"from": "dataset/weather@4", "to": "feature-view/weather_then"},
            {"from": "feature-view/previous_leg", "to": "run/41f3", "label": "joined"},
            {"from": "feature-view/weather_then", "to": "run/41f3", "label": "joined"},
            {"from": "run/41f3", "to": "model/late@2", "label": "made"},
            {"from": "model/late@2", "to": "deployment/late", "label": "serves"},
            {"from": "model/late@1", "to": "deployment/late", "label": "served"},
            {"from": "deployment/late", "to": "monitor/late", "label": "watched by"},
        ],
    }


def _loss() -> dict[str, Any]:
    def curve(rate: float, count: int) -> dict[str, list[float]]:
        steps = list(range(0, count, 2))
        return {
            "xs": steps,
            "ys": [0.45 + 0.3 * math.exp(-step / rate) + 0.004 * math.sin(step * rate) for step in steps],
        }

    runs = [
        ("run 41f3", 1, 40.0, 300),
        ("run 41f4", 2, 60.0, 220),
        ("run 5203", 3, 25.0, 300),
        ("run 9c1e", 4, 90.0, 140),
    ]
    return {
        "x": "step",
        "series": [{"name": name, "arm": arm, **curve(rate, count)} for name, arm, rate, count in runs],
    }
