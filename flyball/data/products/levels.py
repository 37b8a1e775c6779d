"""Service levels, measured: from the versions of a product's outputs and the reports of their contracts.

    freshness      how long ago the newest version was published
    latency        longest time from the newest event in a version to its publication, of the versions within
    completeness   rows that were published ÷ rows that came, of the batches within that a contract checked
    availability   share of the time within in which the newest version was no older than `every`
    row_count      rows of the newest version

What cannot be known is *not measured*, with the reason; it is never counted as kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flyball.clock import parse_duration
from flyball.data.kinds import DataProduct, Measure, ServiceLevel
from flyball.ledger.refs import ref as parse_ref
from flyball.ledger.versions import Version

__all__ = ["Batches", "Level", "NewestEvent", "measure"]

NewestEvent = Callable[[Version], datetime | None]
"""Returns the time of the newest event in a version, None where its dataset does not say which column that is."""


@dataclass(frozen=True)
class Batches:
    """What is known of an output: its versions and what was kept aside, newest first."""

    versions: tuple[Version, ...]
    quarantined: tuple[Version, ...] = ()


@dataclass(frozen=True)
class Level:
    """One promise about one port and how it stands. `holds` is None when it was not measured; `why` says why not.

    `value` is in `unit`: seconds, a share in [0, 1], or rows.
    """

    measure: Measure
    port: str
    target: str
    unit: str
    value: float | None
    holds: bool | None
    why: str
    measured_from: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The state in words."""
        return "not measured" if self.holds is None else "kept" if self.holds else "broken"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        return {**self.__dict__, "state": self.state, "measured_from": list(self.measured_from)}


def measure(spec: DataProduct, by_dataset: dict[str, Batches], newest_event: NewestEvent, now: datetime) -> list[Level]:
    """Return every promise of a product for every port that it is about.

    Args:
        by_dataset: what is known of each output's dataset, by the dataset's name.
    """
    found = []
    for level in spec.levels:
        for port in spec.outputs:
            if level.port not in (None, port.name):
                continue
            title = f"{port.name} {port.version}".strip()
            if port.dataset is None:
                found.append(_unknown(level, title, "the port names no dataset of this home"))
                continue
            batches = by_dataset[parse_ref(port.dataset, "dataset").name]
            found.append(_MEASURES[level.measure](level, title, batches, newest_event, now))
    return found


def _freshness(level: ServiceLevel, port: str, batches: Batches, _event: NewestEvent, now: datetime) -> Level:
    if not batches.versions:
        return _unknown(level, port, "there is no version yet")
    newest = batches.versions[0]
    age = (now - newest.created_at).total_seconds()
    return _known(
        level, port, age, f"{newest.ref.short} was published {newest.created_at:%Y-%m-%d %H:%M} UTC", [newest]
    )


def _latency(level: ServiceLevel, port: str, batches: Batches, event: NewestEvent, now: datetime) -> Level:
    start = now - parse_duration(level.within)
    times = [(v, event(v)) for v in batches.versions if v.created_at >= start]
    known = [(v, (v.created_at - at).total_seconds()) for v, at in times if at is not None]
    if not known:
        reason = "its dataset names no event_time" if times else f"no version was published within {level.within}"
        return _unknown(level, port, reason)
    worst, longest = max(known, key=lambda pair: pair[1])
    return _known(level, port, longest, f"{worst.ref.short} took longest of {len(known)}", [v for v, _ in known])


def _completeness(level: ServiceLevel, port: str, batches: Batches, _event: NewestEvent, now: datetime) -> Level:
    start = now - parse_duration(level.within)
    came = kept = 0
    measured: list[Version] = []
    split_off = {v.metadata.get("quarantined", {}).get("version") for v in batches.versions}
    for version in batches.versions:
        report = version.metadata.get("contract")
        if version.created_at >= start and report:
            came += report["rows"]
            kept += report["rows"] - report["rows_failed"]
            measured.append(version)
    for aside in batches.quarantined:
        report = aside.metadata.get("contract")
        # What was split off a version is counted with that version; here only batches that were refused whole.
        if aside.created_at >= start and report and str(aside.ref) not in split_off:
            came += report["rows"]
            measured.append(aside)
    if not came:
        return _unknown(level, port, f"no batch was checked by a contract within {level.within}")
    return _known(level, port, kept / came, f"{kept:,} of {came:,} rows passed, {len(measured)} batches", measured)


def _availability(level: ServiceLevel, port: str, batches: Batches, _event: NewestEvent, now: datetime) -> Level:
    if not batches.versions:
        return _unknown(level, port, "there is no version yet")
    every = parse_duration(level.every or 0)
    first = batches.versions[-1].created_at
    start = max(now - parse_duration(level.within), first)  # a product is not late before its first version
    if start >= now:
        return _unknown(level, port, "the first version was published this moment")
    covered = timedelta(0)
    until = now
    used = []
    for version in batches.versions:  # newest first: each holds until the next, or until it is too old
        begin, end = max(version.created_at, start), min(version.created_at + every, until)
        covered += max(end - begin, timedelta(0))
        used.append(version)
        until = min(until, version.created_at)
        if until <= start:
            break
    share = covered / (now - start)
    return _known(level, port, share, f"{covered} of {now - start} had a version no older than {level.every}", used)


def _row_count(level: ServiceLevel, port: str, batches: Batches, _event: NewestEvent, _now: datetime) -> Level:
    if not batches.versions:
        return _unknown(level, port, "there is no version yet")
    newest = batches.versions[0]
    rows = newest.metadata.get("rows")
    if rows is None:
        return _unknown(level, port, f"{newest.ref.short} does not say how many rows it has")
    return _known(level, port, float(rows), f"{newest.ref.short} has {rows:,} rows", [newest])


_MEASURES = {
    "freshness": _freshness,
    "latency": _latency,
    "completeness": _completeness,
    "availability": _availability,
    "row_count": _row_count,
}
_UNITS = {"freshness": "s", "latency": "s", "completeness": "share", "availability": "share", "row_count": "rows"}


def _known(level: ServiceLevel, port: str, value: float, why: str, versions: list[Version]) -> Level:
    most = level.at_most
    limit = parse_duration(most).total_seconds() if isinstance(most, str) else most
    holds = (limit is None or value <= limit) and (level.at_least is None or value >= level.at_least)
    refs = tuple(str(v.ref) for v in versions[:50])
    return Level(level.measure, port, _target(level), _UNITS[level.measure], value, holds, why, refs)


def _unknown(level: ServiceLevel, port: str, why: str) -> Level:
    return Level(level.measure, port, _target(level), _UNITS[level.measure], None, None, why)


def _target(level: ServiceLevel) -> str:
    bounds = [f"at least {level.at_least:g}"] if level.at_least is not None else []
    most = level.at_most
    bounds += [f"at most {most if isinstance(most, str) else format(most, 'g')}"] if most is not None else []
    return " and ".join(bounds)
