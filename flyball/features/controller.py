"""The controller of feature views: starts a process that keeps a view whenever it is due, and looks after it.

The work itself (`keeping`) is done in a process of its own: it runs a user's code, may take long and may be killed.
What came of it stands in the view's status, and only that decides what is due next; so nothing is lost when this
process is killed, and a process that it had started goes on. A second one beside it does no harm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flyball import settings
from flyball.clock import parse_duration, parse_instant
from flyball.control import Blocked, Outcome, Retry, World
from flyball.features.kinds import FeatureView, Materialising
from flyball.ledger.refs import ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.runners import Process, Runner
from flyball.runners.local import LocalRunner

__all__ = ["Due", "FeatureSettings", "FeatureViewController", "due"]

_LOOK_S = 1.0  # how often a process at work is looked after
_FIRST_RETRY_S = 30.0  # after a failure; doubles with each further one
_LAST_RETRY_S = 3600.0
_LOG_BYTES = 1 << 20  # from which on a log is begun anew

_Command = Callable[[Path, str, int | None], list[str]]
_Failed = Callable[[str, str, int | None], None]


@dataclass(frozen=True)
class FeatureSettings:
    """`[features]` in flyball.toml, `FLYBALL_FEATURES_…` in the environment."""

    workers: int = 1  # views kept up to date at the same time; computing one already uses all processors


@dataclass(frozen=True)
class Due:
    """When a view is to be kept again: `at`, or at once when that has passed; `cause` is the event that made it so."""

    at: datetime
    cause: int | None = None


def due(wanted: Materialising, view: Resource, newest: Version, now: datetime) -> Due:
    """Return when a view is due, from its status and the newest version of its data set.

    After a failure it waits ever longer, unless its declaration or its data set has changed since.
    """
    kept, failure = view.status.get("kept"), view.status.get("failure")
    if failure is not None and failure["generation"] == view.generation and (newest.event or 0) <= failure["seen"]:
        wait_s = min(_FIRST_RETRY_S * 2 ** min(failure["tries"] - 1, 20), _LAST_RETRY_S)
        return Due(parse_instant(failure["at"]) + timedelta(seconds=wait_s), newest.event)
    if failure is not None or kept is None or kept["generation"] != view.generation:
        return Due(now)
    if wanted.on_version and kept["dataset"] != str(newest.ref):
        return Due(now, newest.event)
    return Due(parse_instant(kept["at"]) + parse_duration(wanted.every))


@dataclass(frozen=True)
class _Working:
    process: Process
    since: datetime
    cause: int | None


class FeatureViewController:
    """Controller of the kind `feature-view`.

    Args:
        home: the home whose views these are; what their processes print goes to `<home>/logs/feature-view-<name>.log`.
        command: the command that keeps a view of a home, because of an event.
        failed: writes down that a view could not be kept, where its process could not do so itself.
    """

    kind = "feature-view"

    def __init__(self, home: Path, command: _Command, failed: _Failed, runner: Runner | None = None) -> None:
        self._home = home
        self._command = command
        self._failed = failed
        self._runner = runner or LocalRunner()
        self._working: dict[str, _Working] = {}
        self._lock = threading.Lock()  # views are looked at in several threads; they share the places to run

    def reconcile(self, name: str, world: World) -> Outcome:
        working = self._working.get(name)
        if working is not None:
            if self._runner.is_running(working.process):
                return Retry(_LOOK_S)
            self._ended(name, working, world)
        with world.read() as reading:
            view = reading.resources.find(self.kind, name)
            spec = None if view is None else FeatureView.model_validate(view.spec)
            if view is None or spec is None or spec.materialise is None or spec.status == "retired":
                return None
            source = ref(str(spec.dataset), "dataset")
            newest = next(iter(reading.versions.all("dataset", source.name, limit=1)), None)
        if newest is None:
            return Blocked(f"{source} has no version yet; publish one")
        now = world.clock.now()
        next_due = due(spec.materialise, view, newest, now)
        wait_s = (next_due.at - now).total_seconds()
        if wait_s > 0:
            return Retry(wait_s)
        self._start(name, next_due.cause, now)
        return Retry(_LOOK_S)

    def _start(self, name: str, cause: int | None, now: datetime) -> None:
        """Start the process if there is a place for it; if not, the next look will."""
        places = settings.load(FeatureSettings, "features", self._home).workers
        with self._lock:
            if len(self._working) >= places:
                return
            log = self._log(name)
            if log.exists() and log.stat().st_size > _LOG_BYTES:
                log.unlink()
            process = self._runner.start(self._command(self._home, name, cause), log)
            self._working[name] = _Working(process, now, cause)

    def _ended(self, name: str, working: _Working, world: World) -> None:
        """Free the place of a process; if it said nothing of how it ended, it was killed."""
        with self._lock:
            self._working.pop(name, None)
        with world.read() as reading:
            view = reading.resources.find(self.kind, name)
        if view is None:
            return
        told = [view.status[key]["at"] for key in ("kept", "failure") if view.status.get(key)]
        if not any(parse_instant(at) >= working.since for at in told):
            log = self._log(name).relative_to(self._home)
            text = f"the process that kept it ended without a word, perhaps killed; the end of {log} may say why"
            self._failed(name, text, working.cause)

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{self.kind}-{name}.log"
