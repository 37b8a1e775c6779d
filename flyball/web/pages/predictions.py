"""`/deployments/NAME/predictions` and `/predictions/ID`: what was asked, what was answered, and what became true."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.ledger.refs import Ref, ref
from flyball.tracking.predictions import VARIANTS
from flyball.web.pages.site import Page, Site, parameters

__all__ = ["mount"]

SIZE = 100
_INPUT_COLUMNS = 6


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def explorer(request: Request) -> Page:
        import polars as pl

        name = platform.resource(Ref("deployment", request.path_params["name"])).name
        given = parameters(request, "variant", "version", "labelled", "before")
        rows = platform.traffic.frame(name)
        if not rows.is_empty():
            for column in ("variant", "version"):
                if column in given:
                    rows = rows.filter(pl.col(column) == given[column])
            if "labelled" in given:
                is_labelled = pl.col("label").is_not_null()
                rows = rows.filter(is_labelled if given["labelled"] == "yes" else ~is_labelled)
            if "before" in given:
                rows = rows.head(_position(rows, given["before"]))
        shown = rows.tail(SIZE).reverse()
        has_older = rows.height > SIZE
        inputs = [c for c in shown.columns if c.startswith(("input.", "feature."))]
        versions = sorted(set(platform.traffic.frame(name)["version"])) if platform.traffic.count(name) else []
        values = {
            "title": f"Requests of {name}",
            "section": "deployments",
            "crumbs": [("Deployments", "/deployments"), (name, f"/deployments/{name}"), ("Requests", None)],
            "name": name,
            "rows": shown.to_dicts(),
            "inputs": inputs[:_INPUT_COLUMNS],
            "outputs": [c for c in shown.columns if c.startswith("output.")][:3],
            "is_first": "before" not in given,
            "next_key": shown["id"][-1] if has_older else None,
            "total": platform.traffic.count(name),
            "is_filtered": bool({"variant", "version", "labelled"} & set(given)),
            "fields": [
                {"name": "variant", "label": "Variant", "value": given.get("variant"), "options": VARIANTS},
                {"name": "version", "label": "Version", "value": given.get("version"), "options": versions},
                {"name": "labelled", "label": "Truth known", "value": given.get("labelled"), "options": ["yes", "no"]},
            ],
        }
        return Page("predictions.html", values)

    def one(request: Request) -> Page:
        found = platform.prediction(request.path_params["id"])
        version = platform.version(ref(found.version, "model"))
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
            "made": version,
            "label": _label(found.deployment, found.id),
        }
        return Page("prediction.html", values)

    def _label(deployment: str, id: str) -> dict[str, Any] | None:
        """Return the truth of a prediction with when it came, as far as the kept rows know."""
        import polars as pl

        rows = platform.traffic.frame(deployment)
        mine = rows.filter(pl.col("id") == id) if not rows.is_empty() else rows
        if mine.is_empty() or mine["label"][0] is None:
            return None
        return {"value": mine["label"][0], "at": mine["label_at"][0], "source": mine["label_source"][0]}

    site.page("/deployments/{name}/predictions", explorer)
    site.page("/predictions/{id}", one)


def _position(rows: Any, id: str) -> int:
    """Return how many of the rows stand before the one of that id."""
    found = rows["id"].index_of(id)
    if found is None:
        raise InvalidInput(
            f"the prediction {id[:64]!r} of the address is no longer among the kept rows; go to the newest"
        )
    return int(found)
