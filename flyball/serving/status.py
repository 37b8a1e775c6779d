"""What the data plane tells: counters for Prometheus, and `status.json` for the control plane.

The deployment controller learns from `status.json` that its snapshot is applied, or why a deployment was refused; it
asks nothing over the network, so neither waits for the other.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from flyball.errors import Corrupt, NotFound
from flyball.features.freshness import AGE_BOUNDS_S, ViewFreshness

__all__ = ["Counters", "DataPlaneStatus", "DeploymentStatus", "read_status"]

_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class DeploymentStatus:
    """What is really served under one name: after a refusal, still the variants of before."""

    revision: int | None  # that is served; None when nothing is
    variants: Mapping[str, str]  # variant's name → version
    wanted: int  # the revision in the newest snapshot
    error: str | None = None  # why the wanted revision is not served
    refused: str | None = None  # the variant whose bundle would not load, where it was one
    failures: Mapping[str, int] = field(default_factory=dict)  # variant's name → requests on which its model failed


@dataclass(frozen=True)
class DataPlaneStatus:
    """The document; times are RFC 3339."""

    pid: int = 0
    address: str = ""  # http://127.0.0.1:7071
    started_at: str = ""
    time: str = ""
    generation: int = 0  # of the newest snapshot that was taken up, whatever became of its deployments; 0: none yet
    deployments: Mapping[str, DeploymentStatus] = field(default_factory=dict)
    error: str | None = None  # why the newest snapshot could not be read at all
    counters: Mapping[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Replace the document; readers never see half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
        partial.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        partial.replace(path)


def read_status(path: Path) -> DataPlaneStatus:
    """Read the document.

    Raises:
        NotFound: no data plane has run in this home.
        Corrupt: it is not what `DataPlaneStatus.write` writes.
    """
    try:
        document = orjson.loads(path.read_bytes())
        served = {name: DeploymentStatus(**value) for name, value in document.pop("deployments").items()}
        return DataPlaneStatus(**document, deployments=served)
    except FileNotFoundError:
        raise NotFound(f"there is no status of a data plane at {path}; start it with `flyball up`") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{path} is not a data plane's status ({error}); restart the data plane") from error


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class _Ages(_Histogram):
    """A view's ages as a histogram; a copy, because they are counted on other threads too."""

    def __init__(self, found: ViewFreshness) -> None:
        super().__init__(AGE_BOUNDS_S)
        self.counts, self.total = list(found.age_counts), found.age_sum_s


class Counters:
    """Counts since the start; written on the event loop only."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)  # deployment, variant, version
        self.rows: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.failures: defaultdict[tuple[str, str, str], int] = defaultdict(int)  # deployment, variant, version
        self.errors: defaultdict[tuple[str, int], int] = defaultdict(int)  # deployment, status
        self.latency: defaultdict[tuple[str, str], _Histogram] = defaultdict(lambda: _Histogram(_BOUNDS_S))
        self.batches: defaultdict[str, _Histogram] = defaultdict(lambda: _Histogram(_BATCH_BOUNDS))  # version
        self.labels = 0
        self.log_refusals = 0  # requests answered with 503 because their rows could not be logged
        self.mirrors_skipped = 0

    def answered(self, deployment: str, variant: str, version: str, rows: int, seconds: float) -> None:
        """Count one request's part that one variant answered."""
        key = (deployment, variant, version)
        self.requests[key] += 1
        self.rows[key] += rows
        self.latency[deployment, variant].observe(seconds)

    def summary(self) -> dict[str, float]:
        """Return the few sums that `status.json` carries."""
        return {
            "requests": sum(self.requests.values()),
            "rows": sum(self.rows.values()),
            "errors": sum(self.errors.values()),
            "labels": self.labels,
            "log_refusals": self.log_refusals,
        }

    def prometheus(
        self, waiting: Mapping[tuple[str, str], int], generation: int, views: Mapping[str, ViewFreshness]
    ) -> str:
        """Return everything in the Prometheus text format 0.0.4.

        Args:
            waiting: rows by (deployment, version).
            views: how fresh the values are that were looked up, by view.
        """
        lines: list[str] = []

        def family(name: str, kind: str, text: str) -> None:
            lines.append(f"# HELP flyball_{name} {text}\n# TYPE flyball_{name} {kind}")

        def sample(name: str, labels: Mapping[str, Any], value: float) -> None:
            inner = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
            lines.append(f"flyball_{name}{{{inner}}} {value!r}" if inner else f"flyball_{name} {value!r}")

        def histogram(name: str, labels: Mapping[str, Any], data: _Histogram) -> None:
            running = 0
            for bound, count in zip((*data.bounds, "+Inf"), data.counts, strict=True):
                running += count
                le = bound if isinstance(bound, str) else f"{bound:g}"
                sample(f"{name}_bucket", {**labels, "le": le}, running)
            sample(f"{name}_sum", labels, data.total)
            sample(f"{name}_count", labels, running)

        family("requests_total", "counter", "Prediction requests answered.")
        names = ("deployment", "variant", "version")
        for key, value in self.requests.items():
            sample("requests_total", dict(zip(names, key, strict=True)), value)
        family("model_failures_total", "counter", "Prediction requests on which the model failed.")
        for key, value in self.failures.items():
            sample("model_failures_total", dict(zip(names, key, strict=True)), value)
        family("rows_total", "counter", "Rows predicted.")
        for key, value in self.rows.items():
            sample("rows_total", dict(zip(names, key, strict=True)), value)
        family("request_errors_total", "counter", "Prediction requests refused or failed, by HTTP status.")
        for (deployment, status), value in self.errors.items():
            sample("request_errors_total", {"deployment": deployment, "status": status}, value)
        family("request_seconds", "histogram", "From a request's last byte to its answer.")
        for (deployment, variant), data in self.latency.items():
            histogram("request_seconds", {"deployment": deployment, "variant": variant}, data)
        family("batch_rows", "histogram", "Rows in one call of a model.")
        for version, data in self.batches.items():
            histogram("batch_rows", {"version": version}, data)
        family("queue_rows", "gauge", "Rows waiting for a model or in it.")
        for (deployment, version), rows in waiting.items():
            sample("queue_rows", {"deployment": deployment, "version": version}, rows)
        family("feature_rows_total", "counter", "Entities looked up, by what was found: fresh, missing, stale, early.")
        for view, found in views.items():
            fresh = found.rows - found.missing - found.stale - found.early
            for outcome in ("fresh", "missing", "stale", "early"):
                value = fresh if outcome == "fresh" else getattr(found, outcome)
                sample("feature_rows_total", {"view": view, "found": outcome}, value)
        family("feature_age_seconds", "histogram", "Age of the feature values that were used.")
        for view, found in views.items():
            histogram("feature_age_seconds", {"view": view}, _Ages(found))
        for name, value, text in (
            ("labels_total", self.labels, "Labels taken."),
            ("log_refusals_total", self.log_refusals, "Requests refused because their rows could not be logged."),
            ("mirrors_skipped_total", self.mirrors_skipped, "Requests that a busy mirror did not get."),
        ):
            family(name, "counter", text)
            sample(name, {}, value)
        family("snapshot_generation", "gauge", "Generation of the snapshot that is served.")
        sample("snapshot_generation", {}, generation)
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
