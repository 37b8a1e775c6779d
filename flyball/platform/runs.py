"""What happens: runs, their metrics, logs and artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from flyball import settings
from flyball.errors import NotFound, listed
from flyball.ledger import Transaction
from flyball.ledger.points import Point
from flyball.ledger.refs import ref
from flyball.ledger.runs import Artifact, Run

if TYPE_CHECKING:
    from flyball.tracking.runs import ActiveRun

from flyball.platform.home import Home

__all__ = ["RunActs"]


class RunActs(Home):
    """What happens: runs, their metrics, logs and artifacts."""

    def start_run(
        self, name: str, kind: str = "training", *, is_sampled: bool | None = False, **options: Any
    ) -> ActiveRun:
        """Start recording a run; see `Runs.start` for the options.

        Args:
            is_sampled: whether the machine's figures are logged while it goes on (`system/…`); None: the setting.
        """
        from flyball.tracking.runs import ActiveRun, environment, source
        from flyball.tracking.system import TrackingSettings, sample

        chosen = settings.load(TrackingSettings, "tracking", self.home) if is_sampled is not False else None
        recorder, made = self.recorder, {"source": source(), "environment": environment(), **options}
        run = recorder.change(lambda world: world.runs.start(kind, name, **made)).result()
        active = ActiveRun(run, recorder, self.ledger, self.blobs, self.clock)
        if chosen is not None and (is_sampled or chosen.system_metrics):
            sample(active, chosen.system_interval_s)
        return active

    def recording(self) -> AbstractContextManager[Transaction]:
        """Return a transaction in which what happened elsewhere is recorded."""
        return self._writing("record")

    def start_pipeline(self, name: str, params: Mapping[str, Any] | None = None) -> Run:
        """Put a run of a pipeline in the queue; whoever acts on this home carries it out. Raises NotFound."""
        with self._writing("start") as world:
            pipeline = world.resources.get("pipeline", ref(name, "pipeline").name)
            given = {**pipeline.spec.get("params", {}), **(params or {})}
            return world.runs.start("pipeline", pipeline.name, of=str(pipeline.ref), status="pending", params=given)

    def runs(self, **filters: Any) -> list[Run]:
        """Return runs, newest first; see `Runs.find` for the filters. Those marked deleted only when asked for."""
        filters.setdefault("deleted", False)
        with self._reading() as world:
            return world.runs.find(**filters)

    def run(self, id: str) -> Run:
        """Return one run by its id or the beginning of it. Raises NotFound."""
        with self._reading() as world:
            return world.runs.get(id.removeprefix("run/"))

    def metric(self, run: str, key: str) -> list[Point]:
        """Return the points of one metric of a run. Raises NotFound."""
        with self._reading() as world:
            found = world.runs.get(run.removeprefix("run/"))
            if key not in found.metrics:
                raise NotFound(f"run {found.id[:8]} has no metric {key!r} (it has: {listed(found.metrics)})")
            return world.points.history(found.id, key)

    def run_log(self, run: str) -> str:
        """Return what a run and its steps printed: the worker's log, then each step's own."""
        found = self.run(run)
        path = self.home / "logs" / f"run-{found.id}.log"
        parts = [path.read_text(encoding="utf-8", errors="replace")] if path.exists() else []
        steps = sorted(self.runs(parent=found.id, limit=1000), key=lambda r: r.started_at)
        for step in [found, *steps]:
            for kept in self.artifacts(step.id):
                if kept.path == "log.txt":
                    text = self.blobs.get(kept.digest).decode(errors="replace")
                    parts.append(f"── {step.name} ({step.id[:8]}) ──\n{text}")
        return "\n".join(part.rstrip("\n") for part in parts if part.strip())

    def artifacts(self, run: str) -> list[Artifact]:
        """Return what a run left."""
        with self._reading() as world:
            return world.runs.artifacts(run)
