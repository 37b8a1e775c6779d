"""Which columns came from which: column lineage of whatever Polars can plan, SQL and expressions alike.

Nothing is parsed. Each source is put in as one that only notes which columns the engine asks it for; then every column
of the result is asked for alone, on empty tables, and the engine's own projection pushdown says what it needs:
values, and what rows are chosen, joined, grouped or ordered by. What the mere number of rows needs is *indirect*
(OpenLineage's word: the column decides which rows there are), the rest is *direct*.

A step that the engine cannot look into (`map_batches`, a Python function) needs all columns of its input, so the answer
is never too small. A column that chooses rows is direct as well where the value's own plan computes with it, or where
nothing else gives the value; in doubt it is direct, because policies follow what is direct.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import polars as pl
from polars.io.plugins import register_io_source

from flyball.errors import FlyballError, InvalidInput

__all__ = ["ColumnSource", "column_lineage"]

_ROWS = "__rows"
# Lines of a plan whose columns decide which rows there are, in which order. A line that is not known computes.
_CHOOSING = ("FILTER", "SELECTION:", "SORT BY", "LEFT PLAN ON:", "RIGHT PLAN ON:", "UNIQUE", "simple π")
_NAME = re.compile(r'col\("((?:[^"\\]|\\.)*)"\)')


class ColumnSource(NamedTuple):
    """A column that another was made of: `how` is direct (its values) or indirect (it decides which rows)."""

    source: str
    column: str
    how: Literal["direct", "indirect"]


def column_lineage(
    make: Callable[[Mapping[str, pl.LazyFrame]], pl.LazyFrame], schemas: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[ColumnSource]]:
    """Return, for each column of `make(sources)`, the columns that it was made of, by source and name.

    Args:
        make: builds the result from lazy tables by source name; it is called once, with empty tables.
        schemas: of each source: column → Polars dtype.

    Raises:
        InvalidInput: the result cannot be planned on empty tables of these schemas.
    """
    asked: dict[str, set[str]] = {}
    sources = {name: _noting(name, dict(schema), asked) for name, schema in schemas.items()}

    def needed(frame: pl.LazyFrame) -> set[tuple[str, str]]:
        asked.clear()
        frame.collect()
        return {(source, column) for source, columns in asked.items() for column in columns}

    try:
        result = make(sources)
        names = result.collect_schema().names()
        values = {name: needed(result.select(name)) for name in names}
        # To count rows the engine reads some column, whichever: only what every value needs as well chooses rows.
        rows = needed(result.select(pl.len().alias(_ROWS))).intersection(*values.values())
        return {name: sorted(_told(value, rows, _computed_with(result.select(name)))) for name, value in values.items()}
    except FlyballError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InvalidInput(
            f"the columns' origin cannot be told, because the plan fails on empty tables: {reason}"
        ) from error


def _told(value: set[tuple[str, str]], rows: set[tuple[str, str]], computed: set[str]) -> Iterator[ColumnSource]:
    direct = (value - rows) | {(source, column) for source, column in value if column in computed} or value
    for source, column in value | rows:
        yield ColumnSource(source, column, "direct" if (source, column) in direct else "indirect")


def _computed_with(frame: pl.LazyFrame) -> set[str]:
    """Return the names that a plan computes with: all that it names but where it only chooses or orders rows."""
    names: set[str] = set()
    for line in map(str.strip, frame.explain().splitlines()):
        if not line.startswith(_CHOOSING):
            names.update(_NAME.findall(line.partition("] BY [")[0]))
    return names


def _noting(name: str, schema: dict[str, Any], asked: dict[str, set[str]]) -> pl.LazyFrame:
    """Return an empty lazy table that notes in `asked` the columns that the engine wants of it."""

    def read(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del n_rows, batch_size
        wanted = list(schema) if with_columns is None else list(with_columns)
        asked.setdefault(name, set()).update(wanted, () if predicate is None else predicate.meta.root_names())
        yield pl.DataFrame(schema={column: schema[column] for column in wanted})

    return register_io_source(read, schema=schema)
