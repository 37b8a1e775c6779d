"""Journal events as OpenLineage events: pure translation of what the ledger says.

A run's start and end become START and COMPLETE, FAIL or ABORT, with the versions that it used and made. What is
published outside a run is a run of its own, the job `publish/<name>`; a model that comes to serve one of the job
`deployment/<name>`. Data sets go by their own name, versions of other kinds by `<kind>/<name>`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from flyball import __version__
from flyball.clock import format_instant
from flyball.errors import NotFound
from flyball.ledger import Transaction
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version
from flyball.wire.openlineage.facets import PRODUCER, SCHEMA, dataset_facets, job_facets, output_facets, run_facets

__all__ = ["told"]

_ENDS = {"succeeded": "COMPLETE", "failed": "FAIL", "cancelled": "ABORT", "lost": "FAIL"}
_MADE = ("dataset", "feature", "model", "quarantine", "labels")
_SPACE = uuid.UUID("5f1ba11f-0000-5000-8000-6f70656e6c69")  # of run ids for what happens outside a run


def told(event: Event, world: Transaction, namespace: str) -> list[dict[str, Any]]:
    """Return the OpenLineage events that a journal event stands for; none for most.

    What was deleted since is passed over.
    """
    try:
        about = ref(event.ref)
        if about.kind == "run" and (event.action == "started" or event.action in _ENDS):
            return _of_run(event, world.runs.get(about.name), world, namespace)
        if event.action == "published" and about.kind in _MADE:
            return _of_version(event, about, world, namespace)
        if event.action == "serves":
            return _of_serving(event, about, world, namespace)
    except NotFound:
        return []
    return []


def _of_run(event: Event, run: Run, world: Transaction, namespace: str) -> list[dict[str, Any]]:
    if run.kind == "external":
        return []  # others told us; they know
    is_end = event.action in _ENDS
    graph = world.lineage.walk(run.ref, "both", depth=1, limit=200)
    used = [ref(edge.source) for edge in graph.edges if edge.target == str(run.ref)]
    made = [ref(edge.target) for edge in graph.edges if edge.source == str(run.ref)]
    parent = None
    if run.parent is not None:
        above = world.runs.get(run.parent)
        parent = (_uuid(above.id), namespace, _job(above))
    return [
        _event(
            event,
            "START" if not is_end else _ENDS[event.action],
            {"runId": _uuid(run.id), "facets": run_facets(run if is_end else _begun(run), __version__, parent)},
            {"namespace": namespace, "name": _job(run), "facets": job_facets(run.kind, run)},
            _inputs(used, world, namespace),
            _outputs(made, world, namespace) if is_end else [],
        )
    ]


def _of_version(event: Event, made: Ref, world: Transaction, namespace: str) -> list[dict[str, Any]]:
    version = world.versions.get(made.kind, made.name, str(made.version))
    if version.run is not None:
        return []  # its run tells of it
    graph = world.lineage.walk(made, "upstream", depth=1, limit=200)
    used = [ref(edge.source) for edge in graph.edges]
    identity = str(uuid.uuid5(_SPACE, f"{namespace}:{made}"))
    job = job_facets("publish", query=version.metadata.get("query"))
    return [
        _event(
            event,
            "COMPLETE",
            {"runId": identity, "facets": {}},
            {"namespace": namespace, "name": f"publish/{made.kind}/{made.name}", "facets": job},
            _inputs(used, world, namespace),
            _outputs([made], world, namespace),
        )
    ]


def _of_serving(event: Event, about: Ref, world: Transaction, namespace: str) -> list[dict[str, Any]]:
    graph = world.lineage.walk(about, "upstream", depth=1, limit=20)
    models = [ref(edge.source) for edge in graph.edges if edge.role == "serves"]
    identity = str(uuid.uuid5(_SPACE, f"{namespace}:event/{event.seq}"))
    return [
        _event(
            event,
            "COMPLETE",
            {"runId": identity, "facets": {}},
            {"namespace": namespace, "name": str(about), "facets": job_facets("deployment")},
            _inputs(models, world, namespace),
            [{"namespace": namespace, "name": str(about)}],
        )
    ]


def _event(
    event: Event,
    kind: str,
    run: dict[str, Any],
    job: dict[str, Any],
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventTime": format_instant(event.at),
        "run": run,
        "job": job,
        "inputs": inputs,
        "outputs": outputs,
        "producer": PRODUCER,
        "schemaURL": f"{SCHEMA}#/$defs/RunEvent",
    }


def _inputs(refs: Iterable[Ref], world: Transaction, namespace: str) -> list[dict[str, Any]]:
    return [
        {**_name(version, namespace), "facets": dataset_facets(version, resource, namespace)}
        for version, resource in _found(refs, world)
    ]


def _outputs(refs: Iterable[Ref], world: Transaction, namespace: str) -> list[dict[str, Any]]:
    return [
        {
            **_name(version, namespace),
            "facets": dataset_facets(version, resource, namespace),
            "outputFacets": output_facets(version),
        }
        for version, resource in _found(refs, world)
    ]


def _found(refs: Iterable[Ref], world: Transaction) -> list[tuple[Version, Resource | None]]:
    found = []
    for one in refs:
        if one.version is None or one.kind not in (*_MADE, "external"):
            continue
        try:
            version = world.versions.get(one.kind, one.name, one.version)
        except NotFound:
            continue
        try:
            resource: Resource | None = world.resources.get(one.kind, one.name)
        except NotFound:
            resource = None
        found.append((version, resource))
    return found


def _name(version: Version, namespace: str) -> dict[str, str]:
    if version.kind == "external":  # as those who told us of it call it
        return {"namespace": str(version.metadata["namespace"]), "name": str(version.metadata["name"])}
    return {"namespace": namespace, "name": version.name if version.kind == "dataset" else str(version.ref.resource)}


def _job(run: Run) -> str:
    return f"{run.kind}/{run.name}"


def _uuid(run: str) -> str:
    """Return a run's id as a UUID, which ours is but for the dashes."""
    try:
        return str(uuid.UUID(run))
    except ValueError:
        return str(uuid.uuid5(_SPACE, run))


def _begun(run: Run) -> Run:
    """Return a run as it was when it started: without what it came to."""
    import dataclasses

    return dataclasses.replace(run, error=None, latest={})
