"""The pipeline controller: starts queued runs, and takes up again those whose process has died.

It keeps nothing: what it needs stands in the runs. Killed between any two lines, the next look goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from flyball import settings
from flyball.clock import format_instant
from flyball.control import Outcome, Retry, World
from flyball.errors import Conflict
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.runs import FINISHED, Run
from flyball.pipelines.claims import (
    ATTEMPT,
    MOST_ATTEMPTS,
    PipelineSettings,
    attempt_of,
    claim,
    is_dead,
    process_of,
    report,
)
from flyball.runners import Runner
from flyball.runners.local import LocalRunner

__all__ = ["PipelineController"]

_LOOK_S = 1.0  # how often a run at work is looked after
_RECENT = 50  # finished runs among which the last to end is found
_ALL = 100_000


class PipelineController:
    """Controller of the kind `pipeline`.

    Args:
        home: the home whose runs these are; logs go to `<home>/logs/run-<id>.log`.
        command: the command that carries out a run of a home, given its id.
    """

    kind = "pipeline"

    def __init__(self, home: Path, command: Callable[[Path, str], list[str]], runner: Runner | None = None) -> None:
        self._home = home
        self._command = command
        self._runner = runner or LocalRunner()
        self._lock = threading.Lock()  # pipelines are looked at in several threads; they share the places to run

    def reconcile(self, name: str, world: World) -> Outcome:
        of = str(Ref("pipeline", name))
        with world.read() as reading:
            is_declared = reading.resources.find("pipeline", name) is not None
            open_runs = reading.runs.find(of=of, kind="pipeline", status=("pending", "running"), limit=_ALL)
            ended = reading.runs.find(of=of, kind="pipeline", status=FINISHED, limit=_RECENT)
        open_runs.sort(key=lambda run: (run.started_at, run.id))
        for run in open_runs:
            if run.status == "running" and is_dead(run, self._runner, world.clock.now()):
                self._take_up(run, world)
            elif run.status == "pending" and not is_declared:
                _end(run, "cancelled", f"{of} was deleted", world)
            elif run.status == "pending":
                self._begin(run, world)
        if is_declared and ended:
            _tell(name, max(ended, key=lambda run: (run.finished_at or run.started_at, run.id)), world)
        return Retry(_LOOK_S) if open_runs else None

    def _begin(self, run: Run, world: World) -> None:
        """Start a queued run if there is a place for it."""
        places = settings.load(PipelineSettings, "pipelines", self._home).workers
        with self._lock:
            with world.write() as writing:
                current = writing.runs.get(run.id)
                busy = writing.runs.find(kind="pipeline", status=("running",), limit=_ALL)
                if current.status != "pending" or sum(other.of is not None for other in busy) >= places:
                    return
                claimed = claim(current, world.clock.now(), writing)
            self._start(claimed, world)

    def _take_up(self, run: Run, world: World) -> None:
        """Start a run again whose process has died; after several times it is lost."""
        process = process_of(run)
        if process is not None:
            self._runner.stop(process)
        if attempt_of(run) >= MOST_ATTEMPTS:
            log = f"logs/run-{run.id}.log"
            text = f"its process ended {MOST_ATTEMPTS} times without a result; the end of {log} in the home may say why"
            _end(run, "lost", text, world)
            return
        with world.write() as writing:
            current = writing.runs.get(run.id)
            if current.status != "running" or attempt_of(current) != attempt_of(run):
                return
            claimed = claim(current, world.clock.now(), writing)
        self._start(claimed, world)

    def _start(self, run: Run, world: World) -> None:
        """Start the process of a claimed try; cut short here, the claim is found without a process, or with one."""
        log = self._home / "logs" / f"run-{run.id}.log"
        process = self._runner.start(self._command(self._home, run.id), log, {ATTEMPT: str(attempt_of(run))})
        with world.write() as writing:
            current = writing.runs.get(run.id)
            if not current.is_finished and attempt_of(current) == attempt_of(run):
                report(current, process, writing)


def _end(run: Run, status: str, error: str, world: World) -> None:
    with world.write(run.event) as writing:
        try:
            for step in writing.runs.find(parent=run.id, status=("pending", "running"), limit=_ALL):
                writing.runs.finish(step.id, "lost", error="the process that ran it has ended")
            writing.runs.finish(run.id, status, error=error)  # type: ignore[arg-type]
        except Conflict:
            return  # it ended by itself at this moment


def _tell(name: str, run: Run, world: World) -> None:
    """Keep the last run in the pipeline's status; that wakes the triggers that wait for its end."""
    assert run.finished_at is not None
    last = {"run": run.id, "status": run.status, "at": format_instant(run.finished_at)}
    with world.read() as reading:
        resource = reading.resources.get("pipeline", name)
        if resource.status.get("last") == last:
            return
        cause = _end_event(run, reading)
    with world.write(cause) as writing:
        status = {**resource.status, "last": last}
        writing.resources.set_status(
            "pipeline",
            name,
            status,
            action="ran",
            detail={"run": run.id, "status": run.status},
            revision=resource.revision,
        )


def _end_event(run: Run, reading: Transaction) -> int | None:
    events = reading.journal.find(ref=str(run.ref), action=run.status, limit=1)
    return events[0].seq if events else run.event
