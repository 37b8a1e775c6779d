"""Which online store a home has, by its settings: `platform` and the data plane's process open the same one by this."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flyball.errors import InvalidInput
from flyball.settings import load
from flyball.storage.online import OnlineStore
from flyball.storage.online.sqlite import SqliteOnline

__all__ = ["OnlineSettings", "open_online"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class OnlineSettings:
    """`[online]` in `flyball.toml`."""

    backend: Literal["sqlite", "redis"] = "sqlite"  # sqlite: a file in the home; redis: for several machines
    url: str | None = None  # redis://user:${REDIS_PASSWORD}@host:6379/0; rediss:// for TLS, unix:// for a socket
    prefix: str = "flyball"  # begins each key in Redis, so that homes may share a server
    timeout_s: float = 0.5  # for an answer of Redis: a prediction waits this long for its features, then is refused


def open_online(
    home: Path, settings: OnlineSettings | None = None, environ: Mapping[str, str] = os.environ
) -> OnlineStore:
    """Return the online store of a home. Redis is not asked anything yet, so it may start later.

    Args:
        settings: default: those of the home.
        environ: where `${NAME}` in the URL is looked up.

    Raises:
        InvalidInput: the settings are wrong, or a variable that the URL names is not set.
        MissingExtra: redis-py is not installed.
        Incompatible, Corrupt, Unavailable: see `SqliteOnline`.
    """
    wanted = load(OnlineSettings, "online", home) if settings is None else settings
    if wanted.backend == "sqlite":
        if wanted.url is not None:
            raise InvalidInput(
                '[online] has a url, but its backend is "sqlite"; set backend = "redis" or remove the url'
            )
        return SqliteOnline(home / "online.sqlite")
    if wanted.url is None:
        raise InvalidInput(
            '[online] has the backend "redis" but no url; give it one, such as "redis://localhost:6379/0"'
        )
    if not wanted.timeout_s > 0:
        raise InvalidInput(f"[online] timeout_s is {wanted.timeout_s:g}; expected seconds above 0")
    from flyball.storage.online.redis import RedisOnline

    return RedisOnline(_filled(wanted.url, environ), prefix=wanted.prefix, timeout_s=wanted.timeout_s)


def _filled(url: str, environ: Mapping[str, str]) -> str:
    """Return a URL with the values of the variables that it names, percent-encoded where they stand."""
    from urllib.parse import quote

    def value(found: re.Match[str]) -> str:
        if found[1] not in environ:
            raise InvalidInput(
                f"the url in [online] names ${{{found[1]}}}, which is not set; set it in the environment"
            )
        text = environ[found[1]]
        return text if found[0] == url else quote(text, safe="")  # a variable may also hold the whole address

    return _VARIABLE.sub(value, url)
