"""What the data plane counts, and how Prometheus is told: counters that add up over processes and their restarts.

Each process counts for itself (`Counters`). A lone one tells them as they are; workers write theirs to a file each
(`Counters.document`), from which any of them tells the sum, and from which the next worker of a place goes on. So a
sum never falls, which Prometheus would take for a restart.
"""

from __future__ import annotations

import os
import resource
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flyball.features.freshness import AGE_BOUNDS_S, ViewFreshness

__all__ = ["Counters", "Gauges", "prometheus"]

_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_KEYED = ("requests", "rows", "failures", "errors", "refused", "log_dropped")
_PLAIN = ("labels", "log_refusals", "mirrors_skipped")
_HISTOGRAMS = ("latency", "batches", "steps", "logging")
_SINGLE = frozenset({"batches", "logging", "log_dropped"})  # whose key is one text


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """Counts since the start; written on the event loop only."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, ...], int] = defaultdict(int)  # deployment, variant, version
        self.rows: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self.failures: defaultdict[tuple[str, ...], int] = defaultdict(int)  # deployment, variant, version
        self.errors: defaultdict[tuple[str, int], int] = defaultdict(int)  # deployment, status
        self.refused: defaultdict[tuple[str, str], int] = defaultdict(int)  # deployment, reason
        self.latency: defaultdict[tuple[str, ...], _Histogram] = defaultdict(lambda: _Histogram(_BOUNDS_S))
        self.batches: defaultdict[str, _Histogram] = defaultdict(lambda: _Histogram(_BATCH_BOUNDS))  # version
        self.steps: defaultdict[tuple[str, ...], _Histogram] = defaultdict(lambda: _Histogram(_BOUNDS_S))
        self.logging: defaultdict[str, _Histogram] = defaultdict(lambda: _Histogram(_BOUNDS_S))  # durability
        self.views: dict[str, ViewFreshness] = {}  # of processes before this one
        self.labels = 0
        self.log_refusals = 0  # requests answered with 503 because their rows could not be logged
        self.log_dropped: defaultdict[str, int] = defaultdict(int)  # deployment → answered rows that are in no log
        self.mirrors_skipped = 0

    def answered(self, deployment: str, variant: str, version: str, rows: int, seconds: float) -> None:
        """Count one request's part that one variant answered."""
        key = (deployment, variant, version)
        self.requests[key] += 1
        self.rows[key] += rows
        self.latency[key].observe(seconds)

    def refuse(self, deployment: str, reason: str) -> None:
        """Count a request that was right and was not answered for want of room or time."""
        self.refused[deployment, reason] += 1

    def summary(self) -> dict[str, float]:
        """Return the few sums that `status.json` carries."""
        return {
            "requests": sum(self.requests.values()),
            "rows": sum(self.rows.values()),
            "errors": sum(self.errors.values()),
            "labels": self.labels,
            "log_refusals": self.log_refusals,
            "log_dropped": sum(self.log_dropped.values()),
        }

    def document(self, views: Mapping[str, ViewFreshness]) -> dict[str, Any]:
        """Return all counts, those of the features looked up too, as a JSON value that `add` takes."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        for name in _KEYED:
            found[name] = [[*_parts(key), count] for key, count in getattr(self, name).items()]
        for name in _HISTOGRAMS:
            found[name] = [[_parts(key), data.counts, data.total] for key, data in getattr(self, name).items()]
        found["views"] = {view: asdict(counts) for view, counts in _added(self.views, views).items()}
        return found

    def add(self, document: Mapping[str, Any]) -> None:
        """Add what another process counted. Raises KeyError, TypeError, ValueError for what is no such document."""
        for name in _PLAIN:
            setattr(self, name, getattr(self, name) + document[name])
        for name in _KEYED:
            for *key, count in document[name]:
                getattr(self, name)[key[0] if name in _SINGLE else tuple(key)] += count
        for name in _HISTOGRAMS:
            for key, counts, total in document[name]:
                data = getattr(self, name)[key[0] if name in _SINGLE else tuple(key)]
                data.counts = [mine + its for mine, its in zip(data.counts, counts, strict=True)]
                data.total += total
        views = {view: ViewFreshness(**counts) for view, counts in document["views"].items()}
        self.views = _added(self.views, views)


@dataclass(frozen=True)
class Gauges:
    """How one process stands at this moment; a JSON value when taken apart by `asdict`."""

    generation: int = 0
    waiting: Sequence[tuple[str, str, int]] = ()  # deployment, version, rows
    in_flight: Mapping[str, int] = field(default_factory=dict)  # deployment → requests
    connections: int = 0
    log_waiting: int = 0  # answers that are not yet in the log
    cpu_s: float = 0.0
    resident_bytes: int = 0
    open_files: int = 0
    threads: int = 0

    @classmethod
    def of_process(cls, **known: Any) -> Gauges:
        """Return what is known with what the system says of this process; its part is 0 where it says nothing."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        resident = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # the most there was
        files = threads = 0
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE")
            files = sum(1 for _ in Path("/proc/self/fd").iterdir())
            threads = sum(1 for _ in Path("/proc/self/task").iterdir())
        except (OSError, ValueError, IndexError):
            pass
        return cls(
            cpu_s=used.ru_utime + used.ru_stime,
            resident_bytes=resident,
            open_files=files,
            threads=threads,
            **known,
        )


def prometheus(counters: Counters, views: Mapping[str, ViewFreshness], workers: Mapping[str, Gauges]) -> str:
    """Return everything in the Prometheus text format 0.0.4.

    Args:
        views: how fresh the values are that were looked up by this process, by view.
        workers: the processes that serve, by the name of their place.
    """
    page = _Page()
    three = ("deployment", "variant", "version")
    page.counts("requests_total", "Prediction requests answered.", three, counters.requests)
    page.counts("model_failures_total", "Prediction requests on which the model failed.", three, counters.failures)
    page.counts("rows_total", "Rows predicted.", three, counters.rows)
    text = "Prediction requests refused or failed, by HTTP status."
    page.counts("request_errors_total", text, ("deployment", "status"), counters.errors)
    text = "Prediction requests refused for want of room or time: rate, key_rate, concurrency, queue, log, timeout."
    page.counts("requests_refused_total", text, ("deployment", "reason"), counters.refused)
    page.family("request_seconds", "histogram", "From a request's last byte to its answer.")
    for key, data in counters.latency.items():
        page.histogram("request_seconds", dict(zip(three, key, strict=True)), data)
    page.family("batch_rows", "histogram", "Rows in one call of a model.")
    for version, data in counters.batches.items():
        page.histogram("batch_rows", {"version": version}, data)
    page.family("routine_step_seconds", "histogram", "Of a call of one model or function of a routine.")
    for key, data in counters.steps.items():
        page.histogram("routine_step_seconds", dict(zip(("deployment", "step"), key, strict=True)), data)
    page.family("log_seconds", "histogram", "From an answer's entry into the log to its being kept.")
    for durability, data in counters.logging.items():
        page.histogram("log_seconds", {"durability": durability}, data)
    text = "Rows answered that are in no log, because it was full and the deployment says `when_full: drop`."
    dropped = {(deployment,): rows for deployment, rows in counters.log_dropped.items()}
    page.counts("log_dropped_rows_total", text, ("deployment",), dropped)
    _tell_gauges(page, workers)
    _tell_views(page, _added(counters.views, views))
    for name, value, text in (
        ("labels_total", counters.labels, "Labels taken."),
        ("log_refusals_total", counters.log_refusals, "Requests refused because their rows could not be logged."),
        ("mirrors_skipped_total", counters.mirrors_skipped, "Requests that a busy mirror did not get."),
    ):
        page.family(name, "counter", text)
        page.sample(name, {}, value)
    return page.text()


def _tell_gauges(page: _Page, workers: Mapping[str, Gauges]) -> None:
    rows: defaultdict[tuple[str, str], int] = defaultdict(int)
    flying: defaultdict[str, int] = defaultdict(int)
    for gauges in workers.values():
        for deployment, version, count in gauges.waiting:
            rows[deployment, version] += count
        for deployment, count in gauges.in_flight.items():
            flying[deployment] += count
    page.family("queue_rows", "gauge", "Rows waiting for a model or in it.")
    for (deployment, version), count in rows.items():
        page.sample("queue_rows", {"deployment": deployment, "version": version}, count)
    page.family("requests_in_flight", "gauge", "Prediction requests let in that the models have not answered.")
    for deployment, count in flying.items():
        page.sample("requests_in_flight", {"deployment": deployment}, count)
    for name, text, value in (
        ("snapshot_generation", "Generation of the snapshot that all workers serve.", _least_generation(workers)),
        ("workers", "Processes that serve.", len(workers)),
        ("connections", "Open HTTP connections.", sum(g.connections for g in workers.values())),
        ("log_waiting_answers", "Answers that are not yet in the log.", sum(g.log_waiting for g in workers.values())),
    ):
        page.family(name, "gauge", text)
        page.sample(name, {}, value)
    for name, kind, text, of in (
        ("process_cpu_seconds_total", "counter", "User and system CPU time.", "cpu_s"),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", "resident_bytes"),
        ("process_open_fds", "gauge", "Open file descriptors.", "open_files"),
        ("process_threads", "gauge", "Threads.", "threads"),
    ):
        page.family(name, kind, text, prefix="")
        for worker, gauges in workers.items():
            page.sample(name, {"worker": worker}, getattr(gauges, of), prefix="")


def _least_generation(workers: Mapping[str, Gauges]) -> int:
    return min((gauges.generation for gauges in workers.values()), default=0)


def _tell_views(page: _Page, views: Mapping[str, ViewFreshness]) -> None:
    page.family("feature_rows_total", "counter", "Entities looked up, by what was found: fresh, missing, stale, early.")
    for view, found in views.items():
        fresh = found.rows - found.missing - found.stale - found.early
        for outcome in ("fresh", "missing", "stale", "early"):
            value = fresh if outcome == "fresh" else getattr(found, outcome)
            page.sample("feature_rows_total", {"view": view, "found": outcome}, value)
    page.family("feature_age_seconds", "histogram", "Age of the feature values that were used.")
    for view, found in views.items():
        ages = _Histogram(AGE_BOUNDS_S)
        ages.counts, ages.total = list(found.age_counts), found.age_sum_s
        page.histogram("feature_age_seconds", {"view": view}, ages)


class _Page:
    """Lines of the text format."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def family(self, name: str, kind: str, text: str, prefix: str = "flyball_") -> None:
        self._lines.append(f"# HELP {prefix}{name} {text}\n# TYPE {prefix}{name} {kind}")

    def sample(self, name: str, labels: Mapping[str, Any], value: float, prefix: str = "flyball_") -> None:
        inner = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
        self._lines.append(f"{prefix}{name}{{{inner}}} {value!r}" if inner else f"{prefix}{name} {value!r}")

    def counts(self, name: str, text: str, labels: Sequence[str], counts: Mapping[Any, int]) -> None:
        self.family(name, "counter", text)
        for key, value in counts.items():
            self.sample(name, dict(zip(labels, key, strict=True)), value)

    def histogram(self, name: str, labels: Mapping[str, Any], data: _Histogram) -> None:
        running = 0
        for bound, count in zip((*data.bounds, "+Inf"), data.counts, strict=True):
            running += count
            le = bound if isinstance(bound, str) else f"{bound:g}"
            self.sample(f"{name}_bucket", {**labels, "le": le}, running)
        self.sample(f"{name}_sum", labels, data.total)
        self.sample(f"{name}_count", labels, running)


def _added(left: Mapping[str, ViewFreshness], right: Mapping[str, ViewFreshness]) -> dict[str, ViewFreshness]:
    """Return the sums of views' counts; a copy, because they are counted on other threads too."""
    found: dict[str, ViewFreshness] = {}
    for views in (left, right):
        for view, counts in views.items():
            before = found.get(view, ViewFreshness())
            found[view] = ViewFreshness(
                before.rows + counts.rows,
                before.missing + counts.missing,
                before.stale + counts.stale,
                before.early + counts.early,
                _sums(before.age_counts, counts.age_counts),
                before.age_sum_s + counts.age_sum_s,
            )
    return found


def _parts(key: str | tuple[Any, ...]) -> tuple[Any, ...]:
    return (key,) if isinstance(key, str) else key


def _sums(left: Iterable[int], right: Iterable[int]) -> list[int]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
