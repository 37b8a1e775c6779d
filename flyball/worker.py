"""The process that carries out one run of a pipeline: `python -m flyball.worker --home HOME --run ID`.

The pipeline controller starts it for each queued run, in a session of its own: it goes on when the control plane dies.
It reads the run and its pipeline from the ledger, and ends the run; when it is killed instead, the controller notices
and starts another for the same run, which finds the finished steps.

Two of them may never work on one run: each try has a number, which the controller writes before it starts a process
and hands over in `FLYBALL_ATTEMPT`. A process whose number is not the newest stops.

`--view NAME` instead of `--run ID` keeps a feature view up to date; the controller of feature views starts that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import FlyballError, InvalidInput, Unavailable
from flyball.pipelines.claims import ATTEMPT, attempt_of, claim, report
from flyball.pipelines.execution import execute, workbench
from flyball.pipelines.loading import load_function, module_of, use_project
from flyball.pipelines.tasks import HANDLER, Setup
from flyball.runners.local import this_process
from flyball.runners.pool import Pool

if TYPE_CHECKING:
    from flyball.ledger.runs import Run
    from flyball.platform import Platform

__all__ = ["main", "prepare"]

_GRACE_S = 2.0  # after a cancellation, for a body that does not look up from its work


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a run; return 0 when it succeeded, 1 when it failed, 3 when it was left for another process."""
    parser = argparse.ArgumentParser(prog="python -m flyball.worker", description="Carry out one run of a pipeline.")
    parser.add_argument("--home", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run")
    what.add_argument("--view")
    parser.add_argument("--cause", type=int, help="of --view: the event because of which it is done")
    given = parser.parse_args(arguments)
    # Threads of OpenMP that spin while they wait make a fit many times slower on busy processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if given.view is not None:
        return _keep_view(given.home, given.view, given.cause)
    try:
        with Pool(os.cpu_count() or 1, HANDLER, None) as pool:  # its interpreter starts while this one imports
            from flyball.platform import Platform

            with contextlib.closing(Platform.open(given.home, create=False)) as platform:
                return _carry_out(platform, given.run, pool)
    except Unavailable as error:
        print(f"error: {error}; the run will be taken up again", file=sys.stderr)
        return 3
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def prepare(home: str) -> None:
    """Make `home` the platform that a step finds, in a process of the pool; it is opened when first used."""
    os.environ["FLYBALL_HOME"] = home
    workbench.set(_Bench(home))


class _Bench:
    """A platform that is opened when something is asked of it: most steps never do."""

    def __init__(self, home: str) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "_opened" not in self.__dict__:
            from flyball.platform import Platform

            self._opened = Platform.open(self._home, create=False)
        return getattr(self._opened, name)


def _keep_view(home: str, name: str, cause: int | None) -> int:
    from flyball.governance.identity import Principal
    from flyball.platform import Platform

    control_plane = Principal("controller/feature-view", "admin")
    try:
        with contextlib.closing(Platform.open(home, control_plane, create=False)) as platform:
            platform.keep_view(name, cause=cause)
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _carry_out(platform: Platform, run_id: str, pool: Pool) -> int:
    run, attempt = _taken(platform, run_id)
    if run is None:
        return 3
    name = (run.of or "").partition("/")[2] or run.name
    with platform.ledger.read() as world:
        spec = world.resources.get("pipeline", name).spec
    os.environ["FLYBALL_HOME"] = str(platform.home)
    setup = Setup(platform.blobs, platform.project, "flyball.worker:prepare", str(platform.home))
    use_project(platform.project)
    pool.size = _size(platform.home)
    pool.begin(pickle.dumps(setup), [module_of(spec["function"], platform.project)])
    token = workbench.set(platform)
    try:
        function = load_function(spec["function"], platform.project)
        if not hasattr(function, "function"):
            raise InvalidInput(f"{spec['function']} is no pipeline; decorate it: @fb.pipeline")
        describing = threading.Thread(target=_describe, args=(platform, run.id), daemon=True)
        describing.start()
        done = execute(
            function,
            run.params,
            ledger=platform.ledger,
            blobs=platform.blobs,
            actor=run.actor,
            run=run.id,
            pool=pool,
            is_superseded=lambda now: attempt_of(now) != attempt,
            on_cancelled=lambda: _end_soon(pool),
            before_end=describing.join,
        )
    except Unavailable:
        raise
    except FlyballError as error:
        with platform.ledger.write(run.actor, run.event) as world:
            world.runs.finish(run.id, "failed", error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        workbench.reset(token)
    if done.error:
        print(f"error: {done.error}", file=sys.stderr)
    return 0 if done.status == "succeeded" else 1


def _taken(platform: Platform, run_id: str) -> tuple[Run | None, int]:
    """Return the run if this process may carry it out, and the number of this try."""
    started_as = os.environ.pop(ATTEMPT, "")
    with platform.ledger.write(platform.actor) as world:
        run = world.runs.get(run_id)
        if run.is_finished:
            print(f"run {run.id[:8]} has {run.status}; there is nothing to do", file=sys.stderr)
            return None, 0
        if not started_as:  # started by hand: that is a try of its own
            run = claim(run, platform.clock.now(), world)
        elif int(started_as) != attempt_of(run):
            print(f"run {run.id[:8]} has been taken over by another process", file=sys.stderr)
            return None, 0
        report(run, this_process(), world)
    return run, attempt_of(run)


def _describe(platform: Platform, run_id: str) -> None:
    """Write down what the run ran on, beside the work."""
    from flyball.tracking.runs import source

    ran_on, came_from = _environment(platform.home), source(platform.project)
    with contextlib.suppress(FlyballError), platform.ledger.write(platform.actor) as world:
        world.runs.update(run_id, environment=ran_on, source=came_from)


def _environment(home: Path) -> dict[str, Any]:
    """Return Python, packages and machine; kept in the home until something is installed, for it takes a while."""
    from flyball.tracking.runs import environment

    folders = [folder for folder in map(Path, sys.path) if "-packages" in folder.name and folder.is_dir()]
    key = [sys.version, *([str(folder), folder.stat().st_mtime_ns] for folder in folders)]
    path = home / "environment.json"
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return dict(kept["environment"])
    found = environment()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps({"key": key, "environment": found}), encoding="utf-8")
        partial.replace(path)
    return found


def _size(home: Path) -> int:
    from flyball import settings
    from flyball.pipelines.claims import PipelineSettings

    return settings.load(PipelineSettings, "pipelines", home).processes or os.cpu_count() or 1


def _end_soon(pool: Pool) -> None:
    """End this process when a cancelled body goes on: what had to be written is written."""

    def end() -> None:
        pool.close()
        os._exit(1)

    timer = threading.Timer(_GRACE_S, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
