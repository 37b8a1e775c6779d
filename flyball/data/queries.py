"""Data sets made by SQL from other data sets: `publish("select … from flights join \\"weather@3\\" on …")`.

Table names are data sets, their newest version where none is said. One SELECT in the dialect of Polars SQL, nothing
that reads files. What a query reads becomes lineage, down to the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger.refs import Ref

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.columns import ColumnSource

__all__ = ["Query", "is_query", "read_query"]

_STATEMENT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:select|with)\s", re.IGNORECASE | re.DOTALL)
_NOISE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAMES = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_]*)')
_READS_FILES = re.compile(r"\b(?:read|scan)_\w+\s*\(", re.IGNORECASE)
_MISSING_TABLE = re.compile(r"relation '([^']*)' was not found", re.IGNORECASE)


@dataclass(frozen=True)
class Query:
    """A query that can be run: its rows, what it reads, and where its columns come from.

    Attributes:
        frame: the rows, lazily.
        inputs: the versions that it reads, by the name in the query.
        columns: column of the result → the columns that it was made of; the source is `dataset/flights@3`.
    """

    frame: pl.LazyFrame
    inputs: Mapping[str, Ref]
    columns: Mapping[str, list[ColumnSource]] = field(default_factory=dict)


def is_query(source: Any) -> bool:
    """Whether a source is SQL and not a path: a text that begins with SELECT or WITH."""
    return isinstance(source, str) and _STATEMENT.match(source) is not None


def read_query(sql: str, resolve: Callable[[str], tuple[Ref, pl.LazyFrame] | None], known: list[str]) -> Query:
    """Return a query ready to run.

    Args:
        sql: one SELECT; a table is `flights`, or `"flights@3"` in double quotes.
        resolve: name → the version and its rows; None when there is no such data set.
        known: names of data sets, for "did you mean".

    Raises:
        InvalidInput: not a single SELECT, reads a file, or is wrong SQL.
        NotFound: a table is no data set.
    """
    import polars as pl

    from flyball.data.columns import column_lineage

    text = sql.strip().rstrip(";")
    bare = _NOISE.sub(lambda found: "''" if found[0].startswith("'") else " ", text)
    if ";" in bare or not is_query(text + " "):
        raise InvalidInput(f"the query is not a single SELECT: {text[:80]!r}")
    if _READS_FILES.search(bare):
        raise InvalidInput("the query reads a file; a query reads data sets, so publish the file as one first")
    found: dict[str, tuple[Ref, pl.LazyFrame]] = {}
    for quoted, plain in _NAMES.findall(bare):
        name = quoted.replace('""', '"') or plain
        if name not in found and (made := resolve(name)) is not None:
            found[name] = made

    def run(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        result: pl.LazyFrame = pl.SQLContext(dict(tables), register_globals=False).execute(text, eager=False)
        result.collect_schema()
        return result

    try:
        frame = run({name: table for name, (_, table) in found.items()})
    except pl.exceptions.PolarsError as error:
        missing = _MISSING_TABLE.search(str(error))
        if missing is not None:
            raise NotFound(
                f'the query reads "{missing[1]}", which is no data set{did_you_mean(missing[1], known)} '
                f"(there are {listed(known)})"
            ) from None
        raise InvalidInput(f"the query cannot be run: {next(iter(str(error).splitlines()), '')[:300]}") from error
    columns = column_lineage(run, {name: table.collect_schema() for name, (_, table) in found.items()})
    used = {origin.source for origins in columns.values() for origin in origins}
    inputs = {name: made for name, (made, _) in found.items() if name in used}
    told = {
        column: [origin._replace(source=str(inputs[origin.source])) for origin in origins]
        for column, origins in columns.items()
    }
    return Query(frame, inputs, told)
