"""How the rows of a version vary over time: counts of consecutive blocks of rows, of about one size for any version.

A monitor asks its reference how much the reference's own windows differ (`stats.calibration`), for windows of a size
that is declared later. So training keeps blocks beside the model that it registers, while the rows are at hand anyway,
and whoever watches the model puts windows together from them and never reads the rows again. The bins are those of the
version's profile (`profiles.reference_of`).

Blocks are kept at several sizes: 50 rows, and eight times as many each time until all rows are covered by at most 4,096
blocks. Of a size that would need more, 64 stretches of 64 neighbours are kept, evenly spaced over the time of the rows.
"""

from __future__ import annotations

import base64
import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from flyball.data.profiles import TableProfile, profile_frame, reference_of
from flyball.errors import Corrupt, FlyballError, Incompatible, InvalidInput, NotFound, listed
from flyball.stats.profiles import Bins, Profile

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Blocks", "Level", "blocks_of"]

FORMAT = 1
LEAST_ROWS = 50  # of a block, and of a window that a monitor may have
MOST_BLOCKS = 4096  # of one size
MOST_WINDOWS = 200  # whose spread is looked at: more tell nothing new, and cost their square
_COARSER = 8
_STRETCH = 64  # neighbours that are kept together
_FINE = 4  # blocks in a window, so that windows put together of whole blocks are about of one size
_RUN = 8  # neighbouring windows that stay together where not all are looked at
_AT_ONCE = 1 << 22  # rows counted together

Codes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """Blocks of one size: the rows of a block, and how many of them in a row are neighbours in time."""

    rows: int
    stretch: int


@dataclass(frozen=True)
class Blocks:
    """What is kept.

    Attributes:
        rows: of the version.
        event_time: the column by which the rows stand in order; None: they have none.
        levels: from the finest to the one that covers all rows.
        profiles: by column, of all rows.
        counts: by column, for each level, shape (blocks, bins).
        left_out: columns that cannot be counted, and why.
    """

    rows: int
    event_time: str | None
    levels: tuple[Level, ...]
    profiles: Mapping[str, Profile]
    counts: Mapping[str, tuple[Counts, ...]]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def windows(self, column: str, size: int) -> list[Profile]:
        """Return the profiles of windows of about `size` rows in the order of time, at most 200 of them.

        A version of fewer rows is one window. Moments of numbers are not known of a window.

        Raises:
            NotFound: the column is not kept.
        """
        if column not in self.counts:
            raise NotFound(f'the reference has no column "{column}" (it has: {listed(self.counts)})')
        at = self._level_for(size)
        level, counts = self.levels[at], self.counts[column][at]
        found: list[Counts] = []
        for start in range(0, len(counts), level.stretch):
            stretch = counts[start : start + level.stretch]
            rows = self.rows if at == len(self.levels) - 1 else len(stretch) * level.rows
            number = min(max(rows // size, 1), len(stretch))
            ends = [round(i * len(stretch) / number) for i in range(number + 1)]
            found += [stretch[a:b].sum(axis=0) for a, b in itertools.pairwise(ends)]
        bins = self.profiles[column].bins
        return [Profile(bins, found[i]) for i in _spread(len(found))]

    def to_bytes(self) -> bytes:
        """Return JSON whose texts can be looked into; counts are packed. `from_bytes` gives back an equal value."""
        columns = {
            name: {"profile": profile.to_json(), "counts": [_packed(one) for one in self.counts[name]]}
            for name, profile in self.profiles.items()
        }
        levels = [[level.rows, level.stretch] for level in self.levels]
        document = {"format": FORMAT, "rows": self.rows, "event_time": self.event_time, "levels": levels}
        return orjson.dumps({**document, "columns": columns, "left_out": dict(self.left_out)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Blocks:
        """Read what `to_bytes` wrote.

        Raises:
            Corrupt: it is something else, or damaged.
            Incompatible: a newer release wrote it.
        """
        try:
            document = orjson.loads(data)
            if document["format"] > FORMAT:
                raise Incompatible(
                    f"a kept reference has format {document['format']}; this release reads up to {FORMAT}. "
                    "Install the newer release"
                )
            levels = tuple(Level(int(rows), int(stretch)) for rows, stretch in document["levels"])
            profiles, counts = {}, {}
            for name, kept in document["columns"].items():
                profiles[name] = Profile.from_json(kept["profile"])
                counts[name] = tuple(_unpacked(one, profiles[name].bins) for one in kept["counts"])
                if len(counts[name]) != len(levels):
                    raise ValueError(f"{len(counts[name])} sizes of blocks for {len(levels)}")
            return cls(document["rows"], document["event_time"], levels, profiles, counts, document["left_out"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise Corrupt(f"this is no kept reference ({error!r}); register the model again") from error

    def _level_for(self, size: int) -> int:
        """Return the coarsest level that is fine enough for windows of `size` rows; one of all rows is preferred."""
        fine = [i for i, level in enumerate(self.levels) if level.rows * _FINE <= size]
        return fine[-1] if fine else 0


def blocks_of(
    frame: pl.LazyFrame,
    columns: Sequence[str],
    *,
    event_time: str | None = None,
    profile: TableProfile | None = None,
) -> Blocks:
    """Count the columns of a version in blocks; reads one column at a time, so memory is that of the widest.

    Args:
        frame: the rows.
        columns: which; those that are not there or have no bins (times, lists) are told in `left_out`.
        event_time: the column by which the rows are put in order; None: they stay as they are.
        profile: of the rows, where it is known.

    Raises:
        InvalidInput: there are no rows.
    """
    import polars as pl

    schema = frame.collect_schema()
    left_out = {name: "the rows that were learnt from have no such column" for name in columns if name not in schema}
    there = [name for name in dict.fromkeys(columns) if name in schema]
    if profile is None and there:
        profile = profile_frame(frame.select(there))
    order = None
    if event_time is not None:
        times = frame.select(event_time).collect()[event_time]
        # Almost always they are in order as they come, which spares a copy of each column.
        if not times.is_sorted():
            order = times.to_frame("t").with_row_index("i").sort("t", maintain_order=True)["i"]
    rows = int(frame.select(pl.len()).collect().item())
    if not rows:
        raise InvalidInput("there are no rows to keep a reference of")
    levels = _levels(rows)
    profiles: dict[str, Profile] = {}
    counts: dict[str, tuple[Counts, ...]] = {}
    for name in there:
        assert profile is not None
        try:
            found = reference_of(profile, name)
        except FlyballError as error:
            left_out[name] = str(error)
            continue
        series = frame.select(name).collect()[name]
        codes = _codes(series if order is None else series.gather(order), found.bins)
        totals = np.bincount(codes, minlength=found.bins.size).astype(np.int64)
        profiles[name] = replace(found, counts=totals)
        counts[name] = tuple(_counted(codes, level, found.bins.size) for level in levels)
    return Blocks(rows, event_time, levels, profiles, counts, left_out)


def _levels(rows: int) -> tuple[Level, ...]:
    found = []
    size = LEAST_ROWS
    while rows // size > MOST_BLOCKS:
        found.append(Level(size, _STRETCH))
        size *= _COARSER
    return (*found, Level(size, max(rows // size, 1)))


def _codes(column: pl.Series, bins: Bins) -> Codes:
    """Return the bin of each row as `stats.profiles.profile` counts it."""
    import polars as pl

    missing = bins.size - 1
    found = np.empty(len(column), dtype=np.uint8)
    place = {name: at for at, name in enumerate(bins.names)}
    edges = np.asarray(bins.edges)
    for start in range(0, len(column), _AT_ONCE):
        part = column.slice(start, _AT_ONCE)
        here = found[start : start + _AT_ONCE]
        if bins.is_numeric:
            values = part.cast(pl.Float64).to_numpy()
            here[:] = np.searchsorted(edges, values, side="right")
            here[np.isnan(values)] = missing
        else:
            others = len(bins.names)
            texts = part.cast(pl.String)
            here[:] = texts.replace_strict(place, default=others, return_dtype=pl.UInt8) if place else others
            # A column of numbers that are all missing has no edges either, and NaN is missing too.
            absent = part.is_nan().fill_null(True) if part.dtype.is_float() else part.is_null()
            here[absent.to_numpy()] = missing
    return found


def _counted(codes: Codes, level: Level, size: int) -> Counts:
    """Return the counts of a level's blocks, shape (blocks, bins); the last block takes the rows that are left over."""
    number = max(len(codes) // level.rows, 1)
    if number <= level.stretch:
        found = np.zeros((number, size), dtype=np.int64)
        whole = max(_AT_ONCE // level.rows, 1) * level.rows
        for start in range(0, len(codes), whole):
            part = codes[start : start + whole]
            block = np.minimum((start + np.arange(len(part))) // level.rows, number - 1)
            first = int(block[0])
            flat = np.bincount((block - first) * size + part, minlength=(int(block[-1]) - first + 1) * size)
            found[first : int(block[-1]) + 1] += flat.reshape(-1, size)
        return found
    stretches = MOST_BLOCKS // level.stretch
    starts = [round(i * (number - level.stretch) / (stretches - 1)) for i in range(stretches)]
    length = level.stretch * level.rows
    parts = [codes[start * level.rows : start * level.rows + length] for start in starts]
    return np.concatenate([_counted(part, level, size) for part in parts])


def _spread(number: int) -> list[int]:
    """Return which of so many windows are looked at: all, or runs of neighbours evenly spaced."""
    if number <= MOST_WINDOWS:
        return list(range(number))
    runs = MOST_WINDOWS // _RUN
    starts = [round(i * (number - _RUN) / (runs - 1)) for i in range(runs)]
    return sorted({start + i for start in starts for i in range(_RUN)})


def _packed(counts: Counts) -> dict[str, Any]:
    most = int(counts.max(initial=0))
    word = next(word for word, bits in (("u1", 8), ("u2", 16), ("u4", 32), ("u8", 64)) if most < 1 << bits)
    data = zlib.compress(counts.astype(f"<{word}").tobytes(), 6)
    return {"as": word, "data": base64.b64encode(data).decode("ascii")}


def _unpacked(kept: Mapping[str, Any], bins: Bins) -> Counts:
    raw = zlib.decompress(base64.b64decode(kept["data"], validate=True))
    return np.frombuffer(raw, dtype=f"<{kept['as']}").astype(np.int64).reshape(-1, bins.size)
