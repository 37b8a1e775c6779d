"""The logs without a subject: predictions and labels, by what their columns mean; all others by their JSON.

Processes that append go on meanwhile; see `storage.streams.rewriting`. Labels go first: they are told by the ids of the
subject's predictions, which are known only as long as those are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from flyball.privacy.documents import Cleaner
from flyball.privacy.sealed_traffic import drop_ids, take_out
from flyball.privacy.subjects import Subject
from flyball.storage.streams import Cursor
from flyball.storage.streams.rewriting import rewrite
from flyball.tracking.sealed import alone

__all__ = ["Erased", "erase_streams", "erase_traffic", "streams_of"]

_WITHOUT_ROWS = frozenset({"streams/monitors"})  # profiles and statistics by column
_PASSES = 5  # over what was appended meanwhile; each is shorter than the one before


class Erased(NamedTuple):
    """What went out of one place: rows, and places in it that could not be read."""

    rows: int
    damaged: int = 0


def erase_traffic(
    folder: Path, subject: Subject, key_fields: Mapping[str, str | None], *, dry_run: bool = False
) -> dict[str, Erased]:
    """Take a subject's predictions and their labels out of the log in `folder` and out of its tables.

    Args:
        key_fields: by deployment, the input whose text is the key that a row was routed by.

    Returns:
        What went out of `predictions` and `labels`.
    """
    with contextlib.nullcontext() if dry_run else alone(folder):  # nothing is sealed from what is being rewritten
        found = _Predictions(subject, key_fields)
        seen = rewrite(folder / "predictions", found, dry_run=True)
        in_tables = _Predictions(subject, key_fields)
        take_out(folder, subject.needles, in_tables, dry_run=True)
        is_wanted = found.ids | in_tables.ids
        only_in_tables = in_tables.rows if not found.ids else len(in_tables.ids - found.ids)
        labels = _labels(folder, is_wanted, dry_run=dry_run) if is_wanted else Erased(0)
        if dry_run or not is_wanted:
            return {"predictions": Erased(found.rows + only_in_tables, seen.damaged), "labels": labels}
        taking = _Predictions(subject, key_fields)
        rows = _repeated(folder / "predictions", taking, dry_run)
        take_out(folder, subject.needles, _Predictions(subject, key_fields))
        late = taking.ids - is_wanted
        if late:  # predictions that were appended between the two passes, and perhaps labelled already
            labels = Erased(labels.rows + _labels(folder, late, dry_run=False).rows, labels.damaged)
        return {"predictions": Erased(rows.rows + only_in_tables, rows.damaged), "labels": labels}


def _labels(folder: Path, ids: set[str], *, dry_run: bool) -> Erased:
    """Take the labels of some predictions out of the log and its tables; one that is in both counts once."""
    taking = _Labels(ids)
    logged = _repeated(folder / "labels", taking, dry_run)
    sealed = drop_ids(folder, ids, dry_run=dry_run)
    return Erased(logged.rows + len(sealed - taking.gone), logged.damaged)


def erase_streams(folders: Mapping[str, Path], cleaner: Cleaner, *, dry_run: bool = False) -> dict[str, Erased]:
    """Take a subject out of logs of JSON documents, by their names."""
    found = {}
    for name, folder in folders.items():
        taking = _Documents(cleaner, rows=name not in _WITHOUT_ROWS)
        found[name] = _repeated(folder, taking, dry_run)
    return found


def streams_of(home: Path, but: tuple[str, ...] = ("traffic/predictions", "traffic/labels")) -> dict[str, Path]:
    """Return every folder of a home that is a log, by its path in the home."""
    folders = {segment.parent for segment in home.rglob("*.seg")}
    named = {folder.relative_to(home).as_posix(): folder for folder in folders}
    return {name: named[name] for name in sorted(named) if name not in but}


class _Predictions:
    """Takes rows out of logged requests; remembers their ids."""

    def __init__(self, subject: Subject, key_fields: Mapping[str, str | None]) -> None:
        self._subject = subject
        self._key_fields = key_fields
        self._cleaner = Cleaner(subject)
        self.ids: set[str] = set()
        self.rows = 0

    def __call__(self, payload: bytes) -> bytes | None:
        if not any(needle in payload for needle in self._subject.needles):
            return payload
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return payload
        ids = document.get("ids")
        is_single = isinstance(ids, str)
        rows = [
            place for place in range(1 if is_single else len(ids or ())) if self._is_about(document, place, is_single)
        ]
        if not rows:
            return self._cleaner.payload(payload, rows=False)  # told of in somebody else's row
        self.rows += len(rows)
        self.ids.update([ids] if is_single else [ids[place] for place in rows])
        if is_single or len(rows) == len(ids):
            return None
        gone = set(rows)
        by_row = ("ids", "keys", "propensity")
        kept = {name: _others(value, gone) if name in by_row else value for name, value in document.items()}
        for part in ("inputs", "features", "outputs"):
            kept[part] = {name: _others(values, gone) for name, values in document[part].items()}
        return orjson.dumps(self._cleaner.clean(kept, rows=False))

    def _is_about(self, document: Mapping[str, Any], place: int, is_single: bool) -> bool:
        for part in ("inputs", "features"):
            for name, values in document[part].items():
                if name in self._subject.columns and self._is_subject(values if is_single else values[place]):
                    return True
        keys = document.get("keys")
        if keys is None:
            return False
        key_field = self._key_fields.get(document["deployment"], "")
        if key_field and key_field not in self._subject.columns:
            return False  # known to be the key of something else; one of a deployment that is gone may be the subject's
        return self._is_subject(keys if is_single else keys[place])

    def _is_subject(self, value: Any) -> bool:
        return self._subject.is_value(value) or (isinstance(value, str) and value in self._subject.hashes)


class _Labels:
    """Takes out the labels of some predictions."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids
        self.rows = 0
        self.gone: set[tuple[str, int]] = set()

    def __call__(self, payload: bytes) -> bytes | None:
        try:
            document = orjson.loads(payload)
            is_wanted = document.get("id") in self._ids
        except (orjson.JSONDecodeError, AttributeError):
            return payload
        if not is_wanted:
            return payload
        self.rows += 1
        self.gone.add((document["id"], document.get("arrived", 0)))
        return None


class _Documents:
    """Takes rows out of any JSON payload."""

    def __init__(self, cleaner: Cleaner, *, rows: bool) -> None:
        self._cleaner = cleaner
        self._has_rows = rows
        self.rows = 0

    def __call__(self, payload: bytes) -> bytes | None:
        before = self._cleaner.removed
        kept = self._cleaner.payload(payload, rows=self._has_rows)
        self.rows += self._cleaner.removed - before
        return kept


def _repeated(folder: Path, change: Any, dry_run: bool) -> Erased:
    """Rewrite a log, then what was appended meanwhile, until nothing was; writers may outrun it, so a bounded time."""
    taken: Callable[[bytes], bytes | None] = change
    cursor: Cursor | None = None
    damaged = 0
    for _ in range(1 if dry_run else _PASSES):
        done = rewrite(folder, taken, cursor, dry_run=dry_run)
        damaged += done.damaged
        if done.cursor == (cursor or {}):
            break
        cursor = done.cursor
    return Erased(change.rows, damaged)


def _others(values: Any, gone: set[int]) -> Any:
    return values if values is None else [value for place, value in enumerate(values) if place not in gone]
