"""A table or a query of PostgreSQL: `sql: postgresql://user:${PASSWORD}@host/name`, with `table` or `query`.

Rows come by `COPY … TO STDOUT` in CSV, which the server sends as fast as it scans, and are parsed by Polars in blocks
into the types that the server names; no row becomes Python objects. One read-only transaction sees one state of the
database. A parameter stands as `%(name)s` in the query.

    smallint, integer, bigint    Int16, Int32, Int64          boolean     Boolean
    real, double precision       Float32, Float64             bytea       Binary
    numeric(p, s), p ≤ 38        Decimal(p, s)                date, time  Date, Time
    numeric otherwise            Float64                      timestamp   Datetime(us)
    all others (uuid, json, arrays, enumerations…)  text      timestamptz Datetime(us, UTC)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.data.sources._copying import CopyFailed, rows_of_copy
from flyball.data.sources._landing import landed
from flyball.data.sources._locations import shown
from flyball.data.sources._protocol import Glimpse, Reading, Request
from flyball.data.sources._sql import newest_of, selected
from flyball.data.sources._watermarks import bound_of, check_column, ended_at, mode_of
from flyball.errors import FlyballError, InvalidInput, MissingExtra, NotFound, Unavailable

if TYPE_CHECKING:
    import polars as pl
    import psycopg

__all__ = ["look", "read"]

_BLOCK_BYTES = 8 * 1024 * 1024  # of CSV, parsed at once
_LONGEST_DECIMAL = 38  # digits that Polars' Decimal holds
_OWN_TYPES = {16: "boolean", 17: "bytea", 20: "Int64", 21: "Int16", 23: "Int32", 26: "UInt32", 700: "Float32"}
_OWN_TYPES |= {701: "Float64", 1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz", 1700: "numeric"}
_FORMATS = {"timestamp": "%Y-%m-%d %H:%M:%S%.f", "timestamptz": "%Y-%m-%d %H:%M:%S%.f+00"}
_MISSING = ("42P01", "3D000", "3F000", "42703")  # undefined table, database, schema, column
_REFUSED = re.compile("authentication failed|no password|pg_hba|not permitted")
_UNTRUSTED = re.compile("certificate|SSL")


@dataclass(frozen=True)
class _Column:
    name: str
    type: str
    precision: int = 0
    scale: int = 0


def read(request: Request) -> Reading:
    """Read the table or query; with `since`, the rows beyond the watermark's column."""
    import polars as pl

    where = _origin(request)
    bound = bound_of(request)
    with _Session(request, where) as session:
        columns = session.columns(selected(request.spec, _quoted))
        if request.spec.watermark is not None:
            check_column(request.spec.watermark, _schema(columns), where)
        query, values = session.narrowed(bound)
        frame, _ = landed(session.blocks(query, values, columns), request.folder, where)
    empty = pl.LazyFrame(schema=_schema(columns))
    if request.spec.watermark is None:
        return Reading(frame if frame is not None else empty, {}, "whole", where)
    after, _ = ended_at(frame if frame is not None else empty, request, where)
    if bound is None and frame is None:
        frame = empty
    return Reading(frame, after or {}, mode_of(request, bound), where)


def look(request: Request) -> Glimpse:
    """Return the columns, and the newest value of the watermark's column where that is a time."""
    where = _origin(request)
    with _Session(request, where) as session:
        columns = session.columns(selected(request.spec, _quoted))
        schema = _schema(columns)
        newest = None
        if request.spec.watermark is not None:
            check_column(request.spec.watermark, schema, where)
            newest = session.largest(request.spec.watermark)
    return Glimpse(where, schema, newest)


class _Session:
    """One read-only transaction; whatever psycopg says becomes an error in our words, without passwords."""

    def __init__(self, request: Request, where: str) -> None:
        self._request, self._where = request, where
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> _Session:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("psycopg", "postgres", "reading PostgreSQL") from None
        request = self._request
        wait_s = int(request.number("timeout_s", request.settings.timeout_s))
        try:
            connection = psycopg.connect(
                request.environment.filled(str(request.spec.sql)),
                connect_timeout=max(wait_s, 2),
                options="-c default_transaction_read_only=on -c TimeZone=UTC -c DateStyle=ISO "
                "-c IntervalStyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex",
                gssencmode="disable",  # its bytes could not be read from the socket
                keepalives=1,
                keepalives_idle=wait_s,
                keepalives_interval=max(wait_s // 3, 1),
                keepalives_count=3,
                tcp_user_timeout=wait_s * 1000,
                application_name="flyball",
                client_encoding="UTF8",
            )
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        except psycopg.Error as error:
            raise self._explained(error, error.sqlstate or "") from error
        self._connection = connection
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _traceback: Any) -> None:
        import psycopg

        assert self._connection is not None
        self._connection.close()
        if isinstance(error, psycopg.Error):
            raise self._explained(error, error.sqlstate or "") from error

    def columns(self, select: str) -> list[_Column]:
        """Return the columns of a SELECT; the server refuses here whatever is more than one statement."""
        assert self._connection is not None
        self._select = select
        with self._connection.cursor() as cursor:
            query = f"SELECT * FROM ({self._template}) AS rows LIMIT 0"
            cursor.execute(query.encode(), self._parameters, prepare=True)
            found = [
                _Column(c.name, _OWN_TYPES.get(c.type_code, "text"), c.precision or 0, c.scale or 0)
                for c in cursor.description or ()
            ]
        names = [column.name for column in found]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput(f'{self._where} has two columns named "{name}"; name one AS something else')
        return found

    def narrowed(self, bound: tuple[str, Any] | None) -> tuple[str, Mapping[str, Any]]:
        """Return the SELECT of the rows within a bound, and the values of its parameters."""
        if bound is None:
            return self._template, self._parameters
        assert self._request.spec.watermark is not None
        column = f"rows.{_quoted(self._request.spec.watermark)}"
        sign, value = bound
        query = f"SELECT * FROM ({self._template}) AS rows WHERE {column} {sign} %(_watermark)s OR {column} IS NULL"
        return query, {**self._parameters, "_watermark": value}

    def blocks(self, query: str, values: Mapping[str, Any], columns: list[_Column]) -> Iterator[pl.DataFrame]:
        """Yield the rows in blocks of bounded size."""
        import psycopg

        assert self._connection is not None
        wanted = ", ".join(_selection(column) for column in columns)
        # COPY takes no parameters, so the client library writes them into the text, quoted.
        query = psycopg.ClientCursor(self._connection).mogrify(query.encode(), values)
        statement = f"COPY (SELECT {wanted} FROM ({query}) AS rows) TO STDOUT (FORMAT csv, ENCODING 'UTF8')"
        for data in self._copied(statement.encode()):
            yield self._parsed(data, columns)

    def largest(self, column: str) -> datetime | None:
        """Return the newest value of a column of times."""
        assert self._connection is not None
        query = f"SELECT max(rows.{_quoted(column)}) FROM ({self._template}) AS rows"
        with self._connection.cursor() as cursor:
            found = cursor.execute(query.encode(), self._parameters).fetchone()
        return newest_of(found[0] if found else None)

    def _copied(self, statement: bytes) -> Iterator[bytes]:
        """Yield the answer in blocks of whole rows; without TLS from the socket, which is many times cheaper."""
        assert self._connection is not None
        if not self._connection.pgconn.ssl_in_use:
            try:
                yield from rows_of_copy(self._connection.fileno(), statement, _BLOCK_BYTES)
            except CopyFailed as error:
                raise self._explained(error, error.sqlstate) from error
            return
        waiting: list[Any] = []
        size = 0
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in copy:
                waiting.append(row)
                size += len(row)
                if size >= _BLOCK_BYTES:
                    yield b"".join(waiting)
                    waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)

    @property
    def _parameters(self) -> Mapping[str, Any]:
        return self._request.environment.filled(self._request.spec.parameters)  # type: ignore[no-any-return]

    @property
    def _template(self) -> str:
        """The SELECT as psycopg wants it: every `%` that begins no parameter stands for itself."""
        return re.sub(r"%(?!\()", "%%", self._select) if self._parameters else self._select.replace("%", "%%")

    def _parsed(self, data: bytes, columns: list[_Column]) -> pl.DataFrame:
        import polars as pl

        names = [f"c{i}" for i in range(len(columns))]
        raw: dict[str, Any] = {n: _parsed_as(c) for n, c in zip(names, columns, strict=True)}
        try:
            frame = pl.read_csv(data, has_header=False, schema=raw)
            return frame.select(_typed(n, c) for n, c in zip(names, columns, strict=True))
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise InvalidInput(
                f"{self._where} has a value that no table holds ({self._request.environment.reason(error)}); an "
                "infinite or very old time, or a NaN in numeric: leave it out, or cast it to text in a query"
            ) from error

    def _explained(self, error: Exception, state: str) -> FlyballError:
        reason = self._request.environment.reason(error)
        if state in _MISSING:
            return NotFound(f"{self._where}: {reason}")
        if state.startswith("22"):
            return InvalidInput(f"{self._where}: {reason}; leave such rows out, or cast them in a query")
        if state.startswith(("42", "25", "0A", "26")) or (not state and isinstance(error, _wrong())):
            return InvalidInput(f"{self._where}: {reason}; expected one SELECT that only reads")
        if self._connection is None and _UNTRUSTED.search(reason):
            return InvalidInput(
                f"{self._where} cannot be trusted: {reason}; expected a certificate for this host, signed by an "
                "authority in the file that sslrootcert names, or another sslmode"
            )
        if self._connection is None and "does not exist" in reason:
            return NotFound(f"{self._where}: {reason}")
        if state.startswith("28") or (self._connection is None and _REFUSED.search(reason)):
            return InvalidInput(f"{self._where} refuses to let us in: {reason}; check the user and the password")
        if state.startswith("57P") or self._connection is not None:
            return Unavailable(f"{self._where} broke off while it was read: {reason}; nothing of it was kept")
        return Unavailable(f"{self._where} does not answer: {reason}")


def _wrong() -> type[Exception]:
    import psycopg

    return psycopg.ProgrammingError


def _origin(request: Request) -> str:
    named = request.spec.table if request.spec.table is not None else "query"
    return f"{shown(str(request.spec.sql))} ({named})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _selection(column: _Column) -> str:
    quoted = f"rows.{_quoted(column.name)}"
    if column.type == "bytea":
        return f"encode({quoted}, 'hex')"
    return quoted


def _schema(columns: list[_Column]) -> pl.Schema:
    import polars as pl

    return pl.Schema({column.name: _dtype(column) for column in columns})


def _dtype(column: _Column) -> Any:
    import polars as pl

    if column.type == "numeric":
        exact = 0 < column.precision <= _LONGEST_DECIMAL and 0 <= column.scale <= column.precision
        return pl.Decimal(column.precision, column.scale) if exact else pl.Float64()
    others: dict[str, Any] = {
        "boolean": pl.Boolean(),
        "bytea": pl.Binary(),
        "date": pl.Date(),
        "time": pl.Time(),
        "timestamp": pl.Datetime("us"),
        "timestamptz": pl.Datetime("us", "UTC"),
        "text": pl.String(),
    }
    return others[column.type] if column.type in others else getattr(pl, column.type)()


def _parsed_as(column: _Column) -> Any:
    import polars as pl

    dtype = _dtype(column)
    return dtype if dtype.is_numeric() and not dtype.is_decimal() else pl.String()


def _typed(name: str, column: _Column) -> pl.Expr:
    import polars as pl

    value = pl.col(name)
    if column.type == "boolean":
        value = value == "t"
    elif column.type == "bytea":
        value = value.str.decode("hex")
    elif column.type == "date":
        value = value.str.to_date("%Y-%m-%d")
    elif column.type == "time":
        value = value.str.to_time("%H:%M:%S%.f")
    elif column.type in _FORMATS:
        value = value.str.to_datetime(_FORMATS[column.type], time_unit="us")
        value = value.dt.replace_time_zone("UTC") if column.type == "timestamptz" else value
    elif _dtype(column).is_decimal():
        value = value.cast(_dtype(column))
    return value.alias(column.name)
