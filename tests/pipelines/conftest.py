"""A ledger, blobs and a warm pool, and one way to run a pipeline over them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball.ledger.runs import Run
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.pipelines.execution import execute
from flyball.pipelines.steps import Pipeline
from flyball.pipelines.tasks import HANDLER, Setup
from flyball.runners.pool import Pool
from flyball.storage.blobs.files import FileBlobs


class Bench:
    """What a pipeline runs on."""

    def __init__(self, ledger: SqlLedger, blobs: FileBlobs, pool: Pool) -> None:
        self.ledger, self.blobs, self.pool = ledger, blobs, pool

    def queue(self, pipeline: Pipeline[..., Any]) -> Run:
        with self.ledger.write("user/ada") as tx:
            return tx.runs.start("pipeline", pipeline.name)

    def run(self, pipeline: Pipeline[..., Any], run: str | None = None, **params: Any) -> Run:
        options: dict[str, Any] = {"ledger": self.ledger, "blobs": self.blobs, "pool": self.pool}
        return execute(pipeline, params, actor="user/ada", run=run or self.queue(pipeline).id, **options)

    def steps(self, run: Run) -> dict[str, Run]:
        """The steps of a run, by name and number of the call."""
        with self.ledger.read() as tx:
            found = reversed(tx.runs.find(parent=run.id, limit=1000))
        return {f"{step.name}-{n}": step for n, step in enumerate(found)}

    def step(self, run: Run, name: str) -> Run:
        return next(step for key, step in self.steps(run).items() if key.rpartition("-")[0] == name)

    def log(self, step: Run) -> str:
        with self.ledger.read() as tx:
            kept = {a.path: a.digest for a in tx.runs.artifacts(step.id)}
        return self.blobs.get(kept["log.txt"]).decode() if "log.txt" in kept else ""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileBlobs, Pool]]:
    folder = tmp_path_factory.mktemp("blobs")
    blobs = FileBlobs(folder)
    setup = pickle.dumps(Setup(blobs, folder))
    with Pool(2, HANDLER, setup, ["tests.pipelines.flows"]) as pool:
        yield blobs, pool


@pytest.fixture
def bench(tmp_path: Path, shared: tuple[FileBlobs, Pool]) -> Iterator[Bench]:
    opened = open_ledger(tmp_path / "home")
    yield Bench(opened, *shared)
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "marks"
    made.mkdir()
    return made
