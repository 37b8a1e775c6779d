"""Erased subjects that must not come back: what is published is compared with the subjects of all erasures.

The list holds keyed hashes only, so a value can be compared with it but not read from it. It is made of the
certificates in the ledger; `lift` allows a subject again. Hashing costs once a different value of a column, and nothing
at all where nobody was erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.data.masking import keyed_hash
from flyball.errors import NotFound
from flyball.ledger import Ledger
from flyball.privacy.subjects import column_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["KIND", "Suppression", "lift", "suppression_of", "texts_of"]

KIND = "erasure"  # of the versions that hold certificates


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
        found = [version.metadata for version in world.versions.all(KIND, limit=1_000_000)]
    by_column: dict[str, set[str]] = {}
    for metadata in found:
        if not metadata.get("lifted"):
            for column in metadata.get("columns", []):
                by_column.setdefault(column, set()).add(metadata["subject"])
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
            for version in world.versions.all(KIND, limit=1_000_000)
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
