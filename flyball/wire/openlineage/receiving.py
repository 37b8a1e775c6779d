"""Taking in what other tools emit: their runs, data sets and edges become part of the one graph.

A run event makes or continues a run of the kind `external`; a data set is a version of the kind `external` whose
name is readable and unique (`public.orders-3fa9c1d2`), with the original namespace and name beside it; a data set
in our own namespace is our own. Events may come twice and in any order: nothing is counted twice, an end that comes
before its start makes the run, and a start that comes after its end changes nothing.

Source: OpenLineage 2-0-2, definitions RunEvent, DatasetEvent, JobEvent.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flyball.errors import InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.runs import RunStatus

__all__ = ["Received", "receive"]

_KINDS = ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
_ENDS: Mapping[str, RunStatus] = {"COMPLETE": "succeeded", "ABORT": "cancelled", "FAIL": "failed"}
_MOST_DATASETS = 1000  # inputs or outputs of one event
_LONG = 1000  # characters of a namespace, a name or a message


@dataclass(frozen=True)
class Received:
    """What came of an event: the run it belongs to, and the data sets it speaks of."""

    run: Ref | None
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[Ref, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "run": str(self.run) if self.run else None,
            "inputs": [str(r) for r in self.inputs],
            "outputs": [str(r) for r in self.outputs],
        }


def receive(document: Any, world: Transaction, namespace: str) -> Received:
    """Take one event in, within a transaction.

    Args:
        document: the event as JSON values.
        namespace: our own; data sets in it are ours.

    Raises:
        InvalidInput: not an OpenLineage event; names the field.
    """
    event = _object(document, "the event")
    when = _time(event.get("eventTime"))
    for field in ("producer", "schemaURL"):
        _text(event.get(field), field)
    if "run" in event:
        return _run_event(event, when, world, namespace)
    if "dataset" in event:
        made = _dataset(event["dataset"], "dataset", world, namespace)
        return Received(None, outputs=(made,))
    if "job" in event:
        _job(event["job"])
        inputs = _datasets(event.get("inputs"), "inputs", world, namespace)
        return Received(None, inputs, _datasets(event.get("outputs"), "outputs", world, namespace))
    raise InvalidInput("the event has neither run, dataset nor job; expected an OpenLineage event")


def _run_event(event: Mapping[str, Any], when: datetime, world: Transaction, namespace: str) -> Received:
    kind = event.get("eventType", "OTHER")
    if kind not in _KINDS:
        raise InvalidInput(f"eventType is {kind!r}{did_you_mean(str(kind), _KINDS)} (known: {listed(_KINDS)})")
    run = _object(event["run"], "run")
    identity = _uuid(run.get("runId"))
    job_namespace, job = _job(event.get("job"))
    facets = _object(run.get("facets", {}), "run.facets")
    parent = None
    if isinstance(above := facets.get("parent"), Mapping) and isinstance(above.get("run"), Mapping):
        parent = _uuid(above["run"].get("runId"))
        holder = _job(above.get("job"))
        _begin(parent, holder, None, event, when, world)
    _begin(identity, (job_namespace, job), parent, event, when, world)
    inputs = _datasets(event.get("inputs"), "inputs", world, namespace)
    outputs = _datasets(event.get("outputs"), "outputs", world, namespace)
    this = Ref("run", identity)
    for one in inputs:
        world.lineage.link(one, this, "used by")
    for one in outputs:
        world.lineage.link(this, one, "made by")
    if kind in _ENDS and not world.runs.get(identity).is_finished:
        failure = facets.get("errorMessage")
        message = str(failure.get("message", ""))[:_LONG] if isinstance(failure, Mapping) else None
        world.runs.finish(identity, _ENDS[kind], error=message or None)
    return Received(this, inputs, outputs)


def _begin(
    identity: str,
    job: tuple[str, str],
    parent: str | None,
    event: Mapping[str, Any],
    when: datetime,
    world: Transaction,
) -> None:
    try:
        known = world.runs.get(identity)
    except NotFound:
        source = {"producer": str(event["producer"])[:_LONG], "namespace": job[0], "first_event": when.isoformat()}
        world.runs.start("external", job[1], id=identity, parent=parent, source=source)
        return
    if known.kind != "external":
        raise InvalidInput(f"run {identity} is a run of ours; others cannot speak for it")


def _datasets(found: Any, field: str, world: Transaction, namespace: str) -> tuple[Ref, ...]:
    if found is None:
        return ()
    if not isinstance(found, list):
        raise InvalidInput(f"{field} is a {type(found).__name__}; expected a list of data sets")
    if len(found) > _MOST_DATASETS:
        raise InvalidInput(f"{field} holds {len(found)} data sets; at most {_MOST_DATASETS} are taken in one event")
    return tuple(_dataset(one, f"{field}[{at}]", world, namespace) for at, one in enumerate(found))


def _dataset(found: Any, where: str, world: Transaction, namespace: str) -> Ref:
    one = _object(found, where)
    space, name = _text(one.get("namespace"), f"{where}.namespace"), _text(one.get("name"), f"{where}.name")
    facets = _object(one.get("facets", {}), f"{where}.facets")
    stated = facets.get("version")
    number = str(stated.get("datasetVersion", "")) if isinstance(stated, Mapping) else ""
    if space == namespace:
        kind, _, own = name.rpartition("/")
        try:
            return world.versions.get(kind or "dataset", own, number or "latest").ref
        except (NotFound, InvalidInput):
            pass  # not one of ours after all: kept as they call it
    fields = facets.get("schema")
    columns = fields.get("fields", []) if isinstance(fields, Mapping) else []
    schema = {str(f["name"]): str(f.get("type", "")) for f in columns if isinstance(f, Mapping) and "name" in f}
    slug = re.sub(r"[^A-Za-z0-9_.\-]+", "-", name).strip("-.")[-60:].lstrip("-.") or "table"
    digest = hashlib.sha256(f"{space}\n{name}".encode())
    kept = f"{slug}-{digest.hexdigest()[:8]}"
    digest.update(f"\n{number}\n{sorted(schema.items())}".encode())
    metadata: dict[str, Any] = {"namespace": space, "name": name}
    metadata |= {k: v for k, v in (("schema", schema), ("version", number)) if v}
    return world.versions.publish("external", kept, digest.hexdigest(), metadata=metadata).ref


def _job(found: Any) -> tuple[str, str]:
    job = _object(found, "job")
    return _text(job.get("namespace"), "job.namespace"), _text(job.get("name"), "job.name")


def _object(found: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{where} is a {type(found).__name__}; expected an object")
    return found


def _text(found: Any, where: str) -> str:
    if not isinstance(found, str) or not found:
        raise InvalidInput(f"{where} is {str(found)[:60]!r}; expected a text")
    if len(found) > _LONG:
        raise InvalidInput(f"{where} has {len(found)} characters; at most {_LONG} are taken")
    return found


def _time(found: Any) -> datetime:
    """Return the event's time; older emitters leave the zone out and mean UTC."""
    try:
        moment = datetime.fromisoformat(_text(found, "eventTime"))
    except ValueError:
        raise InvalidInput(f"eventTime is {str(found)[:60]!r}; expected a time such as 2024-05-01T10:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _uuid(found: Any) -> str:
    try:
        return uuid.UUID(_text(found, "runId")).hex
    except ValueError:
        raise InvalidInput(f"runId is {str(found)[:60]!r}; expected a UUID") from None
