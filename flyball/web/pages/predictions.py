"""`/deployments/NAME/predictions` and `/predictions/ID`: what was asked, what was answered, and what became true."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request

from flyball.clock import parse_since
from flyball.errors import Conflict, InvalidInput
from flyball.ledger.refs import Ref
from flyball.tracking.exploring import Slice
from flyball.tracking.predictions import VARIANTS, microseconds
from flyball.web.pages.site import Page, Site, parameters

__all__ = ["mount"]

SIZE = 100
_INPUT_COLUMNS = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def explorer(request: Request) -> Page:
        name = platform.resource(Ref("deployment", request.path_params["name"])).name
        given = parameters(request, "variant", "version", "labelled", "since", "where", "by", "before")
        wanted = _slice(given, platform.clock.now())
        by = given.get("by")
        problem, rows, summary = None, None, None
        try:
            summary = platform.predictions_summary(name, wanted, by)
            if by is None:
                before = _position(given["before"]) if "before" in given else None
                rows = platform.predictions(name, wanted, SIZE + 1, before)
        except InvalidInput as error:  # said beside the filter that it is about, which stays as it was written
            problem = str(error)
        shown = rows.head(SIZE) if rows is not None else None
        last = shown.row(-1, named=True) if rows is not None and shown is not None and rows.height > SIZE else None
        columns = shown.columns if shown is not None else []
        total, versions = platform.predictions_known(name)
        values = {
            "title": f"Requests of {name}",
            "section": "deployments",
            "crumbs": [("Deployments", "/deployments"), (name, f"/deployments/{name}"), ("Requests", None)],
            "name": name,
            "problem": problem,
            "rows": shown.to_dicts() if shown is not None else [],
            "summary": summary,
            "by": by,
            "means": [n for n in summary.groups[0] if n.startswith("output.")] if summary and summary.groups else [],
            "inputs": [c for c in columns if c.startswith(("input.", "feature."))][:_INPUT_COLUMNS],
            "outputs": [c for c in columns if c.startswith("output.")][:3],
            "is_first": "before" not in given,
            "next_key": f"{microseconds(last['at'])}-{last['id']}" if last else None,
            "total": total,
            "is_filtered": bool({"variant", "version", "labelled", "since", "where"} & set(given)),
            "fields": [
                {
                    "name": "where",
                    "label": "Where",
                    "value": given.get("where"),
                    "hint": "input.hour >= 17 AND …",
                    "wide": True,
                },
                {"name": "by", "label": "Sum up by", "value": by, "hint": "input.carrier"},
                {"name": "since", "label": "Since", "value": given.get("since"), "hint": "2h, or an instant"},
                {"name": "variant", "label": "Variant", "value": given.get("variant"), "options": VARIANTS},
                {
                    "name": "version",
                    "label": "Version",
                    "value": given.get("version"),
                    "options": versions,
                },
                {"name": "labelled", "label": "Truth known", "value": given.get("labelled"), "options": ["yes", "no"]},
            ],
        }
        return Page("predictions.html", values)

    def one(request: Request) -> Page:
        found = platform.prediction(request.path_params["id"])
        explanation, problem = None, None
        if "explain" in request.query_params:
            try:
                explanation = _bars(platform.explanation(found.id, request.query_params["explain"] == "approximate"))
            except (InvalidInput, Conflict) as error:
                problem = str(error)
        values = {
            "title": f"Prediction {found.id[:8]}",
            "section": "deployments",
            "crumbs": [
                ("Deployments", "/deployments"),
                (found.deployment, f"/deployments/{found.deployment}"),
                ("Requests", f"/deployments/{found.deployment}/predictions"),
                (found.id[:8], None),
            ],
            "found": found,
            "links": platform.provenance(found.id)[1:],
            "explanation": explanation,
            "problem": problem,
            "label": _label(found.deployment, found.id),
        }
        return Page("prediction.html", values)

    def _label(deployment: str, id: str) -> dict[str, Any] | None:
        """Return the truth of a prediction with when it came."""
        rows = platform.predictions(deployment, Slice(where=f"id = '{id}'"), 1)
        if rows.is_empty() or rows["label"][0] is None:
            return None
        return {"value": rows["label"][0], "at": rows["label_at"][0], "source": rows["label_source"][0]}

    site.page("/deployments/{name}/predictions", explorer)
    site.page("/predictions/{id}", one)


def _bars(explanation: dict[str, Any]) -> dict[str, Any]:
    """Return an explanation with its contributions as bars, the largest first; places are per cent of the width."""
    done = {name: value or 0.0 for name, value in explanation["contributions"].items()}
    most = max(map(abs, done.values()), default=0.0) or 1.0
    bars = []
    for name in sorted(done, key=lambda name: -abs(done[name])):
        width = abs(done[name]) / most * 50
        bars.append({"name": name, "did": done[name], "x": 50 if done[name] > 0 else 50 - width, "width": width})
    return {**explanation, "bars": bars}


def _slice(given: Mapping[str, str], now: datetime) -> Slice:
    since = given.get("since")
    labelled = {"yes": True, "no": False}.get(given.get("labelled", ""))
    return Slice(
        given.get("version"),
        given.get("variant"),
        None if since is None else parse_since(since, now),
        None,
        labelled,
        given.get("where"),
    )


def _position(text: str) -> tuple[datetime, str]:
    """Return the instant and the id of the last row of the page before, as the address has them."""
    micros, _, id = text.partition("-")
    if not micros.isdecimal() or len(micros) > 17 or not id.isalnum():
        raise InvalidInput(f'"before" in the address is {text[:64]!r}; go to the newest')
    return _EPOCH + timedelta(microseconds=int(micros)), id
