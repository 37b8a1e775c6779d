"""What a user may hand to `publish`: a frame, records, a path, files, or SQL over other datasets, as one lazy table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyball.data.files import Files
from flyball.data.queries import is_query, read_query
from flyball.data.sources import open_source
from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref, ref
from flyball.storage.blobs import BlobStore
from flyball.storage.tables import TableStore

if TYPE_CHECKING:
    import polars as pl

    See = Callable[[Ref, pl.LazyFrame], pl.LazyFrame]

__all__ = ["Intake", "Taken"]


@dataclass(frozen=True)
class Taken:
    """Rows, what they were made from, and what the version's metadata says of it."""

    frame: pl.LazyFrame
    made_from: tuple[tuple[Ref, str], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Intake:
    """Opens what is handed over. Without `blobs` files are refused."""

    def __init__(self, ledger: Ledger, tables: TableStore, blobs: BlobStore | None) -> None:
        self._ledger = ledger
        self._tables = tables
        self._blobs = blobs

    def take(self, name: str, source: Any, string_columns: Collection[str], see: See | None = None) -> Taken:
        """Return the rows of `source`, which is to be published as `name`.

        Args:
            see: returns the rows of a version that SQL reads as whoever publishes may see them; default: as they are.

        Raises:
            InvalidInput, NotFound: as `sources.open_source`, `queries.read_query` and `files.Files.table`.
        """
        if isinstance(source, Files):
            return Taken(self._files(name, source))
        if not is_query(source):
            return Taken(open_source(source, string_columns=string_columns))
        with self._ledger.read() as world:
            known = [resource.name for resource in world.resources.all("dataset")]
        query = read_query(source, self._table, known)
        if see is not None:
            # Only now is it known which of the words are tables that are read, and not columns of the same name.
            seen = {table: (made, see(made, rows)) for table in query.inputs for made, rows in [self._existing(table)]}
            query = read_query(source, lambda table: seen.get(table) or self._table(table), known)
        read = {str(made): made for made in query.inputs.values()}
        columns = {column: [list(origin) for origin in origins] for column, origins in query.columns.items()}
        made_from = tuple((made, "queried by") for made in read.values())
        return Taken(query.frame, made_from, {"query": source.strip(), "columns": columns})

    def _table(self, table: str) -> tuple[Ref, pl.LazyFrame] | None:
        """Return what a table of a query is, `flights` or `flights@3`; None when there is no such dataset."""
        try:
            return self._existing(table)
        except (NotFound, InvalidInput):
            return None

    def _existing(self, table: str) -> tuple[Ref, pl.LazyFrame]:
        found = ref(table, "dataset")
        with self._ledger.read() as world:
            version = world.versions.get("dataset", found.name, found.version or "latest")
        return version.ref, self._tables.scan(version.digest)

    def _files(self, name: str, files: Files) -> pl.LazyFrame:
        import polars as pl

        if self._blobs is None:
            raise InvalidInput(f"dataset/{name}: files cannot be kept here; publish them through the platform")
        with self._ledger.read() as world:
            newest = next(iter(world.versions.all("dataset", name, limit=1)), None)
        before = self._tables.scan(newest.digest) if newest else None
        return pl.concat(list(files.table(self._blobs, before))).lazy()
