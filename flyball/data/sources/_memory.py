"""Tables that are in memory already: Polars, pandas and Arrow frames, columns, and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flyball.data.reasons import reason_of
from flyball.data.sources._csv import refuse_repeated
from flyball.errors import FlyballError, InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["guarded", "open_table"]


def open_table(source: Any) -> pl.LazyFrame:
    """Return the lazy table. Raises InvalidInput: it is none, or has no columns, or holds what no table can."""
    import polars as pl

    if isinstance(source, pl.LazyFrame):
        frame = source
    else:
        frame = guarded("the table", lambda: _in_memory(source)).lazy()
    schema = guarded("the table", frame.collect_schema)
    if not schema:
        raise InvalidInput("the table has no columns; give one with columns and rows")
    for name, dtype in schema.items():
        if dtype == pl.Object:
            raise InvalidInput(
                f'column "{name}" holds Python objects; expected numbers, texts, times or lists of those'
            )
    return frame


def guarded(where: str, read: Callable[[], Any]) -> Any:
    """Return what `read` gives; what Polars finds wrong becomes an error in our words."""
    import polars as pl

    try:
        return read()
    except FlyballError:
        raise
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"{where} cannot be read: {reason_of(error)}") from error


def _in_memory(source: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(source, pl.DataFrame):
        return source
    module = type(source).__module__.partition(".")[0]
    names = getattr(source, "columns", None) if module == "pandas" else getattr(source, "column_names", None)
    if names is not None and not callable(names):
        refuse_repeated([str(n) for n in names], "the table")
    if module == "pandas":
        return pl.from_pandas(source.rename(columns=str))
    if hasattr(source, "__arrow_c_stream__"):
        return pl.DataFrame(source)
    if isinstance(source, Mapping):
        for name, values in source.items():
            if not isinstance(name, str):
                raise InvalidInput(f"the column name {name!r} is not a text")
            if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                raise InvalidInput(f'column "{name}" is of type {type(values).__name__}; expected a list of values')
        return pl.DataFrame(dict(source), strict=True)
    if isinstance(source, list | tuple):
        if not source:
            raise InvalidInput("the list of rows is empty; give at least one {column: value}")
        for position, row in enumerate(source):
            if not isinstance(row, Mapping):
                raise InvalidInput(f"row {position} is of type {type(row).__name__}; expected {{column: value}}")
        return pl.from_dicts([dict(r) for r in source], infer_schema_length=None)
    raise InvalidInput(
        f"{type(source).__name__} is not a table; give a path, a polars, pandas or Arrow frame, "
        "{column: values}, or a list of {column: value}"
    )
