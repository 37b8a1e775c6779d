"""`/data/NAME/profile`: how the values of each column lie, and, beside another version, what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from flyball.clock import parse_instant
from flyball.data.profiles import ColumnComparison, TableProfile
from flyball.data.profiling.values import ColumnProfile
from flyball.errors import FlyballError, NotFound, did_you_mean, listed
from flyball.ledger.refs import Ref
from flyball.web.formats import ref_url
from flyball.web.pages.columns import columns_of, profile_of, schema_of
from flyball.web.pages.datasets import ADDRESSES, dataset_of
from flyball.web.pages.seeing import Sight, sight_of
from flyball.web.pages.site import Page, Site, parameters

__all__ = ["CHANGES", "compared", "histogram", "mount", "outlines"]

_PAIRS = 16  # of columns, strongest first, whose correlation is shown
_WEAK = 0.1  # correlations below are noise at the size of the sample
_SIDE_BY_SIDE = 12  # columns whose outlines are drawn, those that changed most
_AT_LEAST = 3  # outlines that are drawn even where nothing changed
_MICROSECONDS = 1e6

# What a change is called on a page, and its tone; PSI up to 0.1 is commonly taken as none, beyond 0.25 as large.
CHANGES: Mapping[str, tuple[str, str]] = {
    "same": ("same", "ok"), "shifted": ("shifted", "warn"), "another": ("another", "warn"),
    "added": ("added", "busy"), "removed": ("removed", "warn"), "type": ("other type", "warn"),
}  # fmt: skip


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def profile(request: Request) -> Page:
        name = request.path_params["name"]
        given = parameters(request, "version", "against", "column")
        made = platform.version(Ref("dataset", name, given.get("version", "latest")))
        schema = schema_of(made)
        other = platform.version(Ref("dataset", name, given["against"])) if "against" in given else None
        names = {**schema, **(schema_of(other) if other else {})}
        sight = sight_of(platform, name, names, request)
        found, why = profile_of(platform, made, sight)
        chosen = given.get("column")
        if chosen is not None and chosen not in names:
            raise NotFound(
                f'{made.ref} has no column "{chosen[:80]}"{did_you_mean(chosen, names)} (it has: {listed(names)})'
            )
        values: dict[str, Any] = {
            "title": f"Profile of {made.ref.short}",
            "section": "data",
            "crumbs": [("Data", "/data"), (name, ref_url(Ref("dataset", name))), ("profile", None)],
            "base": ref_url(Ref("dataset", name)),
            "made": made,
            "others": [v for v in platform.versions("dataset", name, limit=30) if v.number != made.number],
            "sight": sight,
            "profile": found,
            "why": why,
            "chosen": chosen,
        }
        if other is not None:
            return Page(
                "profile_comparison.html", {**values, **_comparison(site, other.ref, made.ref, sight, chosen, why)}
            )
        shown = columns_of(platform, made, dataset_of(platform, name), sight, found)
        column = found.columns.get(chosen) if found and chosen else None
        if column is not None and sight.hides(column.name):
            column = column.without_values()
        more = {
            "columns": shown,
            "column": column,
            "mask": sight.masks.get(chosen or "", ""),
            "histogram": histogram(column) if column else None,
            "gaps": [(parse_instant(g.start), parse_instant(g.end), g.seconds) for g in _gaps(column)],
            "pairs": _pairs(found, sight) if found else [],
        }
        return Page("profile.html", {**values, **more})

    for prefix in ADDRESSES:
        site.page(prefix + "/{name}/profile", profile)


def histogram(column: ColumnProfile) -> dict[str, Any] | None:
    """Return `<fb-hist>`'s data of one column, None where there is nothing to draw."""
    if column.bars is not None and len(column.bars.counts):
        found = {"edges": _edges(column.kind, column.bars.edges), "reference": list(column.bars.counts)}
        return found | ({"x": "time"} if column.kind == "time" else {})
    if column.top:
        return {
            "categories": [_word(value) for value, _ in column.top],
            "reference": [count for _, count in column.top],
        }
    return None


def compared(one: ColumnComparison) -> dict[str, Any] | None:
    """Return `<fb-hist>`'s data of one column before and after, the distance beside it; None without common bars."""
    if not one.edges or one.before is None or one.after is None or one.distances is None:
        return None
    kind = one.after.kind
    rows = [side.rows - side.nulls for side in (one.before, one.after)]
    counts = [[share * n for share in shares] for shares, n in zip(one.shares, rows, strict=True)]
    word, tone = CHANGES[one.change]
    found: dict[str, Any] = {
        "reference": counts[0],
        "live": counts[1],
        "statistic": {"name": "PSI", "value": one.distances.psi, "threshold": 0.1, "verdict": word, "tone": tone},
    }
    if isinstance(one.edges[0], str):
        return {**found, "categories": list(one.edges)}
    found["edges"] = _edges(kind, [float(edge) for edge in one.edges])
    return found | ({"x": "time"} if kind == "time" else {})


def outlines(comparisons: Sequence[ColumnComparison], before: str, after: str) -> list[dict[str, Any]]:
    """Return the outlines of the columns that changed most, each with its name."""
    drawn: list[dict[str, Any]] = []
    for one in comparisons:
        data = compared(one)
        if data is not None and (one.change != "same" or len(drawn) < _AT_LEAST):
            drawn.append({"name": one.name, "data": {**data, "reference_name": before, "live_name": after}})
        if len(drawn) == _SIDE_BY_SIDE:
            break
    return drawn


def _comparison(site: Site, before: Ref, after: Ref, sight: Sight, chosen: str | None, why: str) -> dict[str, Any]:
    """Return two versions side by side, those columns first that changed most."""
    if not sight.allowed or why:
        return {
            "before": before,
            "after": after,
            "comparisons": [],
            "outlines": [],
            "why": why or sight.reason,
            "changes": CHANGES,
        }
    try:
        found = site.platform.compare_profiles(before, after, sight.purpose)
    except FlyballError as error:
        return {
            "before": before,
            "after": after,
            "comparisons": [],
            "outlines": [],
            "why": str(error),
            "changes": CHANGES,
        }
    ordered = sorted(found, key=lambda c: -(c.distances.psi if c.distances else (9.0 if c.change != "same" else -1.0)))
    shown = [c for c in ordered if c.name == chosen] if chosen else ordered
    return {
        "before": before, "after": after, "comparisons": ordered, "changes": CHANGES,
        "outlines": outlines(shown, before.short, after.short),
    }  # fmt: skip


def _edges(kind: str, edges: Sequence[float]) -> list[float]:
    return [edge / _MICROSECONDS for edge in edges] if kind == "time" else list(edges)


def _gaps(column: ColumnProfile | None) -> Sequence[Any]:
    return column.gaps if column is not None and not column.hidden else ()


def _pairs(profile: TableProfile, sight: Sight) -> list[tuple[str, str, str, float]]:
    """Return the strongest correlations: two columns, the method, its value; each pair by its strongest method."""
    strongest: dict[tuple[str, str], tuple[str, float]] = {}
    for method, pairs in profile.correlations.items():
        for pair, value in pairs.items():
            if any(sight.hides(name) for name in pair) or abs(value) < _WEAK:
                continue
            if pair not in strongest or abs(value) > abs(strongest[pair][1]):
                strongest[pair] = (method.replace("_", " ").replace("cramers v", "Cramér's V"), value)
    ordered = sorted(strongest.items(), key=lambda item: -abs(item[1][1]))
    return [(one, other, method, value) for (one, other), (method, value) in ordered[:_PAIRS]]


def _word(value: Any) -> str:
    return "(empty)" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)
