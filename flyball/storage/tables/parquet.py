"""Tables as Parquet parts in a blob store; readable by anything that reads Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import polars as pl

from flyball.errors import InvalidInput, listed
from flyball.storage.blobs import BlobStore
from flyball.storage.disk import full_disk_is_unavailable
from flyball.storage.tables import Part, Rows, Summariser, Table
from flyball.storage.tables._cutting import cut
from flyball.storage.tables._elsewhere import scan_elsewhere
from flyball.storage.tables._manifest import decode, encode
from flyball.storage.tables._staging import Staging
from flyball.storage.tables._tiers import merge_from
from flyball.storage.tables.in_memory import held
from flyball.storage.tables.schemas import fitted, schema_of

__all__ = ["ParquetTables"]

PART_ROWS = 1 << 20  # large enough to compress and to keep manifests short, small enough to rewrite for a few rows
PART_BYTES = 128 << 20  # in memory; wide rows make smaller parts, so that a few of them always fit into memory
_FULL_BYTES = 32 << 20  # on disk; a part of this size is not merged with others any more
_SUMMARIES = 64  # merged summaries remembered, of some hundred kilobytes each
SUMMARISED_ROWS = 1 << 14  # smaller parts are summarised when somebody asks: a small append must not wait for it


class ParquetTables:
    """A `TableStore` over blobs; with a summariser each part is summarised while it is written."""

    def __init__(
        self,
        blobs: BlobStore,
        summariser: Summariser | None = None,
        part_rows: int = PART_ROWS,
        part_bytes: int = PART_BYTES,
        summarised_rows: int = SUMMARISED_ROWS,
    ) -> None:
        self._blobs = blobs
        self._summariser = summariser
        self._part_rows = part_rows
        self._part_bytes = part_bytes
        self._summarised_rows = summarised_rows
        self._summary_of_table = lru_cache(_SUMMARIES)(self._summarise_table)
        self._merged_summary = lru_cache(_SUMMARIES)(self._merge_summaries)

    def write(self, frames: Rows, after: str | None = None) -> Table:
        if after is None:
            schema, parts = self._stage(frames)
            return self._keep(schema, parts)
        base = self.read(after)
        _, parts = self._stage(frames, base)
        return self._keep(base.schema, self._tidy([*base.parts, *parts]))

    def stage(self, frames: Rows) -> Table:
        schema, parts = self._stage(frames)
        return Table("", schema, tuple(parts))

    def join(self, before: str | None, more: Table) -> Table:
        if before is None:
            return self._keep(more.schema, more.parts)
        base = self.read(before)
        if list(more.schema.items()) != list(base.schema.items()):
            return self.write(self._scan(more.parts), after=before)
        return self._keep(base.schema, self._tidy([*base.parts, *more.parts]))

    def replace(self, digest: str, rows: Mapping[int, Rows], more: Table | None = None) -> Table:
        base = self.read(digest)
        unknown = sorted(set(rows) - set(range(len(base.parts))))
        if unknown:
            raise InvalidInput(
                f"the table has no part {listed(map(str, unknown))}; its places are 0 to {len(base.parts) - 1}"
            )
        parts: list[Part] = []
        for place, part in enumerate(base.parts):
            parts += self._stage(rows[place], base)[1] if place in rows else [part]
        if not any(part.rows for part in parts):
            parts = self._encode([(self._scan(base.parts[:1]).head(0).collect(), 0)])
        made = self._keep(base.schema, parts)
        return self.join(made.digest, more) if more is not None else made

    def read(self, digest: str) -> Table:
        return decode(digest, self._blobs.get(digest))

    def scan(self, digest: str, parts: Sequence[int] | None = None) -> pl.LazyFrame:
        table = self.read(digest)
        chosen = table.parts if parts is None else [table.parts[place] for place in parts]
        return self._scan(chosen) if chosen else self._scan(table.parts[:1]).head(0)

    def paths(self, digest: str) -> list[Path] | None:
        paths = [self._blobs.path(part.digest) for part in self.read(digest).parts]
        local = [path for path in paths if path is not None]
        return local if len(local) == len(paths) else None

    def summary(self, digest: str) -> bytes | None:
        return self._summary_of_table(digest) if self._summariser else None

    # -- writing

    def _stage(self, frames: Rows, like: Table | None = None) -> tuple[dict[str, str], list[Part]]:
        """Keep the parts of some rows, with the columns of `like`; without rows there is no part."""
        source = _Fitted(frames, self._scan(like.parts[:1]).collect_schema() if like else None)
        parts = self._encode(cut(source, self._part_rows, self._part_bytes))
        if source.empty is None or not source.empty.width:
            raise InvalidInput("there is nothing to write: the data has no columns")
        if not parts and like is None:
            parts = self._encode([(source.empty, 0)])  # a part without rows keeps the schema
        return schema_of(source.empty), parts

    def _encode(self, frames: Iterable[tuple[pl.DataFrame, int]], *, summarise: bool = True) -> list[Part]:
        """Keep each frame, given with what it weighs, as a part."""
        notes: list[tuple[Future[str | None] | None, int]] = []
        with full_disk_is_unavailable(), ExitStack() as scope:
            aside: ThreadPoolExecutor | None = None
            staging = scope.enter_context(Staging(self._blobs))
            for frame, weight in frames:
                summary: Future[str | None] | None = None
                if summarise and self._summariser and frame.height >= self._summarised_rows:
                    if aside is None:  # a small append neither needs nor waits for a thread
                        aside = scope.enter_context(ThreadPoolExecutor(1))
                    summary = aside.submit(self._summarise, [frame])
                staging.add(frame)
                notes.append((summary, weight))
                if summary is not None:
                    summary.result()  # so that one frame only is held
            kept = staging.kept()
            return [
                Part(*part, summary.result() if summary is not None else None, weight)
                for part, (summary, weight) in zip(kept, notes, strict=True)
            ]

    def _tidy(self, parts: list[Part]) -> list[Part]:
        """Return the parts without empty ones, those at the end merged as far as it is time to."""
        filled = [part for part in parts if part.rows] or parts[:1]
        full = self._part_rows // 2
        start = merge_from([full if self._is_heavy(p) else p.rows for p in filled], full)
        if start is None:
            return filled
        small = filled[start:]
        rows = cut(_batches(self._scan(small)), self._part_rows, self._part_bytes)
        merged = self._encode(rows, summarise=False)
        summaries = [p.summary for p in small if p.summary is not None]
        if self._summariser and len(merged) == 1 and len(summaries) == len(small):
            whole = self._summariser.merged([self._blobs.get(summary) for summary in summaries])
            return [*filled[:start], replace(merged[0], summary=self._blobs.put(whole))]
        later = [
            replace(p, summary=self._summarise(self._frames([p]))) if p.rows >= self._summarised_rows else p
            for p in merged
        ]
        return [*filled[:start], *later]

    def _is_heavy(self, part: Part) -> bool:
        """Whether a part is full though it may have few rows: merged with others it would only be cut again."""
        return part.weight_bytes >= self._part_bytes // 2 or part.size_bytes >= _FULL_BYTES

    def _keep(self, schema: Mapping[str, str], parts: Sequence[Part]) -> Table:
        with full_disk_is_unavailable():
            digest = self._blobs.put(encode(schema, parts))
        return Table(digest, dict(schema), tuple(parts))

    # -- summaries

    def _summarise(self, frames: Iterable[pl.DataFrame]) -> str | None:
        """Keep the summary of some rows and return its digest; None without a summariser."""
        return None if self._summariser is None else self._blobs.put(self._summary_of(frames, self._summariser))

    def _summary_of(self, frames: Iterable[pl.DataFrame], summariser: Summariser) -> bytes:
        """Summarise rows that come in frames of any size, as many at once as a part may have."""
        frames = iter(frames)
        first = next(frames)
        pieces = cut(chain([first], frames), self._part_rows, self._part_bytes)
        found = [summariser.of(piece) for piece, _ in pieces] or [summariser.of(first)]  # there may be no row
        return found[0] if len(found) == 1 else summariser.merged(found)

    def _summarise_table(self, digest: str) -> bytes | None:
        assert self._summariser is not None
        parts = self.read(digest).parts
        known = tuple(part.summary for part in parts if part.summary is not None)
        rest = [part for part in parts if part.summary is None]
        found = [self._merged_summary(known)] if known else []
        if rest:
            found.append(self._summary_of(self._frames(rest), self._summariser))
        return found[0] if len(found) == 1 else self._summariser.merged(found)

    def _merge_summaries(self, summaries: tuple[str, ...]) -> bytes:
        """Merge what is kept. Remembered by itself: appends leave nearly all of it as it was."""
        assert self._summariser is not None
        found = [self._blobs.get(summary) for summary in summaries]
        return found[0] if len(found) == 1 else self._summariser.merged(found)

    # -- reading

    def _frames(self, parts: Sequence[Part]) -> Iterator[pl.DataFrame]:
        """Return the rows of parts in frames, of which the first has none."""
        rows = self._scan(parts)
        return chain([rows.head(0).collect()], _batches(rows))

    def _scan(self, parts: Sequence[Part]) -> pl.LazyFrame:
        paths = [self._blobs.path(part.digest) for part in parts]
        local = [path for path in paths if path is not None]
        if len(local) == len(paths):
            return pl.scan_parquet(local, glob=False)
        return scan_elsewhere(self._blobs, parts)


class _Fitted:
    """Frames with the columns of `schema`, or of the first of them; `empty` is what they have in common, no rows."""

    def __init__(self, frames: Rows, schema: pl.Schema | None) -> None:
        self._frames = frames
        self.empty = pl.DataFrame(schema=schema) if schema is not None else None

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for frame in _batches(self._frames):
            if self.empty is None:
                self.empty = frame.clear()
            yield fitted(frame, self.empty.schema)
        if self.empty is None and isinstance(self._frames, pl.LazyFrame):
            self.empty = self._frames.head(0).collect()


def _batches(frames: Rows) -> Iterator[pl.DataFrame]:
    rows = held(frames) if isinstance(frames, pl.LazyFrame) else frames
    if isinstance(rows, pl.DataFrame):  # in slices that are whole parts, where rows are not heavy
        return iter(rows.iter_slices(PART_ROWS) if rows.height else [rows])
    return iter(frames.collect_batches(maintain_order=True) if isinstance(frames, pl.LazyFrame) else frames)
