"""Take in runs that were written elsewhere: folders of `fb.run(offline=…)`, MLflow's file stores and databases.

Twice is once: a run keeps its id, says by a tag what it was imported from, and is passed over while that is unchanged;
when more was written since, what is new is added. A run of the same id that did not come this way is left alone.
Experiments are told apart by their names; they get ids of this home.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from flyball.errors import Conflict, Corrupt, FlyballError, NotFound
from flyball.ledger import Transaction
from flyball.ledger.refs import ledger_name, ref
from flyball.ledger.runs import NAME_TAG, Artifact, Run
from flyball.platform.artifacts import ArtifactActs
from flyball.platform.registry import RegistryActs
from flyball.platform.tracking import TrackingActs
from flyball.tracking.stores import open_store
from flyball.tracking.stores.reading import open_plain
from flyball.tracking.stores.stored import Refused, StoredExperiment, StoredModel, StoredRun

__all__ = ["IMPORTED_TAG", "ImportActs", "ImportReport", "instant"]

IMPORTED_TAG = "flyball.imported"
"""The tag of runs, and of versions of models, that were imported: a digest of what they were imported from."""

_PARENT_TAG = "mlflow.parentRunId"
_POINTS = 20_000  # of one change
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OF_RUN = re.compile(r"/([0-9a-f]{32})/artifacts(?=/|$)/?")


@dataclass
class ImportReport:
    """What an import did: how many runs were new, had more, were as before; models' versions; what was refused."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    points: int = 0
    files: int = 0
    versions: int = 0
    refused: list[Refused] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "refused": [one._asdict() for one in self.refused]}


class ImportActs(TrackingActs, RegistryActs, ArtifactActs):
    """Imports."""

    def import_runs(self, paths: Iterable[Path], artifacts: Iterable[Path] = ()) -> ImportReport:
        """Take in what is at paths; see `tracking.stores.open_store` for what may be there.

        Args:
            artifacts: folders in which the files of MLflow's runs are looked for, when they are not in the store.

        Raises:
            NotFound, InvalidInput: a path holds no store; nothing of any was taken.
            Forbidden: whoever asks may not record.
        """
        self._may("record")
        report, roots = ImportReport(), list(artifacts)
        for store in [open_store(path, roots) for path in paths]:
            for experiment in store.experiments():
                if isinstance(experiment, Refused):
                    report.refused.append(experiment)
                else:
                    self._tried(report, experiment.name, lambda e=experiment: self._take_experiment(e))
            seen: list[StoredExperiment] = []
            for run in store.runs():
                if isinstance(run, Refused):
                    report.refused.append(run)
                    continue
                report.refused += run.problems
                self._tried(report, run.id, lambda r=run: self._take_run(report, r))
                if run.experiment is not None and run.experiment.is_deleted and run.experiment not in seen:
                    seen.append(run.experiment)
            for experiment in seen:  # only now, since a deleted experiment takes no runs
                self._tried(report, experiment.name, lambda e=experiment: self._drop_experiment(e))
            for model in store.models():
                if isinstance(model, Refused):
                    report.refused.append(model)
                else:
                    self._tried(report, model.name, lambda m=model: self._take_model(report, m))
        return report

    @staticmethod
    def _tried(report: ImportReport, what: str, take: Any) -> None:
        try:
            take()
        except (FlyballError, OSError) as error:
            report.refused.append(Refused(what, " ".join(str(error).split())[:500]))

    # -- experiments

    def _take_experiment(self, stored: StoredExperiment) -> str:
        """Return the id of the experiment of this name, made when it is new."""
        try:
            found = self.experiment_by_name(stored.name)
        except NotFound:
            try:
                return self.create_experiment(stored.name, tags=stored.tags).id
            except Conflict:  # made meanwhile
                return self.experiment_by_name(stored.name).id
        missing = {key: value for key, value in stored.tags.items() if key not in found.tags}
        if missing and not found.is_deleted:
            self._recorded(lambda world: world.experiments.tag(found.id, missing))
        return found.id

    def _drop_experiment(self, stored: StoredExperiment) -> None:
        found = self.experiment_by_name(stored.name)
        if not found.is_deleted:
            with self._reading() as world:
                others = world.runs.find(experiment=found.id, limit=1_000_000)
            if all(IMPORTED_TAG in run.tags for run in others):
                self.delete_experiment(found.id)

    # -- runs

    def _take_run(self, report: ImportReport, run: StoredRun) -> None:
        mark = _mark(run)
        with self._reading() as world:
            there = next(iter(world.runs.named([run.id])), None)
        if there is not None:
            kept = there.tags.get(IMPORTED_TAG)
            if kept is None:
                raise Conflict(f"there is a run {run.id} here that was not imported; it was left as it is")
            if kept == mark:
                report.unchanged += 1
                return
            if there.is_deleted:
                raise Conflict(f"run {run.id} was deleted here since it was imported; restore it first")
        experiment = "0" if run.experiment is None else self._take_experiment(run.experiment)
        if there is None:
            self._begin(run, experiment)
        for start in range(0, len(run.points), _POINTS):
            part = run.points[start : start + _POINTS]
            self._recorded(lambda world, part=part: world.runs.record(run.id, points=part))  # type: ignore[misc]
        files = self._stored_files(report, run)
        ended = self._recorded(lambda world: self._end(world, run, files, mark))
        report.points += len(run.points)
        report.files += len(files)
        report.new += there is None
        report.changed += there is not None
        if run.is_deleted and not ended.is_deleted:
            self.delete_run(run.id)

    def _begin(self, run: StoredRun, experiment: str) -> None:
        """Start the run; until its end is written, its mark says that it is in part."""
        tags = {NAME_TAG: run.name, **run.tags, IMPORTED_TAG: "in part"}

        def begin(world: Transaction) -> Run:
            return world.runs.start(
                run.kind,
                run.name,
                id=run.id,
                parent=run.tags.get(_PARENT_TAG),
                tags=tags,
                source=run.source,
                environment=run.environment,
                experiment=experiment,
                user=run.user,
                started_at=instant(run.started_ms),
            )

        self._recorded(begin)

    def _stored_files(self, report: ImportReport, run: StoredRun) -> list[Artifact]:
        """Put the bytes of a run's files into the store of blobs."""
        kept = []
        for found in run.files:
            try:
                with open_plain(found.file) as file:
                    digest, size = self._received(file)
                if found.digest is not None and digest != found.digest:
                    raise Corrupt("its bytes are not those that were written")
                kept.append(Artifact(found.path, digest, size))
            except (FlyballError, OSError) as error:
                report.refused.append(Refused(f"{run.id}/{found.path}", str(error)))
        return kept

    def _received(self, file: BinaryIO) -> tuple[str, int]:
        receiving = self.receive_file()
        try:
            while part := file.read(1 << 20):
                receiving.write(part)
            received = receiving.finish()
        except BaseException:
            receiving.abandon()
            raise
        return received.digest, received.size_bytes

    def _end(self, world: Transaction, run: StoredRun, files: list[Artifact], mark: str) -> Run:
        """Write all that is small, and last of all that the run is whole."""
        world.runs.record(run.id, params=run.params, tags={**run.tags, IMPORTED_TAG: mark})
        if run.datasets:
            world.runs.add_inputs(run.id, run.datasets)
        for target, role in run.uses:
            world.lineage.link(ref(target), ref(f"run/{run.id}"), role)
        for artifact in files:
            world.artifacts.keep(run.id, artifact)
        if run.result or run.error:
            world.runs.rewrite(run.id, result=run.result or None, error=run.error)
        ended = None if run.ended_ms is None else instant(run.ended_ms)
        return world.runs.revise(run.id, status=run.status, ended_at=ended)

    # -- models

    def _take_model(self, report: ImportReport, stored: StoredModel) -> None:
        try:
            self.create_model(stored.name, stored.tags, stored.description)
        except Conflict:
            self.model(stored.name)  # raises what the conflict was, when it is no model
        numbers = dict(self._imported_versions(stored.name))
        for stored_version in stored.versions:
            mark = f"{stored.created_ms}:{stored_version.number}"
            if mark in numbers:
                continue
            made = self.create_version(
                stored.name,
                _source(stored_version.source),
                run=stored_version.run,
                description=stored_version.description,
                tags={**stored_version.tags, IMPORTED_TAG: mark},
            )
            numbers[mark] = made.number
            report.versions += 1
            if made.number != stored_version.number:
                what = f"{stored.name}@{stored_version.number}"
                report.refused.append(Refused(what, f"was taken as version {made.number}; the number was not free"))
            if stored_version.stage:
                self._tried(
                    report, stored.name, lambda n=made.number, s=stored_version.stage: self.set_stage(stored.name, n, s)
                )
        with self._reading() as world:
            there = world.versions.aliases("model", ledger_name(stored.name))
        for alias, number in stored.aliases.items():
            made_as = numbers.get(f"{stored.created_ms}:{number}")
            if made_as is not None and alias not in there:
                self._tried(report, stored.name, lambda a=alias, n=made_as: self.set_alias(stored.name, a, n))

    def _imported_versions(self, name: str) -> list[tuple[str, int]]:
        found = self.search_versions(f"name = '{_quoted(name)}'", limit=100_000)[0]
        return [(v.note.tags[IMPORTED_TAG], v.number) for v in found if IMPORTED_TAG in v.note.tags]


def _mark(run: StoredRun) -> str:
    """Return a digest of what a store says of a run, and of the sizes of its files."""
    told = [
        *(run.name, run.status, run.ended_ms, run.is_deleted, run.params, run.tags, run.result, run.uses, run.error),
        [(d.name, d.digest, t) for d, t in run.datasets],
        [(str(p.value), *p[:1], *p[2:]) for p in run.points],
        sorted((file.path, file.size_bytes, file.digest or file.file.stat().st_mtime_ns) for file in run.files),
    ]
    return hashlib.sha256(orjson.dumps(told, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _source(address: str) -> str:
    """Return the address of a version's files; those of a run are here by the run's id."""
    found = _OF_RUN.search(address)
    return f"runs:/{found[1]}/{address[found.end() :]}".rstrip("/") if found else address


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def instant(ms: int) -> datetime:
    """Return the time of milliseconds since 1970. Raises Corrupt: there is none."""
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        raise Corrupt(f"the time {ms} is none") from None
