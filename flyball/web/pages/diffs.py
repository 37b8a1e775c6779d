"""`/data/NAME/diff`: what changed from one version to another: columns, rows by key, distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from flyball.data.diffs import Diff
from flyball.errors import FlyballError, NotFound
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.web.formats import ref_url
from flyball.web.pages import profiles
from flyball.web.pages.columns import profile_of, schema_of, type_text
from flyball.web.pages.datasets import ADDRESSES
from flyball.web.pages.seeing import Sight, cell, sight_of
from flyball.web.pages.site import Page, Site, parameters

__all__ = ["mount"]

_ROWS_AT_ONCE = 3_000_000  # of both versions together, compared for a page without being asked to
_SAMPLE = 10


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def difference(request: Request) -> Page:
        name = request.path_params["name"]
        given = parameters(request, "before", "after", "by", "rows")
        after = platform.version(Ref("dataset", name, given.get("after", "latest")))
        before = _before(platform, name, given.get("before"), after)
        sight = sight_of(platform, name, {**schema_of(before), **schema_of(after)}, request)
        made, why = _diff(platform, before, after, sight, given)
        comparisons, why_not = _compared(platform, before, after, sight)
        values = {
            "title": f"{before.ref.short} → {after.ref.short}",
            "section": "data",
            "crumbs": [("Data", "/data"), (name, ref_url(Ref("dataset", name))), ("diff", None)],
            "base": ref_url(Ref("dataset", name)),
            "before": before,
            "after": after,
            "others": platform.versions("dataset", name, limit=30),
            "sight": sight,
            "diff": made,
            "why": why,
            "is_large": _rows(before) + _rows(after) > _ROWS_AT_ONCE and "rows" not in given,
            "columns": _columns(before, after),
            "samples": _samples(made, sight) if made else [],
            "changed_by": list(made.changed_by_column.items())[:30] if made else [],
            "comparisons": [c for c in comparisons if c.change != "same"][:12],
            "outlines": profiles.outlines(comparisons, before.ref.short, after.ref.short)[:6],
            "why_no_profile": why_not,
            "changes": profiles.CHANGES,
        }
        return Page("diff.html", values)

    for prefix in ADDRESSES:
        site.page(prefix + "/{name}/diff", difference)


def _before(platform: Platform, name: str, given: str | None, after: Version) -> Version:
    """Return the version to compare with: the one that is asked for, else the one before."""
    if given is not None:
        return platform.version(Ref("dataset", name, given))
    if after.number == 1:
        raise NotFound(f"{after.ref} is the first version; there is none before it to compare it with")
    return platform.version(Ref("dataset", name, str(after.number - 1)))


def _diff(
    platform: Platform, before: Version, after: Version, sight: Sight, given: Mapping[str, str]
) -> tuple[Diff | None, str]:
    """Return the difference of the rows, or why there is none to show."""
    if not sight.allowed:
        return None, sight.reason
    if _rows(before) + _rows(after) > _ROWS_AT_ONCE and "rows" not in given:
        return None, ""
    options: dict[str, Any] = {"key": []} if given.get("by") == "rows" else {}
    try:
        return platform.diff(
            before.name, before.number, after.number, purpose=sight.purpose, sample=_SAMPLE, **options
        ), ""
    except FlyballError as error:
        return None, str(error)


def _compared(platform: Platform, before: Version, after: Version, sight: Sight) -> tuple[Sequence[Any], str]:
    for version in (before, after):
        _, why = profile_of(platform, version, sight)
        if why:
            return (), why
    found = platform.compare_profiles(before.ref, after.ref, sight.purpose)
    return sorted(found, key=lambda c: -(c.distances.psi if c.distances else -1.0)), ""


def _columns(before: Version, after: Version) -> list[tuple[str, str, str, str]]:
    """Return the columns that are not as they were: name, what became of it, type before, type after."""
    old, new = schema_of(before), schema_of(after)
    found = [(name, "added", "", type_text(new[name])) for name in new if name not in old]
    found += [(name, "removed", type_text(old[name]), "") for name in old if name not in new]
    found += [
        (name, "other type", type_text(old[name]), type_text(new[name]))
        for name in old
        if name in new and old[name] != new[name]
    ]
    return found


def _samples(made: Diff, sight: Sight) -> list[dict[str, Any]]:
    """Return rows that came, went and changed, as texts, in that order; each sort with its columns."""
    found: list[dict[str, Any]] = []
    for sort in ("added", "removed"):
        rows = list(made.samples.get(sort, ()))
        if rows:
            names = list(rows[0])
            found.append({"sort": sort, "names": names, "rows": [[cell(row.get(n)) for n in names] for row in rows]})
    changed = [
        {
            "key": [(name, _seen(name, value, sight)) for name, value in _pairs(one.get("key"), made.key)],
            "columns": [
                (name, _seen(name, pair[0], sight), _seen(name, pair[1], sight))
                for name, pair in one.get("columns", {}).items()
                if isinstance(pair, list | tuple)
            ]
            + [(name, "hidden", "hidden") for name, pair in one.get("columns", {}).items() if isinstance(pair, str)],
        }
        for one in made.samples.get("changed", ())
    ]
    if changed:
        found.append({"sort": "changed", "changed": changed})
    return found


def _pairs(key: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    if isinstance(key, Mapping):
        return [(str(name), value) for name, value in key.items()]
    values = key if isinstance(key, list | tuple) else [key]
    return list(zip(names, values, strict=False))


def _seen(name: str, value: Any, sight: Sight) -> str:
    return "hidden" if sight.hides(name) and value is not None else cell(value)


def _rows(version: Version) -> int:
    return int(version.metadata.get("rows") or 0)
