"""Models of the registry and their versions as MLflow writes them, and the rules for what clients name in it.

Source: PROTOCOLS.md §2.6. Of a model the newest version of each stage stands in it, without aliases: those are told
of a version that is asked for itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from flyball.platform.registry import RegisteredModel, RegisteredVersion
from flyball.wire.mlflow.keys import KEY, at_most, check_key, invalid_value
from flyball.wire.mlflow.refusals import invalid, not_found
from flyball.wire.mlflow.values import milliseconds, pairs

__all__ = [
    "ACTIVE", "ARCHIVED", "check_alias", "check_name", "check_tag", "model_document", "stage_of", "tags_of",
    "version_document", "version_number",
]  # fmt: skip

ARCHIVED = "Archived"
ACTIVE = ("Staging", "Production")
_NONE = "None"
_FIRST = "development"  # of the default stages; in MLflow's words it is none
_STAGES = (_NONE, *ACTIVE, ARCHIVED)
_NAME = 256
_TAG_VALUE = 100_000
_ALIAS_LENGTH = 255
_ALIAS = re.compile(r"[\w\-]*")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_PROMPT_TEXT = "mlflow.prompt.text"


def model_document(model: RegisteredModel) -> dict[str, Any]:
    """Return a model."""
    document: dict[str, Any] = {"name": model.name}
    if model.created_at is not None and model.updated_at is not None:
        document["creation_timestamp"] = milliseconds(model.created_at)
        document["last_updated_timestamp"] = milliseconds(model.updated_at)
    if model.description:
        document["description"] = model.description
    if model.latest:
        document["latest_versions"] = [version_document(version) for version in model.latest]
    if model.note.tags:
        document["tags"] = pairs(model.note.tags)
    if model.aliases:
        document["aliases"] = [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()]
    return document


def version_document(version: RegisteredVersion) -> dict[str, Any]:
    """Return a version."""
    document: dict[str, Any] = {
        "name": version.name,
        "version": str(version.number),
        "creation_timestamp": milliseconds(version.created_at),
        "last_updated_timestamp": milliseconds(version.updated_at),
        "current_stage": _shown_stage(version.note.stage),
        "description": version.note.description or "",
        "source": version.source,
        "run_id": version.run or "",
        "status": "READY",
        "run_link": str(version.made.metadata.get("run_link", "")),
    }
    if version.note.tags:
        document["tags"] = pairs(version.note.tags)
    if version.aliases:
        document["aliases"] = list(version.aliases)
    return document


def check_name(name: str, field: str = "name") -> str:
    """Return the name of a model. Raises Refused for one that none can have."""
    if not name.strip():
        raise invalid(f"Missing value for required parameter '{field}'.")
    if "/" in name or ":" in name:
        raise invalid(f"Invalid model name '{name[:300]}'. Names cannot contain '/' or ':'.")
    normal = posixpath.normpath(name)
    if normal != name or normal == "." or normal.startswith(".."):
        raise invalid_value(
            "name",
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as "
            f"such. This name would resolve to {normal!r}",
        )
    if len(name) > _NAME:
        raise at_most(field, _NAME)
    return name


def check_tag(key: str, value: str) -> None:
    """Raise Refused for a tag that a model or version may not have."""
    check_key(key, "key", "key")
    if len(value) > _TAG_VALUE:
        if key == _PROMPT_TEXT:
            raise invalid(f"Prompt text exceeds max length of {_TAG_VALUE} characters.")
        raise at_most("value", _TAG_VALUE)


def tags_of(given: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Return tags by key; the last of a key counts. Raises Refused for one that may not be."""
    found = {}
    for one in given or ():
        key, value = one.get("key", ""), one.get("value", "")
        check_tag(key, value)
        found[key] = value
    return found


def check_alias(alias: str, *, is_set: bool = False) -> str:
    """Return an alias. Raises Refused for one that none can be, or that cannot be set."""
    if _ALIAS.fullmatch(alias) is None:
        raise invalid(
            f"Invalid alias name: '{alias[:300]}'. "
            "Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )
    if len(alias) > _ALIAS_LENGTH:
        raise at_most("Registered model alias name", _ALIAS_LENGTH)
    if is_set and alias.lower() == "latest":
        raise invalid("'latest' alias name (case insensitive) is reserved.")
    if is_set and _VERSION_ALIAS.fullmatch(alias):
        raise invalid(f"Version alias name '{alias}' is reserved.")
    return alias


def stage_of(given: str) -> str:
    """Return a stage as it is kept: in MLflow's spelling, out of all stages the empty text. Raises Refused."""
    found = next((stage for stage in _STAGES if stage.lower() == given.lower()), None)
    if found is None:
        raise invalid(f"Invalid Model Version stage: {given[:100]}. Value must be one of {', '.join(_STAGES)}.")
    return "" if found == _NONE else found


def _shown_stage(kept: str | None) -> str:
    """Return a stage in MLflow's spelling, and one of a model's own as the model calls it."""
    if not kept or kept.lower() == _FIRST:
        return _NONE
    return next((stage for stage in _STAGES if stage.lower() == kept.lower()), kept)


def version_number(given: str, name: str) -> int:
    """Return the number of a version. Raises Refused for what is none, and for one that no version can have."""
    try:
        number = int(given) if len(given) <= KEY else 0
    except ValueError:
        raise invalid(f"Parameter 'version' must be an integer, got '{given[:100]}'.") from None
    if not 0 < number < 1 << 31:
        raise not_found(f"Model Version (name={name}, version={given[:100]}) not found")
    return number
