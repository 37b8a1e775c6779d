"""Searching traces, and measuring many of them."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

from flyball.ledger.traces import Trace
from flyball.llm.measuring import Aggregation, Question
from flyball.platform import Platform
from flyball.wire.mlflow.fields import choice, messages, number, text, texts, whole, wrong
from flyball.wire.mlflow.refusals import invalid
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.trace_values import old_trace_value, trace_value
from flyball.wire.mlflow.traces import LOCATION
from flyball.wire.mlflow.values import double, offset_of

__all__ = ["add_trace_searching"]

_PAGE = 100
_MOST = 500
_FIGURES = 1000
_VIEWS = ("TRACES", "SPANS", "ASSESSMENTS")
_AGGREGATIONS = ("COUNT", "SUM", "AVG", "PERCENTILE", "MIN", "MAX")
_FILTER = re.compile(r"\s*(trace|span|assessment)\.(\w+)(?:\.(.+?))?\s*(=|!=|[<>]=?|\w+)\s*(['\"])(.*)\5\s*", re.DOTALL)
_WHAT = {
    "trace": {"status": False, "metadata": True, "tag": True},
    "span": {"name": False, "status": False, "type": False},
    "assessment": {"name": False, "type": False},
}


def add_trace_searching(routes: Routes, platform: Platform) -> None:
    """Add the routes that search, correlate and measure."""
    _add_search(routes, platform)
    _add_figures(routes, platform)


def _add_search(routes: Routes, platform: Platform) -> None:
    asking = (text("filter"), whole("max_results"), texts("order_by"), text("page_token"))

    @routes.add("POST", "3.0/mlflow/traces/search", messages("locations", *LOCATION, required=True), *asking)
    def search(asked: Asked) -> dict[str, Any]:
        places = [
            one["mlflow_experiment"].get("experiment_id", "")
            for one in asked["locations"]
            if "mlflow_experiment" in one
        ]
        found, token = _page(platform, places, asked)
        return _answer([trace_value(trace) for trace in found], token)

    @routes.add("GET", "2.0/mlflow/traces", texts("experiment_ids", required=True), *asking)
    def old_search(asked: Asked) -> dict[str, Any]:
        found, token = _page(platform, asked["experiment_ids"], asked)
        return _answer([old_trace_value(trace) for trace in found], token)

    @routes.add(
        "POST",
        "3.0/mlflow/traces/calculate-filter-correlation",
        texts("experiment_ids", required=True),
        text("filter_string1", required=True),
        text("filter_string2", required=True),
        text("base_filter"),
    )
    def correlate(asked: Asked) -> dict[str, Any]:
        found = platform.correlate_traces(
            asked["experiment_ids"], asked["filter_string1"], asked["filter_string2"], asked.get("base_filter")
        )
        figures = {"npmi": found.npmi, "npmi_smoothed": found.npmi_smoothed}
        return {
            **{name: figure for name, figure in figures.items() if not math.isnan(figure)},
            "filter1_count": found.first,
            "filter2_count": found.second,
            "joint_count": found.both,
            "total_count": found.total,
        }


def _page(platform: Platform, experiments: list[str], asked: Asked) -> tuple[list[Trace], str | None]:
    limit = asked.get("max_results", _PAGE)
    if limit > _MOST:
        raise wrong("max_results", limit)
    if limit < 1:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied. It must be a positive integer")
    token = asked.get("page_token")
    offset, order_by = offset_of(token), asked.get("order_by", ())
    found, is_more = platform.search_traces(
        experiments, asked.get("filter", ""), order_by, limit, offset, _after(token) if not order_by else None
    )
    if not is_more:
        return found, None
    last = {} if order_by else {"after": [found[-1].at_ms, found[-1].id]}
    return found, base64.b64encode(json.dumps({"offset": offset + limit, **last}).encode()).decode()


def _after(token: str | None) -> tuple[int, str] | None:
    """Return the place behind which a page begins, which a token has beside its offset."""
    kept = json.loads(base64.b64decode(token)).get("after") if token else None
    if isinstance(kept, list) and len(kept) == 2:
        at_ms, id = kept
        if isinstance(at_ms, int) and abs(at_ms) < 1 << 62 and isinstance(id, str) and "\0" not in id:
            return at_ms, id
    return None


def _answer(traces: list[dict[str, Any]], token: str | None) -> dict[str, Any]:
    return {**({"traces": traces} if traces else {}), **({"next_page_token": token} if token else {})}


def _add_figures(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "POST",
        "3.0/mlflow/traces/metrics",
        texts("experiment_ids", required=True),
        choice("view_type", _VIEWS, required=True),
        text("metric_name", required=True),
        messages("aggregations", choice("aggregation_type", _AGGREGATIONS), number("percentile_value"), required=True),
        texts("dimensions"),
        texts("filters"),
        whole("time_interval_seconds"),
        whole("start_time_ms"),
        whole("end_time_ms"),
        whole("max_results"),
        text("page_token"),
    )
    def metrics(asked: Asked) -> dict[str, Any]:
        question = Question(
            view=asked["view_type"],
            metric=asked["metric_name"],
            aggregations=[_aggregation(place, one) for place, one in enumerate(asked["aggregations"])],
            dimensions=asked.get("dimensions", ()),
            filters=[_filter(one) for one in asked.get("filters", ())],
            interval_s=asked.get("time_interval_seconds") or None,
            first_ms=asked.get("start_time_ms"),
            last_ms=asked.get("end_time_ms"),
        )
        most = asked.get("max_results", _FIGURES)
        if not 1 <= most <= _FIGURES:
            raise wrong("max_results", most)
        points = []
        for found in platform.measure_traces(asked["experiment_ids"], question, most):
            point: dict[str, Any] = {"metric_name": question.metric}
            if found.dimensions:
                point["dimensions"] = found.dimensions
            points.append({**point, "values": {name: double(figure) for name, figure in found.values.items()}})
        return {"data_points": points} if points else {}


def _aggregation(place: int, given: dict[str, Any]) -> Aggregation:
    kind, percentile = given.get("aggregation_type"), given.get("percentile_value")
    if kind is None:
        raise wrong(f"aggregations[{place}].aggregation_type", given)
    if (kind == "PERCENTILE") != (percentile is not None):
        raise invalid(f"aggregations[{place}]: percentile_value is for PERCENTILE, which needs it; got {given}")
    return Aggregation(kind, percentile)


def _filter(written: str) -> tuple[str, str, str | None, str]:
    found = _FILTER.fullmatch(written) if len(written) <= 10_000 else None
    if found is None:
        raise invalid(f"Invalid filter: '{written[:200]}'. Expected one filter clause, such as trace.status = 'OK'.")
    view, what, key, operator, _, said = found.groups()
    known = _WHAT[view]
    if what not in known:
        raise invalid(f"Invalid entity '{what}' specified for view type '{view}'. Valid entities are {list(known)}")
    if known[what] and key is None:
        raise invalid(f"Filtering by {what} requires a key, e.g. '{view}.{what}.<key> = <value>'")
    if not known[what] and key is not None:
        raise invalid(f"Filtering by {what} does not require a key, use '{view}.{what}' instead")
    if operator != "=":
        raise invalid(f"Invalid comparator: '{operator}', only '=' operator is supported")
    return view, what, key.strip().strip("`\"'") if key else None, said
