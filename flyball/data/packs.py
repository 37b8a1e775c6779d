"""Packs of files after rows left: bytes that no row names any more leave the disk, all other files stay readable.

Small files lie together in packs (`files`), and a row says where. When a row goes, by erasure, retention or because its
batch was dropped, the bytes of its file are still in the pack. Which bytes those are is told by the rows that are left,
in all versions together, so this can be done again after a crash at any point: write the pack anew without them, the
tables that name it with the new places, then the ledger; the old blobs are deleted at the very end (`rewriting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from flyball.data.files import is_file_table
from flyball.errors import Conflict, FlyballError
from flyball.ledger import Ledger
from flyball.storage.blobs import BlobStore
from flyball.storage.tables import TableStore
from flyball.storage.tables.rewriting import Condition

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Repacked", "packs_of", "packs_with", "repack"]

_KINDS = ("dataset", "quarantine", "labels")  # whose tables may be written anew with other places


class Repacked(NamedTuple):
    """What `repack` did: packs that lost bytes, how many bytes, and what became of tables by their digest before."""

    packs: int
    size_bytes: int
    became: Mapping[str, str]


@dataclass
class _Pack:
    """The places (offset, size) in a pack that rows name."""

    places: set[tuple[int, int]] = field(default_factory=set)

    def moved(self) -> dict[int, int]:
        """Return where each named place begins when all that is not named has gone, by where it begins now."""
        found: dict[int, int] = {}
        end = 0
        for offset, size in sorted(self.places):
            found.setdefault(offset, end)
            end = max(end, found[offset] + size)
        return found

    @property
    def size_bytes(self) -> int:
        return sum(dict(sorted(self.places)).values())


def packs_of(tables: TableStore, digest: str) -> set[str]:
    """Return the blobs in which the files of a table lie; none of a table of something else."""
    import polars as pl

    rows = _file_rows(tables, digest)
    if rows is None:
        return set()
    found = rows.select(pl.col("blob").unique()).collect(engine="streaming")["blob"]
    return set(found.to_list())


def packs_with(tables: TableStore, digests: Iterable[str], condition: Condition) -> set[str]:
    """Return the blobs in which files of rows lie that meet a condition."""
    import polars as pl

    found: set[str] = set()
    for digest in dict.fromkeys(digests):
        rows = _file_rows(tables, digest)
        test = condition(rows.collect_schema()) if rows is not None else None
        if rows is not None and test is not None:
            wanted = rows.filter(test).select(pl.col("blob").unique())
            found.update(wanted.collect(engine="streaming")["blob"].to_list())
    return found


def repack(
    ledger: Ledger,
    tables: TableStore,
    blobs: BlobStore,
    forget: Any,
    *,
    actor: str,
    action: str,
    detail: Mapping[str, Any],
) -> Repacked:
    """Take the bytes that no row names out of every pack that some row still names.

    Args:
        forget: takes the digests of blobs that were replaced, to be deleted once nothing refers to them.
        action, detail: what the journal says of the versions whose rows name other places now.

    Raises:
        Conflict: a version was rewritten meanwhile; nothing is lost, done again it goes on.
        Unavailable: the disk is full; what was there is untouched.
    """
    with ledger.read() as world:
        versions = [v for v in world.versions.digests() if v[0] in _KINDS]
    known = {digest: rows for digest in dict.fromkeys(v[3] for v in versions) for rows in _readable(tables, digest)}
    packs: dict[str, _Pack] = {}
    for rows in known.values():
        for blob, offset, size in _places(rows):
            packs.setdefault(blob, _Pack()).places.add((offset, size))
    became: dict[str, tuple[str, dict[int, int]]] = {}
    gone = 0
    for blob, pack in packs.items():
        if not blobs.has(blob) or pack.size_bytes >= (size := _size_of(blobs, blob)):
            continue
        gone += size - pack.size_bytes
        became[blob] = _rewritten(blobs, blob, pack), pack.moved()
        forget([blob])
    if not became:
        return Repacked(0, 0, {})
    moved = {d: _moved(tables, d, became) for d, rows in known.items() if {b for b, *_ in _places(rows)} & set(became)}
    for before, after in moved.items():
        one, two = ({blob for p in tables.read(d).parts for blob in (p.digest, p.summary)} for d in (before, after))
        forget({before, *(one - two)})
        concerned = [v for v in versions if v[3] == before]
        with ledger.write(actor) as world:
            for kind, name, number, _ in concerned:
                version = world.versions.get(kind, name, number)
                if version.digest != before:
                    raise Conflict(
                        f"{version.ref} was rewritten by somebody else meanwhile; nothing was lost, try again"
                    )
                figures = {"size_bytes": tables.read(after).size_bytes} if "size_bytes" in version.metadata else {}
                metadata = {**version.metadata, **figures}
                noted = {"rows": 0, **detail}
                world.versions.rewrite(kind, name, number, after, metadata, action=action, detail=noted)
    return Repacked(len(became), gone, moved)


def _readable(tables: TableStore, digest: str) -> list[pl.LazyFrame]:
    rows = _file_rows(tables, digest)
    return [] if rows is None else [rows]


def _file_rows(tables: TableStore, digest: str) -> pl.LazyFrame | None:
    """Return the rows of a table of files whose bytes are in this home; None when it is no such table."""
    import polars as pl

    try:
        if not is_file_table(tables.read(digest).schema):
            return None
        return tables.scan(digest).filter(pl.col("blob").is_not_null())
    except FlyballError:
        return None  # not a table, or one that cannot be read, which is told elsewhere


def _places(rows: pl.LazyFrame) -> Iterator[tuple[str, int, int]]:
    wanted = rows.select("blob", "offset", "size_bytes").unique()
    for batch in wanted.collect_batches(chunk_size=100_000):
        yield from batch.iter_rows()


def _size_of(blobs: BlobStore, digest: str) -> int:
    with blobs.open(digest) as stream:
        return stream.seek(0, 2)


def _rewritten(blobs: BlobStore, digest: str, pack: _Pack) -> str:
    """Write a pack with only the places that rows name, in their order; return its digest."""
    sizes = dict(sorted(pack.places))
    data = bytearray()
    with blobs.open(digest) as stream:
        for offset, size in sorted(sizes.items()):
            stream.seek(offset)
            data += stream.read(size)
    return blobs.put(bytes(data))


def _moved(tables: TableStore, digest: str, became: Mapping[str, tuple[str, Mapping[int, int]]]) -> str:
    """Write the parts of a table anew that name packs which were rewritten; return the table's digest."""
    import polars as pl

    rows = [(b, old, new, at) for b, (new, places) in became.items() for old, at in places.items()]
    schema = {"blob": pl.String, "offset": pl.Int64, "new_blob": pl.String, "new_offset": pl.Int64}
    where = pl.LazyFrame([(b, old, new, at) for b, old, new, at in rows], schema=schema, orient="row")
    changed = {}
    for place in range(len(tables.read(digest).parts)):
        part = tables.scan(digest, [place])
        if part.select(pl.col("blob").is_in(list(became)).any()).collect().item():
            columns = part.collect_schema().names()
            joined = part.join(where, on=["blob", "offset"], how="left", maintain_order="left")
            placed = joined.with_columns(
                blob=pl.coalesce("new_blob", "blob"), offset=pl.coalesce("new_offset", "offset")
            )
            changed[place] = placed.select(columns)
    return tables.replace(digest, changed).digest
