"""`/runs/compare?ref=…&ref=…`: runs side by side: what they were given, what they found, how they got there.

Any number up to 200. Everything chosen stands in the address: the runs, what is shown, keys, axes, smoothing, scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.ledger.runs import Run, as_text
from flyball.platform import Platform
from flyball.web.pages import run_search
from flyball.web.pages.curves import AXES, curves, view_of
from flyball.web.pages.run_files import IMAGE_TYPES, preview_of
from flyball.web.pages.runs import short
from flyball.web.pages.site import File, Page, Site, parameters

__all__ = ["MOST", "is_less_better", "mount"]

MOST = 200
_CURVES = 8  # drawn when none was chosen
_MOST_CURVES = 40
_DIMENSIONS = 8  # of parallel coordinates when none was chosen
_ROWS = 500  # of a table of keys; the search box finds the others
_FILE_RUNS = 24  # runs whose files stand side by side
_LOG_RATIO = 100  # the greatest to the least value of an axis that is logarithmic
_SHOWN = ("tables", "curves", "parallel", "scatter", "box", "files")
_LESS = ("loss", "error", "rmse", "mse", "mae", "mape", "nll", "perplexity", "latency", "brier", "seconds", "_ms")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def compare(request: Request) -> Page:
        runs = _runs(platform, request)
        given = parameters(request, "show", "q", "px", "py", "colour", "by", "path")
        shown = given.get("show", "tables")
        if shown not in _SHOWN:
            raise InvalidInput(f'"show" in the address is {shown[:40]!r}; expected one of {", ".join(_SHOWN)}')
        view = view_of(request)
        metrics = sorted({key for run in runs for key in run.latest if not key.startswith("system/")})
        params = sorted({key for run in runs for key in run.params})
        words = given.get("q", "").lower().split()
        values: dict[str, Any] = {
            "title": "Compare runs",
            "section": "runs",
            "crumbs": [("Runs", "/runs"), ("Compare", None)],
            "runs": runs,
            "names_of": [name for _, name in _named(runs)],
            "shown": shown,
            "parts": _SHOWN,
            "view": view,
            "axes": AXES,
            "words": given.get("q", ""),
            "metrics": metrics,
            "params": params,
            "short": short,
        }
        if shown == "tables":
            values |= _tables(runs, metrics, params, words)
        elif shown == "curves":
            chosen = [key for key in request.query_params.getlist("metric") if key in metrics][:_MOST_CURVES]
            found = [key for key in metrics if all(word in key.lower() for word in words)]
            drawn = chosen or [key for key in found if _is_curve(runs, key)][:_CURVES]
            refs = urlencode([("ref", run.id) for run in runs])
            values |= {
                "drawn": drawn,
                "query": "&".join(q for q in (refs, urlencode(view.query)) if q),
                "chosen": chosen,
            }
        elif shown != "files":
            values |= _drawing(shown, runs, metrics, params, request, given)
        else:
            values |= _files(platform, runs, given.get("path", ""))
        return Page("compare.html", values)

    def series(request: Request) -> File:
        runs = _runs(platform, request)
        return File.json(curves(platform, _named(runs), request.query_params.get("key", ""), view_of(request)))

    site.page("/runs/compare", compare)
    site.page("/runs/compare/series", series)


def is_less_better(key: str) -> bool:
    """Whether less of a metric is better, as far as its name tells."""
    name = key.lower()
    return any(word in name for word in _LESS)


def _runs(platform: Platform, request: Request) -> list[Run]:
    wanted = list(dict.fromkeys(r.removeprefix("run/") for r in request.query_params.getlist("ref") if r))
    if len(wanted) > MOST:
        raise InvalidInput(f"{len(wanted)} runs are more than one page compares; choose at most {MOST}")
    whole = platform.runs_whole([id for id in wanted if len(id) == 32])
    return [whole[id][1] if id in whole else platform.run(id) for id in wanted]


def _named(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return id and name of each run; where names are the same, the beginning of the id besides."""
    names = [run.name or run.id[:8] for run in runs]
    return [
        (run.id, name[:60] if names.count(name) == 1 else f"{name[:50]} {run.id[:8]}")
        for run, name in zip(runs, names, strict=True)
    ]


def _is_curve(runs: Sequence[Run], key: str) -> bool:
    return any(key in run.latest and (run.latest[key].step != 0 or not run.is_finished) for run in runs)


def _tables(runs: Sequence[Run], metrics: Sequence[str], params: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    found = [key for key in metrics if all(word in key.lower() for word in words)]
    rows = []
    for key in found[:_ROWS]:
        cells = [run.metrics.get(key) for run in runs]
        known = [v for v in cells if v is not None and math.isfinite(v)]
        differs = len(set(known)) > 1
        best = (min if is_less_better(key) else max)(known) if differs else None
        rows.append({"key": key, "cells": cells, "best": best, "less": is_less_better(key), "differs": differs})
    texts = [[as_text(run.params[key]) if key in run.params else None for run in runs] for key in params]
    every = [
        {"key": key, "cells": cells, "differs": len(set(cells)) > 1}
        for key, cells in zip(params, texts, strict=True)
        if all(word in key.lower() for word in words)
    ]
    same = [row for row in every if not row["differs"]]
    return {
        "metric_rows": rows,
        "differing": [row for row in every if row["differs"]][:_ROWS],
        "same": same[:_ROWS],
        "same_count": len(same),
        "left_out": max(len(found) - _ROWS, 0),
    }


def _drawing(
    shown: str,
    runs: Sequence[Run],
    metrics: Sequence[str],
    params: Sequence[str],
    request: Request,
    given: Mapping[str, str],
) -> dict[str, Any]:
    """Return the chart of values, with the keys that may be chosen for it."""
    columns = [f"metrics.{key}" for key in metrics] + [f"params.{key}" for key in params]
    varied = [name for name in columns if len({str(v) for v in _column(runs, name)}) > 1]
    measured = [name for name in varied if name.startswith("metrics.")]
    numeric = [name for name in varied if name.startswith("params.") and _is_numeric(_column(runs, name))]
    names = [name for _, name in _named(runs)]
    about = [{"name": name, "href": f"/runs/{run.id}"} for name, run in zip(names, runs, strict=True)]
    if shown == "parallel":
        chosen = [name for name in request.query_params.getlist("dim") if name in columns]
        dims = chosen or [*[n for n in varied if n.startswith("params.")][: _DIMENSIONS - 2], *measured[:2]]
        axes = [_axis(runs, name) for name in dims]
        data: dict[str, Any] = {"axes": axes, "runs": about, "colour": len(axes) - 1}
        return {"data": data, "columns": columns, "chosen": dims}
    if shown == "scatter":
        x = _one(given.get("px"), columns, [*numeric, *measured, *columns])
        y = _one(given.get("py"), columns, [*[n for n in measured if n != x], *measured, *columns])
        colour = given.get("colour") if given.get("colour") in columns else None
        data = {"runs": about, "x": _axis(runs, x) if x else None, "y": _axis(runs, y) if y else None}
        return {
            "data": data | ({"colour": _axis(runs, colour)} if colour else {}),
            "columns": columns,
            "px": x,
            "py": y,
            "colour": colour,
        }
    y = _one(given.get("py"), columns, [*measured, *columns])
    by = _one(given.get("by"), columns, [n for n in varied if n.startswith("params.")])
    groups: dict[str, list[dict[str, Any]]] = {}
    if y:
        grouped = _column(runs, by) if by else ["all"] * len(runs)
        for one, group, value in zip(about, grouped, _column(runs, y), strict=True):
            number = _as_number(value)
            if number is not None:
                groups.setdefault("–" if group is None else str(group)[:40], []).append({**one, "value": number})
    data = {
        "label": y or "",
        "groups": [
            {"name": name, "values": found} for name, found in sorted(groups.items(), key=lambda g: _natural(g[0]))[:40]
        ],
    }
    return {"data": data, "columns": columns, "py": y, "by": by}


def _column(runs: Sequence[Run], name: str) -> list[Any]:
    kind, key = run_search.place(name)
    if kind == "metric":
        return [run.metrics.get(key) for run in runs]
    return [as_text(run.params[key]) if key in run.params else None for run in runs]


def _axis(runs: Sequence[Run], name: str) -> dict[str, Any]:
    """Return a column as an axis: numbers as they are, words by their place among the words."""
    cells = _column(runs, name)
    if _is_numeric(cells):
        numbers = [_as_number(cell) for cell in cells]
        known = [number for number in numbers if number is not None]
        is_log = bool(known) and min(known) > 0 and max(known) / min(known) >= _LOG_RATIO
        return {"label": name, "values": numbers, "log": is_log}
    words = sorted({str(cell)[:60] for cell in cells if cell is not None}, key=_natural)
    places = {word: at for at, word in enumerate(words)}
    return {"label": name, "words": words, "values": [None if c is None else places[str(c)[:60]] for c in cells]}


def _is_numeric(cells: Sequence[Any]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(_as_number(cell) is not None or isinstance(cell, float) for cell in known)


def _as_number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _natural(word: str) -> tuple[int, float, str]:
    number = _as_number(word)
    return (1, 0.0, word) if number is None else (0, number, word)


def _one(wanted: str | None, columns: Sequence[str], otherwise: Sequence[str]) -> str | None:
    if wanted in columns:
        return wanted
    return otherwise[0] if otherwise else None


def _files(platform: Platform, runs: Sequence[Run], path: str) -> dict[str, Any]:
    """Return which files the runs have, and one of them of each run that has it."""
    by_run = {run.id: {file.path: file for file in platform.artifacts(run.id)} for run in runs}
    counted: dict[str, int] = {}
    for files in by_run.values():
        for name in files:
            counted[name] = counted.get(name, 0) + 1
    endings = tuple(f".{ending}" for ending in IMAGE_TYPES)
    names = sorted(counted, key=lambda name: (-counted[name], not name.lower().endswith(endings), name))[:_ROWS]
    chosen = path if path in counted else (names[0] if names else "")
    having: list[dict[str, Any]] = [
        {"run": run, "name": name, "file": by_run[run.id][chosen], "arm": place % 8}
        for place, ((_, name), run) in enumerate(zip(_named(runs), runs, strict=True))
        if chosen in by_run[run.id]
    ]
    shown = [{**one, "shown": preview_of(platform, one["file"])} for one in having[:_FILE_RUNS]]
    return {
        "names": [(name, counted[name]) for name in names],
        "path": chosen,
        "side_by_side": shown,
        "left_out": len(having) - len(shown),
        "without": len(runs) - len(having),
    }
