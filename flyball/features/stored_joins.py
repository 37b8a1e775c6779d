"""As-of joins with stored views: the rules of `joins`, for views of any size in bounded memory.

Two passes over the stored rows, both block by block. The first reads keys and times only and finds, for each row of
the training set, which stored row answers it (`sweep`). The second reads the features of those that were found, and
skips blocks in which none lies. Held are the training set's own rows and an array of its entities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.joins import same_type
from flyball.features.offline import StoredView, arrival, offsets, table_reader
from flyball.features.runs import END, Read, merged
from flyball.features.specs import ViewSpec
from flyball.features.sweep import Block, Sweep
from flyball.features.views import instant
from flyball.storage.tables import TableStore

__all__ = ["Asked", "added_columns", "attach_stored", "join_stored"]

_US = timedelta(microseconds=1)
_NARROW_ROWS = 1_000_000  # rows of a block of the first pass: some 60 MB with what is computed of them
_SWEPT_ROWS = 131_072  # of a block, at a time: what is computed of them then stays in the processor's cache
_WIDE_CELLS = 3_000_000  # cells of a block of the second pass
_DENSE_SLACK = 4_000_000  # whole-number keys this much further apart than they are many still go through a list


class Asked(NamedTuple):
    """The times of a training set's rows, in order.

    Attributes:
        times: int64 (rows that have a time), microseconds, ascending.
        order: which row each is.
        rows: how many rows there are.
    """

    times: npt.NDArray[np.int64]
    order: npt.NDArray[np.intp]
    rows: int

    @classmethod
    def of(cls, rows: pl.DataFrame, at: str) -> Asked:
        """Read the column `at`. Raises InvalidInput when it is missing or has no zone."""
        if at not in rows.columns:
            near = did_you_mean(at, rows.columns)
            raise InvalidInput(f'the rows have no time column "{at}"{near} (they have {listed(rows.columns)})')
        times = rows.select(instant(at, rows.schema[at], "the rows").to_physical()).to_series()
        present = np.flatnonzero(times.is_not_null().to_numpy())
        values = times.to_numpy() if len(present) == rows.height else times.gather(present).to_numpy()
        order = np.argsort(values, kind="stable")
        return cls(values[order].astype(np.int64), present[order], rows.height)


def join_stored(
    rows: pl.DataFrame,
    at: str,
    stored: StoredView,
    tables: TableStore,
    offset: str | timedelta = "0s",
    *,
    age: bool = False,
) -> pl.DataFrame:
    """Return `rows` with the features of a stored view as known at each row's time; same rows, same order.

    The answers are those of `joins.join_as_of` on the view's rows, see there for the rules and the errors; of rows
    with the same event time and arrival the one that was stored last counts.
    """
    return rows.hstack(attach_stored(rows, Asked.of(rows, at), stored, tables, offset, age=age))


def attach_stored(
    rows: pl.DataFrame,
    asked: Asked,
    stored: StoredView,
    tables: TableStore,
    offset: str | timedelta = "0s",
    *,
    age: bool = False,
) -> pl.DataFrame:
    """Return a stored view's features for rows, as columns of their own; see `join_stored`."""
    spec = stored.spec
    added_columns(rows.columns, spec, age=age)
    positions, events = _found(rows, asked, stored, tables, parse_duration(offset) // _US)
    elapsed = asked.times - events
    if spec.ttl_s is not None:
        positions = np.where(elapsed <= timedelta(seconds=spec.ttl_s) // _US, positions, -1)
    names = list(spec.features)
    features = _gathered(table_reader(tables, stored.table, names), len(names), positions, asked)
    features = features.with_columns(
        pl.col(name).fill_null(pl.lit(value).cast(features.schema[name])) for name, value in spec.defaults.items()
    )
    if age:
        micros = np.full(asked.rows, -1, dtype=np.int64)
        micros[asked.order] = np.where(positions >= 0, elapsed, -1)
        present = pl.col(spec.age_column) >= 0
        features = features.with_columns(pl.Series(spec.age_column, micros)).with_columns(
            pl.when(present).then(pl.col(spec.age_column) / 1e6).alias(spec.age_column)
        )
    return features


def added_columns(there: Sequence[str], spec: ViewSpec, *, age: bool = False) -> list[str]:
    """Return the columns that a view adds. Raises InvalidInput when one of them is there."""
    columns = [*spec.features, *([spec.age_column] if age else [])]
    for column in columns:
        if column in there:
            raise InvalidInput(
                f'the rows have a column "{column}" already, which is a feature of the view {spec.name}; '
                "drop or rename one of them"
            )
    return columns


def _found(
    rows: pl.DataFrame, asked: Asked, stored: StoredView, tables: TableStore, offset_us: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each time which stored row answers it, -1 for none, and that row's event time."""
    spec = stored.spec
    coder = _Coder(rows, asked, stored, tables.scan(stored.table).collect_schema())
    usable = np.flatnonzero(coder.codes >= 0)
    positions = np.full(len(asked.times), -1, dtype=np.int64)
    events = np.zeros(len(asked.times), dtype=np.int64)
    if not len(usable) or not stored.runs:
        return positions, events
    times = asked.times[usable]
    sweep = Sweep(coder.codes[usable], times, coder.entities, offset_us)
    since = None
    if spec.ttl_s is not None:
        since = int(times[0]) - timedelta(seconds=spec.ttl_s) // _US
    for block in _narrow(stored, tables, coder, since):
        sweep.add(block)
        if block.until + offset_us >= times[-1]:
            break
    sweep.finish()
    positions[usable], events[usable] = sweep.positions, sweep.events
    return positions, events


def _narrow(stored: StoredView, tables: TableStore, coder: _Coder, since: int | None) -> Iterator[Block]:
    event, arrived = stored.spec.event_time, arrival(stored)
    wanted: list[str | pl.Expr] = [*stored.spec.entity, event]
    known = None
    if arrived is not None:
        wanted.append(arrived.alias("__known"))
        known = pl.col("__known")
    read = table_reader(tables, stored.table, wanted)
    runs = [(read, offset, run) for offset, run in offsets(stored.runs)]
    for part in merged(runs, event, known, since, _NARROW_ROWS):
        events = part.frame[event].to_physical().to_numpy()
        for begin, end in _cuts(events):
            frame = part.frame.slice(begin, end - begin)
            arrivals = None if known is None else frame["__known"].to_physical().to_numpy()
            until = int(events[end]) - 1 if end < len(events) else min(part.until, END // 2)  # an offset can be added
            yield Block(coder.codes_of(frame), events[begin:end], arrivals, part.positions[begin:end], until)


def _cuts(events: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield beginnings and ends of pieces for the sweep, none of which ends between two rows of one instant."""
    begin = 0
    for wanted in range(_SWEPT_ROWS, len(events), _SWEPT_ROWS):
        end = int(np.searchsorted(events, events[wanted], side="left"))
        if end > begin:
            yield begin, end
            begin = end
    yield begin, len(events)


class _Coder:
    """Numbers the entities that are asked for: 0 …, in no order; -1 for any other.

    Attributes:
        codes: int32 (times of `Asked`), the entity that each row asks for.
        entities: how many there are.
    """

    def __init__(self, rows: pl.DataFrame, asked: Asked, stored: StoredView, there: pl.Schema) -> None:
        self._names = [f"__key_{number}" for number in range(len(stored.spec.entity))]
        pairs = [same_type(name, rows.schema, there, stored.spec.name) for name in stored.spec.entity]
        self._theirs = [theirs.alias(name) for (_, theirs), name in zip(pairs, self._names, strict=True)]
        keys = rows.select(ours.alias(name) for (ours, _), name in zip(pairs, self._names, strict=True))[asked.order]
        self._list: npt.NDArray[np.int32] | None = None
        if len(self._names) == 1 and keys.dtypes[0].is_integer() and self._make_list(keys.to_series()):
            self.codes = self._listed(keys.to_series())
            return
        self._known = keys.unique().drop_nulls().with_row_index("__code")
        self.entities = self._known.height
        self.codes = self._joined(keys)

    def codes_of(self, frame: pl.DataFrame) -> npt.NDArray[np.int32]:
        """Return the code of each row of the view, int32."""
        keys = frame.select(self._theirs)
        return self._joined(keys) if self._list is None else self._listed(keys.to_series())

    def _make_list(self, keys: pl.Series) -> bool:
        """Number whole-number keys by a list from the lowest to the highest, unless they lie too far apart."""
        present = keys.drop_nulls().unique().cast(pl.Int64, strict=False)
        if present.null_count() or not present.len():  # numbers of 64 bits without a sign
            return False
        numbers = present.to_numpy()
        self._lowest, highest = int(numbers.min()), int(numbers.max())
        if highest - self._lowest > 8 * len(keys) + _DENSE_SLACK:
            return False
        self._list = np.full(highest - self._lowest + 2, -1, dtype=np.int32)
        self._list[numbers - self._lowest] = np.arange(len(numbers), dtype=np.int32)
        self.entities = len(numbers)
        return True

    def _listed(self, keys: pl.Series) -> npt.NDArray[np.int32]:
        assert self._list is not None
        last = len(self._list) - 1  # holds -1
        numbers = keys.cast(pl.Int64, strict=False)
        if numbers.null_count():
            numbers = numbers.fill_null(self._lowest + last)
        values = numbers.to_numpy()
        outside = (values < self._lowest) | (values > self._lowest + last)
        return self._list[np.where(outside, last, values - self._lowest) if outside.any() else values - self._lowest]

    def _joined(self, keys: pl.DataFrame) -> npt.NDArray[np.int32]:
        found = keys.join(self._known, on=self._names, how="left", maintain_order="left")
        return found["__code"].cast(pl.Int32).fill_null(-1).to_numpy()


def _gathered(read: Read, columns: int, positions: npt.NDArray[np.int64], asked: Asked) -> pl.DataFrame:
    """Return what is read of stored rows, one for each row of the training set, null where its position is -1."""
    hits = np.flatnonzero(positions >= 0)
    hits = hits[np.argsort(positions[hits], kind="stable")]
    wanted = positions[hits]
    at_once = max(_WIDE_CELLS // columns, 1)
    pieces: list[pl.DataFrame] = [read(0, 0)]
    done = 0
    while done < len(wanted):
        start = int(wanted[done])
        end = int(np.searchsorted(wanted, start + at_once, side="left"))
        span = int(wanted[end - 1]) - start + 1
        pieces.append(read(start, span)[wanted[done:end] - start])
        done = end
    whole = pl.concat(pieces, rechunk=True)
    places: Any = np.full(asked.rows, len(wanted), dtype=np.uint32)
    places[asked.order[hits]] = np.arange(len(wanted), dtype=np.uint32)
    index = pl.Series(places)
    if len(wanted) < asked.rows:
        index = index.set(index == len(wanted), None)
    return whole.select(pl.all().gather(index))
