"""Runs of pipelines: start one, and read what it printed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened, reference
from flyball.cli.show import emit, note, say
from flyball.errors import NotFound, StepFailed, Unavailable

if TYPE_CHECKING:
    from flyball.control.loop import Loop
    from flyball.ledger.runs import Run
    from flyball.platform import Platform

_LOOK_S = 0.2
_SERVICES = {"control": "control-plane.log", "data-plane": "data-plane.log"}


@app.command("run")
def run_pipeline(
    pipeline: Annotated[str, typer.Argument(help="A declared pipeline: late, or pipeline/late.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="An argument; JSON, else text.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end even when flyball up does the work.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Start a run of a pipeline. Without a running `flyball up`, the work is done here until the run ends."""
    from flyball.wire.native.values import run_value

    with opened(home) as platform:
        name = reference(pipeline if "/" in pipeline else f"pipeline/{pipeline}")
        if not name.startswith("pipeline/"):
            raise WrongUse(f'"{pipeline}" is not a pipeline; write it like pipeline/late')
        loop = platform.loop()
        is_ours = loop.lease.renew()  # nobody else acts on this home
        try:
            run = platform.start_pipeline(name, _params(param or []))
            if is_ours or wait:
                note(f"run {run.id[:8]} of {name}")
                run = _until_it_ends(platform, run, loop if is_ours else None)
        finally:
            loop.stop()
        if json:
            emit(run_value(run))
        elif not run.is_finished:
            say(f"run {run.id[:8]} of {name} is in the queue; see flyball describe run/{run.id[:8]}")
        elif run.status == "succeeded":
            say(f"run {run.id[:8]} of {name} succeeded")
        if run.is_finished and run.status != "succeeded":
            reason = (run.error or "").strip().splitlines()
            told = f": {reason[-1]}" if reason else ""
            raise StepFailed(f"run {run.id[:8]} of {name} {run.status}{told}; see flyball logs run/{run.id[:8]}")


@app.command()
def logs(
    what: Annotated[str, typer.Argument(help="A run, run/41f3 or 41f3; or control, or data-plane.")],
    tail: Annotated[int | None, typer.Option("--tail", min=1, help="Only the last lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing; Ctrl-C ends.")] = False,
    home: Home = None,
) -> None:
    """Print what a run printed, or the log of a service."""
    with opened(home) as platform:
        folder = platform.home / "logs"
        if what in _SERVICES:
            path = folder / _SERVICES[what]
            if not path.exists():
                raise NotFound(f"there is no log of {what} at {path}; flyball up writes it")
            _print_file(path, tail)
        else:
            run = platform.run(reference(what) if "/" in what else what)
            path = folder / f"run-{run.id}.log"
            text = platform.run_log(run.id)
            lines = text.splitlines()
            say("\n".join(lines[-tail:] if tail else lines)) if lines else note(f"run {run.id[:8]} printed nothing")
        if follow:
            _follow(path)


def _until_it_ends(platform: Platform, run: Run, loop: Loop | None) -> Run:
    """Wait for a run's end, telling each step that ends; with a loop, do the work meanwhile."""
    shown: set[str] = set()
    while True:
        if loop is not None:
            with contextlib.suppress(Unavailable):  # another control plane has begun to act: it goes on with the run
                loop.settle()
        found = platform.run(run.id)
        for step in reversed(platform.runs(parent=run.id, limit=1000)):
            if step.is_finished and step.id not in shown:
                shown.add(step.id)
                _tell(step)
        if found.is_finished:
            if loop is not None:
                with contextlib.suppress(Unavailable):
                    loop.settle()  # what follows from the run: promotion, deployment
            return found
        time.sleep(_LOOK_S)


def _tell(step: Run) -> None:
    from flyball.web.formats import duration_text

    took = duration_text((step.finished_at - step.started_at).total_seconds()) if step.finished_at else ""
    how = "from the cache" if step.tags.get("cached") else f"in {took}"
    note(f"  step {step.name} {step.status} {how}")


def _params(given: list[str]) -> dict[str, Any]:
    import orjson

    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise WrongUse(f"-p {text!r} is not NAME=VALUE; write it like -p depth=8")
        try:
            found[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[name] = value
    return found


def _print_file(path: Path, tail: int | None) -> None:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in deque(stream, tail) if tail else stream:
            say(line.rstrip("\n"))


def _follow(path: Path) -> None:
    """Print what is added to a file from now on."""
    place = path.stat().st_size if path.exists() else 0
    while True:
        if path.exists():
            with path.open("rb") as stream:
                stream.seek(place if path.stat().st_size >= place else 0)  # shorter: it was begun anew
                text = stream.read()
                place = stream.tell()
            if text:
                say(text.decode(errors="replace").rstrip("\n"))
                sys.stdout.flush()
        time.sleep(_LOOK_S)
