"""Read a folder of MLflow's file store: `mlruns/<experiment>/<run>/{meta.yaml,params,metrics,tags,inputs,artifacts}`.

Source: the layout that MLflow 2.22 writes (`store/tracking/file_store.py`, `store/model_registry/file_store.py`).
Deleted experiments are in `.trash`; registered models in `models/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flyball.errors import Corrupt, FlyballError, InvalidInput
from flyball.ledger.experiments import InputDataset
from flyball.ledger.points import Point
from flyball.ledger.runs import RunStatus
from flyball.tracking.stores.reading import (
    MOST_TEXT,
    RUN_ID,
    artifact_folder,
    document,
    files_below,
    folders_in,
    point,
    text_of,
)
from flyball.tracking.stores.stored import Refused, StoredExperiment, StoredModel, StoredRun, StoredVersion

__all__ = ["FileStore", "status_of"]

_META = "meta.yaml"
_NUMBERS: dict[int, RunStatus] = {1: "running", 2: "pending", 3: "succeeded", 4: "failed", 5: "cancelled"}
_WORDS = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_STATUSES: dict[Any, RunStatus] = {**_NUMBERS, **dict(zip(_WORDS, _NUMBERS.values(), strict=True))}
_MOST_METRIC = 4 << 30
_WRONG = (FlyballError, TypeError, ValueError, KeyError, AttributeError, OSError)


class FileStore:
    """A folder `mlruns`; files of runs are looked for in it and below `artifacts`."""

    def __init__(self, root: Path, artifacts: Sequence[Path] = ()) -> None:
        self._root = root
        self._artifacts = [root, *artifacts]

    def experiments(self) -> Iterator[StoredExperiment | Refused]:
        """Yield the experiments."""
        for folder in self._folders():
            try:
                yield _experiment(folder)
            except _WRONG as error:
                yield Refused(folder.name, f"is no experiment: {_told(error)}")

    def runs(self) -> Iterator[StoredRun | Refused]:
        """Yield the runs."""
        for folder in self._folders():
            try:
                experiment = _experiment(folder)
            except _WRONG:
                continue  # `experiments` says so
            others = [child for child in folders_in(folder) if not RUN_ID.fullmatch(child.name)]
            for other in others:
                if other.name in ("traces", "models") and folders_in(other):
                    count = len(folders_in(other))
                    yield Refused(f"{experiment.name}/{other.name}", f"{count} {_LEFT[other.name]} are not taken")
            for child in folders_in(folder):
                if RUN_ID.fullmatch(child.name):
                    try:
                        yield self._run(child, experiment)
                    except _WRONG as error:
                        yield Refused(child.name, f"is no run: {_told(error)}")

    def models(self) -> Iterator[StoredModel | Refused]:
        """Yield the registered models."""
        for folder in folders_in(self._root / "models"):
            try:
                yield _model(folder)
            except _WRONG as error:
                yield Refused(f"models/{folder.name}", f"is no registered model: {_told(error)}")

    def _folders(self) -> list[Path]:
        reserved = {".trash", "models"}
        found = [folder for folder in folders_in(self._root) if folder.name not in reserved]
        return found + folders_in(self._root / ".trash")

    def _run(self, folder: Path, experiment: StoredExperiment) -> StoredRun:
        meta, problems = document(folder / _META), list[Refused]()
        run = StoredRun(
            id=folder.name,
            name=str(meta.get("run_name") or ""),
            status=status_of(meta.get("status")),
            started_ms=int(meta["start_time"] or 0),
            ended_ms=None if meta.get("end_time") is None else int(meta["end_time"]),
            experiment=experiment,
            user=str(meta.get("user_id") or ""),
            is_deleted=meta.get("lifecycle_stage") == "deleted",
            params=_texts(folder / "params", problems),
            tags=_texts(folder / "tags", problems),
            problems=problems,
        )
        run.name = run.name or run.tags.get("mlflow.runName", "")
        for file in files_below(folder / "metrics", run.problems):
            try:
                run.points += _metric(file.path, file.file)
            except FlyballError as error:
                run.problems.append(Refused(f"{run.id}/metrics/{file.path}", str(error)))
        for place in folders_in(folder / "inputs"):
            try:
                run.datasets.append(_input(folder.parent, document(place / _META)))
            except _WRONG as error:
                run.problems.append(Refused(f"{run.id}/inputs/{place.name}", _told(error)))
        address = str(meta.get("artifact_uri") or "")
        inside = folder / "artifacts"  # MLflow makes it even where the files are elsewhere
        found = artifact_folder(address, run.id, self._artifacts) or inside
        run.files = list(files_below(found, run.problems))
        is_elsewhere = not address.endswith(f"/{folder.parent.name}/{run.id}/artifacts")
        if found == inside and is_elsewhere and address and not run.files and len(self._artifacts) == 1:
            run.problems.append(
                Refused(
                    run.id, f"has its files at {address[:200]}, which is not here; name the folder with --artifacts"
                )
            )
        return run


_LEFT = {"traces": "traces", "models": "logged models"}


def status_of(value: Any) -> RunStatus:
    """Return what MLflow calls a status, by number or word, as ours. Raises Corrupt."""
    try:
        return _STATUSES[value]
    except (KeyError, TypeError):
        raise Corrupt(f"its status is {str(value)[:80]!r}; expected one of MLflow's") from None


def _experiment(folder: Path) -> StoredExperiment:
    meta = document(folder / _META)
    name = meta["name"]
    if not isinstance(name, str) or not name:
        raise Corrupt(f"its name is {name!r}")
    return StoredExperiment(name, _texts(folder / "tags", []), meta.get("lifecycle_stage") == "deleted")


def _texts(folder: Path, problems: list[Refused]) -> dict[str, str]:
    """Return the files of a folder as texts by path."""
    found = {}
    for file in files_below(folder, problems):
        try:
            found[file.path] = text_of(file.file, MOST_TEXT)
        except FlyballError as error:
            problems.append(Refused(f"{folder.parent.name}/{folder.name}/{file.path}", str(error)))
    return found


def _metric(key: str, file: Path) -> list[Point]:
    points = []
    for number, line in enumerate(text_of(file, _MOST_METRIC).splitlines(), 1):
        parts = line.split()
        if len(parts) not in (2, 3):
            raise Corrupt(f"line {number} has {len(parts)} words; expected time, value and step")
        points.append(point(key, parts[1], parts[2] if len(parts) == 3 else 0, parts[0]))
    return points


def _input(experiment: Path, meta: dict[str, Any]) -> tuple[InputDataset, dict[str, str]]:
    source = str(meta["source_id"])
    if meta.get("source_type") != "DATASET":
        raise InvalidInput(f"an input of type {str(meta.get('source_type'))[:40]!r} is not taken")
    if not source.isalnum():
        raise Corrupt(f"{source[:80]!r} names no data set")
    told = document(experiment / "datasets" / source / _META)
    dataset = InputDataset(
        str(told["name"]),
        str(told["digest"]),
        str(told.get("source_type") or ""),
        str(told.get("source") or ""),
        told.get("schema") or None,
        told.get("profile") or None,
    )
    tags = meta.get("tags") or {}
    return dataset, {str(key): str(value) for key, value in tags.items()}


def _model(folder: Path) -> StoredModel:
    meta = document(folder / _META)
    versions = []
    for place in folders_in(folder):
        if place.name.startswith("version-"):
            told = document(place / _META)
            stage = str(told.get("current_stage") or "None")
            source = str(told.get("storage_location") or told.get("source") or "")
            versions.append(
                StoredVersion(
                    int(told["version"]),
                    str(told.get("source") or source),
                    told.get("run_id") or None,
                    told.get("description") or None,
                    None if stage == "None" else stage,
                    _texts(place / "tags", []),
                )
            )
    aliases = {name: int(text) for name, text in _texts(folder / "aliases", []).items()}
    return StoredModel(
        str(meta["name"]),
        int(meta.get("creation_timestamp") or 0),
        meta.get("description") or None,
        _texts(folder / "tags", []),
        aliases,
        tuple(sorted(versions, key=lambda version: version.number)),
    )


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, FlyballError) else f"{type(error).__name__}: {error}"[:200]
