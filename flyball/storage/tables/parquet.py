"""Tables as Parquet parts in a blob store; readable by anything that reads Parquet."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import polars as pl

from flyball.errors import Corrupt, Incompatible, InvalidInput, Unavailable
from flyball.storage.blobs import BlobStore
from flyball.storage.tables import Part, Table

__all__ = ["ParquetTables"]

FORMAT = 1
PART_ROWS = 1_000_000  # a part in memory is 10 to 500 MB, small enough to stream and large enough to compress


class ParquetTables:
    """A `TableStore` over blobs."""

    def __init__(self, blobs: BlobStore, part_rows: int = PART_ROWS) -> None:
        self._blobs = blobs
        self._part_rows = part_rows

    def write(self, frames: pl.LazyFrame | Iterable[pl.DataFrame], after: str | None = None) -> Table:
        before = self.read(after) if after is not None else None
        parts = list(before.parts) if before else []
        schema: dict[str, str] | None = dict(before.schema) if before else None
        empty: pl.DataFrame | None = None
        for frame in self._chunks(frames):
            found = {name: str(dtype) for name, dtype in frame.schema.items()}
            if schema is None:
                schema = found
            elif found != schema:
                raise InvalidInput(f"the rows do not fit the table: {_difference(schema, found)}")
            empty = frame.clear()
            if frame.height:
                parts.append(self._part(frame))
        if not schema:
            raise InvalidInput("there is nothing to write: the data has no columns")
        if not parts and empty is not None:
            parts.append(self._part(empty))  # a part without rows keeps the schema
        manifest = {
            "format": FORMAT,
            "schema": list(schema.items()),
            "parts": [[p.digest, p.rows, p.size_bytes] for p in parts],
        }
        digest = self._blobs.put(orjson.dumps(manifest))
        return Table(digest, schema, tuple(parts))

    def read(self, digest: str) -> Table:
        manifest = orjson.loads(self._blobs.get(digest))
        if not isinstance(manifest, dict) or "parts" not in manifest:
            raise Corrupt(f"the blob {digest} is not a table")
        if manifest["format"] != FORMAT:
            raise Incompatible(f"the table {digest[:12]} has format {manifest['format']}; this release reads {FORMAT}")
        return Table(digest, dict(manifest["schema"]), tuple(Part(*part) for part in manifest["parts"]))

    def scan(self, digest: str) -> pl.LazyFrame:
        table = self.read(digest)
        paths = [self._blobs.path(part.digest) for part in table.parts]
        local = [path for path in paths if path is not None]
        if len(local) == len(paths):
            return pl.scan_parquet(local)
        return pl.concat([pl.read_parquet(self._blobs.get(part.digest)).lazy() for part in table.parts])

    def _part(self, frame: pl.DataFrame) -> Part:
        descriptor, name = tempfile.mkstemp(suffix=".parquet")
        os.close(descriptor)
        path = Path(name)
        try:
            frame.write_parquet(path, compression="zstd", statistics=True)
            return Part(self._blobs.put(path), frame.height, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable("the disk is full; the table was not written") from error
            raise
        finally:
            path.unlink(missing_ok=True)

    def _chunks(self, frames: pl.LazyFrame | Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield frames of at most `part_rows` rows, at least one (perhaps empty) when the input is lazy."""
        if isinstance(frames, pl.LazyFrame):
            yield frames.head(0).collect()
            frames = frames.collect_batches(chunk_size=self._part_rows, maintain_order=True)
        waiting: list[pl.DataFrame] = []
        rows = 0
        for frame in frames:
            waiting.append(frame)
            rows += frame.height
            while rows >= self._part_rows:
                whole = pl.concat(waiting, rechunk=False)
                yield whole.head(self._part_rows).rechunk()
                rest = whole.slice(self._part_rows)
                waiting, rows = ([rest], rest.height) if rest.height else ([], 0)
        if waiting:
            yield pl.concat(waiting)


def _difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    missing = [f"{name} is missing" for name in wanted if name not in found]
    extra = [f"{name} is new" for name in found if name not in wanted]
    other = [f"{n} is {found[n]}, not {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]
    return "; ".join((missing + extra + other)[:5]) or "the columns stand in another order"
