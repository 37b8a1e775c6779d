"""Running sums of an experiment: what each arm gave so far, brought up to date by what is new in the log.

An experiment of months has more answers than fit in memory, and none of them may be forgotten: an interval that holds
at all looks is of all units since the start. So each look folds only what is new into sums by key, kept in
`traffic/experiments/<deployment>.sqlite` together with how far the log was read, in one transaction: a control plane
that restarts, and a command beside it, go on exactly there. Memory is bounded by what is new, or by a slice of a table
at the start; the file grows by about 100 bytes a key and, where the metric needs labels, 120 bytes an answer.

A label that comes late, or corrects another, changes the mean of its key: an answer's row keeps the label it counted.
Sums are added with the error of each addition kept beside them, so that what is taken out again leaves no trace. Keys
stand in the file only as a keyed hash. When rows were erased from the log, or what is measured changes, everything is
read anew, from the tables (`tracking.sealed`) and the segments behind them.

The same from all rows at once, which the tests compare with this: `experiments.outcomes`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from flyball.serving.measuring import OF_LABEL, Measures, Row, value_of
from flyball.stats.contexts import ContextSums
from flyball.stats.outcomes import Outcomes
from flyball.storage.secret import kept_secret
from flyball.storage.streams import Cursor
from flyball.storage.streams.log import Damage
from flyball.tracking.sealed import Part, Sealed, last_erasure
from flyball.tracking.traffic import TrafficReader

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Tallies", "Tally"]

_FORMAT = 1
_SLICE_ROWS = 100_000  # of a table at once
_AT_ONCE = 500  # values in one query
_MOST_WAITING = 1_000_000  # labels of answers that are not known (yet): of other deployments, or that overtook
_ATTEMPTS = 5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS units (unit BLOB PRIMARY KEY, rows INTEGER NOT NULL, covariate REAL, covariate_at INTEGER)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arms (unit BLOB, arm TEXT, metric TEXT, count INTEGER NOT NULL, total REAL NOT NULL,
    PRIMARY KEY (unit, arm, metric)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (id TEXT PRIMARY KEY, unit BLOB NOT NULL, arm TEXT NOT NULL, row TEXT NOT NULL,
    label TEXT, label_at INTEGER, arrived INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (id TEXT PRIMARY KEY, label TEXT NOT NULL, label_at INTEGER NOT NULL,
    arrived INTEGER NOT NULL);
"""
_ID = re.compile("[0-9a-f]{32}")
_SLACK_MS = 86_400_000  # between two processes' clocks
_SEEN = ""  # as a metric: rows, whatever is known of them
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tally:
    """What an experiment's arms gave so far.

    Attributes:
        units: keys by variant, whatever is known of them; rows: answers by variant.
        outcomes: by metric and variant, the moments of the means by key.
        contexts: by variant, rewards against contexts, where an arm is chosen by context.
    """

    units: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, Outcomes]] = field(default_factory=dict)
    contexts: Mapping[str, ContextSums] = field(default_factory=dict)


class Tallies:
    """The sums of the experiments of a home whose prediction log is in `folder`; any process may look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables = Sealed(folder)
        self._reader = TrafficReader(folder, _note)

    def look(self, deployment: str, measures: Measures) -> Tally:
        """Fold what the log says since the last look, and return what all arms gave.

        Raises:
            InvalidInput: the rows have no such output or covariate.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with self._changing(deployment) as file:
                    fold = self._folded(file, deployment, measures)
            except FileNotFoundError:  # a file of the tables was merged away while it was read
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            if fold.columns:
                measures.check(fold.columns, fold.texts)
            return fold.tally()
        raise AssertionError("unreachable")

    def forget(self, deployment: str) -> None:
        """Give up the sums of a deployment's experiment; nothing when there are none."""
        path = self._path(deployment)
        for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            name.unlink(missing_ok=True)

    def _folded(self, file: sqlite3.Connection, deployment: str, measures: Measures) -> _Fold:
        fold = _Fold(file, measures, kept_secret(self._folder / "mask.key"))
        mark = orjson.dumps([_FORMAT, last_erasure(self._folder), asdict(measures)]).decode()
        is_new = fold.state.get("mark") != mark or self._has_lost(fold)
        if is_new:
            fold.clear()
            fold.state["mark"] = mark
            for rows in self._slices(self._moment(fold, "predictions", deployment)):
                fold.add_rows(rows)
        self._read_rows_on(fold, deployment)
        if is_new:  # after all rows: a label may be in the tables before its row is
            ids = (fold.first_id(), "~")
            for labels in self._slices(self._moment(fold, "labels", None, ids)):
                fold.add_labels(labels)
        self._read_labels_on(fold)
        fold.keep()
        return fold

    def _has_lost(self, fold: _Fold) -> bool:
        """Return whether a segment went into the tables and away before it was read to its end here."""
        for stream in ("predictions", "labels"):
            here = fold.cursor(stream)
            for segment, sealed in self._tables.cursor(stream).items():
                if here.get(segment, 0) < sealed and not (self._folder / stream / segment).exists():
                    return True
        return False

    def _moment(self, fold: _Fold, stream: Any, deployment: str | None, ids: Any = None) -> list[Part]:
        """Return the files of one moment, whose segments are then read from there on."""
        while True:
            sealed = self._tables.cursor(stream)
            parts = self._tables.parts(stream, deployment, ids=ids)
            if sealed == self._tables.cursor(stream):
                fold.set_cursor(stream, sealed)
                return parts

    def _slices(self, parts: Sequence[Part]) -> Iterator[pl.DataFrame]:
        import polars as pl

        for part in parts:
            for start in range(0, part.rows, _SLICE_ROWS):
                rows = self._tables.scan([part])
                if rows is not None:
                    try:
                        yield rows.slice(start, _SLICE_ROWS).collect()
                    except pl.exceptions.ComputeError as error:
                        if self._tables.path(part).exists():
                            raise
                        raise FileNotFoundError(str(error)) from error

    def _read_rows_on(self, fold: _Fold, deployment: str) -> None:
        """Read the segments on from where the last look stopped."""
        while True:
            before = fold.cursor("predictions")
            frames, after = self._reader.read_deployments(before, deployment)
            for rows in frames.values():
                fold.add_rows(rows)
            fold.set_cursor("predictions", {**before, **after})
            if not _is_on(before, after):
                return

    def _read_labels_on(self, fold: _Fold) -> None:
        while True:
            before = fold.cursor("labels")
            labels, after = self._reader.read_labels(before)
            fold.add_labels(labels)
            fold.set_cursor("labels", {**before, **after})
            if not _is_on(before, after):
                return

    @contextmanager
    def _changing(self, deployment: str) -> Iterator[sqlite3.Connection]:
        path = self._path(deployment)
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=120, isolation_level=None)) as file:
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON", "cache_size = -65536"):
                file.execute(f"PRAGMA {pragma}")
            file.execute("BEGIN IMMEDIATE")
            try:
                for statement in _SCHEMA.split(";"):
                    file.execute(statement)
                yield file
            except BaseException:
                file.execute("ROLLBACK")
                raise
            file.execute("COMMIT")

    def _path(self, deployment: str) -> Path:
        return self._folder / "experiments" / f"{deployment}.sqlite"


class _Fold:
    """One transaction: changes are gathered a batch at a time and applied to the keys that they touch."""

    def __init__(self, file: sqlite3.Connection, measures: Measures, secret: bytes) -> None:
        self._file = file
        self._measures = measures
        self._secret = secret
        self.state: dict[str, Any] = {
            name: orjson.loads(value) if name != "mark" else value
            for name, value in file.execute("SELECT name, value FROM state")
        }
        self._load()

    def _load(self) -> None:
        self._sums = {name: tuple(pair) for name, pair in self.state.get("sums", {}).items()}
        size = len(self._measures.context) + 1
        self._contexts: dict[str, ContextSums] = defaultdict(lambda: ContextSums.empty(size))
        self._contexts |= {arm: ContextSums.from_dict(kept) for arm, kept in self.state.get("contexts", {}).items()}

    def clear(self) -> None:
        for table in ("state", "units", "arms", "answers", "waiting"):
            self._file.execute(f"DELETE FROM {table}")
        self.state = {}
        self._load()

    def cursor(self, stream: str) -> Cursor:
        return dict(self.state.get(stream, {}))

    def set_cursor(self, stream: str, cursor: Cursor) -> None:
        self.state[stream] = cursor

    @property
    def columns(self) -> list[str]:
        """The columns that rows had so far."""
        return list(self.state.get("columns", []))

    @property
    def texts(self) -> list[str]:
        """Those of them that are no numbers."""
        return list(self.state.get("texts", []))

    def first_id(self) -> str:
        """Return an id before which no answer can be one of the experiment's: ids begin with their millisecond."""
        first = str(self.state.get("first_id", ""))
        if _ID.fullmatch(first) is None:
            return ""
        return f"{max(0, int(first[:12], 16) - _SLACK_MS):012x}"

    def tally(self) -> Tally:
        return _tally(self._sums, self._measures, dict(self._contexts))

    def keep(self) -> None:
        """Write what `tally` is made of, and how far the log was read."""
        self._file.execute("DELETE FROM waiting WHERE rowid <= (SELECT MAX(rowid) FROM waiting) - ?", (_MOST_WAITING,))
        self.state["sums"] = self._sums
        self.state["contexts"] = {arm: sums.as_dict() for arm, sums in self._contexts.items()}
        kept = [(n, v if n == "mark" else orjson.dumps(v).decode()) for n, v in self.state.items()]
        self._file.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", kept)

    # -- rows and labels

    def add_rows(self, frame: pl.DataFrame) -> None:
        """Fold answers in; those of before the experiment and those that a tester asked for are left out."""
        import polars as pl

        rows = self._measures.rows(frame)
        if not rows:
            return
        schema = {
            name: dtype for name, dtype in frame.schema.items() if name.startswith(("input", "feature", "output"))
        }
        self.state["columns"] = sorted({*self.columns, *schema})
        self.state["texts"] = sorted({*self.texts, *(n for n, t in schema.items() if t == pl.String)})
        self.state["first_id"] = min([str(self.state.get("first_id", "~")), *(row.id for row in rows)])
        changes = _Changes()
        with_labels = self._measures.needs_labels
        kept = []
        known = self._waiting([row.id for row in rows]) if with_labels else {}
        for row in rows:
            unit = self._unit(row)
            changes.saw(unit, row)
            label = known.get(row.id)
            if with_labels:
                kept.append((row.id, unit, row.arm, row.packed(), *(label or (None, None, None))))
            self._count(changes, unit, row, None, label[0] if label else None, is_new=True)
        self._file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", kept)
        self._file.executemany("DELETE FROM waiting WHERE id = ?", [(id,) for id in known])
        self._apply(changes)

    def add_labels(self, labels: pl.DataFrame) -> None:
        """Fold labels in: of each answer the newest holds, and of equally new ones the last to arrive."""
        import polars as pl

        if not self._measures.needs_labels or labels.is_empty():
            return
        newest = labels.sort("at", "arrived", maintain_order=True).unique("prediction_id", keep="last")
        newest = newest.filter(pl.col("prediction_id") >= self.first_id())
        micros = newest.with_columns(pl.col("at", "arrived").cast(pl.Int64))
        given = {id: (value, at, arrived) for id, value, at, arrived in micros.select(
            "prediction_id", "value", "at", "arrived"
        ).iter_rows()}  # fmt: skip
        changes, relabelled, unknown = _Changes(), [], dict(given)
        columns = "id, unit, arm, row, label, label_at, arrived"
        for id, unit, arm, packed, label, at, arrived in self._of("answers", columns, "id", list(given)):
            found = unknown.pop(id)
            if label is not None and (at, arrived) > found[1:]:
                continue
            relabelled.append((*found, id))
            self._count(changes, unit, Row.unpacked(id, arm, packed), label, found[0])
        self._file.executemany("UPDATE answers SET label = ?, label_at = ?, arrived = ? WHERE id = ?", relabelled)
        self._wait(unknown)
        self._apply(changes)

    def _count(
        self, changes: _Changes, unit: bytes, row: Row, before: str | None, now: str | None, *, is_new: bool = False
    ) -> None:
        """Note how a row's metrics change when its label, as JSON text, does."""
        for metric in self._measures.metrics:
            if not is_new and metric not in OF_LABEL:
                continue
            old = None if is_new else value_of(metric, row, before)
            new = value_of(metric, row, now)
            if old == new:
                continue
            if old is not None:
                changes.by_unit[unit].append((row.arm, metric, -1, -old))
            if new is not None:
                changes.by_unit[unit].append((row.arm, metric, 1, new))
            if metric == self._measures.metrics[0] and row.context is not None:
                changes.contexts[row.arm].append((row.context, row.propensity, old, new))

    def _waiting(self, ids: list[str]) -> dict[str, tuple[str, int, int]]:
        return {row[0]: row[1:] for row in self._of("waiting", "id, label, label_at, arrived", "id", ids)}

    def _wait(self, labels: Mapping[str, tuple[str, int, int]]) -> None:
        """Keep labels whose answer is not known yet; one label may have overtaken its answer."""
        known = self._waiting(list(labels))
        kept = [(id, *found) for id, found in labels.items() if id not in known or known[id][1:] <= found[1:]]
        self._file.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?)", kept)

    # -- sums

    def _apply(self, changes: _Changes) -> None:
        """Change the keys that were touched, and the sums over all keys by how their share of them changes."""
        touched = list({*changes.by_unit, *changes.rows})
        covariates: dict[bytes, tuple[int, float | None, int | None]] = dict.fromkeys(touched, (0, None, None))
        for unit, rows, x, at in self._of("units", "unit, rows, covariate, covariate_at", "unit", touched):
            covariates[unit] = (rows, x, at)
        arms: dict[bytes, dict[tuple[str, str], tuple[int, float]]] = defaultdict(dict)
        for unit, arm, metric, count, total in self._of("arms", "unit, arm, metric, count, total", "unit", touched):
            arms[unit][arm, metric] = (count, total)
        moved: dict[str, list[float]] = defaultdict(list)
        new_units, new_arms = [], []
        for unit in touched:
            _contribute(moved, covariates[unit], arms[unit], -1.0)
            rows, x, at = covariates[unit]
            rows += changes.rows.get(unit, 0)
            for new_at, new_x in changes.covariates.get(unit, ()):
                if at is None or new_at < at:
                    x, at = new_x, new_at
            if (rows, x, at) != covariates[unit]:
                new_units.append((unit, rows, x, at))
            changed = set()
            for arm, metric, count, total in changes.by_unit.get(unit, ()):
                had = arms[unit].get((arm, metric), (0, 0.0))
                left = had[0] + count
                arms[unit][arm, metric] = (left, had[1] + total if left else 0.0)
                changed.add((arm, metric))
            new_arms += [(unit, arm, metric, *arms[unit][arm, metric]) for arm, metric in changed]
            _contribute(moved, (rows, x, at), arms[unit], 1.0)
        self._file.executemany("INSERT OR REPLACE INTO units VALUES (?, ?, ?, ?)", new_units)
        self._file.executemany("INSERT OR REPLACE INTO arms VALUES (?, ?, ?, ?, ?)", new_arms)
        for name, deltas in moved.items():
            high, low = self._sums.get(name, (0.0, 0.0))
            total = math.fsum([high, low, *deltas])
            self._sums[name] = (total, math.fsum([high, low, *deltas, -total]))
        for arm, moves in changes.contexts.items():
            self._contexts[arm] = self._contexts[arm].moved(moves)

    def _unit(self, row: Row) -> bytes:
        text = f"key {row.key}" if row.key is not None else f"id {row.id}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._secret).digest()

    def _of(self, table: str, columns: str, key: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._file.execute(f"SELECT {columns} FROM {table} WHERE {key} IN ({marks})", some).fetchall()


class _Changes:
    """What a batch changes, by key."""

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = defaultdict(int)
        self.covariates: dict[bytes, list[tuple[int, float]]] = defaultdict(list)
        self.by_unit: dict[bytes, list[tuple[str, str, int, float]]] = defaultdict(list)
        self.contexts: dict[str, list[tuple[Any, float | None, float | None, float | None]]] = defaultdict(list)

    def saw(self, unit: bytes, row: Row) -> None:
        self.rows[unit] += 1
        self.by_unit[unit].append((row.arm, _SEEN, 1, 0.0))
        if row.covariate is not None:
            self.covariates[unit].append((row.at, row.covariate))


def _contribute(
    moved: dict[str, list[float]],
    covariate: tuple[int, float | None, int | None],
    arms: Mapping[tuple[str, str], tuple[int, float]],
    sign: float,
) -> None:
    """Add what one key gives to the sums over keys, or take it out.

    Keys whose covariate is unknown have sums of their own: they will be given the mean of the others.
    """
    rows, x, _ = covariate
    if x is not None:
        moved["weight"].append(sign * rows)
        moved["weighted"].append(sign * rows * x)
    for (arm, metric), (count, total) in arms.items():
        if metric == _SEEN:
            moved[f"units {arm}"].append(sign)
            moved[f"rows {arm}"].append(sign * count)
        elif count:
            y = total / count
            names = ("n", "y", "yy") if x is not None else ("n?", "y?", "yy?")
            for name, value in zip(names, (1.0, y, y * y), strict=True):
                moved[f"{name} {arm} {metric}"].append(sign * value)
            if x is not None:
                for name, value in (("x", x), ("xx", x * x), ("xy", x * y)):
                    moved[f"{name} {arm} {metric}"].append(sign * value)


def _tally(sums: Mapping[str, tuple[float, float]], measures: Measures, contexts: Mapping[str, ContextSums]) -> Tally:
    def exact(name: str) -> Fraction:
        high, low = sums.get(name, (0.0, 0.0))
        return Fraction(high) + Fraction(low)

    units = {n.removeprefix("units "): int(high) for n, (high, _) in sums.items() if n.startswith("units ") and high}
    rows = {arm: int(sums[f"rows {arm}"][0]) for arm in units}
    mean = exact("weighted") / exact("weight") if exact("weight") else Fraction(0)
    outcomes: dict[str, dict[str, Outcomes]] = {}
    for metric in measures.metrics:
        outcomes[metric] = {}
        for arm in units:
            n, y, yy, x, xx, xy, blind, y_blind, yy_blind = (
                exact(f"{name} {arm} {metric}") for name in ("n", "y", "yy", "x", "xx", "xy", "n?", "y?", "yy?")
            )
            if not n + blind:
                continue
            x, xx, xy = x + blind * mean, xx + blind * mean * mean, xy + mean * y_blind
            n, y, yy = n + blind, y + y_blind, yy + yy_blind
            found = (n, y / n, yy - y * y / n, x / n, xx - x * x / n, xy - x * y / n)
            outcomes[metric][arm] = Outcomes(*(np.asarray(float(value)) for value in found))
    return Tally(units, rows, outcomes, contexts)


def _is_on(before: Cursor, after: Cursor) -> bool:
    return any(before.get(name) != offset for name, offset in after.items())


def _note(damage: Damage) -> None:
    _logger.warning("%d bytes of %s cannot be read back; they are no evidence", damage.size_bytes, damage.segment)
