"""A table or a query of an SQLite file: `sql: sqlite:path/to/file.db` in the project, with `table` or `query`.

Rows are fetched in blocks. SQLite lets every value of a column have a type of its own; here a column is what it is
declared to be (INTEGER, REAL, TEXT, BLOB, BOOLEAN, DATE, TIME, DATETIME or TIMESTAMP in ISO 8601), and a value of
another type is refused. A column declared otherwise, or computed, is what its values are; numbers and texts together
are refused. A parameter stands as `:name` in the query. The file is opened for reading only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flyball.data.sources._landing import landed
from flyball.data.sources._protocol import Glimpse, Reading, Request
from flyball.data.sources._sql import newest_of, selected
from flyball.data.sources._types import Kind, Numbers, converted, kind_of, merged
from flyball.data.sources._watermarks import beyond, bound_of, check_column, ended_at, mode_of
from flyball.errors import InvalidInput, NotFound, Unavailable, did_you_mean

if TYPE_CHECKING:
    import polars as pl

__all__ = ["look", "read"]

_ROWS = 50_000  # fetched at once
_GLIMPSE_ROWS = 1_000
_TIMES = ("DATE", "TIME", "DATETIME", "TIMESTAMP")
_TIME_KINDS: tuple[Kind, ...] = ("nothing", "date", "time", "local", "zoned")


def read(request: Request) -> Reading:
    """Read the table or query; with `since`, the rows beyond the watermark's column."""
    import polars as pl

    where = _origin(request)
    bound = bound_of(request)
    with closing(_connected(request, where)) as connection:
        try:
            select, declared = _described(connection, request, where)
            query, values = _narrowed(select, request, bound)
            kinds: dict[str, Kind] = {}
            frame, _ = landed(_blocks(connection, query, values, declared, where, kinds), request.folder, where)
        except sqlite3.Error as error:
            raise _explained(error, request, where) from error
    if frame is None:
        frame = pl.LazyFrame(schema={name: _dtype(kind) or pl.String() for name, kind in declared.items()})
        empty = True
    else:
        empty = False
        times = [converted(name, kind, Numbers()) for name, kind in kinds.items()]
        frame = frame.with_columns(times)
    if request.spec.watermark is None:
        return Reading(frame, {}, "whole", where)
    check_column(request.spec.watermark, frame.collect_schema(), where)
    if bound is not None and not empty:
        frame = frame.filter(beyond(request.spec.watermark, bound, frame.collect_schema()[request.spec.watermark]))
    after, rows = ended_at(frame, request, where)
    return Reading(frame if rows or bound is None else None, after or {}, mode_of(request, bound), where)


def look(request: Request) -> Glimpse:
    """Return the columns as the first rows show them, and the newest value of the watermark's column."""
    import polars as pl

    where = _origin(request)
    with closing(_connected(request, where)) as connection:
        try:
            select, declared = _described(connection, request, where)
            kinds: dict[str, Kind] = {}
            values = request.environment.filled(request.spec.parameters)
            first = f"SELECT * FROM ({select}) LIMIT {_GLIMPSE_ROWS}"
            frames = list(_blocks(connection, first, values, declared, where, kinds))
            newest = None
            if request.spec.watermark is not None:
                column = _quoted(request.spec.watermark)
                check = f"SELECT {column} FROM ({select}) ORDER BY julianday({column}) DESC, {column} DESC LIMIT 1"
                found = connection.execute(check, values).fetchone()
                newest = newest_of(found[0]) if found else None
        except sqlite3.Error as error:
            raise _explained(error, request, where) from error
    if not frames:
        return Glimpse(where, pl.Schema({n: _dtype(kind) or pl.String() for n, kind in declared.items()}), newest)
    shown = pl.concat(frames).with_columns([converted(n, kind, Numbers()) for n, kind in kinds.items()])
    return Glimpse(where, shown.schema, newest)


def _origin(request: Request) -> str:
    named = request.spec.table if request.spec.table is not None else "query"
    return f"{request.spec.sql} ({named})"


def _connected(request: Request, where: str) -> sqlite3.Connection:
    given: str = request.environment.filled(str(request.spec.sql))
    text = given.partition(":")[2]
    text = (
        text.removeprefix("//").removeprefix("/") if text.startswith("///") else text
    )  # sqlite:///path, as SQLAlchemy
    path = request.project / Path(text).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise NotFound(f"there is no file {text}, the database of {where}{did_you_mean(path.name, siblings)}")
    wait_s = request.number("timeout_s", request.settings.timeout_s)
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=wait_s, isolation_level=None)
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _described(connection: sqlite3.Connection, request: Request, where: str) -> tuple[str, dict[str, str]]:
    """Return the SELECT and what its columns are declared to be; "" where nothing says."""
    select = selected(request.spec, _quoted)
    parameters = request.environment.filled(request.spec.parameters)
    connection.execute("BEGIN")  # one state of the database from here on
    if parameters:
        connection.execute("PRAGMA query_only = ON")
        names = [c[0] for c in connection.execute(f"SELECT * FROM ({select}) LIMIT 0", parameters).description]
        declared = dict.fromkeys(names, "")
    else:
        # A view knows the declared types of the columns that it passes on; a bare cursor does not tell them.
        connection.execute(f"CREATE TEMP VIEW flyball_rows AS {select}")
        connection.execute("PRAGMA query_only = ON")
        found = connection.execute("PRAGMA table_info(flyball_rows)").fetchall()
        names = [row[1] for row in found]
        declared = {row[1]: str(row[2] or "").upper().partition("(")[0].strip() for row in found}
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f'{where} has two columns named "{name}"; name one AS something else')
    return select, declared


def _narrowed(select: str, request: Request, bound: tuple[str, Any] | None) -> tuple[str, Mapping[str, Any]]:
    values = request.environment.filled(request.spec.parameters)
    if bound is None:
        return select, values
    column = _quoted(str(request.spec.watermark))
    sign, value = bound
    if not isinstance(value, int | str):
        # Texts of times compare only when written alike. SQLite's own function brings them to one form, but in
        # milliseconds: so a second more is taken here, and `read` keeps what is exactly beyond.
        value = value.isoformat()
        test = f"julianday({column}) >= julianday(:_watermark) - 1.0 / 86400 OR julianday({column}) IS NULL"
    else:
        test = f"{column} {sign} :_watermark"
    return f"SELECT * FROM ({select}) WHERE {test} OR {column} IS NULL", {**values, "_watermark": value}


def _blocks(
    connection: sqlite3.Connection,
    query: str,
    values: Mapping[str, Any],
    declared: Mapping[str, str],
    where: str,
    kinds: dict[str, Kind],
) -> Iterator[pl.DataFrame]:
    """Yield the rows in blocks; `kinds` collects what the texts of columns declared as times are."""
    import polars as pl

    seen: dict[str, type] = {}
    cursor = connection.execute(query, values)
    while rows := cursor.fetchmany(_ROWS):
        columns = []
        for name, found in zip(declared, zip(*rows, strict=True), strict=True):
            series = _series(name, found, declared[name], seen, where)
            if series.dtype == pl.String and declared[name] in _TIMES:
                kinds[name] = merged(kinds.get(name, "nothing"), kind_of(series, Numbers()))
                if kinds[name] not in _TIME_KINDS:
                    raise InvalidInput(
                        f'column "{name}" of {where} is declared {declared[name]} and has texts that are no times in '
                        "ISO 8601, or some with a zone and some without; cast it to TEXT in a query"
                    )
            columns.append(series)
        yield pl.DataFrame(columns)


def _series(name: str, values: tuple[Any, ...], declared: str, seen: dict[str, type], where: str) -> pl.Series:
    import polars as pl

    types = {type(value) for value in values} - {type(None)}
    types |= {seen[name]} if name in seen else set()
    if types == {int, float}:
        types = {float}
    if len(types) > 1:
        found = " and ".join(sorted(_WORDS[t] for t in types))
        raise InvalidInput(f'column "{name}" of {where} holds {found}; cast it to one type in a query')
    kind = next(iter(types), None)
    if kind is not None:
        seen[name] = kind
    wanted = _dtype(declared)
    if kind is None:
        return pl.Series(name, values, wanted or pl.Null())
    if wanted == pl.Boolean and kind is int:
        return pl.Series(name, values, pl.Int64).cast(pl.Boolean)
    expected = _EXPECTED.get(_affinity(declared))
    if expected is not None and kind not in expected:
        raise InvalidInput(
            f'column "{name}" of {where} is declared {declared} and holds {_WORDS[kind]}; cast it in a query'
        )
    dtypes: dict[type, Any] = {int: pl.Int64(), float: pl.Float64(), str: pl.String(), bytes: pl.Binary()}
    return pl.Series(name, values, pl.Float64() if wanted == pl.Float64 else dtypes[kind], strict=False)


_WORDS: Mapping[type, str] = {int: "whole numbers", float: "numbers", str: "texts", bytes: "bytes"}
_EXPECTED: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "real": (float, int),
    "text": (str,),
    "blob": (bytes,),
}


def _affinity(declared: str) -> str:
    """Return the affinity of a declared type, by the rules of SQLite (Datatypes in SQLite, section 3.1)."""
    if "INT" in declared:
        return "integer"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if "BLOB" in declared:
        return "blob"
    return "real" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else ""


def _dtype(declared: str) -> Any:
    import polars as pl

    if declared in ("BOOLEAN", "BOOL"):
        return pl.Boolean()
    dtypes: dict[str, Any] = {"integer": pl.Int64(), "real": pl.Float64(), "text": pl.String(), "blob": pl.Binary()}
    return dtypes.get(_affinity(declared))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _explained(error: sqlite3.Error, request: Request, where: str) -> Exception:
    reason = request.environment.reason(error)
    if "no such table" in reason or "no such column" in reason:
        return NotFound(f"{where}: {reason}")
    if "locked" in reason or "busy" in reason or "disk I/O" in reason:
        return Unavailable(f"{where} cannot be read now: {reason}")
    if "not a database" in reason or "malformed" in reason:
        return InvalidInput(f"{where} is no sound SQLite file: {reason}")
    return InvalidInput(f"{where}: {reason}; expected one SELECT that only reads")
