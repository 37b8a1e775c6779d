"""JSON documents without a subject: metadata of versions, results of runs, payloads of logs, examples of models.

What is about the subject is told by structure, never by chance equality of a number:

- an object in which one of the subject's columns has the subject's value is a row of it, and goes;
- an object of lists of one length, one of which is a subject's column, is a table: the rows go out of every list; so
  is one with `columns` that name a subject's column and rows in `data`;
- an object that holds such a row as `values`, `row`, `entity`, `keys` or `inputs` is about it, and goes with it;
- an object with the `view` of a feature view of the subject, and its `key`, is a row of it; with an `entity` of lists
  it is a batch of pushed rows (`features.pushes`), of which the subject's go;
- a text that is the subject, below the name of one of its columns or long enough not to be chance, becomes `*`; within
  a longer text it is overwritten as `raw` does.

Rows are looked for only where rows are expected: in logs and examples everywhere, in metadata below `sample`. Elsewhere
`{"userId": 1}` is as likely a count or a limit of that column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from flyball.privacy.raw import redacted
from flyball.privacy.subjects import Subject

__all__ = ["Cleaner"]

_GONE: Any = object()
_ABOUT = frozenset({"values", "row", "entity", "keys", "inputs"})
_SAMPLES = frozenset({"sample", "samples", "examples"})
_STAND_IN = "*"
_LONG = 6  # characters from which on an equal text is no chance wherever it stands
_MOST_DEEP = 60


class Cleaner:
    """Cleans documents of one subject and counts what went.

    Args:
        views: by the name under which a feature view is stored (`user_stats@1`): whether a key of it is the subject's.
    """

    def __init__(self, subject: Subject, views: Mapping[str, Callable[[str], bool]] | None = None) -> None:
        self._subject = subject
        self._views = views or {}
        self.removed = 0

    def clean(self, document: Any, *, rows: bool = True, drop_samples: bool = False) -> Any:
        """Return the document without the subject: the same object when there was nothing of it, None if it was all.

        Args:
            rows: objects may be rows wherever they stand; else only below `sample`.
            drop_samples: of the rows there, those go too that do not say whose they are.
        """
        before = self.removed
        found = self._clean(document, False, rows, drop_samples, 0)
        if found is _GONE:
            return None
        return found if self.removed > before else document

    def payload(self, payload: bytes, *, rows: bool = True) -> bytes | None:
        """Return a log's payload without the subject, None when nothing of it is left; what is no JSON stays."""
        if not self.may_hold(payload):
            return payload
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return payload
        cleaned = self.clean(document, rows=rows)
        if cleaned is document:
            return payload
        return None if cleaned is None else orjson.dumps(cleaned)

    def may_hold(self, data: bytes) -> bool:
        """Whether JSON text may hold the subject; a quick test before it is parsed."""
        return any(needle in data for needle in self._subject.needles)

    def _clean(self, value: Any, is_inside: bool, rows: bool, drop_samples: bool, depth: int) -> Any:
        if depth > _MOST_DEEP:
            return value
        if isinstance(value, dict):
            return self._object(value, is_inside, rows, drop_samples, depth)
        if isinstance(value, list):
            parts = [self._clean(part, is_inside, rows, drop_samples, depth + 1) for part in value]
            return [part for part in parts if part is not _GONE]
        if isinstance(value, str):
            return self._text(value, is_inside)
        return value

    def _text(self, value: str, is_inside: bool) -> str:
        if value == self._subject.text and (is_inside or len(value) >= _LONG):
            self.removed += 1
            return _STAND_IN
        raw = self._subject.raw
        if raw is not None and self._subject.text in value:
            text = redacted(value.encode("utf-8", "surrogatepass"), raw)
            if text is not None:
                self.removed += 1
                return text.decode("utf-8", "surrogatepass")
        return value

    def _object(self, value: dict[str, Any], is_inside: bool, rows: bool, drop_samples: bool, depth: int) -> Any:
        if rows:
            if self._is_row(value):
                self.removed += 1
                return _GONE
            pushed = self._without_pushes(value)
            if pushed is not value:
                return pushed
            value = self._without_rows(value)
        columns = self._subject.columns
        names_it = any(isinstance(value.get(k), str) and value[k] in columns for k in ("name", "column"))
        kept: dict[str, Any] = {}
        for key, part in value.items():
            if drop_samples and key in _SAMPLES and isinstance(part, list):
                part = self._told_apart(part)
            is_below = is_inside or names_it or key in columns
            inner = self._clean(part, is_below, rows or key in _SAMPLES, drop_samples, depth + 1)
            if inner is _GONE:
                if key in _ABOUT:
                    return _GONE
                continue
            if key == self._subject.text and (is_inside or len(key) >= _LONG):
                self.removed += 1
                key = _STAND_IN
            kept[key] = inner
        return kept

    def _is_row(self, value: Mapping[str, Any]) -> bool:
        if any(name in value and self._is_subject(value[name]) for name in self._subject.columns):
            return True
        is_entity = self._views.get(value["view"]) if isinstance(value.get("view"), str) else None
        return is_entity is not None and isinstance(value.get("key"), str) and is_entity(value["key"])

    def _is_subject(self, value: Any) -> bool:
        return self._subject.is_value(value) or (isinstance(value, str) and value in self._subject.hashes)

    def _without_rows(self, value: dict[str, Any]) -> dict[str, Any]:
        """Take the subject's rows out of an object of columns, or one of `columns` with rows of `data`."""
        value = self._without_split_rows(value)
        for name in self._subject.columns:
            column = value.get(name)
            if not isinstance(column, list):
                continue
            gone = {place for place, cell in enumerate(column) if self._is_subject(cell)}
            if gone:
                self.removed += len(gone)
                size = len(column)
                value = {
                    key: [cell for place, cell in enumerate(part) if place not in gone]
                    if isinstance(part, list) and len(part) == size
                    else part
                    for key, part in value.items()
                }
        return value

    def _without_split_rows(self, value: dict[str, Any]) -> dict[str, Any]:
        """Take them out of a table as MLflow and pandas split it: names, rows, and perhaps an index."""
        names, rows = value.get("columns"), value.get("data")
        if not isinstance(names, list) or not isinstance(rows, list):
            return value
        places = [place for place, name in enumerate(names) if isinstance(name, str) and name in self._subject.columns]
        gone = {
            number
            for number, row in enumerate(rows)
            if isinstance(row, list) and any(place < len(row) and self._is_subject(row[place]) for place in places)
        }
        if not gone:
            return value
        self.removed += len(gone)
        changed = {**value, "data": [row for number, row in enumerate(rows) if number not in gone]}
        index = value.get("index")
        if isinstance(index, list) and len(index) == len(rows):
            changed["index"] = [one for number, one in enumerate(index) if number not in gone]
        return changed

    def _without_pushes(self, value: dict[str, Any]) -> Any:
        """Take the subject's rows out of a batch of pushes; the same object when it has none."""
        view, entity = value.get("view"), value.get("entity")
        is_key = self._views.get(view) if isinstance(view, str) else None
        if is_key is None or not isinstance(entity, list) or not all(isinstance(part, list) for part in entity):
            return value
        rows = [
            parts[0] if len(parts) == 1 else orjson.dumps(list(parts)).decode() for parts in zip(*entity, strict=True)
        ]
        gone = {place for place, key in enumerate(rows) if is_key(str(key))}
        if not gone:
            return value
        self.removed += len(gone)
        if len(gone) == len(rows):
            return _GONE

        def kept(part: Any) -> Any:
            return [cell for place, cell in enumerate(part) if place not in gone]

        changed = dict(value)
        for name in ("entity", "values"):
            if isinstance(value.get(name), list):
                changed[name] = [kept(part) for part in value[name]]
        return changed | {name: kept(value[name]) for name in ("event", "known") if isinstance(value.get(name), list)}

    def _told_apart(self, samples: list[Any]) -> list[Any]:
        """Return the sample rows that say whose they are; of the others nobody can tell."""
        kept = []
        for sample in samples:
            values = sample.get("values", sample) if isinstance(sample, dict) else {}
            shown = [values[name] for name in self._subject.columns if isinstance(values, dict) and name in values]
            if shown and all(value is not None and value != "***" for value in shown):
                kept.append(sample)
        self.removed += len(samples) - len(kept)
        return kept
