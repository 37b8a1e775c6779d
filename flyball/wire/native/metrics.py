"""The control plane's own figures for Prometheus (text format 0.0.4).

What finished is counted from the journal, which has no gaps: each scrape reads the events since the one before. The
counters start at zero with the process, as Prometheus expects of counters.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from flyball.control.loop import Loop
from flyball.ledger.runs import FINISHED
from flyball.platform import Platform

__all__ = ["ControlMetrics"]

_UNFINISHED_SHOWN = 1000


class ControlMetrics:
    """Counts over one platform, and over the loop when this process has one."""

    def __init__(self, platform: Platform, loop: Loop | None = None) -> None:
        self._platform = platform
        self._loop = loop
        self._lock = threading.Lock()
        self._seen: int | None = None
        self._finished: Counter[str] = Counter()
        self._actions: Counter[str] = Counter()

    def text(self) -> str:
        """Return all figures."""
        with self._lock:
            self._follow()
            finished = {status: self._finished[status] for status in sorted(FINISHED)}
            actions = dict(sorted(self._actions.items()))
            seen = self._seen or 0
        lines = _family("events_total", "counter", "Events in the journal.", {"": seen})
        lines += _family("actions_total", "counter", "Events since the start, by action.", _by("action", actions))
        lines += _family("runs_finished_total", "counter", "Runs that ended, by status.", _by("status", finished))
        unfinished = Counter(
            run.status for run in self._platform.runs(status=("pending", "running"), limit=_UNFINISHED_SHOWN)
        )
        waiting = {status: unfinished[status] for status in ("pending", "running")}
        lines += _family("runs", "gauge", "Unfinished runs by status, at most 1000.", _by("status", waiting))
        if self._loop is not None:
            next_due = self._loop.queue.next_due_s()
            acting = {"": int(self._loop.is_acting)}
            lines += _family("control_is_acting", "gauge", "1 while this process holds the lease.", acting)
            idle = {"": int(self._loop.queue.is_idle())}
            lines += _family("control_is_idle", "gauge", "1 while no resource waits to be looked at.", idle)
            if next_due is not None:
                text = "Seconds until the next resource is looked at."
                lines += _family("control_next_look_seconds", "gauge", text, {"": next_due})
        return "\n".join(lines) + "\n"

    def _follow(self) -> None:
        if self._seen is None:
            self._seen = self._platform.last_event()
        while page := self._platform.events_since(self._seen):
            for event in page:
                self._actions[event.action] += 1
                if event.ref.startswith("run/") and event.action in FINISHED:
                    self._finished[event.action] += 1
            self._seen = page[-1].seq


def _family(name: str, kind: str, text: str, samples: Mapping[str, float]) -> list[str]:
    head = [f"# HELP flyball_{name} {text}", f"# TYPE flyball_{name} {kind}"]
    return head + [
        f"flyball_{name}{labels} {value:g}" if value < 1e6 else f"flyball_{name}{labels} {value:.0f}"
        for labels, value in samples.items()
    ]


def _by(label: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f'{{{label}="{_escaped(name)}"}}': value for name, value in values.items()}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
