"""Files in an S3-compatible store: `files: s3://bucket/flights-*.parquet`; CSV, JSON and Arrow too.

Objects are copied to the work folder, then opened as files of this machine are: so the same faults are found in them,
each is read as it was when it was listed (its ETag is asked for, and a copy that breaks off is no copy), and checking
and writing read one state. Polars could scan Parquet in the store itself, but not promise that. The client is obstore.

Options: `endpoint`, `region`, `access_key_id`, `secret_access_key`, `session_token` (else the variables `AWS_…` that
other tools read too, else what the machine's role gives), `allow_http`, `timeout_s`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import translate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flyball.data.sources._locations import shown
from flyball.data.sources._protocol import Glimpse, Reading, Request
from flyball.data.sources._tables import Part, glimpse, partitions_of
from flyball.data.sources.files import file_watermark, new_parts, rows_of
from flyball.errors import FlyballError, InvalidInput, MissingExtra, NotFound, Unavailable, listed

__all__ = ["look", "options_of", "read"]

_MAGIC = re.compile(r"[*?\[]")
_CHUNK_BYTES = 8 * 1024 * 1024
_OPTIONS = ("endpoint", "region", "access_key_id", "secret_access_key", "session_token")


def read(request: Request) -> Reading:
    """Read the objects that match; with `since`, those that came since, or the rows beyond the column's watermark."""
    store, bucket, pattern = _store(request)
    found = list(_matching(request, store, bucket, pattern))
    states = {f"s3://{bucket}/{o['path']}": f"{o['size']}-{o['e_tag']}" for o in found}
    parts = [Part(_place(request, o["path"]), f"s3://{bucket}/{o['path']}", _partitions(request, o)) for o in found]
    if request.spec.watermark is None:
        wanted, mode, notes = new_parts(parts, states, request.since)
        if not wanted:
            return Reading(None, file_watermark(states), mode, _origin(request), notes)
    else:
        wanted = parts
    names = {part.name for part in wanted}
    for item, part in zip(found, parts, strict=True):
        if part.name in names:
            _copy(request, store, bucket, item, part.path)
    try:
        return rows_of(request, parts, states, _origin(request))
    except InvalidInput as error:  # of a copy, whose name nobody knows
        raise type(error)(str(error).replace(f"{request.folder}/", f"s3://{bucket}/")) from error


def look(request: Request) -> Glimpse:
    """Return the columns of the newest object, and when it was written."""
    store, bucket, pattern = _store(request)
    newest = max(_matching(request, store, bucket, pattern), key=lambda o: o["last_modified"])
    part = Part(_place(request, newest["path"]), f"s3://{bucket}/{newest['path']}", _partitions(request, newest))
    if newest["size"] > _CHUNK_BYTES:
        _copy_edge(request, store, newest, part)
    else:
        _copy(request, store, bucket, newest, part.path)
    return Glimpse(_origin(request), glimpse(part, request.layout), newest["last_modified"])


def options_of(request: Request) -> dict[str, str]:
    """Return endpoint, region and credentials by the names of the store's client, as far as the options say."""
    found = {name: request.option(name) for name in _OPTIONS if name in request.spec.options}
    for name, value in found.items():
        if not isinstance(value, str):
            raise InvalidInput(f"the option {name} is of type {type(value).__name__}; expected a text")
    return found


def _origin(request: Request) -> str:
    return shown(str(request.spec.files))


def _store(request: Request) -> tuple[Any, str, str]:
    """Return the client, the bucket and the key or glob of keys."""
    try:
        from obstore.store import S3Store
    except ImportError:
        raise MissingExtra("obstore", "objects", "reading from S3") from None
    location: str = request.environment.filled(str(request.spec.files))
    bucket, _, pattern = location.removeprefix("s3://").partition("/")
    if not bucket or not pattern:
        raise InvalidInput(f"{shown(location)} names no object; expected s3://bucket/key, or a glob of keys")
    options = options_of(request)
    endpoint = options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL", "")
    plain = bool(request.option("allow_http", urlsplit(endpoint).scheme == "http"))
    wait_s = request.number("timeout_s", request.settings.timeout_s)
    if endpoint:
        options["endpoint"] = endpoint
    options.setdefault("region", os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION", "us-east-1")))
    wait = timedelta(seconds=wait_s)
    try:
        store = S3Store(
            bucket,
            config=options,  # type: ignore[arg-type]
            client_options={
                "allow_http": plain,
                "connect_timeout": min(wait, timedelta(seconds=5)),
                "timeout": timedelta(seconds=wait_s * 20),  # of one whole object; the next line ends what stands still
                "read_timeout": wait,
            },
            retry_config={"max_retries": request.settings.attempts - 1, "retry_timeout": wait},
        )
    except Exception as error:
        raise _explained(error, request, f"s3://{bucket}") from error
    return store, bucket, pattern


def _matching(request: Request, store: Any, bucket: str, pattern: str) -> Iterator[dict[str, Any]]:
    import obstore

    fixed = _MAGIC.split(pattern, maxsplit=1)[0]
    folder = fixed.rpartition("/")[0] if _MAGIC.search(pattern) else pattern
    try:
        if not _MAGIC.search(pattern):
            found = [obstore.head(store, pattern)]
        else:
            test = re.compile(_translated(pattern))
            listing = obstore.list(store, prefix=folder or None)
            found = [o for block in listing for o in block if test.match(o["path"]) and o["size"]]
    except Exception as error:
        raise _explained(error, request, f"s3://{bucket}/{pattern}") from error
    if not found:
        raise NotFound(f"no object matches s3://{bucket}/{pattern}")
    yield from sorted((dict(o) for o in found), key=lambda o: str(o["path"]))


def _translated(pattern: str) -> str:
    """Return the regular expression of a glob in which `*` stays within a folder and `**` does not."""
    pieces = [translate(piece)[4:-3].replace(".*", "[^/]*") for piece in re.split(r"\*\*/?", pattern)]
    return "(?s:" + "(?:.*/)?".join(pieces) + r")\Z"


def _partitions(request: Request, item: dict[str, Any]) -> dict[str, str | None]:
    return partitions_of(item["path"].split("/")[:-1]) if request.option("partitions", True) else {}


def _place(request: Request, key: str) -> Path:
    parts = [part for part in key.split("/") if part]
    if ".." in parts:
        raise InvalidInput(f"the key {key} has a part that is ..; name objects that have none")
    return request.folder.joinpath(*parts)


def _copy(request: Request, store: Any, bucket: str, item: dict[str, Any], path: Path) -> None:
    import obstore

    where = f"s3://{bucket}/{item['path']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        answer = obstore.get(store, item["path"], options={"if_match": item["e_tag"]} if item["e_tag"] else None)
        with path.open("wb") as file:
            for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                size += file.write(chunk)
    except Exception as error:
        raise _explained(error, request, where) from error
    if size != item["size"]:
        raise Unavailable(f"{where} broke off after {size} of {item['size']} bytes; nothing of it was kept")


def _copy_edge(request: Request, store: Any, item: dict[str, Any], part: Part) -> None:
    """Copy what tells the columns: the first records of a text, the end of the others, the rest being a hole."""
    import obstore

    is_text = request.layout.format_of(part.name) in ("csv", "json", "ndjson")
    start = 0 if is_text else item["size"] - _CHUNK_BYTES
    try:
        edge = bytes(obstore.get_range(store, item["path"], start=start, length=_CHUNK_BYTES))
    except Exception as error:
        raise _explained(error, request, part.name) from error
    part.path.parent.mkdir(parents=True, exist_ok=True)
    with part.path.open("wb") as file:
        file.seek(start)
        file.write(edge[: edge.rfind(b"\n") + 1] if is_text else edge)


def _explained(error: Exception, request: Request, where: str) -> FlyballError:
    import obstore.exceptions as causes

    reason = request.environment.reason(error)
    text = str(error)
    if isinstance(error, FlyballError):
        return error
    if "NoSuchBucket" in text:
        return NotFound(f"there is no bucket {where.removeprefix('s3://').partition('/')[0]} for {where}")
    if isinstance(error, FileNotFoundError | causes.NotFoundError):
        return NotFound(f"there is no object {where}")
    if isinstance(error, causes.PreconditionError):
        return Unavailable(f"{where} changed while it was read; read again when its writer is done")
    denied = isinstance(error, PermissionError | causes.PermissionDeniedError | causes.UnauthenticatedError)
    if denied or any(code in text for code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")):
        return InvalidInput(f"{where} refuses to let us in; check {listed(_OPTIONS[2:4])} and the bucket's policy")
    if isinstance(error, causes.UnknownConfigurationKeyError | TypeError | ValueError):
        return InvalidInput(f"{where}: {reason}")
    if isinstance(error, OSError) and error.errno is not None:
        return Unavailable(f"{where} cannot be copied to {request.folder}: {error.strerror}")
    return Unavailable(f"{where} does not answer: {reason}")
