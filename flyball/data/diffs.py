"""How two versions differ: their columns, their rows by key or as wholes, the distributions of their columns.

Parts that both versions have are never read: what they hold is equal. Of the rest, with a key, rows are paired by it;
without one, rows are counted as wholes, so that a row that stands twice and then once is one row removed. Tables larger
than memory are first spread over files by the hash of key or row, and compared file by file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flyball.data.distances import sampled_distances
from flyball.data.pairing import Keyed, Whole, comparable, spread
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.storage.tables import Table, TableStore

__all__ = ["Diff", "SchemaChange", "diff"]

_SLICE_BYTES = 64 << 20  # of Parquet compared at once; in memory a few times that
_SLICE_ROWS = 4_000_000
_SHOWN = 200  # letters of a text, or entries of a list, that a sample shows


@dataclass(frozen=True)
class SchemaChange:
    """What became of the columns; `changed` maps a name to its types before and after."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    reordered: bool = False

    @property
    def is_equal(self) -> bool:
        return not (self.added or self.removed or self.changed or self.reordered)


@dataclass(frozen=True)
class Diff:
    """What changed from one version to another.

    Attributes:
        before, after: the versions, as references or digests.
        schema: what became of the columns.
        rows_before, rows_after: how many rows each has.
        key: the columns by which rows were paired; empty: rows were counted as wholes, and none is `changed`.
        added, removed, changed, unchanged: rows; `unchanged` holds in the columns that both versions have.
        changed_by_column: how many of the changed rows differ in a column, most first, columns without any left out.
        samples: of `added` and `removed` some rows, of `changed` {"key": …, "columns": {name: [old, new]}}.
        distribution: how far each column's values are from those before, 0 (the same shares) to 1, farthest first.
        shared_rows: rows in parts that both versions have, which were not read.
    """

    before: str
    after: str
    schema: SchemaChange
    rows_before: int
    rows_after: int
    key: tuple[str, ...] = ()
    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    changed_by_column: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    distribution: Mapping[str, float] = field(default_factory=dict)
    shared_rows: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether both versions have the same columns and rows, in whatever order."""
        return self.schema.is_equal and not (self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; what JSON cannot hold (times, decimals, bytes) is text."""
        return {**_plain(asdict(self)), "is_equal": self.is_equal}


def diff(
    tables: TableStore,
    before: str,
    after: str,
    *,
    key: str | Sequence[str] = (),
    sample: int = 10,
    distances: Callable[[bytes, bytes], Mapping[str, float]] | None = None,
) -> Diff:
    """Return how the table `after` differs from `before`, both named by digest.

    Args:
        key: columns that name a row in both; nulls in it are values like others.
        sample: how many rows to show of each sort.
        distances: gives the distance of each column from two summaries; without it, or where a table has no summary,
            up to 100,000 rows of each side are compared (`distances.sampled_distances`).

    Raises:
        NotFound: no such table.
        InvalidInput: a key column is not in both or cannot be compared, the key names several rows, or `sample` < 0.
    """
    if sample < 0:
        raise InvalidInput(f"sample is {sample}; expected 0 or more rows to show of each sort")
    key = [key] if isinstance(key, str) else list(key)
    old, new = tables.read(before), tables.read(after)
    _check_key(key, old, new)
    places_old, places_new = _not_shared(old, new)
    shared = old.rows - sum(old.parts[place].rows for place in places_old)
    made = Diff(before, after, _schema(old, new), old.rows, new.rows, tuple(key), unchanged=shared, shared_rows=shared)
    if places_old or places_new:
        common = [name for name in old.schema if name in new.schema]
        left, right, columns = comparable(tables.scan(before, places_old), tables.scan(after, places_new), common)
        _check_comparable(key, columns, old, new)
        parts = [old.parts[place] for place in places_old] + [new.parts[place] for place in places_new]
        slices = max(sum(p.size_bytes for p in parts) // _SLICE_BYTES, sum(p.rows for p in parts) // _SLICE_ROWS) + 1
        with TemporaryDirectory(prefix="flyball-diff-") as folder:
            compared: Keyed | Whole = Keyed(key, columns, sample) if key else Whole(columns, sample)
            for one, other in spread(left, right, key or columns, slices, Path(folder)):
                compared.add(one, other)
        made = _told(made, compared)
    return replace(made, distribution=_distribution(tables, old, new, distances))


def _told(made: Diff, compared: Keyed | Whole) -> Diff:
    changed = compared.changed if isinstance(compared, Keyed) else 0
    by_column = compared.by_column.most_common() if isinstance(compared, Keyed) else []
    return replace(
        made,
        added=compared.added,
        removed=compared.removed,
        changed=changed,
        unchanged=made.unchanged + compared.unchanged,
        changed_by_column=dict(by_column),
        samples=compared.samples,
    )


def _not_shared(old: Table, new: Table) -> tuple[list[int], list[int]]:
    """Return the places of the parts with rows that only one of the tables has, of either."""
    shared = Counter(p.digest for p in old.parts) & Counter(p.digest for p in new.parts)
    found: list[list[int]] = []
    for table in (old, new):
        left = Counter(shared)
        places = []
        for place, part in enumerate(table.parts):
            if left[part.digest]:
                left[part.digest] -= 1
            elif part.rows:
                places.append(place)
        found.append(places)
    return found[0], found[1]


def _schema(old: Table, new: Table) -> SchemaChange:
    common = [name for name in old.schema if name in new.schema]
    return SchemaChange(
        added=tuple(name for name in new.schema if name not in old.schema),
        removed=tuple(name for name in old.schema if name not in new.schema),
        changed={n: (old.schema[n], new.schema[n]) for n in common if old.schema[n] != new.schema[n]},
        reordered=common != [name for name in new.schema if name in old.schema],
    )


def _distribution(
    tables: TableStore, old: Table, new: Table, distances: Callable[[bytes, bytes], Mapping[str, float]] | None
) -> dict[str, float]:
    common = [name for name in old.schema if name in new.schema]
    if old.digest == new.digest:
        return {}
    summaries = (tables.summary(old.digest), tables.summary(new.digest)) if distances is not None else (None, None)
    if distances is not None and summaries[0] is not None and summaries[1] is not None:
        found = dict(distances(summaries[0], summaries[1]))
    else:
        found = sampled_distances(tables.scan(old.digest), old.rows, tables.scan(new.digest), new.rows, common)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _check_key(key: Sequence[str], old: Table, new: Table) -> None:
    for side, table in (("before", old), ("after", new)):
        for name in key:
            if name not in table.schema:
                raise InvalidInput(
                    f'the version {side} has no column "{name}", which is in the key'
                    f"{did_you_mean(name, table.schema)} (it has: {listed(table.schema)})"
                )


def _check_comparable(key: Sequence[str], columns: Sequence[str], old: Table, new: Table) -> None:
    for name in key:
        if name not in columns:
            raise InvalidInput(
                f'the column "{name}" of the key is {old.schema[name]} before and {new.schema[name]} after; '
                "rows cannot be paired by it, give another key or none"
            )


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, long ones cut."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Sequence):
        return [_plain(item) for item in value[:_SHOWN]]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
