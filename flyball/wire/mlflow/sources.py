r"""Which addresses a client may name as the source of a model version.

Whoever may register a version would otherwise choose a file of this server, or of somebody else's run, that those who
load the version then read: a path of this machine counts only within the files of the run (or logged model) that the
request names, `runs:/`, `mlflow-artifacts:/` and `models:/m-…` must be of that run or model, and nothing may lead out
by `..`, however it is encoded. Source: PROTOCOLS.md §2.6.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from flyball.errors import InvalidInput, NotFound
from flyball.platform import Platform
from flyball.platform.registry import RegisteredVersion
from flyball.wire.mlflow.locations import check_location
from flyball.wire.mlflow.refusals import Refused, invalid
from flyball.wire.mlflow.registry_values import check_name, stage_of

__all__ = ["check_prompt", "check_source"]

_PATTERN = "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX"
_PLACEHOLDERS = ("dummy-source", "prompt-template")
_ROUTE = "/api/2.0/mlflow-artifacts/artifacts/"
_DECODINGS = 10
_LONGEST = 2048


class _Named(NamedTuple):
    """What a `models:/` address names: a logged model, or a version by number, alias or stage ("latest": of all)."""

    model_id: str | None = None
    name: str = ""
    version: str | None = None
    alias: str | None = None
    stage: str | None = None


def check_prompt(source: str) -> None:
    """Raise Refused unless the source is the word that stands for the text of a prompt, which has no files."""
    if source not in _PLACEHOLDERS:
        raise invalid(f"Invalid prompt source: '{source[:300]}'. Prompt sources must use an MLflow placeholder.")


def check_source(
    platform: Platform, source: str, run: str | None, model: str | None
) -> tuple[str, str | None, str | None]:
    """Return a source with the run and the logged model that it is of.

    A source that is another version by alias or stage is made one by its number, and takes over that version's run.

    Raises:
        Refused: it may not be a source, or is not of the run or model that the request names.
    """
    pattern = os.environ.get(_PATTERN)
    if len(source) > _LONGEST or (pattern and not re.search(pattern, source)):
        raise invalid(f"Invalid model version source: '{source[:300]}'.")
    parsed = _split(source)
    if parsed.scheme not in ("models", "runs", "file", ""):
        check_location(source.partition("#")[0], "source")
    if parsed.scheme == "models":
        if parsed.netloc:
            raise invalid(
                f"Invalid model version source: '{source}'. Registered model sources must use the active model "
                "registry."
            )
        named = _parse(source)
        if named.model_id is None:
            return _of_version(platform, source, named, run, model)
    asked = "model_id" if model else "run_id"
    if _is_local(source, parsed):
        _check_local(platform, source, parsed, run, model)
        return source, run, model
    _check_path(source)
    if parsed.scheme == "models" and (not model or _parse(source).model_id != model):
        raise _not_of(source, "model_id")
    if parsed.scheme == "runs":
        whose = parsed.path.strip("/").partition("/")[0]
        if model or parsed.netloc or not run or whose != run:
            raise _not_of(source, asked)
    if _is_proxied(parsed):
        root = _root(platform, model or run)
        if root is None or not _is_within(parsed, urlsplit(root)):
            raise _not_of(source, asked)
    return source, run, model


def _of_version(
    platform: Platform, source: str, named: _Named, run: str | None, model: str | None
) -> tuple[str, str | None, str | None]:
    found = _find(platform, source, named)
    behind = found.made.metadata.get("model_id")
    theirs = str(behind) if behind else None
    if (run is not None and run != (found.run or "")) or (model is not None and model not in ("", theirs)):
        raise invalid(
            f"Invalid model version source: '{source}'. The run_id and model_id request parameters must match the "
            "referenced model version."
        )
    return f"models:/{found.name}/{found.number}", found.run if run is None else run, None


def _find(platform: Platform, source: str, named: _Named) -> RegisteredVersion:
    name = check_name(named.name)
    if platform.model(name).is_prompt:
        raise invalid(
            f"Invalid model version source: '{source}'. Prompt versions cannot be used as model version sources."
        )
    if named.version is not None:
        return platform.model_version(name, int(named.version))
    if named.alias is not None:
        aliased = platform.model_version_by_alias(name, named.alias)
        if aliased is None:
            raise invalid(f"Registered model alias {named.alias} not found.")
        return aliased
    found = platform.latest_versions(name, [stage_of(named.stage)] if named.stage else None)
    if not found:
        raise NotFound(f"No versions of model with name '{name}' and stage '{named.stage}' found")
    return max(found, key=lambda version: version.number)


def _check_local(platform: Platform, source: str, parsed: SplitResult, run: str | None, model: str | None) -> None:
    """A path of this machine must be within the files of the run or model, if those are kept at such a path."""
    root = _root(platform, model or run)
    asked = "model_id" if model else "run_id"
    if root is None and (model or run):
        raise _not_of(source, asked)
    if root is not None:
        place = urlsplit(root)
        if place.scheme in ("", "file") and "\x00" not in unquote(source):
            inside, outside = (Path(unquote(p.path) if p.scheme else p.path).resolve() for p in (parsed, place))
            if inside.is_relative_to(outside):
                return
    raise invalid(
        f"Invalid model version source: '{source}'. To use a local path as a model version source, the {asked} request "
        "parameter has to be specified and the local path has to be contained within the artifact directory of the run "
        f"specified by the {asked}."
    )


def _check_path(source: str) -> None:
    plain = source
    for _ in range(_DECODINGS):
        decoded = unquote_plus(plain)
        if decoded == plain:
            break
        plain = decoded
    else:
        raise _leads_out(source)
    path = re.sub(r"/+", "/", _split(plain).path.rstrip("/"))
    if "\x00" in plain or ".." in plain.split("/") or ".." in plain.split("\\"):
        raise _leads_out(source)
    if not path.startswith("/") or posixpath.normpath(path) != path:
        raise _leads_out(source)


def _root(platform: Platform, owner: str | None) -> str | None:
    """Return the address of the files of a run or logged model; None: there is none."""
    if not owner:
        return None
    try:
        return platform.artifact_root(owner)
    except (NotFound, InvalidInput):
        return None


def _is_local(source: str, parsed: SplitResult) -> bool:
    host = (parsed.hostname or "") if parsed.netloc else ""
    is_here = host in ("", ".") or host.startswith(("localhost", "127.0.0.1"))
    if parsed.scheme == "file" and not is_here:
        raise invalid(f"{source} is not a valid remote uri.")
    return parsed.scheme in ("", "file")


def _is_proxied(parsed: SplitResult) -> bool:
    plain = f"/{'/'.join(_parts(parsed))}/"
    return parsed.scheme == "mlflow-artifacts" or (parsed.scheme in ("http", "https") and _ROUTE in plain)


def _is_within(source: SplitResult, root: SplitResult) -> bool:
    inner, outer = _parts(source), _parts(root)
    same = (source.scheme, source.netloc.lower()) == (root.scheme, root.netloc.lower())
    return same and bool(outer) and inner[: len(outer)] == outer


def _parts(parsed: SplitResult) -> list[str]:
    return [_decoded(part) for part in parsed.path.split("/") if part]


def _decoded(text: str) -> str:
    for _ in range(_DECODINGS):
        plain = unquote(text)
        if plain == text:
            break
        text = plain
    return text


def _split(source: str) -> SplitResult:
    try:
        parsed = urlsplit(source)
        _ = parsed.hostname
    except ValueError:
        raise invalid(f"Invalid model version source: '{source[:300]}'. It is no URI.") from None
    return parsed


def _parse(source: str) -> _Named:
    """Return what a `models:/` address names. Raises Refused when it names nothing."""
    path = source.partition(":")[2]
    parts = path.lstrip("/").split("/")
    if not path.startswith("/") or len(parts) > 2 or not all(part.strip() for part in parts):
        raise _not_of(source, "model_id")
    name, *suffix = parts
    if suffix:
        if suffix[0].isascii() and suffix[0].isdecimal():
            return _Named(name=name, version=suffix[0][:12])
        return _Named(name=name, stage=None if suffix[0].lower() == "latest" else suffix[0])
    if "@" in name:
        name, _, alias = name.rpartition("@")
        if not alias.strip():
            raise _not_of(source, "model_id")
        return _Named(name=name, alias=alias)
    return _Named(model_id=name)


def _not_of(source: str, field: str) -> Refused:
    return invalid(
        f"Invalid model version source: '{source}'. The {field} request parameter must identify the resource that "
        "contains the source."
    )


def _leads_out(source: str) -> Refused:
    return invalid(
        f"Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, "
        "objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references "
        "present. Please provide an absolute path."
    )
