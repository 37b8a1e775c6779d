"""`/runs/compare?ref=…&ref=…`: runs side by side: what they were given, what they found, how they got there."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.web.pages import figures
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]

MOST = 8  # runs that can be told apart by colour
_CURVES = 12


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def compare(request: Request) -> Page:
        wanted = list(dict.fromkeys(r.removeprefix("run/") for r in request.query_params.getlist("ref")))
        if len(wanted) > MOST:
            raise InvalidInput(f"{len(wanted)} runs cannot be told apart; choose at most {MOST}")
        runs = [platform.run(id) for id in wanted]
        keys = sorted({key for run in runs for key in run.metrics})
        curves: list[dict[str, Any]] = []
        for key in keys:
            histories = [(arm, run, platform.metric(run.id, key)) for arm, run in enumerate(runs) if key in run.metrics]
            if len(curves) < _CURVES and any(len(points) > 1 for _, _, points in histories):
                series = [figures.curve(run.ref.short, points, arm) for arm, run, points in histories]
                curves.append({"key": key, "data": {"x": "step", "series": series}})
        params = _side_by_side([run.params for run in runs])
        values = {
            "title": "Compare runs",
            "section": "runs",
            "crumbs": [("Runs", "/runs"), ("Compare", None)],
            "runs": runs,
            "params": [row for row in params if row["differs"]] + [row for row in params if not row["differs"]],
            "metrics": _side_by_side([run.metrics for run in runs]),
            "curves": curves,
        }
        return Page("compare.html", values)

    site.page("/runs/compare", compare)


def _side_by_side(columns: list[Any]) -> list[dict[str, Any]]:
    """Return a row for each key of any column, saying whether the columns differ in it."""
    keys = sorted({key for column in columns for key in column})
    rows = [{"key": key, "values": [column.get(key) for column in columns]} for key in keys]
    return [{**row, "differs": any(v != row["values"][0] for v in row["values"])} for row in rows]
