"""Which process carries out a run: every try has a number, claimed in the ledger before a process is started.

Between claiming and starting, and between starting and the process's report, anything may be killed: a claim without
a report after a while, or a reported process that is gone, is a dead try, and the next number may be claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from flyball.clock import format_instant, parse_instant
from flyball.ledger import Transaction
from flyball.ledger.runs import Run
from flyball.runners import Process, Runner

__all__ = ["ATTEMPT", "MOST_ATTEMPTS", "PipelineSettings", "attempt_of", "claim", "is_dead", "process_of", "report"]

ATTEMPT = "FLYBALL_ATTEMPT"  # the environment variable that tells a worker the number of its try
MOST_ATTEMPTS = 3
_REPORT_S = 10.0  # from a claim to the process's report; an interpreter starts in well under one second
_SILENT_S = 30.0  # without a heartbeat, after which a process on another machine is held to be dead


@dataclass(frozen=True)
class PipelineSettings:
    """`[pipelines]` in flyball.toml, `FLYBALL_PIPELINES_…` in the environment."""

    workers: int = 1  # runs at the same time; their steps already use all processors
    processes: int = 0  # processes for the steps of one run; 0: one a processor


def attempt_of(run: Run) -> int:
    """Return the number of the newest try, 0 before the first."""
    return int(run.environment.get("attempt", 0))


def claim(run: Run, now: datetime, world: Transaction) -> Run:
    """Begin the next try of a run; whoever holds an older number stops."""
    number = attempt_of(run) + 1
    if number > 1:
        world.journal.note("restarted", str(run.ref), {"name": run.name, "attempt": number}, run.event)
    claimed = {"attempt": number, "claimed_at": format_instant(now), "worker": None}
    return world.runs.update(run.id, status="running", environment=claimed, heartbeat=True)


def report(run: Run, process: Process, world: Transaction) -> None:
    """Say which process carries out the newest try."""
    kept = {**process.to_dict(), "attempt": attempt_of(run)}
    world.runs.update(run.id, environment={"worker": kept}, heartbeat=True)


def process_of(run: Run) -> Process | None:
    """Return the process of the newest try, None when none has been reported yet."""
    kept = run.environment.get("worker")
    if not kept or kept["attempt"] != attempt_of(run):
        return None
    return Process(kept["host"], kept["pid"], kept["born"])


def is_dead(run: Run, runner: Runner, now: datetime) -> bool:
    """Whether the newest try of a running run has ended without ending the run."""
    process = process_of(run)
    if process is None:
        claimed = run.environment.get("claimed_at")
        since = parse_instant(claimed) if claimed else run.started_at
        return now - since > timedelta(seconds=_REPORT_S)
    is_running = runner.is_running(process)
    if is_running is None:
        return now - (run.heartbeat_at or run.started_at) > timedelta(seconds=_SILENT_S)
    return not is_running
