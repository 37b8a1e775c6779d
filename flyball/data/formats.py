"""A version's rows as other libraries want them: Arrow, DuckDB, pandas. Nothing is copied that needs not be.

to_arrow(frame)         a stream of record batches; memory is that of a few batches
to_duckdb(rows)         a relation over the Parquet files themselves; DuckDB reads what its query needs
to_pandas(frame)        a frame in memory, with Arrow-backed text
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flyball.errors import InvalidInput, MissingExtra, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FORMATS", "Format", "converted", "to_arrow", "to_duckdb", "to_pandas"]

Format = Literal["polars", "arrow", "duckdb", "pandas"]
FORMATS: tuple[Format, ...] = ("polars", "arrow", "duckdb", "pandas")


def converted(frame: pl.LazyFrame, paths: Sequence[Path] | None, format: str) -> Any:
    """Return the rows in one of `FORMATS`.

    Args:
        frame: the rows, lazily.
        paths: the same rows as Parquet files, where there are some.
        format: polars (a LazyFrame), arrow (a RecordBatchReader), duckdb (a relation) or pandas (a DataFrame).

    Raises:
        InvalidInput: another format.
        MissingExtra: the library is not installed.
    """
    if format == "polars":
        return frame
    if format == "arrow":
        return to_arrow(frame)
    if format == "duckdb":
        return to_duckdb(paths if paths is not None else frame)
    if format == "pandas":
        return to_pandas(frame)
    raise InvalidInput(f'rows cannot be given as "{format}"{did_you_mean(format, FORMATS)} (known: {listed(FORMATS)})')


def to_arrow(frame: pl.LazyFrame) -> Any:
    """Return a `pyarrow.RecordBatchReader` that streams the rows; read it once. Raises MissingExtra."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra("pyarrow", "lake", "rows as Arrow") from error
    schema = frame.head(0).collect().to_arrow().schema
    batches = (
        batch
        for part in frame.collect_batches(maintain_order=True)
        for batch in part.to_arrow().cast(schema).to_batches()
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def to_duckdb(rows: Sequence[Path] | pl.LazyFrame, connection: Any = None) -> Any:
    """Return a `duckdb.DuckDBPyRelation` of the rows, in their order.

    Args:
        rows: Parquet files, of which each query reads what it needs; or rows, which are streamed to the first query.
        connection: of DuckDB; default: one of its own, in memory.

    Raises:
        MissingExtra: DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra("duckdb", "lake", "rows in DuckDB") from error
    connection = connection if connection is not None else duckdb.connect()
    # `len` would not do: a lazy frame has none.
    if isinstance(rows, Sequence):
        return connection.read_parquet([str(path) for path in rows])
    return connection.from_arrow(to_arrow(rows).read_all())


def to_pandas(frame: pl.LazyFrame) -> Any:
    """Return a `pandas.DataFrame` of all rows, in memory. Raises MissingExtra."""
    try:
        import pandas  # noqa: F401 (Polars names neither the library nor the extra when it is missing)
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtra("pandas and pyarrow", "pandas", "rows in pandas") from error
    return frame.collect(engine="streaming").to_pandas()
