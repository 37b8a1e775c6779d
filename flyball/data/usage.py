"""Who uses data: runs and models as lineage has it, people as their reads were told here.

A read must not wait for this nor fail because of it. `record` counts in memory: the first read of a version by
somebody in a minute goes to an append-only log at once, the same again within the minute are told by one row
afterwards; so a program that reads a million times writes a row a minute, and a crash loses at most such repeats.
Rows older than a day are rolled up into one file a day (who, what, what for: how often, first and last) and files
older than `keep` are removed, so the size follows people and days, never reads.

Folder: `<process>.seg` segments of the log, named by the day they were begun; `rolled/<day>.json`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from flyball.clock import SYSTEM, Clock, format_instant, parse_instant
from flyball.errors import Corrupt, NotFound
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.refs import ref as parse_ref
from flyball.storage.streams.log import Log, Reader

__all__ = ["Usage", "UsageSettings", "Use"]

_logger = logging.getLogger(__name__)
_MOST_COLUMNS = 100
_MOST_WAITING = 10_000  # reads of different keys within a minute; more than this are told without waiting
_NEWEST_VERSIONS = 200  # of a dataset, whose lineage is looked at when no version is named
_HOW = "read"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class UsageSettings:
    """`[usage]` in flyball.toml, `FLYBALL_USAGE_…` in the environment."""

    repeat_s: float = 60.0  # how long the same reads by the same actor are counted before they are told as one row
    keep_days: int = 400  # how long it is known who read what; a year and a month shows every yearly job


@dataclass(frozen=True)
class Use:
    """Somebody's use of something. `how` is the role of a lineage edge, or `read`, with its purpose if one was given.

    `times` count reads; of lineage it is the number of edges. Instants are in UTC.
    """

    who: str
    how: str
    times: int
    first: datetime
    last: datetime
    of: str
    columns: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        instants = {"first": format_instant(self.first), "last": format_instant(self.last)}
        return {**self.__dict__, **instants, "columns": list(self.columns)}


_Key = tuple[str, str, str]  # actor, reference, purpose


class Usage:
    """The log of reads of a home; any thread of any process may tell it."""

    def __init__(self, folder: Path, settings: UsageSettings | None = None, clock: Clock = SYSTEM) -> None:
        self.folder = folder
        self._settings = settings or UsageSettings()
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[_Key, tuple[float, Use | None]] = {}  # until when, and what was counted since
        self._log: Log | None = None
        self._day = ""
        self._process = os.getpid()
        self._is_silent = False
        self._next_sweep = 0.0

    def record(self, actor: str, ref: Ref | str, purpose: str = "", columns: Iterable[str] = ()) -> None:
        """Note that `actor` read a version; returns at once, never raises.

        Args:
            actor: as the journal names them: `user/alice`.
            ref: what was read, with its number: `dataset/flights@12`.
            purpose: what for, if it was said.
            columns: which of its columns; none: all.
        """
        try:
            self._record(actor, str(ref), purpose, columns)
        except Exception:
            # A read that works while its note cannot be written is better than no read; once is enough to know.
            if not self._is_silent:
                self._is_silent = True
                _logger.warning("reads are not being noted in %s", self.folder, exc_info=True)

    def of(self, ref: Ref, ledger: Ledger) -> list[Use]:
        """Return who uses a version, or any version where none is named: most recent first.

        Runs and models come from the ledger's lineage, people and programs from what was recorded.
        """
        self.flush()
        return sorted([*self._reads(ref), *_lineage(ref, ledger)], key=lambda u: (u.last, u.who), reverse=True)

    def flush(self) -> None:
        """Tell what is counted so far; raises nothing."""
        with self._lock, contextlib.suppress(Exception):
            self._tell(list(self._waiting))

    def close(self) -> None:
        """Tell what is counted and close the log."""
        self.flush()
        with self._lock:
            if self._log is not None and self._process == os.getpid():
                self._log.close()
            self._log = None

    def roll_up(self) -> int:
        """Put the rows of days before yesterday into a file a day, drop days that are too old; return how many rows.

        Any process may call this, at any time; one does it at a time, and a crash in between loses and doubles
        nothing.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "roll-up.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            today = self._clock.now().date()
            rolled = self.folder / "rolled"
            rolled.mkdir(exist_ok=True)
            yesterday = f"{today - timedelta(days=1):%Y%m%d}"  # a group begun before midnight may end after it
            finished = sorted(p.name for p in self._segments() if _day_of(p.name) < yesterday)
            gone = self._rolled_segments()
            rows = 0
            for day in sorted({_day_of(name) for name in finished}):
                names = [name for name in finished if _day_of(name) == day]
                fresh = [name for name in names if name not in gone]
                if fresh:
                    path = rolled / f"{day}.json"
                    before = _read_file(path)
                    found = _summed([*(_use(u) for u in before.get("uses", [])), *self._rows(fresh)])
                    rows += len(found)
                    kept = {"segments": [*before.get("segments", []), *fresh], "uses": [u.to_dict() for u in found]}
                    _write_file(path, kept)
                for name in names:
                    (self.folder / name).unlink(missing_ok=True)
            oldest = f"{today - timedelta(days=self._settings.keep_days):%Y%m%d}"
            for path in rolled.glob("*.json"):
                if path.stem < oldest:
                    path.unlink(missing_ok=True)
            return rows

    def _record(self, actor: str, ref: str, purpose: str, columns: Iterable[str]) -> None:
        now, at = self._clock.monotonic(), self._clock.now()
        key = (actor, ref, purpose)
        with self._lock:
            if self._process != os.getpid():  # the parent tells what was counted before the fork
                self._process, self._log, self._waiting = os.getpid(), None, {}
            found = self._waiting.get(key)
            if found is not None and now < found[0]:
                until, use = found
                if use is None:
                    counted = _new(key, at, columns)
                else:
                    more = use.columns if use.columns == tuple(columns) else _columns((*use.columns, *columns))
                    counted = replace(use, times=use.times + 1, last=at, columns=more)
                self._waiting[key] = (until, counted)
                return
            due = [k for k, (until, _) in self._waiting.items() if until <= now] if self._is_due(now) else [key]
            self._tell([k for k in due if k in self._waiting])
            self._append([_new(key, at, columns)])
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[key] = (now + self._settings.repeat_s, None)

    def _is_due(self, now: float) -> bool:
        """Whether to look through all that waits, which is done once in the time that reads are counted for."""
        if now < self._next_sweep:
            return False
        self._next_sweep = now + self._settings.repeat_s
        return True

    def _tell(self, keys: list[_Key]) -> None:
        uses = [use for key in keys if (use := self._waiting.pop(key)[1]) is not None]
        if uses:
            self._append(uses)

    def _append(self, uses: list[Use]) -> None:
        day = f"{self._clock.now():%Y%m%d}"
        if self._log is None or day != self._day:
            # A new segment every day, so that those of days gone by are finished and can be rolled up.
            if self._log is not None:
                self._log.close()
            self._log, self._day = Log(self.folder, f"d{day}_{os.getpid()}", durability="os"), day
        rows = [[u.who, u.of, u.how, u.times, _us(u.first), _us(u.last), u.columns] for u in uses]
        self._log.append([orjson.dumps(row) for row in rows])

    def _reads(self, ref: Ref) -> list[Use]:
        self._settle()
        wanted = str(ref)
        rolled = self._rolled_segments()
        uses = [u for u in self._rolled_uses() if _is_of(u.of, wanted)]
        fresh = [p.name for p in self._segments() if p.name not in rolled]
        return _summed([*uses, *(u for u in self._rows(fresh) if _is_of(u.of, wanted))])

    def _settle(self) -> None:
        """Wait until what this process appended can be read."""
        with self._lock:
            if self._log is not None and self._process == os.getpid():
                with contextlib.suppress(Exception):
                    self._log.append([]).wait(5)

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("d*.seg"))

    def _rows(self, names: list[str]) -> Iterator[Use]:
        """Yield the rows of some segments; what cannot be read back is left out, the rest is told."""
        reader = Reader(self.folder, on_damage=lambda damage: _logger.warning("usage lost: %s", damage))
        others = {p.name: p.stat().st_size for p in self._segments() if p.name not in names}
        cursor = dict(others)
        for _ in range(1_000_000):
            payloads, cursor = reader.read(cursor)
            cursor |= others
            if not payloads:
                return
            for payload in payloads:
                who, of, how, times, first, last, columns = orjson.loads(payload)
                yield Use(who, how, times, _instant(first), _instant(last), of, tuple(columns))

    def _rolled_segments(self) -> set[str]:
        """Return the segments that are in a day's file already, though they are still there: a crash came between."""
        days = {_day_of(p.name) for p in self._segments()}
        files = [_read_file(self.folder / "rolled" / f"{day}.json") for day in days]
        return {name for file in files for name in file.get("segments", [])}

    def _rolled_uses(self) -> Iterator[Use]:
        for path in sorted((self.folder / "rolled").glob("*.json")):
            yield from (_use(u) for u in _read_file(path).get("uses", []))


def _new(key: _Key, at: datetime, columns: Iterable[str]) -> Use:
    actor, ref, purpose = key
    return Use(actor, f"{_HOW} for {purpose}" if purpose else _HOW, 1, at, at, ref, _columns(columns))


def _columns(columns: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(columns))[:_MOST_COLUMNS]


def _summed(uses: Iterable[Use]) -> list[Use]:
    """Join the uses of one thing in one way by one actor."""
    found: dict[tuple[str, str, str], Use] = {}
    for use in uses:
        key = (use.who, use.of, use.how)
        before = found.get(key)
        if before is None:
            found[key] = use
        else:
            found[key] = replace(
                before,
                times=before.times + use.times,
                first=min(before.first, use.first),
                last=max(before.last, use.last),
                columns=_columns((*before.columns, *use.columns)),
            )
    return list(found.values())


def _lineage(ref: Ref, ledger: Ledger) -> list[Use]:
    """Return what was made of it directly, and what the runs that used it made."""
    uses: list[Use] = []
    with ledger.read() as world:
        sources = [ref]
        if ref.version is None:
            sources += [v.ref for v in world.versions.all(ref.kind, ref.name, _NEWEST_VERSIONS)]
        for source in sources:
            edges = world.lineage.walk(source, "downstream", depth=2).edges
            direct = {e.target: e.role for e in edges if e.source == str(source)}
            made = {e.target: e.role for e in edges if e.source in direct and e.source.startswith("run/")}
            for target, role in {**made, **direct}.items():
                at = _when(target, world)
                uses.append(Use(target, role, 1, at, at, str(source)))
    return _summed(uses)


def _when(target: str, world: Transaction) -> datetime:
    """Return when a node of the lineage came to be."""
    found = parse_ref(target)
    with contextlib.suppress(NotFound):
        if found.kind == "run":
            return world.runs.get(found.name).started_at
        if found.version is not None:
            return world.versions.get(found.kind, found.name, found.version).created_at
        return world.resources.get(found.kind, found.name).created_at or _BEGINNING
    return _BEGINNING  # deleted since: that it was used is still true


def _is_of(used: str, wanted: str) -> bool:
    return used == wanted or ("@" not in wanted and used.startswith(f"{wanted}@"))


def _day_of(segment: str) -> str:
    return segment[1:9]


def _us(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000)


def _instant(microseconds: int) -> datetime:
    return _BEGINNING + timedelta(microseconds=microseconds)


def _use(kept: Mapping[str, Any]) -> Use:
    instants = {"first": parse_instant(kept["first"]), "last": parse_instant(kept["last"])}
    return Use(**{**kept, **instants, "columns": tuple(kept["columns"])})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
        return dict(found)
    except FileNotFoundError:
        return {}
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise Corrupt(f"{path} cannot be read: {error}; restore it from a backup, or remove it") from error


def _write_file(path: Path, kept: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as stream:
        stream.write(orjson.dumps(kept))
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
