"""A table scored in parts that survive a crash: exactly one row of answers for each row, in order, in bounded memory.

Parts are Parquet files in a folder that belongs to one job, which is known by a digest of everything the answers depend
on. A part is there whole or not at all; a job that was killed goes on behind the last one. `platform.scoring` publishes
the parts as a dataset and removes the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from flyball.clock import SYSTEM, Clock
from flyball.errors import Conflict, StepFailed
from flyball.serving.scoring.scorer import ID, VERSION, Scorer
from flyball.storage.disk import full_disk_is_unavailable
from flyball.tracking.predictions import PredictionLog

__all__ = ["Job", "Parts", "check_count", "digest_of", "digest_of_rows"]

BLOCK_ROWS = 1 << 15  # rows of one call: some megabytes of inputs, and the call's fixed cost is nothing beside it
PART_ROWS = 1 << 20  # rows of one checkpoint
_LOGGED_ROWS = 1 << 12  # rows of one entry of the prediction log
_COUNTER = 12  # digits of a row's number in its id


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the digest of JSON values: what a job is known by."""
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def digest_of_rows(rows: pl.LazyFrame) -> tuple[str, int]:
    """Return the digest of all rows, by content, and how many they are; reads them once."""
    found, count = hashlib.sha256(repr(list(rows.collect_schema().items())).encode()), 0
    for frame in _blocks(rows.collect_batches(maintain_order=True), PART_ROWS):
        # Hashed as a sequence of buffers without gaps or offsets, so that it is the rows that count.
        found.update(frame.rechunk().write_ipc(None, compression="uncompressed").getbuffer())
        count += frame.height
    return found.hexdigest(), count


@dataclass(frozen=True)
class Job:
    """What is scored and how.

    Attributes:
        digest: of everything that the answers depend on; a row's id is made of it and the row's number.
        rows: the table; the same rows in the same order each time it is read.
        needed: its columns that the model or its features read; `keep`: those that stand beside the answers.
        threads: how many call the model at once.
        log: where each answered row is told too.
        is_pinned: whether the same job comes to the same answers another day; not when features are looked up now.
    """

    digest: str
    rows: pl.LazyFrame
    scorer: Scorer
    needed: Sequence[str]
    keep: Sequence[str] = ()
    threads: int = 1
    log: PredictionLog | None = None
    clock: Clock = SYSTEM
    block_rows: int = field(default_factory=lambda: BLOCK_ROWS)
    part_rows: int = field(default_factory=lambda: PART_ROWS)
    is_pinned: bool = True

    def answers(self, first: int = 0) -> Iterator[pl.DataFrame]:
        """Yield the rows of answers from a row on, a block at a time, in order.

        Raises:
            InvalidInput, StepFailed: as `Scorer.answer`.
            Unavailable: the prediction log takes no more.
        """
        columns = list(dict.fromkeys([*self.keep, *self.needed]))
        rows = self.rows.select(columns)
        batches = (rows.slice(first) if first else rows).collect_batches(maintain_order=True)
        blocks = _numbered(_blocks(batches, self.block_rows), first)
        if self.threads == 1:
            for number, block in blocks:
                yield self._answer(number, block)
            return
        with ThreadPoolExecutor(self.threads, thread_name_prefix="scoring") as pool:
            waiting: deque[Future[pl.DataFrame]] = deque()
            try:
                for number, block in blocks:
                    waiting.append(pool.submit(self._answer, number, block))
                    if len(waiting) > self.threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _answer(self, first: int, block: pl.DataFrame) -> pl.DataFrame:
        began = time.perf_counter()
        given = block.select(self.needed)
        outputs, reasons = self.scorer.answer(given, first)
        numbers = pl.int_range(first, first + block.height, eager=True, dtype=pl.Int64)
        ids = (self.digest[: 32 - _COUNTER] + numbers.cast(pl.String).str.zfill(_COUNTER)).alias(ID)
        version = pl.Series(VERSION, [self.scorer.version], dtype=pl.String).new_from_index(0, block.height)
        more = [reasons] if self.scorer.errors == "null" else []
        if self.log is not None:
            self._tell(given, outputs, ids, began)
        return pl.DataFrame([*block.select(self.keep), ids, version, *outputs, *more])

    def _tell(self, given: pl.DataFrame, outputs: pl.DataFrame, ids: pl.Series, began: float) -> None:
        assert self.log is not None
        now = self.clock.now()
        for start in range(0, given.height, _LOGGED_ROWS):
            part = slice(start, start + _LOGGED_ROWS)
            inputs, answered = (frame[part].to_dict(as_series=False) for frame in (given, outputs))
            self.log.append_wait(self.scorer.logged(inputs, answered, ids[part].to_list(), now, began))


class Parts:
    """The folder of one job's parts. Only who has `claimed` it writes there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder against other processes; a holder that dies lets go. Raises Conflict: another has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    "the same rows are being scored by the same version in another process; wait for that one"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def paths(self) -> list[Path]:
        """Return the parts that are there, in order."""
        return sorted(self.folder.glob("part-*.parquet"))

    def rows(self) -> int:
        """Return how many rows the parts have."""
        return sum(int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()) for path in self.paths())

    def frame(self) -> pl.LazyFrame:
        """Return the rows of all parts, lazily."""
        return pl.scan_parquet(self.paths(), glob=False)

    def fill(self, job: Job, told: Callable[[int], None] = lambda _rows: None) -> int:
        """Score what is not scored yet, and return how many rows there are.

        Args:
            told: called with how many rows are safe, after each part.

        Raises:
            InvalidInput, StepFailed, Unavailable: as `Job.answers`; parts that are done stay.
        """
        done = self.rows()
        for number, part in enumerate(_blocks(job.answers(done), job.part_rows), len(self.paths())):
            self._write(number, part)
            done += part.height
            told(done)
        return done

    def clear(self) -> None:
        """Remove the parts, and score from the first row on."""
        for path in self.paths():
            path.unlink()

    def remove(self) -> None:
        """Remove the folder, when its rows are published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, number: int, part: pl.DataFrame) -> None:
        path = self.folder / f"part-{number:06d}.parquet"
        partial = path.with_suffix(".partial")
        with full_disk_is_unavailable():
            with partial.open("wb") as stream:
                part.write_parquet(stream, compression="lz4", statistics=False)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def check_count(expected: int, found: int) -> None:
    """Raise StepFailed unless each row was answered once: the table changed while it was read."""
    if expected != found:
        raise StepFailed(f"{found} rows were answered of a table that has {expected}: it changed while it was scored")


def _numbered(blocks: Iterable[pl.DataFrame], first: int) -> Iterator[tuple[int, pl.DataFrame]]:
    for block in blocks:
        yield first, block
        first += block.height


def _blocks(frames: Iterable[pl.DataFrame], most_rows: int) -> Iterator[pl.DataFrame]:
    """Yield rows in frames of `most_rows`, the last of fewer, however they came."""
    waiting: list[pl.DataFrame] = []
    count = 0
    for frame in frames:
        rest = frame
        while rest.height:
            taken = rest.head(most_rows - count)
            waiting.append(taken)
            count, rest = count + taken.height, rest.slice(taken.height)
            if count == most_rows:
                yield pl.concat(waiting)
                waiting, count = [], 0
    if waiting:
        yield pl.concat(waiting)
