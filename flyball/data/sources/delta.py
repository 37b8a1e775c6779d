"""A Delta table: `delta: tables/flights` or `delta: s3://bucket/flights`; `version` or `timestamp` pin one state of it.

The table is scanned lazily where it is: a version's files never change. The watermark is the version. Between two
versions that only appended, the appended files are read; after deleting, updating, merging or overwriting, the whole
table is, since the rows read before may be gone; rearranging files (OPTIMIZE, VACUUM) is nothing new.

Options besides those of `s3`: `version` (a number), `timestamp` (RFC 3339: the newest version that is not younger).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flyball.clock import parse_instant
from flyball.data.sources._locations import shown
from flyball.data.sources._protocol import Glimpse, Reading, Request
from flyball.data.sources.s3 import options_of
from flyball.errors import FlyballError, InvalidInput, MissingExtra, NotFound, Unavailable

if TYPE_CHECKING:
    import polars as pl

__all__ = ["look", "read"]

_QUIET = ("OPTIMIZE", "VACUUM", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT")
_STORE_NAMES = {
    "endpoint": "aws_endpoint_url",
    "region": "aws_region",
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}


def read(request: Request) -> Reading:
    """Read the table; with `since`, the rows that were appended since that version, or all when more happened."""
    table, uri, store = _opened(request)
    version = int(table.version())
    origin = f"{shown(str(request.spec.delta))} (version {version})"
    after = {"version": version, "table": str(table.metadata().id)}
    since = request.since or {}
    if since.get("table") == after["table"] and since.get("version") == version:
        return Reading(None, after, "append", origin)
    frame = _scanned(uri, version, store, request, origin)
    if "version" not in since:
        return Reading(frame, after, "whole", origin)
    if since.get("table") != after["table"] or since["version"] > version:
        note = f"the table is another one than that whose version {since['version']} was read; all was read anew"
        return Reading(frame, after, "whole", origin, (note,))
    steps = _steps(table, int(since["version"]))
    if all(step in _QUIET for step in steps):
        return Reading(None, after, "append", origin)
    if steps and all(step == "append" or step in _QUIET[1:] for step in steps):
        appended = _appended(table, uri, int(since["version"]), store, frame.collect_schema())
        if appended is not None:
            return Reading(appended, after, "append", origin)
    done = ", ".join(sorted({step for step in steps if step != "append"})) or "its history was cut"
    note = f"since version {since['version']} more than appending happened ({done}); all was read anew"
    return Reading(frame, after, "whole", origin, (note,))


def look(request: Request) -> Glimpse:
    """Return the columns, and when the version was made."""
    table, uri, store = _opened(request)
    version = int(table.version())
    origin = f"{shown(str(request.spec.delta))} (version {version})"
    history = table.history(1)
    newest = datetime.fromtimestamp(history[0]["timestamp"] / 1000, UTC) if history else None
    return Glimpse(origin, _scanned(uri, version, store, request, origin).collect_schema(), newest)


def _opened(request: Request) -> tuple[Any, str, dict[str, str]]:
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise MissingExtra("deltalake", "lake", "reading Delta tables") from None
    location: str = request.environment.filled(str(request.spec.delta))
    is_remote = "://" in location
    uri = location if is_remote else str(request.project / Path(location).expanduser())
    store = _store(request) if is_remote else {}
    version, timestamp = request.option("version"), request.option("timestamp")
    if version is not None and timestamp is not None:
        raise InvalidInput("a Delta table is read at a version or at a timestamp; give one of both")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 0):
        raise InvalidInput(f"the option version is {version!r}; expected a whole number from 0 on")
    if not is_remote and not Path(uri).is_dir():
        raise NotFound(f"there is no folder {uri}; expected a Delta table there")
    try:
        table = DeltaTable(uri, version=version, storage_options=store or None)
        if timestamp is not None:
            table.load_as_version(parse_instant(str(timestamp)))
    except Exception as error:
        raise _explained(error, request, shown(location), version) from error
    return table, uri, store


def _store(request: Request) -> dict[str, str]:
    wait_s = int(request.number("timeout_s", request.settings.timeout_s))
    found = {_STORE_NAMES[name]: value for name, value in options_of(request).items()}
    endpoint = found.get("aws_endpoint_url", "")
    if request.option("allow_http", endpoint.startswith("http://")):
        found["aws_allow_http"] = "true"
    found.setdefault("aws_region", "us-east-1")
    retries = str(request.settings.attempts - 1)
    return {**found, "timeout": f"{wait_s}s", "connect_timeout": "5s", "max_retries": retries}


def _scanning(store: Mapping[str, str]) -> dict[str, str] | None:
    """Return what Polars understands of the store's options."""
    return {name: value for name, value in store.items() if name != "max_retries"} or None


def _scanned(uri: str, version: int, store: Mapping[str, str], request: Request, origin: str) -> pl.LazyFrame:
    import polars as pl

    try:
        frame = pl.scan_delta(uri, version=version, storage_options=_scanning(store))
        frame.collect_schema()
    except Exception as error:
        raise _explained(error, request, origin, version) from error
    return frame


def _steps(table: Any, since: int) -> list[str]:
    """Return what was done after a version, oldest first; empty when the history does not reach back to it."""
    done = {int(entry["version"]): entry for entry in table.history() if "version" in entry}
    versions = range(since + 1, int(table.version()) + 1)
    if any(version not in done for version in versions):
        return []
    return [_step(done[version]) for version in versions]


def _step(entry: Mapping[str, Any]) -> str:
    operation = str(entry.get("operation", ""))
    mode = str(entry.get("operationParameters", {}).get("mode", "")).lower()
    if operation == "STREAMING UPDATE" or (operation == "WRITE" and mode == "append"):
        return "append"
    return f"{operation} {mode}".strip().lower() if operation == "WRITE" else operation


def _appended(table: Any, uri: str, since: int, store: Mapping[str, str], schema: pl.Schema) -> pl.LazyFrame | None:
    """Return the rows of the files that came since; None when they cannot be told from the others."""
    import polars as pl
    from deltalake import DeltaTable

    if "delta.columnMapping.mode" in table.metadata().configuration:
        return None  # names in the files are not those of the table
    try:
        before = DeltaTable(uri, version=since, storage_options=dict(store) or None)
    except Exception:
        return None  # its log was cleaned up
    known = set(pl.DataFrame(before.get_add_actions(flatten=True))["path"])
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    if not known <= set(actions["path"]):
        return None
    partitions = list(table.metadata().partition_columns)
    frames = []
    for row in actions.filter(~pl.col("path").is_in(list(known))).iter_rows(named=True):
        frame = pl.scan_parquet(
            f"{uri.rstrip('/')}/{unquote(row['path'])}",
            glob=False,
            hive_partitioning=False,
            schema=pl.Schema({n: t for n, t in schema.items() if n not in partitions}),
            missing_columns="insert",
            storage_options=_scanning(store),
        )
        values = [pl.lit(row[f"partition.{n}"]).cast(schema[n]).alias(n) for n in partitions]
        frames.append(frame.with_columns(values).select(schema.names()))
    return pl.concat(frames) if frames else None


def _explained(error: Exception, request: Request, where: str, version: Any) -> FlyballError:
    reason = request.environment.reason(error)
    if isinstance(error, FlyballError):
        return error
    kind, text = type(error).__name__, str(error)
    if kind == "TableNotFoundError" or "not a Delta table" in text or "No files in log segment" in text:
        return NotFound(f"there is no Delta table at {where}")
    if "NoSuchBucket" in text:
        return NotFound(f"there is no bucket for {where}")
    if "end version" in text or "Invalid table version" in text:
        return NotFound(f"{where} has no version {version}")
    if "error sending request" in text or "retries" in text or "timed out" in text:
        return Unavailable(f"{where} does not answer: {reason}")
    if any(code in text for code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")):
        return InvalidInput(f"{where} refuses to let us in; check access_key_id and secret_access_key")
    return InvalidInput(f"{where} is no sound Delta table: {reason}")
