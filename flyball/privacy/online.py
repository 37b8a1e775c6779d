"""The online store without a subject: the views whose entity it is part of, and its keys in them.

Of a view with one key the subject is the key. Of a view with several the keys are those that stored rows and the log of
pushes name together with the subject, because a store cannot be asked for keys by a part of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from flyball.errors import FlyballError
from flyball.ledger import Transaction
from flyball.privacy.subjects import Subject, column_of
from flyball.storage.online import OnlineStore
from flyball.storage.tables import TableStore

__all__ = ["Views", "views_of"]


@dataclass
class Views:
    """The views of a home by the name under which they are stored, with their entity, and the subject's keys."""

    entities: Mapping[str, tuple[str, ...]]
    subject: Subject
    keys: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for view, entity in self.entities.items():
            if len(entity) == 1 and entity[0] in self.subject.columns:
                self.keys.setdefault(view, set()).add(self.subject.text)

    @property
    def concerned(self) -> dict[str, tuple[str, ...]]:
        """The views that have the subject in their entity."""
        return {view: entity for view, entity in self.entities.items() if self.subject.columns & set(entity)}

    def is_key(self, view: str, key: str) -> bool:
        """Whether a key of a view is the subject's; one that is, is remembered."""
        entity = self.entities.get(view, ())
        parts: Any = [key]
        if len(entity) > 1:
            try:
                parts = orjson.loads(key)
            except orjson.JSONDecodeError:
                return False
        if not isinstance(parts, list) or len(parts) != len(entity):
            return False
        columns = self.subject.columns
        is_it = any(n in columns and self.subject.is_value(p) for n, p in zip(entity, parts, strict=True))
        if is_it:
            self.keys.setdefault(view, set()).add(key)
        return is_it

    def look_in(self, tables: TableStore, digests: Iterable[str]) -> None:
        """Find keys of several parts in tables that have all of them."""
        several = {view: entity for view, entity in self.concerned.items() if len(entity) > 1}
        if not several:
            return
        for digest in dict.fromkeys(digests):
            try:
                self._look_in(tables.scan(digest), several)
            except (FlyballError, pl.exceptions.PolarsError):
                continue  # no table, or one that cannot be read, which the certificate tells elsewhere

    def _look_in(self, rows: pl.LazyFrame, several: Mapping[str, tuple[str, ...]]) -> None:
        schema = rows.collect_schema()
        condition = self.subject.condition(schema)
        for view, entity in several.items():
            columns = [column_of(name, schema) for name in entity]
            if condition is None or None in columns:
                continue
            values = [found[0].cast(pl.String).alias(str(n)) for n, found in enumerate(columns) if found]
            combinations = rows.filter(condition).select(values).unique().collect(engine="streaming")
            self.keys.setdefault(view, set()).update(orjson.dumps(list(row)).decode() for row in combinations.rows())

    def erase(self, store: OnlineStore, *, dry_run: bool = False) -> dict[str, int]:
        """Remove the subject's keys; return how many rows went, by view."""
        gone: dict[str, int] = {}
        for view, keys in sorted(self.keys.items()):
            wanted = sorted(keys)
            if dry_run:
                count = sum(value is not None for value in store.get(view, wanted))
            else:
                count = store.delete(view, wanted)
            if count:
                gone[view] = count
        return gone


def views_of(world: Transaction, snapshot: Path) -> dict[str, tuple[str, ...]]:
    """Return every feature view that a home has ever told of: declared, stored, or in service."""
    found: dict[str, tuple[str, ...]] = {}
    for resource in world.resources.all("feature-view"):
        _collect(resource.spec, found)
        _collect(resource.status, found)
    for kind, name, number, _ in world.versions.digests():
        if kind.startswith("feature") or kind == "model":
            _collect(world.versions.get(kind, name, number).metadata, found)
    if snapshot.exists():
        _collect(orjson.loads(snapshot.read_bytes()), found)
    return found


def _collect(document: Any, found: dict[str, tuple[str, ...]], depth: int = 0) -> None:
    """Take every object that describes a view: it has a name, an entity and features."""
    if depth > 20:
        return
    if isinstance(document, Mapping):
        name, entity = document.get("name"), document.get("entity")
        if isinstance(name, str) and isinstance(entity, list | tuple) and "features" in document:
            found[f"{name}@{document.get('version', 1)}"] = tuple(map(str, entity))
        for part in document.values():
            _collect(part, found, depth + 1)
    elif isinstance(document, list | tuple):
        for part in document:
            _collect(part, found, depth + 1)
