"""What several pages ask of a home that is more than one question to the platform: its data plane, who watches what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from flyball.clock import parse_instant
from flyball.control.lease import is_alive
from flyball.errors import Corrupt, FlyballError, NotFound
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform import Platform
from flyball.serving.status import DataPlaneStatus, read_status

__all__ = ["DataPlane", "data_plane", "instant", "monitor_of", "serving_versions", "start_of_day"]


@dataclass(frozen=True)
class DataPlane:
    """What the data plane last said of itself, and whether its process lives."""

    is_alive: bool
    address: str
    status: DataPlaneStatus


def data_plane(platform: Platform) -> DataPlane | None:
    """Return the data plane's state, None when none has ever run in this home."""
    try:
        status = read_status(platform.home / "serving" / "status.json")
    except NotFound:
        return None
    except Corrupt as error:
        return DataPlane(False, "", DataPlaneStatus(error=str(error)))
    return DataPlane(bool(status.pid) and bool(status.address) and is_alive(status.pid), status.address, status)


def monitor_of(deployment: str, monitors: list[Resource]) -> Resource | None:
    """Return the first monitor that watches a deployment."""
    return next((m for m in monitors if ref(str(m.spec["of"]), "deployment").name == deployment), None)


def serving_versions(deployment: Resource) -> dict[str, str]:
    """Return the version that each variant of a deployment serves: `{"champion": "late@1"}`."""
    return {v["name"]: v["version"] for v in deployment.status.get("serving", {}).get("variants", [])}


def instant(text: str | None) -> datetime | None:
    """Return a status's RFC 3339 time, None when there is none."""
    try:
        return parse_instant(text) if text else None
    except FlyballError:
        return None


def start_of_day(platform: Platform) -> datetime:
    """Return today's midnight where this process runs."""
    now = platform.clock.now().astimezone()
    return now - timedelta(hours=now.hour, minutes=now.minute, seconds=now.second, microseconds=now.microsecond)


def model_ref(short: str) -> Ref:
    """Return `late@2` as the reference of a model's version."""
    return ref(short, "model")
