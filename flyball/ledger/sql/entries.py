"""What a search knows of a resource, a version or a run: its entry, and the words by which the entry is found.

Pure: no database here. `search` writes entries beside the change that they are about.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flyball.clock import format_instant
from flyball.ledger.notes import NO_NOTE, Note
from flyball.ledger.refs import shown_name
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Run
from flyball.ledger.search import Form
from flyball.ledger.versions import Version
from flyball.ledger.words import LONGEST, cut

__all__ = ["FORMAT", "Entry", "columns_of", "of_resource", "of_run", "of_version", "tokens"]

FORMAT = 1  # of what stands in the index; another number makes every ledger that is opened build it anew

_MOST_TOKENS = 4000  # of one entry; what a person would not read is not looked through either
_MOST_COLUMNS = 2000
_LONGEST_TEXT = 8000
_LONGEST_VALUE = 400  # longer text in a spec is a program or data, unless it is a description
_DESCRIPTIONS = ("description", "summary", "purpose")
_TOLD = frozenset({*_DESCRIPTIONS, "tags", "owner", "domain", "name"})
_SECRET = ("secret", "password", "passwd", "token", "credential", "private", "api_key", "apikey")
_OF_VERSION = ("task", "flavor", "metric", "target", "event_time", "trained_on", "library")


@dataclass(frozen=True)
class Entry:
    """What is shown of a thing and searched in."""

    ref: str
    kind: str
    form: Form
    name: str
    at: str
    description: str = ""
    notes: str = ""
    columns: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    owner: str | None = None
    domain: str | None = None

    @property
    def texts(self) -> list[tuple[str, str]]:
        """The fields that a snippet may come from, in the order of interest."""
        return [
            ("description", self.description),
            ("tags", ", ".join(self.tags)),
            ("columns", ", ".join(self.columns)),
            ("notes", self.notes),
        ]


def of_resource(resource: Resource, newest: Mapping[str, Any] | None = None, note: Note = NO_NOTE) -> Entry:
    """Return the entry of a resource; `newest` is the metadata of its newest version, whose columns it has."""
    spec = resource.spec
    columns: list[str] = []
    notes: list[str] = []
    _walk(spec, columns, notes)
    columns += columns_of(newest or {})
    labels = [f"{key}={value}" for key, value in resource.labels.items()] + _told(note)
    owner = spec.get("owner")
    return Entry(
        str(resource.ref),
        resource.kind,
        "resource",
        shown_name(resource.name),
        format_instant(resource.updated_at) if resource.updated_at else "",
        _text(note.description or next((spec[key] for key in _DESCRIPTIONS if isinstance(spec.get(key), str)), "")),
        _text("\n".join(dict.fromkeys(notes))),
        tuple(dict.fromkeys(columns))[:_MOST_COLUMNS],
        tuple(dict.fromkeys([*_texts(spec.get("tags")), *map(_text, labels)])),
        _text(owner) if isinstance(owner, str) else resource.owner,
        _text(spec["domain"]) if isinstance(spec.get("domain"), str) else None,
    )


def of_version(version: Version, note: Note = NO_NOTE) -> Entry:
    """Return the entry of a version; its owner is who made it."""
    metadata = version.metadata
    told = [str(metadata[key]) for key in _OF_VERSION if isinstance(metadata.get(key), str)]
    described = note.description or metadata.get("note") or metadata.get("description")
    return Entry(
        str(version.ref),
        version.kind,
        "version",
        f"{shown_name(version.name)}@{version.number}",
        format_instant(version.created_at),
        _text(described if isinstance(described, str) else ""),
        _text("\n".join(told)),
        columns_of(metadata),
        tuple(dict.fromkeys([*_texts(metadata.get("tags")), *map(_text, _told(note))])),
        version.actor,
    )


def of_run(run: Run) -> Entry:
    """Return the entry of a run; its owner is who started it."""
    tags = [f"{key}={value}" for key, value in run.tags.items()]
    description = run.tags.get("description") or run.tags.get("mlflow.note.content") or ""
    return Entry(
        str(run.ref),
        "run",
        "run",
        run.name,
        format_instant(run.started_at),
        _text(str(description)),
        _text("\n".join(filter(None, [run.kind, run.of, run.id]))),
        (),
        tuple(_text(tag) for tag in tags if len(tag) <= _LONGEST_VALUE),
        run.actor,
    )


def columns_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a version's columns, or of the inputs of a model."""
    schema = metadata.get("schema")
    signature = metadata.get("signature")
    inputs = signature.get("inputs") if isinstance(signature, Mapping) else None
    found = [*schema] if isinstance(schema, Mapping) else []
    if isinstance(inputs, Mapping):
        found += [*inputs]
    elif isinstance(inputs, list):
        found += [str(i["name"]) if isinstance(i, Mapping) and "name" in i else str(i) for i in inputs]
    return tuple(_text(name) for name in dict.fromkeys(map(str, found)))[:_MOST_COLUMNS]


def tokens(entry: Entry) -> list[str | None]:
    """Return the words of an entry in order; None parts fields, so that no phrase reaches across.

    `n:…` are the words of the name, `e:…` the whole of it; `k: c: t: o: d: f:` are what filters go by.
    """
    found: list[str | None] = [f"c:{entry.form}", f"k:{_whole(entry.kind)}", f"e:{_whole(entry.name)}"]
    for letter, values in (("t", entry.tags), ("f", entry.columns), ("o", [entry.owner]), ("d", [entry.domain])):
        found += [f"{letter}:{mark}" for value in values if value for mark in _marks(value)]
    found += [None, *(f"n:{word}" for word in _identifier(entry.name) if word), None]
    for text in (entry.name, entry.kind, *entry.tags, entry.owner, entry.domain, *entry.columns):
        if text:
            found += _identifier(text)
    for text in (entry.description, entry.notes):
        for line in text.split("\n"):
            found += [*cut(line), None]
    return found[:_MOST_TOKENS]


@functools.lru_cache(maxsize=16_384)
def _whole(value: str) -> str:
    """Return what a filter compares: the words, joined."""
    return "_".join(cut(value))[: 2 * LONGEST]


@functools.lru_cache(maxsize=16_384)
def _marks(value: str) -> tuple[str, ...]:
    """Return by what a filter finds a value: the whole of it, and its last part (`alice` of `user/alice`)."""
    parts = [value, *(value.rpartition(sign)[2] for sign in "/.=" if sign in value)]
    return tuple(dict.fromkeys(filter(None, map(_whole, parts))))


@functools.lru_cache(maxsize=16_384)
def _identifier(text: str) -> tuple[str | None, ...]:
    """Return the words of a name, and `depdelay` for `DepDelay` and `dep_delay`, which some write so."""
    joined = []
    for chunk in text.split():
        parts = cut(chunk)
        if 1 < len(parts) <= 8 and chunk.isascii():
            joined.append("".join(parts)[:LONGEST])
    return (*cut(text), None, *joined, None) if joined else (*cut(text), None)


def _walk(value: Any, columns: list[str], notes: list[str], key: str = "", depth: int = 0) -> None:
    """Gather the names of columns, and every other text of a spec that is not a secret."""
    if depth > 12 or any(part in key.lower() for part in _SECRET) or len(notes) > _MOST_TOKENS:
        return
    if isinstance(value, str):
        if value and (len(value) <= _LONGEST_VALUE or key in _DESCRIPTIONS):
            notes.append(_text(value))
    elif isinstance(value, Mapping):
        if key == "columns":
            columns.extend(_text(str(name)) for name in value)
        for name, inner in value.items():
            if depth or name not in _TOLD:
                _walk(inner, columns, notes, str(name), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if key in ("properties", "features", "columns") and isinstance(inner, Mapping) and "name" in inner:
                columns.append(_text(str(inner["name"])))
            _walk(inner, columns, notes, key, depth + 1)


def _told(note: Note) -> list[str]:
    """Return the tags of a note; what is longer than a person's tag is a program's, or a text."""
    tags = [f"{key}={value}" for key, value in note.tags.items()]
    return [tag for tag in tags if len(tag) <= _LONGEST_VALUE]


def _texts(values: Any) -> Iterable[str]:
    return [_text(v) for v in values if isinstance(v, str)] if isinstance(values, list) else []


def _text(value: str) -> str:
    """Return text as both databases take it: no NUL, no half of a surrogate pair, not without end."""
    return value[:_LONGEST_TEXT].replace("\x00", " ").encode("utf-8", "replace").decode()
