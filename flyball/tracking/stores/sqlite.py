"""Read a SQLite database of MLflow's SQL store, of its 2.x and 3.x lines; opened for reading only, never migrated.

Columns differ between releases: those that a database lacks count as empty. Source: `mlflow/store/tracking/dbmodels`
and `store/model_registry/dbmodels` of MLflow 2.22 and 3.17.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flyball.errors import Corrupt, FlyballError, InvalidInput
from flyball.ledger.experiments import InputDataset
from flyball.tracking.stores.mlruns import status_of
from flyball.tracking.stores.reading import RUN_ID, artifact_folder, files_below, point
from flyball.tracking.stores.stored import Refused, StoredExperiment, StoredModel, StoredRun, StoredVersion

__all__ = ["SqliteStore"]

_BESIDE = ("mlruns", "mlartifacts", "artifacts")  # where MLflow puts files by default, seen from the database
_WRONG = (FlyballError, TypeError, ValueError, KeyError, OSError)


class SqliteStore:
    """A database; files of runs are looked for beside it and below `artifacts`."""

    def __init__(self, path: Path, artifacts: Sequence[Path] = ()) -> None:
        self._path = path
        beside = [path.parent / name for name in _BESIDE]
        self._artifacts = [*artifacts, *(folder for folder in beside if folder.is_dir() and not folder.is_symlink())]
        self._experiments: dict[int, StoredExperiment] = {}
        with closing(self._open()) as database:
            missing = {"experiments", "runs", "metrics", "params", "tags"} - _tables(database)
        if missing:
            raise InvalidInput(f"{path} is no database of MLflow: it has no table {min(missing)}")

    def experiments(self) -> Iterator[StoredExperiment | Refused]:
        """Yield the experiments."""
        with closing(self._open()) as database:
            yield from self._all_experiments(database).values()

    def runs(self) -> Iterator[StoredRun | Refused]:
        """Yield the runs."""
        with closing(self._open()) as database:
            experiments = self._all_experiments(database)
            for row in list(_rows(database, "runs")):
                id = row.get("run_uuid")
                try:
                    if not isinstance(id, str) or not RUN_ID.fullmatch(id):
                        raise Corrupt("its id is no run's")
                    yield self._run(database, row, experiments)
                except (*_WRONG, sqlite3.Error) as error:
                    reason = str(error) if isinstance(error, FlyballError) else f"{type(error).__name__}: {error}"
                    yield Refused(str(id)[:80], f"is no run: {reason[:200]}")
            if "trace_info" in _tables(database):
                (count,) = database.execute("SELECT count(*) FROM trace_info").fetchone()
                if count:
                    yield Refused("trace_info", f"{count} traces are not taken")
            if "logged_models" in _tables(database):
                (count,) = database.execute("SELECT count(*) FROM logged_models").fetchone()
                if count:
                    yield Refused("logged_models", f"{count} logged models are not taken")

    def models(self) -> Iterator[StoredModel | Refused]:
        """Yield the registered models."""
        with closing(self._open()) as database:
            for row in list(_rows(database, "registered_models")):
                try:
                    yield _model(database, row)
                except (*_WRONG, sqlite3.Error) as error:
                    yield Refused(f"models/{str(row.get('name'))[:80]}", f"is no registered model: {error}"[:300])

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
            database.execute("PRAGMA query_only = ON")
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise InvalidInput(f"{self._path} cannot be read as a database: {error}") from None
        return database

    def _all_experiments(self, database: sqlite3.Connection) -> dict[int, StoredExperiment]:
        if not self._experiments:
            tags: dict[int, dict[str, str]] = {}
            for tag in _rows(database, "experiment_tags"):
                tags.setdefault(tag["experiment_id"], {})[str(tag["key"])] = str(tag["value"] or "")
            for row in _rows(database, "experiments"):
                id = row["experiment_id"]
                is_deleted = row.get("lifecycle_stage") == "deleted"
                self._experiments[id] = StoredExperiment(str(row["name"]), tags.get(id, {}), is_deleted)
        return self._experiments

    def _run(
        self, database: sqlite3.Connection, row: dict[str, Any], experiments: dict[int, StoredExperiment]
    ) -> StoredRun:
        id = row["run_uuid"]
        run = StoredRun(
            id=id,
            name=str(row.get("name") or ""),
            status=status_of(row.get("status")),
            started_ms=int(row.get("start_time") or 0),
            ended_ms=None if row.get("end_time") is None else int(row["end_time"]),
            experiment=experiments.get(row["experiment_id"]),
            user=str(row.get("user_id") or ""),
            is_deleted=row.get("lifecycle_stage") == "deleted",
            params={str(p["key"]): str(p["value"]) for p in _rows(database, "params", run_uuid=id)},
            tags={str(t["key"]): str(t["value"] or "") for t in _rows(database, "tags", run_uuid=id)},
        )
        run.name = run.name or run.tags.get("mlflow.runName", "")
        for found in _rows(database, "metrics", run_uuid=id):
            value = "nan" if found.get("is_nan") else found["value"]
            run.points.append(point(str(found["key"]), value, found.get("step") or 0, found["timestamp"]))
        for used in _rows(database, "inputs", destination_id=id):
            if used["source_type"] == "DATASET" and used["destination_type"] == "RUN":
                for told in _rows(database, "datasets", dataset_uuid=used["source_id"]):
                    texts = [told.get(f"dataset_{name}") for name in ("source_type", "source", "schema", "profile")]
                    dataset = InputDataset(
                        str(told["name"]), str(told["digest"]), texts[0] or "", texts[1] or "", texts[2], texts[3]
                    )
                    tags = {
                        str(t["name"]): str(t["value"])
                        for t in _rows(database, "input_tags", input_uuid=used["input_uuid"])
                    }
                    run.datasets.append((dataset, tags))
        address = str(row.get("artifact_uri") or "")
        folder = artifact_folder(address, id, self._artifacts)
        if folder is not None:
            run.files = list(files_below(folder, run.problems))
        elif address and not self._artifacts:
            run.problems.append(
                Refused(id, f"may have files at {address[:200]}, which is not here; name the folder with --artifacts")
            )
        return run


def _model(database: sqlite3.Connection, row: dict[str, Any]) -> StoredModel:
    name = str(row["name"])
    tags: dict[int, dict[str, str]] = {}
    for tag in _rows(database, "model_version_tags", name=name):
        tags.setdefault(int(tag["version"]), {})[str(tag["key"])] = str(tag["value"])
    versions = []
    for told in _rows(database, "model_versions", name=name):
        stage = str(told.get("current_stage") or "None")
        if stage == "Deleted_Internal":
            continue
        number = int(told["version"])
        versions.append(
            StoredVersion(
                number,
                str(told.get("source") or ""),
                told.get("run_id") or None,
                told.get("description") or None,
                None if stage == "None" else stage,
                tags.get(number, {}),
            )
        )
    return StoredModel(
        name,
        int(row.get("creation_time") or 0),
        row.get("description") or None,
        {str(t["key"]): str(t["value"]) for t in _rows(database, "registered_model_tags", name=name)},
        {str(a["alias"]): int(a["version"]) for a in _rows(database, "registered_model_aliases", name=name)},
        tuple(sorted(versions, key=lambda version: version.number)),
    )


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _rows(database: sqlite3.Connection, table: str, **equal: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, nothing when there is none; names of tables and columns are this module's own."""
    if table not in _tables(database):
        return
    where = " AND ".join(f'"{column}" = ?' for column in equal)
    found = database.execute(f'SELECT * FROM "{table}"' + (f" WHERE {where}" if where else ""), tuple(equal.values()))
    names = [column[0] for column in found.description]
    for row in found:
        yield dict(zip(names, row, strict=True))
