"""The platform's values as JSON: one shape for the API and for `flyball … --json`.

Times are RFC 3339 in UTC; NaN and infinities, which JSON lacks, are null; a reference stands as text. Every listing is
`{"items": […], "next": …}`; `next` is what `before` continues with, null at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from flyball.clock import format_instant
from flyball.delivery.states import reason_of, state_of
from flyball.ledger.journal import Event
from flyball.ledger.lineage import Graph
from flyball.ledger.points import Point
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Artifact, Run
from flyball.ledger.versions import Version

__all__ = [
    "artifact_value",
    "encode",
    "event_value",
    "graph_value",
    "listing",
    "point_value",
    "resource_value",
    "run_value",
    "version_value",
]


def encode(document: Any, indent: bool = False) -> bytes:
    """Return a document as JSON bytes."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(document, default=_plain, option=options)


def listing(items: Iterable[Mapping[str, Any]], next: str | int | None = None) -> dict[str, Any]:
    """Return a page of a listing."""
    return {"items": list(items), "next": next}


def resource_value(resource: Resource) -> dict[str, Any]:
    """Return a resource with its state in a word."""
    return {
        "ref": str(resource.ref),
        "kind": resource.kind,
        "name": resource.name,
        "state": state_of(resource),
        "reason": reason_of(resource),
        "spec": dict(resource.spec),
        "status": dict(resource.status),
        "labels": dict(resource.labels),
        "owner": resource.owner,
        "generation": resource.generation,
        "revision": resource.revision,
        "created_at": _time(resource.created_at),
        "updated_at": _time(resource.updated_at),
    }


def run_value(run: Run, whole: bool = True) -> dict[str, Any]:
    """Return a run; in listings (`whole` false) without its source, environment and result."""
    value: dict[str, Any] = {
        "ref": str(run.ref),
        "id": run.id,
        "kind": run.kind,
        "name": run.name,
        "status": run.status,
        "actor": run.actor,
        "of": run.of,
        "parent": run.parent,
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
        "duration_s": (run.finished_at - run.started_at).total_seconds() if run.finished_at else None,
        "params": dict(run.params),
        "metrics": dict(run.metrics),
        "tags": dict(run.tags),
        "error": run.error,
    }
    if whole:
        value |= {"source": dict(run.source), "environment": dict(run.environment), "result": dict(run.result)}
        value |= {"heartbeat_at": _time(run.heartbeat_at), "event": run.event}
    return value


def version_value(version: Version, aliases: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return a version with the aliases that point at it."""
    return {
        "ref": str(version.ref),
        "kind": version.kind,
        "name": version.name,
        "number": version.number,
        "aliases": sorted(alias for alias, number in (aliases or {}).items() if number == version.number),
        "digest": version.digest,
        "created_at": _time(version.created_at),
        "actor": version.actor,
        "run": version.run,
        "event": version.event,
        "metadata": dict(version.metadata),
    }


def event_value(event: Event, sentence: str | None = None) -> dict[str, Any]:
    """Return a journal event, with what it says where that was asked for."""
    value = {
        "seq": event.seq,
        "at": _time(event.at),
        "actor": event.actor,
        "action": event.action,
        "ref": event.ref,
        "detail": dict(event.detail),
        "cause": event.cause,
        "hash": event.hash,
    }
    return value if sentence is None else {**value, "sentence": sentence}


def graph_value(graph: Graph) -> dict[str, Any]:
    """Return a lineage graph: nodes with their distance from the root, and edges."""
    return {
        "root": graph.root,
        "nodes": [{"ref": name, "distance": distance} for name, distance in graph.nodes.items()],
        "edges": [{"source": e.source, "target": e.target, "role": e.role} for e in graph.edges],
        "is_cut": graph.is_cut,
    }


def artifact_value(artifact: Artifact) -> dict[str, Any]:
    """Return an artifact."""
    return {"path": artifact.path, "digest": artifact.digest, "size_bytes": artifact.size_bytes}


def point_value(point: Point) -> dict[str, Any]:
    """Return one point of a metric."""
    return {"key": point.key, "value": point.value, "step": point.step, "at": _time(point.at)}


def _time(instant: datetime | None) -> str | None:
    return format_instant(instant) if instant is not None else None


def _plain(value: Any) -> Any:
    return format_instant(value) if isinstance(value, datetime) and value.tzinfo else str(value)
