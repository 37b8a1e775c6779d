"""The three doors of this room: `open_source` for what a user has at hand, `read_source` and `probe` for a `Source`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball import plugins
from flyball.clock import SYSTEM, Clock, format_instant, parse_duration
from flyball.data.sources._layout import Layout
from flyball.data.sources._locations import Environment, shown
from flyball.data.sources._memory import open_table
from flyball.data.sources._protocol import Reading, Request, SourceSettings, work_folder
from flyball.data.sources._spelling import place_of
from flyball.errors import FlyballError, InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.kinds import Source

__all__ = ["Probe", "open_source", "probe", "read_source"]

_PACKAGE = "flyball.data.sources"
_SCHEMES = {"https": "http", "postgres": "postgresql", "sqlite3": "sqlite"}


@dataclass(frozen=True)
class Probe:
    """What a look at a source before reading it says.

    Attributes:
        origin: where, fit to be shown.
        reachable: whether it answered.
        newest: the instant of its newest data; None when it does not tell.
        columns: name → Polars type, as far as a glimpse shows.
        problems: a sentence for each thing that is wrong; none: it can be read.
    """

    origin: str
    reachable: bool
    newest: datetime | None
    columns: Mapping[str, str]
    problems: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against reading."""
        return not self.problems


def open_source(
    source: Any,
    *,
    format: str | None = None,
    string_columns: Collection[str] = (),
    as_text: bool = False,
    options: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Return `source` as a lazy table.

    Args:
        source: a path or glob, several paths; a polars, pandas or Arrow frame; `{column: values}`; or a list of
            `{column: value}`.
        format: csv, parquet, json, ndjson or arrow, when the file's name does not tell.
        string_columns: CSV columns to keep as text though they look like numbers or dates (`01001`);
            `Contract.string_columns` names those of a contract.
        as_text: keep all CSV columns as text.
        options: encoding, separator, decimal, thousands, nulls, union, as in `options` of a `Source`.

    Types of CSV columns are found over the whole file, so a late `N/A` makes a text column and not an error.
    Text up to 64 MB is held in memory; a larger file is looked through once, for faults and types, and then streams.

    Raises:
        NotFound: no such file, or no file matches the glob.
        InvalidInput: an unknown format; an empty file or one with a header only; text in another encoding; two columns
            of the same name; lines of different lengths; times with and without a zone in one column; numbers that
            seem to have a decimal comma; files of a glob that do not fit together; no table at all.
    """
    layout = Layout.of(options or {}, format=format, string_columns=frozenset(string_columns), as_text=as_text)
    if isinstance(source, str | os.PathLike):
        source = [source]
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        from flyball.data.sources.files import scan

        return scan([os.fspath(s) for s in source], layout)
    return open_table(source)


def read_source(
    spec: Source,
    since: Mapping[str, Any] | None = None,
    *,
    project: Path | None = None,
    key: Sequence[str] = (),
    string_columns: Collection[str] = (),
    settings: SourceSettings | None = None,
    environ: Mapping[str, str] = os.environ,
    clock: Clock = SYSTEM,
) -> Reading:
    """Read a source: all of it, or what is new since an earlier reading.

    Args:
        spec: where and how.
        since: the `watermark` of the reading to go on from; None: read all.
        project: the folder that paths are relative to; default: here.
        key: the dataset's key, by which rows that a `lag` reads twice replace each other.
        string_columns: CSV columns to keep as text.
        settings: limits of time and size, and what may be reached.
        environ: where `${NAME}` is looked up.
        clock: tells the time.

    Returns:
        A `Reading`; use it as a context. Nothing new is `frame=None`, not an error.

    Raises:
        NotFound: nothing is there: no file, bucket, table, topic.
        InvalidInput: what is there is no sound table, or the source is described wrongly.
        Unavailable: it does not answer, broke off in the middle, or changed while it was read.
        MissingExtra: the library for this kind of source is not installed.
    """
    settings = settings or SourceSettings()
    before = _continuing(spec, since)
    temporary = tempfile.TemporaryDirectory(prefix="flyball-source-", dir=work_folder(settings))
    try:
        request = _request(spec, before, project, Path(temporary.name), key, string_columns, settings, environ, clock)
        reading: Reading = _module(spec, request.environment).read(request)
    except BaseException:
        temporary.cleanup()
        raise
    reading.watermark = {**reading.watermark, "source": _identity(spec)}
    reading.closing.append(temporary.cleanup)
    return reading


def probe(
    spec: Source,
    expected: Mapping[str, str | None] | None = None,
    *,
    max_age: str | None = None,
    project: Path | None = None,
    string_columns: Collection[str] = (),
    settings: SourceSettings | None = None,
    environ: Mapping[str, str] = os.environ,
    clock: Clock = SYSTEM,
) -> Probe:
    """Look whether a source can be read, is fresh and has the expected columns; reads metadata or a handful of rows.

    Args:
        expected: column → logical type as ODCS writes it (string, integer, number, boolean, date, timestamp, time,
            array, object), or None for any.
        max_age: how old the newest data may be, such as a contract's; the source's own `max_age` holds too.
        others: as for `read_source`.

    Returns:
        A `Probe`; whatever is wrong is one of its `problems`. Nothing is raised but for a library that is missing.
    """
    settings = settings or SourceSettings()
    origin = shown(str(getattr(spec, place_of(spec))))
    with tempfile.TemporaryDirectory(prefix="flyball-probe-", dir=work_folder(settings)) as folder:
        try:
            request = _request(spec, None, project, Path(folder), (), string_columns, settings, environ, clock)
            seen = _module(spec, request.environment).look(request)
        except ImportError:
            raise
        except FlyballError as error:
            return Probe(origin, False, None, {}, (str(error),))
    problems = [] if seen.schema is None else _odd_columns(seen.origin, seen.schema, expected or {})
    for limit in (spec.max_age, max_age):
        if limit is not None:
            problems += _too_old(seen.origin, seen.newest, limit, clock)
    columns = {name: str(dtype) for name, dtype in (seen.schema or {}).items()}
    return Probe(seen.origin, True, seen.newest, columns, tuple(dict.fromkeys(problems)))


def _request(
    spec: Source,
    since: Mapping[str, Any] | None,
    project: Path | None,
    folder: Path,
    key: Sequence[str],
    string_columns: Collection[str],
    settings: SourceSettings,
    environ: Mapping[str, str],
    clock: Clock,
) -> Request:
    environment = Environment(environ)
    layout = Layout.of(environment.filled(spec.options), format=spec.format, string_columns=frozenset(string_columns))
    home = (project or Path()).absolute()
    return Request(spec, since, home, folder, layout, environment, settings, clock, tuple(key))


def _module(spec: Source, environment: Environment) -> Any:
    """Return the module that reads this source: by the scheme of its location, else by its place."""
    place = place_of(spec)
    location: str = environment.filled(str(getattr(spec, place)))
    scheme = location.partition(":")[0].lower().partition("+")[0] if ":" in location[:24] else ""
    if place == "delta":
        return plugins.find(_PACKAGE, "delta")
    if place == "files":
        return plugins.find(_PACKAGE, scheme if location.startswith(f"{scheme}://") and scheme != "file" else "files")
    name = _SCHEMES.get(scheme, scheme)
    known = plugins.names(_PACKAGE)
    if name not in known or name in ("files", "delta"):
        raise InvalidInput(
            f'there is no source of the kind "{scheme}"{did_you_mean(scheme, known)} (known: {listed(known)})'
        )
    return plugins.find(_PACKAGE, name)


def _identity(spec: Source) -> str:
    """Return what tells this source from another, without values of variables; a watermark goes with one of them."""
    place = place_of(spec)
    return shown(str(getattr(spec, place))) + (f" {spec.table or spec.query}" if place == "sql" else "")


def _continuing(spec: Source, since: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if since is None:
        return None
    if since.get("source") != _identity(spec):
        raise InvalidInput(
            f"the last reading was of {since.get('source') or 'another source'} and the source is {_identity(spec)} "
            "now; read the whole source once"
        )
    return {name: value for name, value in since.items() if name != "source"}


def _odd_columns(origin: str, schema: pl.Schema, expected: Mapping[str, str | None]) -> list[str]:
    problems = []
    for name, logical in expected.items():
        if name not in schema:
            near = did_you_mean(name, schema)
            problems.append(f'{origin} has no column "{name}"{near} (it has: {listed(schema)})')
        elif logical is not None and not _is_of(schema[name], logical):
            problems.append(f'column "{name}" of {origin} is of type {schema[name]}; expected {logical}')
    return problems


def _is_of(dtype: pl.DataType, logical: str) -> bool:
    import polars as pl

    if dtype == pl.Null or dtype == pl.String:
        return True  # no value was seen yet; or text, which a contract may read as anything
    return {
        "string": False,
        "integer": dtype.is_integer(),
        "number": dtype.is_numeric(),
        "boolean": dtype == pl.Boolean or dtype.is_integer(),
        "date": dtype in (pl.Date, pl.Datetime),
        "timestamp": dtype in (pl.Date, pl.Datetime),
        "time": dtype == pl.Time,
        "array": dtype.is_nested(),
        "object": dtype.is_nested(),
    }.get(logical, True)


def _too_old(origin: str, newest: datetime | None, limit: str, clock: Clock) -> list[str]:
    if newest is None:
        return [f"{origin} does not tell how old its data is, and it may be {limit} at most; name a watermark column"]
    age = clock.now() - newest
    if age <= parse_duration(limit):
        return []
    hours = age.total_seconds() / 3600
    said = f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} d"
    return [f"the newest data of {origin} is of {format_instant(newest)}, {said} old; expected {limit} at most"]
