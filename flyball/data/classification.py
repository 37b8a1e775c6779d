"""What is known of a dataset's columns: classification and tags, from its own notes and from its contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyball.data.contracts import parse_document
from flyball.data.kinds import Dataset

__all__ = ["Notes", "notes_of"]

Notes = tuple[str, frozenset[str]]
"""A column's classification in lower case, empty for none, and its tags in lower case."""


def notes_of(spec: Dataset, contract: Mapping[str, Any] | str | None = None) -> dict[str, Notes]:
    """Return what is known of each column that the dataset or its contract describes; nested ones have dotted names.

    The dataset's note holds where it has a classification; tags of both add up.

    Args:
        contract: the ODCS document, or its path or YAML text; None: the dataset's own when it stands in the spec.

    Raises:
        NotFound, InvalidInput: the contract cannot be read.
    """
    source = contract if contract is not None else spec.contract if isinstance(spec.contract, Mapping) else None
    found: dict[str, Notes] = {}
    if source is not None:
        for table in parse_document(source).get("schema") or []:
            _collect(table.get("properties") or [], "", found)
    for name, note in spec.columns.items():
        classification, tags = found.get(name, ("", frozenset[str]()))
        mine = (note.classification or "").strip().lower()
        found[name] = (mine or classification, tags | frozenset(tag.lower() for tag in note.tags))
    return found


def _collect(properties: Iterable[Mapping[str, Any]], prefix: str, found: dict[str, Notes]) -> None:
    for item in properties:
        tags = frozenset(str(tag).lower() for tag in item.get("tags") or [])
        notes = (str(item.get("classification") or "").strip().lower(), tags)
        for key in ("name", "physicalName"):
            if item.get(key):
                found[prefix + str(item[key])] = notes
        if item.get("name"):
            inner = [*(item.get("properties") or []), *((item.get("items") or {}).get("properties") or [])]
            _collect(inner, f"{prefix}{item['name']}.", found)
