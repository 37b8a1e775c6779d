"""Erased subjects that must not come back: what is published is compared with the subjects of all erasures.

The list holds keyed hashes only, so a value can be compared with it but not read from it. It is made of the
certificates in the ledger; `lift` allows a subject again. Hashing costs once a different value of a column, and nothing
at all where nobody was erased. The certificates are read once; then the journal says whether another came.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.data.masking import keyed_hash
from flyball.errors import NotFound
from flyball.ledger import Ledger, Transaction
from flyball.privacy.subjects import column_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["KIND", "Suppression", "Suppressions", "lift", "suppression_of", "texts_of"]

KIND = "erasure"  # of the versions that hold certificates
_ALL = 1_000_000  # certificates
_PAGE = 1000
_MOST_EVENTS = _PAGE  # looked through for a new certificate; reading more costs what reading all certificates does


@dataclass(frozen=True)
class Suppression:
    """Who may not come back: hashes of subjects by column."""

    hashes: Mapping[str, frozenset[str]]
    key: bytes

    def keep(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return the rows of nobody who was erased; the same frame when it has none of the columns."""
        test = self._test(frame.collect_schema())
        return frame if test is None else frame.filter(~test)

    def count(self, frame: pl.LazyFrame) -> int:
        """Return how many rows `keep` leaves out; reads the columns concerned."""
        import polars as pl

        test = self._test(frame.collect_schema())
        return 0 if test is None else int(frame.filter(test).select(pl.len()).collect(engine="streaming").item())

    def _test(self, schema: pl.Schema) -> pl.Expr | None:
        import polars as pl

        tests = []
        for column, hashes in sorted(self.hashes.items()):
            found = column_of(column, schema)
            if found is not None and not found[1].is_nested():
                tests.append(self._suppressed(found[0], hashes).fill_null(False))
        return pl.any_horizontal(tests) if tests else None

    def _suppressed(self, value: pl.Expr, hashes: frozenset[str]) -> pl.Expr:
        import polars as pl

        def look(values: pl.Series) -> pl.Series:
            known = values.drop_nulls().unique()
            texts = texts_of(known)
            gone = known.filter(
                pl.Series([t is not None and keyed_hash(self.key, t) in hashes for t in texts], dtype=pl.Boolean)
            )
            return values.is_in(gone.implode()) if len(gone) else pl.Series([False] * len(values), dtype=pl.Boolean)

        return value.map_batches(look, return_dtype=pl.Boolean, is_elementwise=True)


def suppression_of(ledger: Ledger, key: bytes) -> Suppression | None:
    """Return who may not come back, None when nobody was erased (or all are allowed again)."""
    with ledger.read() as world:
        return _read(world, key)


class Suppressions:
    """`suppression_of` for whoever asks at each publication; any thread may."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._seen: int | None = None  # the newest event of the journal that is accounted for
        self._found: Suppression | None = None

    def now(self, key: bytes, world: Transaction | None = None) -> Suppression | None:
        """Return who may not come back as of now, or of `world`, None when nobody."""
        if world is None:
            with self._ledger.read() as now:
                return self.now(key, now)
        last = world.journal.last()
        with self._lock:
            if self._seen is None or _is_told(world, self._seen, last):
                self._found = _read(world, key)
            self._seen = last
            return self._found


def _is_told(world: Transaction, seen: int, last: int) -> bool:
    """Whether events after `seen` may be of a certificate; a journal that is shorter by now is another one."""
    if not 0 <= last - seen <= _MOST_EVENTS:
        return True
    while seen < last:
        page = world.journal.since(seen, _PAGE)
        if not page or any(event.ref.startswith(f"{KIND}/") for event in page):
            return True
        seen = page[-1].seq
    return False


def _read(world: Transaction, key: bytes) -> Suppression | None:
    by_column: dict[str, set[str]] = {}
    for version in world.versions.all(KIND, limit=_ALL):
        if not version.metadata.get("lifted"):
            for column in version.metadata.get("columns", []):
                by_column.setdefault(column, set()).add(version.metadata["subject"])
    return Suppression({c: frozenset(hashes) for c, hashes in by_column.items()}, key) if by_column else None


def lift(ledger: Ledger, hash: str, columns: Iterable[str], actor: str) -> int:
    """Allow a subject again in columns; return how many erasures that concerns; notes `allowed again` for each.

    Raises:
        NotFound: it was not erased, or is allowed already.
    """
    wanted = set(columns)
    with ledger.write(actor) as world:
        found = [
            version
            for version in world.versions.all(KIND, limit=_ALL)
            if version.metadata["subject"] == hash
            and not version.metadata.get("lifted")
            and wanted & set(version.metadata["columns"])
        ]
        if not found:
            raise NotFound("no erasure holds this subject back in these columns; there is nothing to allow again")
        for version in found:
            metadata = {**version.metadata, "lifted": True}
            place = version.kind, version.name, version.number
            world.versions.rewrite(*place, version.digest, metadata, action="allowed again")
    return len(found)


def texts_of(values: pl.Series) -> list[str | None]:
    """Return values as a subject's text: whole numbers by their digits, however they are stored."""
    import polars as pl

    if values.dtype.is_float():
        return [str(int(v)) if float(v).is_integer() else None for v in values]
    if isinstance(values.dtype, pl.Binary):
        return [bytes(v).decode(errors="replace") for v in values]
    return values.cast(pl.String).to_list()
