"""What the data plane tells the control plane: `status.json`.

The deployment controller learns from `status.json` that its snapshot is applied, or why a deployment was refused; it
asks nothing over the network, so neither waits for the other. Several workers write a document each, and
whoever started them writes the one that is read: what holds of all of them (`joined`).
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import orjson

from flyball.errors import Corrupt, NotFound

__all__ = ["DataPlaneStatus", "DeploymentStatus", "joined", "read_status"]


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
    grpc_address: str = ""  # 127.0.0.1:7072; empty when gRPC is turned off
    workers: Mapping[str, int] = field(default_factory=dict)  # place → process, where there are several

    def write(self, path: Path) -> None:
        """Replace the document; readers never see half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
        try:
            partial.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
            partial.replace(path)
        except BaseException:  # a full disk must not be filled with drafts as well, one every two seconds
            partial.unlink(missing_ok=True)
            raise


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


def joined(
    workers: Mapping[str, DataPlaneStatus], whole: DataPlaneStatus, gone: Sequence[DataPlaneStatus] = ()
) -> DataPlaneStatus:
    """Return what holds of all workers: a snapshot is taken up when all have, a deployment served when all do.

    Args:
        workers: those that serve now, by the name of their place; at least one.
        whole: who started them, with its process and the addresses.
        gone: what workers told last that serve no more; what they counted stays counted.
    """
    deployments = {}
    for name in sorted({name for status in workers.values() for name in status.deployments}):
        told = [status.deployments.get(name) for status in workers.values()]
        known = [one for one in told if one is not None]
        before = [status.deployments[name] for status in gone if name in status.deployments]
        deployments[name] = _joined(known, before, None in told)
    counters: defaultdict[str, float] = defaultdict(float)
    for status in (*workers.values(), *gone):
        for key, value in status.counters.items():
            counters[key] += value
    return replace(
        whole,
        time=max(status.time for status in workers.values()),
        generation=min(status.generation for status in workers.values()),
        deployments=deployments,
        error=next((status.error for status in workers.values() if status.error), None),
        counters=dict(counters),
        workers={place: status.pid for place, status in workers.items()},
    )


def _joined(told: list[DeploymentStatus], gone: list[DeploymentStatus], is_missing: bool) -> DeploymentStatus:
    """Return the one that lags most, with the errors and failures of all."""
    served = [one.revision for one in told if one.revision is not None]
    is_whole = len(served) == len(told) and not is_missing
    least = min(told, key=lambda one: -1 if one.revision is None else one.revision)
    failures: defaultdict[str, int] = defaultdict(int)
    for one in (*told, *gone):
        for variant, count in one.failures.items():
            failures[variant] += count
    refused = next((one for one in told if one.error is not None), least)
    return DeploymentStatus(
        least.revision if is_whole else None,
        least.variants if is_whole else {},
        max(one.wanted for one in told),
        refused.error,
        refused.refused,
        dict(failures),
    )
