"""`/runs`: which run was best. A table of every experiment and kind, filtered, sorted and paged by the server."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from flyball.clock import format_instant
from flyball.errors import Conflict, InvalidInput, NotFound, listed
from flyball.ledger.runs import Run, as_text
from flyball.platform import Platform
from flyball.web.pages import run_search
from flyball.web.pages.run_search import Asked
from flyball.web.pages.site import File, Goto, Page, Site, integer

__all__ = ["KINDS", "STATUSES", "deciding_metrics", "local", "mount", "position_of", "run_named", "short", "took"]

SIZE = 50
KINDS = ("training", "evaluation", "pipeline", "step")
STATUSES = ("pending", "running", "succeeded", "failed", "cancelled", "lost")
_METRIC_COLUMNS = 3
_PARAM_COLUMNS = 5
_LISTED_EXPERIMENTS = 500  # in the chooser; all of them stand at /experiments
_KEYS = 200  # that one question for keys is answered with
_LONG_NUMBER = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d{1,3})?|[+-]?\d\.?\d*[eE][+-]?\d{1,3}")
_COMMON_METRICS = ("auc", "accuracy", "rmse", "r2", "f1", "log_loss", "loss")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        wanted = run_search.asked(request)
        experiments = run_search.all_experiments(platform)
        wrong = run_search.fault(wanted.filter) if wanted.filter.strip() else None
        ids = [e.id for e in experiments]
        found = run_search.Found([]) if wrong else run_search.find(platform, wanted, ids, SIZE)
        is_paged = wanted.before is not None or wanted.after is not None
        columns = _columns(platform, wanted, found.runs, request.query_params.get("show") == "params")
        names = {e.id: e.name for e in experiments}
        values = {
            "title": "Runs",
            "section": "runs",
            "crumbs": [("Runs", None)],
            "asked": wanted,
            "wrong": _pointed(wanted.filter, wrong) if wrong else None,
            "rows": [
                {"ref": str(r.ref), "run": r, "took": took(platform, r), "cells": _cells(r, columns)}
                for r in found.runs
            ],
            "columns": columns,
            "experiments": experiments[:_LISTED_EXPERIMENTS],
            "experiment_names": names,
            "chosen": [(id, names.get(id, f"experiment {id}")) for id in wanted.experiments],
            "kinds": KINDS,
            "statuses": STATUSES,
            "is_first": not is_paged,
            "next_key": dict([found.next_key]) if found.next_key else None,
            "is_live": any(not r.is_finished for r in found.runs),
        }
        return Page("runs.html", values, status=400 if wrong else 200)

    def keys(request: Request) -> File:
        """Answer which keys there are to choose columns from: {"total", "items": [[column, runs]]}."""
        words = request.query_params.get("q", "").lower().split()
        start = integer(request, "start", 0) or 0
        found = platform.run_keys(_searched(platform, request))
        every = [
            (f"{prefix}.{key}", count)
            for prefix, counted in (("metrics", found.metrics), ("params", found.params), ("tags", found.tags))
            for key, count in counted.items()
            if not key.startswith("mlflow.") or words
        ]
        hits = [(name, count) for name, count in every if all(word in name.lower() for word in words)]
        return File.json({"total": len(hits), "start": start, "items": hits[start : start + _KEYS]})

    def complete(request: Request) -> File:
        text = request.query_params.get("text", "")[:10_000]
        return File.json(run_search.completions(platform, _searched(platform, request), text))

    def act(_request: Request, fields: Mapping[str, str], chosen: list[str]) -> Goto:
        """Delete, restore or tag the chosen runs; those with which it does not go stay as they are and are told of."""
        named = [ref.removeprefix("run/") for ref in chosen]
        if not named:
            raise InvalidInput("no run was chosen; select rows with x or the boxes at their left")
        what = fields.get("act", "")
        if what not in ("delete", "restore", "tag"):
            raise InvalidInput(f"{what[:40]!r} is nothing that can be done with runs; expected delete, restore or tag")
        key, _, value = fields.get("tag", "").partition("=")
        if what == "tag" and not key.strip():
            raise InvalidInput("the tag is empty; write key=value")
        refused: list[str] = []
        for id in named:
            try:
                if what == "delete":
                    platform.delete_run(id)
                elif what == "restore":
                    platform.restore_run(id)
                else:
                    platform.tag_run(id, key.strip(), value.strip())
            except (Conflict, NotFound) as error:
                refused.append(str(error))
        if refused:
            done = len(named) - len(refused)
            raise Conflict(f"{what}: {done} of {len(named)} runs; the others did not go: {listed(refused, 5)}")
        return Goto(local(fields.get("back", ""), "/runs"))

    site.page("/runs", listing)
    site.page("/runs/keys", keys)
    site.page("/runs/complete", complete)
    site.choice("/runs/act", act)


def run_named(platform: Platform, id: str) -> Run:
    """Return a run by its id or the beginning of it. Raises NotFound."""
    return platform.run(id)


def deciding_metrics(platform: Platform, runs: Sequence[Run]) -> list[str]:
    """Return the metrics of these runs that decide: those that models are judged by, then the usual ones."""
    counted = Counter(key for run in runs for key in run.metrics if not key.startswith("system/"))
    declared = [str(m.spec["metric"]) for m in platform.resources("model") if m.spec.get("metric")]
    wanted = [*declared, *_COMMON_METRICS, *(key for key, _ in counted.most_common())]
    return list(dict.fromkeys(key for key in wanted if key in counted))[:_METRIC_COLUMNS]


def position_of(run: Run) -> str:
    """Return where a run stands in the list, as the address holds it."""
    return f"{format_instant(run.started_at)}~{run.id}"


def took(platform: Platform, run: Run) -> float | None:
    """Return how many seconds a run took, or takes so far; None while it waits."""
    if run.status == "pending":
        return None
    return ((run.finished_at or platform.clock.now()) - run.started_at).total_seconds()


def local(url: str, otherwise: str) -> str:
    """Return an address of this site that a form names to go back to, without its host; or the other one."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc or not parts.path.startswith("/") or "\\" in url or url.startswith("//"):
        return otherwise
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _searched(platform: Platform, request: Request) -> list[str]:
    given = run_search.asked(request).experiments
    return list(given) or [e.id for e in run_search.all_experiments(platform)]


def _columns(platform: Platform, wanted: Asked, runs: Sequence[Run], with_params: bool) -> list[dict[str, Any]]:
    """Return the columns that were chosen, else the metrics that decide, with the commonest parameters if asked for."""
    names = list(wanted.columns)
    if not names:
        names = [f"metrics.{key}" for key in deciding_metrics(platform, runs)]
        if with_params:
            names += [f"params.{key}" for key in _commonest(run.params for run in runs)]
        sorted_by = wanted.sort.removeprefix("-")
        if "." in sorted_by and sorted_by not in names:
            names.append(sorted_by)
    found = []
    for name in names:
        kind, key = run_search.place(name)
        found.append({"id": name, "kind": kind, "key": key})
    return found


def _cells(run: Run, columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for column in columns:
        kind, key = column["kind"], column["key"]
        if kind == "metric":
            cells.append({"number": run.metrics.get(key), "text": None})
        else:
            held = run.params if kind == "param" else run.tags
            text = as_text(held[key]) if key in held else None
            cells.append({"number": None, "text": text, "short": None if text is None else short(text)})
    return cells


def short(text: str) -> str:
    """Return a parameter as a table shows it: a number of many digits with four of them, a long text cut.

    >>> short("0.0002529838120180262"), short("12345678"), short("adam")
    ('0.000253', '12345678', 'adam')
    """
    if len(text) > 9 and _LONG_NUMBER.fullmatch(text):
        return f"{float(text):.4g}"
    return text if len(text) <= 28 else text[:27] + "…"


def _pointed(text: str, wrong: tuple[int, int, str]) -> dict[str, str]:
    begin, end, sentence = wrong
    return {"before": text[:begin], "word": text[begin:end], "behind": text[end:], "sentence": sentence}


def _commonest(params: Any) -> list[str]:
    return [key for key, _ in Counter(key for one in params for key in one).most_common(_PARAM_COLUMNS)]
