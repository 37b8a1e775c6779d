"""Runs as MLflow's JSON writes them, and a bounded memory of what was encoded.

Encoding a run costs more than finding it, and the runs of a page are mostly those of the page before. A run's text is
kept by its revision, which moves with every change, so it never goes stale; the oldest used goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from flyball.ledger.artifacts import location_of
from flyball.ledger.experiments import DEFAULT, InputDataset
from flyball.ledger.points import Point
from flyball.ledger.runs import Run, RunStatus, as_text
from flyball.wire.mlflow.values import double, milliseconds, pairs

__all__ = ["STATUSES", "STATUS_OF", "Fragments", "document", "information", "metric"]

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
STATUS_OF: Mapping[str, RunStatus] = {
    "RUNNING": "running",
    "SCHEDULED": "pending",
    "FINISHED": "succeeded",
    "FAILED": "failed",
    "KILLED": "cancelled",
}
"""What the ledger calls a status."""

_SHOWN = {**{ours: theirs for theirs, ours in STATUS_OF.items()}, "lost": "FAILED"}
_BYTES = 32 * 1024 * 1024  # some 20,000 runs of ten metrics, ten parameters and a few tags


def information(run: Run, location: str) -> dict[str, Any]:
    """Return what a run is, without what it logged; `location` is its experiment's."""
    found: dict[str, Any] = {
        "run_uuid": run.id,
        "experiment_id": run.experiment or DEFAULT,
        "run_name": run.name,
        "user_id": run.user,
        "status": _SHOWN[run.status],
        "start_time": milliseconds(run.started_at),
        "artifact_uri": location_of("", location, run.id),
        "lifecycle_stage": "active" if run.deleted_at is None else "deleted",
        "run_id": run.id,
    }
    ended = milliseconds(run.finished_at) if run.finished_at is not None else 0
    if ended:
        found["end_time"] = ended
    return found


def document(run: Run, location: str, datasets: Mapping[tuple[str, str], InputDataset]) -> dict[str, Any]:
    """Return a whole run.

    Args:
        run: the run.
        location: where its experiment keeps artifacts.
        datasets: those that it names as inputs, by name and digest.
    """
    data: dict[str, Any] = {}
    if run.latest:
        data["metrics"] = [metric(point) for point in run.latest.values()]
    if run.params:
        data["params"] = [{"key": key, "value": as_text(value)} for key, value in run.params.items()]
    if run.tags:
        data["tags"] = pairs(run.tags)
    inputs: dict[str, Any] = {}
    used = [_dataset(given, datasets) for given in run.inputs if "model" not in given]
    if used:
        inputs["dataset_inputs"] = used
    taken = [{"model_id": given["model"]} for given in run.inputs if "model" in given]
    if taken:
        inputs["model_inputs"] = taken
    made = [{"model_id": given["model"], "step": given.get("step", 0)} for given in run.outputs]
    outputs = {"model_outputs": made} if made else {}
    return {"info": information(run, location), "data": data, "inputs": inputs, "outputs": outputs}


def metric(point: Point) -> dict[str, Any]:
    """Return a point."""
    key, value, step, at_ms = point
    return {"key": key, "value": double(value), "timestamp": at_ms, "step": step}


class Fragments:
    """Encoded runs by id and mark, bounded; safe for threads.

    A mark says which state of a run was encoded: another mark, another text.
    """

    def __init__(self, size_bytes: int = _BYTES) -> None:
        self._most = size_bytes
        self._held = 0
        self._kept: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._lock = Lock()

    def of(self, marks: Mapping[str, int], make: Callable[[list[str]], Mapping[str, tuple[int, bytes]]]) -> list[bytes]:
        """Return the text of each run, in order.

        Args:
            marks: the mark of each run's state, by id.
            make: returns mark and text of the runs that are not kept; one that is gone meanwhile is left out.
        """
        found: dict[str, bytes] = {}
        with self._lock:
            for id, mark in marks.items():
                kept = self._kept.get(id)
                if kept is not None and kept[0] == mark:
                    self._kept.move_to_end(id)
                    found[id] = kept[1]
        if len(found) < len(marks):
            made = make([id for id in marks if id not in found])
            found.update((id, text) for id, (_, text) in made.items())
            self._keep(made)
        return [found[id] for id in marks if id in found]

    def _keep(self, made: Mapping[str, tuple[int, bytes]]) -> None:
        with self._lock:
            for id, entry in made.items():
                before = self._kept.pop(id, None)
                self._held += len(entry[1]) - (len(before[1]) if before is not None else 0)
                self._kept[id] = entry
            while self._held > self._most:
                _, (_, text) = self._kept.popitem(last=False)
                self._held -= len(text)


def _dataset(given: Mapping[str, Any], known: Mapping[tuple[str, str], InputDataset]) -> dict[str, Any]:
    name, digest = given["name"], given["digest"]
    found = known.get((name, digest)) or InputDataset(name, digest)
    dataset = {"name": name, "digest": digest, "source_type": found.source_type, "source": found.source}
    if found.schema:
        dataset["schema"] = found.schema
    if found.profile:
        dataset["profile"] = found.profile
    tags = given.get("tags")
    return {"tags": pairs(tags), "dataset": dataset} if tags else {"dataset": dataset}
