"""Histories of metrics in MLflow's protocol: a page of one, whole ones of several runs, and samples for charts."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from flyball.ledger.points import Point
from flyball.platform import Platform
from flyball.wire.mlflow.fields import text, texts, whole
from flyball.wire.mlflow.refusals import invalid
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.run_writing import RUN
from flyball.wire.mlflow.values import offset_of, token_of

__all__ = ["add_metrics"]

_BULK_RUNS = 100
_BULK_POINTS = 25_000
_SAMPLED = 2500  # points of one run at most
_NO_LIMIT = (1 << 62) - 1
_SEE_DOCS = "See the API docs for more information about request parameters."


def add_metrics(routes: Routes, platform: Platform) -> None:
    """Add the routes that read metrics."""

    @routes.add(
        "GET",
        "2.0/mlflow/metrics/get-history",
        RUN,
        text("metric_key", required=True),
        text("page_token"),
        whole("max_results"),
    )
    def history(asked: Asked) -> tuple[int, bytes]:
        limit = asked.get("max_results")
        if limit is not None and limit <= 0:
            raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied. It must be a positive integer.")
        offset = offset_of(asked.get("page_token"))
        points, is_more = platform.metric_page(
            asked["run_id"], asked["metric_key"], _NO_LIMIT if limit is None else limit, offset
        )
        parts = [b'"metrics":' + _encoded(points)] if points else []
        if is_more and limit is not None:
            parts.append(b'"next_page_token":"' + token_of(offset + limit).encode() + b'"')
        return 200, b"{" + b",".join(parts) + b"}"

    @routes.add(
        "GET",
        "2.0/mlflow/metrics/get-history-bulk",
        texts("run_id"),
        text("metric_key"),
        whole("max_results"),
        ajax_only=True,
    )
    def bulk(asked: Asked) -> tuple[int, bytes]:
        runs = asked.get("run_id", [])
        if not runs:
            raise invalid("GetMetricHistoryBulk request must specify at least one run_id.")
        if len(runs) > _BULK_RUNS:
            raise invalid(
                f"GetMetricHistoryBulk request cannot specify more than {_BULK_RUNS} run_ids. "
                f"Received {len(runs)} run_ids."
            )
        if "metric_key" not in asked:
            raise invalid("GetMetricHistoryBulk request must specify a metric_key.")
        limit = min(asked.get("max_results", _BULK_POINTS), _BULK_POINTS)
        if limit < 1:
            return 200, b'{"metrics":[]}'
        found = platform.metric_bulk(sorted(set(runs)), asked["metric_key"], limit)
        return 200, b'{"metrics":' + _encoded_of_runs(found.items()) + b"}"

    @routes.add(
        "GET",
        "2.0/mlflow/metrics/get-history-bulk-interval",
        texts("run_ids", required=True),
        text("metric_key", required=True),
        whole("start_step"),
        whole("end_step"),
        whole("max_results"),
    )
    def interval(asked: Asked) -> tuple[int, bytes]:
        runs, first, last = asked["run_ids"], asked.get("start_step"), asked.get("end_step")
        limit = asked.get("max_results", _SAMPLED)
        if len(runs) > _BULK_RUNS:
            raise invalid(
                f"GetMetricHistoryBulkInterval request must specify at most {_BULK_RUNS} run_ids. "
                f"Received {len(runs)} run_ids. {_SEE_DOCS}"
            )
        if not 1 <= limit <= _SAMPLED:
            raise invalid(f"max_results must be between 1 and {_SAMPLED}. {_SEE_DOCS}")
        if (first is None) != (last is None):
            raise invalid("If either start step or end step are specified, both must be specified.")
        if first is not None and last is not None and first > last:
            raise invalid(f"end_step must be greater than start_step. Found start_step={first} and end_step={last}.")
        found = platform.metric_sample(runs, asked["metric_key"], first, last, limit)
        given = [(run, found[run]) for run in dict.fromkeys(runs) if found.get(run)]
        return 200, b'{"metrics":' + _encoded_of_runs(given) + b"}" if given else b"{}"


def _encoded(points: Iterable[Point]) -> bytes:
    """Return points as a JSON list; the infinities were never kept, so NaN alone needs a word."""
    return orjson.dumps(
        [
            {"key": key, "value": value if value == value else "NaN", "timestamp": at_ms, "step": step}
            for key, value, step, at_ms in points
        ]
    )


def _encoded_of_runs(found: Iterable[tuple[str, Iterable[Point]]]) -> bytes:
    return orjson.dumps(
        [
            {"key": key, "value": value if value == value else "NaN", "timestamp": at_ms, "step": step, "run_id": run}
            for run, points in found
            for key, value, step, at_ms in points
        ]
    )
