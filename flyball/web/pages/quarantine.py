"""`/quarantine`: batches that broke their contract, why, and what people do about them: fix, release or drop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.data.quarantine import STATES, Held
from flyball.errors import FlyballError, InvalidInput
from flyball.ledger.refs import Ref
from flyball.platform import MAY, Platform
from flyball.web.formats import ref_url
from flyball.web.pages import figures
from flyball.web.pages.columns import schema_of
from flyball.web.pages.lineage import labels_of, states_of
from flyball.web.pages.seeing import Head, Sight, head_from, sight_of, without
from flyball.web.pages.site import Goto, Page, Site, integer, parameters

__all__ = ["mount"]

SIZE = 50
_MOST = 1000  # batches that can be paged through; beyond, choose a dataset or a state
_ROWS = 25
_CORRECTIONS = 3  # columns that the form offers to correct at once
_FAILED = "_failed"


def mount(site: Site) -> None:
    """Add the pages and the acts."""
    platform = site.platform

    def listing(request: Request) -> Page:
        given = parameters(request, "dataset", "state")
        page = min(integer(request, "page", 1) or 1, _MOST // SIZE)
        state = given.get("state")
        found = platform.held(given.get("dataset"), state, page * SIZE + 1)
        values = {
            "title": "Quarantine",
            "section": "data",
            "crumbs": [("Data", "/data"), ("Quarantine", None)],
            "given": given,
            "rows": [{"held": held, "broken": _broken(held)} for held in found[(page - 1) * SIZE : page * SIZE]],
            "states": STATES,
            "page": page,
            "size": SIZE,
            "total": None if len(found) > page * SIZE else len(found),
        }
        return Page("quarantine.html", values)

    def one(request: Request) -> Page:
        name, number = _named(request)
        held = platform.quarantine.get(name, number)
        version = held.version
        schema = {n: t for n, t in schema_of(version).items() if n != _FAILED}
        sight = sight_of(platform, name, schema, request)
        start = integer(request, "row", 0) or 0
        everything = bool(request.query_params.get("all"))
        graph = platform.lineage(version.ref, depth=4, limit=60)
        values = {
            "title": str(version.ref),
            "section": "data",
            "crumbs": [("Data", "/data"), ("Quarantine", "/quarantine"), (version.ref.short, None)],
            "held": held,
            "made": version,
            "dataset": Ref("dataset", name),
            "report": without(held.report, sight),
            "sight": sight,
            "rows": _rows(platform, held, sight, start, failing=not everything),
            "start": start,
            "size": _ROWS,
            "everything": everything,
            "columns": sorted(schema),
            "corrections": range(_CORRECTIONS),
            "may": {act: platform.principal.has(MAY[act]) for act in ("publish", "approve", "delete")},
            "role": platform.principal.role,
            "lineage": figures.graph(graph, states_of(platform, graph), labels_of(platform, graph)),
            "events": site.told(platform.events(ref=str(version.ref), limit=12)),
        }
        return Page("quarantined.html", values)

    def fix(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = _named(request)
        change: dict[str, str] = {}
        for place in range(_CORRECTIONS):
            column, expression = fields.get(f"column{place}", "").strip(), fields.get(f"expression{place}", "").strip()
            if column in change:
                raise InvalidInput(f'the column "{column}" is corrected twice; write one expression for it')
            if bool(column) != bool(expression):
                missing = "no expression is given for it" if column else "no column is chosen for it"
                raise InvalidInput(f'the correction "{(column or expression)[:80]}" is half written: {missing}')
            if column:
                change[column] = expression
        if not change:
            raise InvalidInput(
                "nothing is corrected; choose a column and write an SQL expression, such as abs(distance)"
            )
        made = platform.fix(name, number, change, reason=fields.get("reason", "").strip())
        return Goto(ref_url(made.ref))

    def release(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = _named(request)
        return Goto(ref_url(platform.release(name, number, fields.get("reason", "").strip()).ref))

    def drop(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = _named(request)
        return Goto(ref_url(platform.drop(name, number, fields.get("reason", "").strip()).ref))

    site.page("/quarantine", listing)
    site.page("/quarantine/{target}", one)
    site.form("/quarantine/{target}/fix", fix)
    site.form("/quarantine/{target}/release", release)
    site.form("/quarantine/{target}/drop", drop)


def _named(request: Request) -> tuple[str, str]:
    name, _, number = request.path_params["target"].partition("@")
    return name, number or "latest"


def _broken(held: Held) -> list[str]:
    """Return the rules of severity error that a batch broke."""
    results: list[dict[str, Any]] = held.report.get("results", [])
    return [str(r["id"]) for r in results if not r["passed"] and r["severity"] == "error"]


def _rows(platform: Platform, held: Held, sight: Sight, start: int, *, failing: bool) -> dict[str, Any]:
    """Return rows of a batch with the rules that each breaks, or why they are not shown."""
    if not sight.allowed:
        return {"head": Head(reason=sight.reason), "rules": [], "more": False}
    try:
        frame = platform.inspect(held.version.name, held.version.number, failing=failing)
        found = frame.slice(start, _ROWS + 1).collect()
    except FlyballError as error:
        return {"head": Head(reason=str(error)), "rules": [], "more": False}
    shown = found.head(_ROWS)
    return {"head": head_from(shown.drop(_FAILED)), "rules": shown[_FAILED].to_list(), "more": found.height > _ROWS}
