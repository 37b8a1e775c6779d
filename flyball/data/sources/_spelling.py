"""What a source's description may say: one place, options that its kind knows, no secret in clear.

Pure checks over the spec `Source`, made when it is applied; `ValueError`s, since pydantic collects them. What only
the world can tell (is the file there, does the server answer) is found when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from flyball.clock import parse_duration
from flyball.errors import did_you_mean, listed

if TYPE_CHECKING:
    from flyball.data.kinds import Source

__all__ = ["PLACES", "VARIABLE", "check_source", "place_of"]

PLACES = ("files", "sql", "url", "delta", "topic")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TEXT = ("encoding", "separator", "decimal", "thousands", "nulls", "union")
_STORE = ("endpoint", "region", "access_key_id", "secret_access_key", "session_token", "allow_http", "timeout_s")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "files": (*_TEXT, "partitions", *_STORE),
    "sql": ("timeout_s",),
    "url": (*_TEXT, "headers", "timeout_s", "limit_mb", "records", "next", "page", "pages"),
    "delta": ("version", "timestamp", *_STORE),
    "topic": ("key", "timestamp", "partition", "offset", "bad", "timeout_s", "limit", "client"),
}
_SECRET = re.compile(
    r"password|passwd|secret|token|authorization|api[-_]?key|access_key|cookie|credential", re.IGNORECASE
)


def place_of(spec: Source) -> str:
    """Return which of `PLACES` the source names."""
    return next(place for place in PLACES if getattr(spec, place) is not None)


def check_source(spec: Source) -> None:
    """Raise ValueError, in one sentence, when the description contradicts itself or shows a secret."""
    given = [place for place in PLACES if getattr(spec, place) is not None]
    if len(given) != 1:
        found = f"it has {listed(given)}" if given else "it has none"
        raise ValueError(f"a source is exactly one of {listed(PLACES)}; {found}")
    place = given[0]
    if not str(getattr(spec, place)).strip():
        raise ValueError(f"{place} is empty; expected where the rows are")
    _check_fields(spec, place)
    known = _OPTIONS[place]
    for name in spec.options:
        if name not in known:
            raise ValueError(f'unknown option "{name}"{did_you_mean(name, known)} ({place} has: {listed(known, 20)})')
    for name in ("lag", "max_age"):
        value = getattr(spec, name)
        if value is not None:
            parse_duration(value)
    _refuse_secrets(place, str(getattr(spec, place)), spec.options)


def _check_fields(spec: Source, place: str) -> None:
    if place == "sql":
        if (spec.table is None) == (spec.query is None):
            raise ValueError("sql needs a table or a query, and not both")
        if "://" not in str(spec.sql) and not str(spec.sql).startswith(("sqlite:", "${")):
            raise ValueError("sql names no kind of database; expected postgresql://… or sqlite:path")
    elif spec.table is not None or spec.query is not None:
        raise ValueError(f"table and query belong to sql, this source is {place}")
    if spec.parameters and spec.query is None:
        raise ValueError("parameters are bound to a query, and there is none")
    if place == "url" and not re.match(r"https?://|\$\{", str(spec.url)):
        raise ValueError("url must begin with http:// or https://")
    if place == "topic" and not re.match(r"kafka://[^/]+/[^/]+$|\$\{", str(spec.topic)):
        raise ValueError("topic must be written kafka://host:port/topic (several hosts parted by commas)")
    if spec.format is not None and place in ("sql", "delta", "topic"):
        raise ValueError(f"format belongs to files and urls, this source is {place}")
    if spec.lag is not None and spec.watermark is None:
        raise ValueError("lag counts back from a watermark, and there is none")
    if spec.watermark is not None and place in ("delta", "topic", "url"):
        raise ValueError(
            f"{place} goes on by itself where the last reading ended; leave out the watermark, which files and sql have"
        )


def _refuse_secrets(place: str, location: str, options: Mapping[str, Any]) -> None:
    advice = "write ${NAME} and set that environment variable"
    if "://" in location:
        host = location.partition("://")[2].partition("/")[0]
        password = host.rpartition("@")[0].partition(":")[2]
        if password and not VARIABLE.fullmatch(password):
            raise ValueError(f"{place} holds a password; {advice}: user:${{NAME}}@host")
        for name, value in parse_qsl(urlsplit(VARIABLE.sub("x", location)).query):
            if _SECRET.search(name) and value != "x":
                raise ValueError(f'{place} holds a secret, its "{name}"; {advice}')
    for path, value in _texts(options):
        if _SECRET.search(path) and not VARIABLE.search(value):
            raise ValueError(f"the option {path} is a secret; {advice}")


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, str):
        yield path, value
