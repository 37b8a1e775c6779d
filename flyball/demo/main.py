"""The demo, stage by stage. `flyball demo` calls `run_demo`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from flyball.demo.job import Job, Misuse
from flyball.errors import FlyballError

if TYPE_CHECKING:
    from flyball.demo.report import Printer

__all__ = ["DEFAULT_HOME", "DemoOptions", "run_demo"]

DEFAULT_HOME = "flyball-demo"
MARK = "demo.json"  # in a home: it is a demo's, and may be replaced by the next


@dataclass(frozen=True)
class DemoOptions:
    """The options of `flyball demo`.

    Attributes:
        no_fault: nothing goes wrong, so nothing must be found. seasons: a whole year of natural change.
        data, target, time, label_time, entity: a table of one's own, and what its columns are.
        home: where the project is left; default: `flyball-demo` in the current folder.
        as_json: print one JSON object as the last line.
        seed: an odd one swaps the rows that teach and those that are replayed.
    """

    no_fault: bool = False
    seasons: bool = False
    data: str | Path | None = None
    target: str | None = None
    time: str | None = None
    label_time: str | None = None
    entity: str | None = None
    home: str | Path | None = None
    as_json: bool = False
    seed: int = 0


def run_demo(options: DemoOptions) -> int:
    """Run the demo and return its exit code: 0 fine, 1 a stage did not do what it should, 2 wrong use."""
    # Threads of OpenMP that spin while they wait would take the cores from the planes: on two busy cores a fit of one
    # second took eighteen. Set before scikit-learn is loaded; what the demo starts inherits it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from flyball.demo.report import Printer

    printer = Printer()
    try:
        with _ended_by_signals():
            home = _home_for(Path(options.home or DEFAULT_HOME).absolute())
            return _run(_job_for(options), home, options, printer)
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        if options.as_json:
            print(json.dumps({"ok": False, "seconds": round(printer.seconds, 2), "error": str(error)}), flush=True)
        return 2 if isinstance(error, Misuse) else 1


def _run(job: Job, home: Path, options: DemoOptions, printer: Printer) -> int:
    from flyball.demo import report, stages, verdict
    from flyball.demo.planes import Planes
    from flyball.platform import Platform

    printer.stage("job", job.title)
    for note in job.notes:
        printer.stage("job", note)
    _clear(home)
    platform = Platform.open(home)
    _mark(home, {"job": job.name, "title": job.title})
    planes = Planes(home)  # starts while the data is prepared
    try:
        published = stages.publish(platform, job, printer)
        model = stages.train(platform, job, published.version, printer)
        planes.wait()
        old = stages.serve(platform, job, model, planes, printer)
        state, seen = stages.replay_stream(platform, job, planes, printer)
    finally:
        planes.stop()
        stages.end_runs(platform)
        platform.close()
    with contextlib.closing(Platform.open(home)) as platform:
        new = platform.version(f"model/{job.name}@champion").ref.short
        split = job.fault.since if job.fault is not None else job.stream.tick_of(job.sizes.fault_at).start
        quality = report.quality_of(platform, job, state, old, new, split)
        why = verdict.why_of(platform, job)
        logged = platform.traffic.count(job.name)
        result = verdict.result_of(job, published, (old, new), state, logged, seen, quality, why)
        failures = verdict.failures_of(platform, job, result, seen, quality)
        printer.block("", report.summary(quality, old, new))
        printer.block("one prediction, and all that it came from:", report.lineage_of(platform, job, new))
        chain = "\n".join("   " * depth + ("└─ " if depth else "") + line for depth, line in enumerate(why))
        printer.block(f"why {new} serves:", chain)
    for failure in failures:
        printer.stage("error", failure)
    said = "not all stages did what they should" if failures else "all stages did what they should"
    printer.stage("done", f"{said}; look at all of it with: flyball up --home {report.relative(home)}")
    outcome = {"ok": not failures, "seconds": round(printer.seconds, 2), **result}
    if failures:
        outcome["failures"] = failures
    _mark(home, outcome)
    if options.as_json:
        print(json.dumps(outcome), flush=True)
    return 1 if failures else 0


def _job_for(options: DemoOptions) -> Job:
    """Return the job that the options ask for. Raises Misuse when they do not go together."""
    columns = {"--target": options.target, "--time": options.time}
    columns |= {"--label-time": options.label_time, "--entity": options.entity}
    given = next((name for name, column in columns.items() if column is not None), None)
    if options.data is None and given is not None:
        raise Misuse(f"{given} says what a column of your own table is; give the table with --data FILE")
    if options.seasons and (options.data is not None or options.no_fault):
        other = "--data" if options.data is not None else "--no-fault"
        raise Misuse(f"--seasons is about the flights of a year as they were; leave {other} out")
    if options.data is None:
        from flyball.demo.flights import flights_job

        return flights_job(seasons=options.seasons, fault=not options.no_fault, seed=options.seed)
    if options.target is None:
        raise Misuse(f"--data {options.data} needs --target COL, the column to predict")
    from flyball.demo.table import table_job

    return table_job(
        options.data,
        target=options.target,
        time=options.time,
        label_time=options.label_time,
        entity=options.entity,
        fault=not options.no_fault,
        seed=options.seed,
    )


def _home_for(path: Path) -> Path:
    """Return the folder after checking that it may be used: new, empty, or a former demo's that nothing runs in."""
    if path.is_file():
        raise Misuse(f"{path} is a file; give --home a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).exists():
        raise Misuse(f"{path} holds something else than a former demo; give --home another folder")
    pid = _acting_on(path)
    if pid is not None:
        raise Misuse(f"{path} is in use by process {pid}; stop flyball up there first, or give --home another folder")
    return path


def _acting_on(home: Path) -> int | None:
    """Return the control plane, or else the data plane, that lives in a home; None when neither does."""
    from flyball.control.lease import is_alive

    for file in (home / "control.json", home / "serving" / "status.json"):
        pid = 0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or half of what it should be
            pid = int(json.loads(file.read_text(encoding="utf-8"))["pid"])
        if pid > 0 and is_alive(pid):
            return pid
    return None


def _clear(home: Path) -> None:
    for entry in home.iterdir() if home.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _mark(home: Path, facts: dict[str, object]) -> None:
    (home / MARK).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that its children are ended too."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
