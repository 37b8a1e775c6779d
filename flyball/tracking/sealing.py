"""Sealing: what was appended to the prediction log goes into its tables, bit by bit, in bounded memory.

A round reads what is new behind the cursor that the catalogue keeps, adds it to the tables, merges small files of a day
into larger ones, and removes segments that are sealed whole and that nobody writes to any more. A crash at any point
loses and doubles nothing: rows and cursor change in one transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from flyball.errors import FlyballError, InvalidInput
from flyball.storage.streams import Cursor, is_same
from flyball.storage.streams.log import Damage
from flyball.tracking.sealed import REWRITTEN, Part, Sealed, Stream, alone, last_erasure
from flyball.tracking.sinks import MARKS
from flyball.tracking.traffic import TrafficReader

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Sealer", "SealingSettings", "Sealings"]

_READ_BYTES = 32 << 20
_FEW = 8  # files of one day and about one size that are merged into one
_LARGEST_ROWS = 4_000_000  # files of so many rows are left as they are
_TOGETHER_ROWS = 10_000  # rows of small files that are merged in one transaction
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SealingSettings:
    """`[traffic]` in flyball.toml, `FLYBALL_TRAFFIC_…` in the environment."""

    seal_every_s: float = 60.0  # how often new rows go into the tables; 0: never by itself
    keep_segments_s: float = 3600.0  # how long a segment stays after its rows are in the tables
    sink: str = ""  # where every row is sent, such as kafka://host:9092/topic; empty: nowhere
    sink_client: str = ""  # settings of its client: name=value, a space apart; ${NAME} is of the environment
    sink_every_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("seal_every_s", "keep_segments_s", "sink_every_s"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"[traffic] {name} is {getattr(self, name)}; expected seconds from 0")


@dataclass(frozen=True)
class Sealings:
    """What a round did: rows and labels sealed, files merged away, segments removed."""

    predictions: int = 0
    labels: int = 0
    merged: int = 0
    segments: int = 0


class Sealer:
    """Seals the prediction log in `folder`."""

    def __init__(self, folder: Path, settings: SealingSettings | None = None) -> None:
        self._folder = folder
        self._settings = settings or SealingSettings()
        self._tables = Sealed(folder)
        self._reader = TrafficReader(folder, _note)

    def seal(self) -> Sealings:
        """Do one round; nothing, when another process is at it.

        Raises:
            OSError: the disk is full or failed; what is sealed stays, the rest is sealed another time.
        """
        if not any((self._folder / stream).is_dir() for stream in ("predictions", "labels")):
            return Sealings()
        with alone(self._folder, is_waiting=False) as is_held:
            if not is_held:
                return Sealings()
            self._tables.mend()
            predictions, labels = self._predictions(), self._labels()
            self._tables.forget_segments()
            merged = self._merge("predictions") + self._merge("labels")
            return Sealings(predictions, labels, merged, self._tidy("predictions") + self._tidy("labels"))

    def run(self, stop: threading.Event) -> None:
        """Do rounds until told to stop; a failure is logged and the round tried again in its turn."""
        if not self._settings.seal_every_s:
            return
        while not stop.wait(self._settings.seal_every_s):
            try:
                self.seal()
            except (OSError, FlyballError) as error:
                _logger.warning("the prediction log could not be sealed now: %s", error)
            except Exception:
                _logger.exception("the prediction log could not be sealed now")

    def _predictions(self) -> int:
        total, cursor = 0, self._tables.cursor("predictions")
        while True:
            frames, after = self._reader.read_deployments(cursor, limit_bytes=_READ_BYTES)
            if is_same(cursor, after):
                return total
            self._tables.put("predictions", frames.items(), cursor=after)
            total += sum(rows.height for rows in frames.values())
            cursor = {**cursor, **after}

    def _labels(self) -> int:
        total, cursor = 0, self._tables.cursor("labels")
        while True:
            rows, after = self._reader.read_labels(cursor, _READ_BYTES)
            if is_same(cursor, after):
                return total
            self._tables.put("labels", [("", rows)], cursor=after)
            total += rows.height
            cursor = {**cursor, **after}

    def _merge(self, stream: Stream) -> int:
        """Join the small files of each day; return how many went."""
        by_day: dict[tuple[str, str], list[Part]] = defaultdict(list)
        for part in self._tables.parts(stream):
            by_day[part.deployment, part.day].append(part)
        merged = 0
        frames: list[tuple[str, pl.DataFrame]] = []
        gone: list[Part] = []
        for (deployment, _), parts in by_day.items():
            for chosen in _mergeable(parts):
                rows = self._tables.read(lambda chosen=chosen: chosen, lambda found: found)  # type: ignore[misc]
                if rows is None or any(map(self._tables.is_damaged, chosen)):
                    continue
                frames.append((deployment, rows))
                gone += chosen
                # Of very many deployments several go together: a transaction costs more than to join small files.
                if sum(each.height for _, each in frames) >= _TOGETHER_ROWS:
                    merged += self._put_instead(stream, frames, gone)
                    frames, gone = [], []
        return merged + self._put_instead(stream, frames, gone)

    def _put_instead(self, stream: Stream, frames: list[tuple[str, pl.DataFrame]], gone: list[Part]) -> int:
        if gone:
            self._tables.put(stream, frames, instead=gone)
        return len(gone)

    def _tidy(self, stream: Stream) -> int:
        """Remove segments that are sealed whole, of which the writer is gone or has begun another."""
        removed, cursor = 0, self._tables.cursor(stream)
        marks = _marks(self._folder) if stream == "predictions" else []
        for segment in sorted((self._folder / stream).glob("*.seg")):
            with contextlib.suppress(FileNotFoundError):
                found = segment.stat()
                is_old = time.time() - found.st_mtime >= self._settings.keep_segments_s
                if not is_old or not _is_finished(segment):
                    continue
                # A writer that was killed leaves half a frame, or only the header, which nobody was promised.
                end = self._reader.end_of(stream, segment.name, cursor.get(segment.name, 0))
                if all(end <= read.get(segment.name, 0) for read in (cursor, *marks)):
                    segment.unlink()
                    removed += 1
        if removed:  # whoever follows the log in memory reads anew, in case that it had not come so far
            erased = last_erasure(self._folder)  # nothing was taken out for good, so this part of the mark stays
            (self._folder / REWRITTEN).write_text(f"{erased}.{secrets.token_hex(8)}", encoding="ascii")
        return removed


def _mergeable(parts: list[Part]) -> list[list[Part]]:
    """Return groups of files that are worth joining: enough of about one size, so that a row is rewritten seldom."""
    tiers: dict[int, list[Part]] = defaultdict(list)
    for part in parts:
        if part.rows < _LARGEST_ROWS:
            tiers[max(part.rows, 1).bit_length() // 3].append(part)
    return [tier for tier in tiers.values() if len(tier) >= _FEW]


def _marks(folder: Path) -> list[Cursor]:
    """Return how far each sink has come; a mark that cannot be read counts as the beginning."""
    found: list[Cursor] = []
    for mark in sorted((folder / MARKS).glob("*.json")):
        try:
            found.append(dict(orjson.loads(mark.read_bytes())))
        except (OSError, ValueError):
            found.append({})
    return found


def _is_finished(segment: Path) -> bool:
    """Whether nobody writes to a segment any more: its writer would hold a lock on it."""
    descriptor = os.open(segment, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _note(damage: Damage) -> None:
    _logger.warning(
        "%d bytes at byte %d of %s cannot be read back (%s); the rows in them are not in the tables",
        damage.size_bytes, damage.offset, damage.segment, damage.reason,
    )  # fmt: skip
