"""Which places a client may name for the artifacts of an experiment.

Whoever makes an experiment would otherwise choose a host that this server then connects to.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlparse, urlunparse

from flyball.wire.mlflow.refusals import invalid

__all__ = ["absolute", "check_location"]

_LENGTH = 2048
_HOST_ADDRESSED = frozenset({"abfss", "b2", "ftp", "hdfs", "http", "https", "mlflow-artifacts", "r2", "sftp", "viewfs"})
_ALLOWED = "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES"
_MOST_LENGTH = "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH"
_DECODINGS = 10


def check_location(location: str, name: str = "artifact_location") -> None:
    """Raise Refused for a place where a client may not have artifacts kept."""
    try:
        parsed = urlparse(location)
        host = parsed.netloc
    except ValueError:
        raise invalid(f"'{name}' is no URI: {location[:200]!r}") from None
    if parsed.fragment or parsed.params:
        raise invalid(f"'{name}' URL can't include fragments or params.")
    if ".." in _decoded(parsed.query):
        raise invalid("Invalid query string")
    if host and parsed.scheme in _HOST_ADDRESSED and parsed.scheme not in _allowed_schemes():
        raise invalid(
            f"'{name}' cannot use the '{parsed.scheme}' scheme: the '{parsed.scheme}' scheme addresses a host other "
            "than the tracking server's configured artifact storage, so the server would connect to the host named in "
            f"the URI. Set the {_ALLOWED} environment variable on the server to allow it."
        )
    if location.startswith("runs:"):
        raise invalid(f"Artifact location cannot be a runs:/ URI. Given: '{location}'")
    most = _most_length()
    if len(location) > most:
        raise invalid(
            f"Invalid artifact path length. The length of the artifact path cannot be greater than {most} characters. "
            f"To configure this limit, please set the {_MOST_LENGTH} environment variable."
        )


def absolute(location: str) -> str:
    """Return a place with a path that is relative made absolute, from the folder that the server runs in."""
    parsed = urlparse(location)
    if parsed.scheme == "" and not location.startswith("/"):
        return str(Path.cwd() / location)
    if parsed.scheme == "file" and not parsed.path.startswith("/"):
        return urlunparse(parsed._replace(path=str(Path.cwd() / parsed.path)))
    return location


def _decoded(text: str) -> str:
    for _ in range(_DECODINGS):
        plain = unquote(text)
        if plain == text:
            return text
        text = plain
    return ".."  # encoded so often that nobody means well


def _allowed_schemes() -> set[str]:
    return {scheme.strip().lower() for scheme in os.environ.get(_ALLOWED, "").split(",") if scheme.strip()}


def _most_length() -> int:
    chosen = os.environ.get(_MOST_LENGTH, "")
    return int(chosen) if chosen.isdecimal() else _LENGTH
