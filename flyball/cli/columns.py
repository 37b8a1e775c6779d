"""What the tables show: the columns of each kind of resource, and the cells of versions and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flyball.errors import listed

if TYPE_CHECKING:
    from flyball.ledger.resources import Resource
    from flyball.ledger.runs import Run
    from flyball.ledger.versions import Version
    from flyball.platform import Platform

__all__ = [
    "COLUMNS",
    "REASON",
    "Cell",
    "aliases_cell",
    "facts_cell",
    "maker_cell",
    "metrics_cell",
    "took_cell",
]

Cell = Callable[["Platform", "Resource"], Any]


def _reason(_platform: Platform, resource: Resource) -> str | None:
    from flyball.delivery.states import reason_of

    return reason_of(resource)


def _newest(platform: Platform, resource: Resource) -> str | None:
    found = platform.versions(resource.kind, resource.name, 1)
    return found[0].ref.short if found else None


def _rows(platform: Platform, resource: Resource) -> str | None:
    found = platform.versions(resource.kind, resource.name, 1)
    return f"{found[0].metadata['rows']:,}" if found and "rows" in found[0].metadata else None


def _alias(alias: str) -> Callable[[Platform, Resource], str | None]:
    def cell(platform: Platform, resource: Resource) -> str | None:
        number = platform.aliases(resource.kind, resource.name).get(alias)
        return f"{resource.name}@{number}" if number is not None else None

    return cell


def _serves(_platform: Platform, resource: Resource) -> str | None:
    variants = resource.status.get("serving", {}).get("variants", [])
    return ", ".join(f"{v['version']} {v['weight']:g} %" for v in variants) or None


def _status_of(*path: str) -> Callable[[Platform, Resource], Any]:
    def cell(_platform: Platform, resource: Resource) -> Any:
        value: Any = resource.status
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return cell


def _spec_of(field: str) -> Callable[[Platform, Resource], Any]:
    """Return a cell that shows a field of the spec; one that was left out has its default."""

    def cell(_platform: Platform, resource: Resource) -> Any:
        from flyball.ledger import kinds

        return getattr(kinds.validate(resource.kind, resource.name, resource.spec), field)

    return cell


def _last_run(_platform: Platform, resource: Resource) -> str | None:
    last = resource.status.get("last_run") or resource.status.get("last", {}).get("run")
    return str(last).removeprefix("run/")[:8] if last else None


REASON: Mapping[str, Cell] = {"why": _reason}

COLUMNS: Mapping[str, Mapping[str, Cell]] = {
    "dataset": {"newest": _newest, "rows": _rows, "target": _spec_of("target")},
    "model": {"champion": _alias("champion"), "challenger": _alias("challenger"), "newest": _newest, **REASON},
    "deployment": {"serves": _serves, **REASON},
    "monitor": {"of": _spec_of("of"), "watches": _status_of("watching", "version"), **REASON},
    "alert": {"severity": _spec_of("severity"), "what": _spec_of("summary"), "since": _status_of("since")},
    "pipeline": {"function": _spec_of("function"), "last run": _last_run},
    "trigger": {"starts": _spec_of("start"), "last run": _last_run, **REASON},
    "feature-view": {"dataset": _spec_of("dataset"), "function": _spec_of("function")},
}


def took_cell(run: Run) -> str | None:
    """Return how long a run took."""
    from flyball.web.formats import duration_text

    return duration_text((run.finished_at - run.started_at).total_seconds()) if run.finished_at else None


def metrics_cell(run: Run) -> str:
    """Return a run's metrics, a few of them."""
    from flyball.web.formats import number_text

    return listed([f"{key} {number_text(value)}" for key, value in run.metrics.items()], 3) if run.metrics else ""


def aliases_cell(version: Version, aliases: Mapping[str, int]) -> str:
    """Return the aliases that point at a version."""
    return ", ".join(sorted(a for a, number in aliases.items() if number == version.number))


def facts_cell(version: Version) -> str | None:
    """Return the one figure of a version that people look for."""
    from flyball.web.formats import interval_texts

    metadata = version.metadata
    if "rows" in metadata:
        return f"{metadata['rows']:,} rows"
    name = metadata.get("metric")
    found = metadata.get("evaluation", {}).get("metrics", {}).get(name)
    if found is None:
        return metadata.get("flavor")
    value, low, high = interval_texts(found["value"], found["low"], found["high"])
    return f"{name} {value} [{low}, {high}]"


def maker_cell(version: Version) -> str:
    """Return the run, or else the actor, that made a version."""
    return f"run {version.run[:8]}" if version.run else version.actor
