"""Find values that differ from what most rows of their group have: the fold behind the check `depends_on`.

Groups and values are 64-bit hashes, counted batch by batch; memory is 24 bytes a distinct pair of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyball.data.keys import Repeats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MajorityFold"]

_PAIRS = 8_000_000  # distinct pairs, 200 MB; a column with more of them is no rule's determinant


class MajorityFold:
    """Counts pairs of a group and a value."""

    def __init__(self) -> None:
        self._counts: pl.DataFrame | None = None
        self._is_given_up = False

    def add(self, pairs: pl.DataFrame) -> None:
        """Take a batch of columns `group` and `pair`, the latter a hash of group and value; rows with null count not.

        Raises:
            OverflowError: more distinct pairs than can be counted in memory.
        """
        import polars as pl

        found = pairs.drop_nulls().group_by("group", "pair").agg(pl.len().cast(pl.Int64).alias("rows"))
        if self._counts is not None:
            found = pl.concat([self._counts, found]).group_by("group", "pair").agg(pl.col("rows").sum())
        if self._is_given_up:
            return
        if found.height > _PAIRS:
            raise OverflowError(f"it has more than {_PAIRS:,} different values to compare")
        self._counts = found

    def forget(self) -> None:
        """Let go of what was counted, and count no more."""
        self._counts, self._is_given_up = None, True

    def finish(self) -> Repeats:
        """Return the pairs that are fewer than another of their group, or as many as another."""
        import numpy as np
        import polars as pl

        if self._counts is None:
            return Repeats(0, np.empty(0, dtype=np.uint64))
        rows = pl.col("rows")
        most = rows.max().over("group")
        alone = (rows == most).sum().over("group") == 1
        odd = self._counts.filter((rows < most) | ~alone)
        return Repeats(int(odd["rows"].sum()), np.sort(odd["pair"].to_numpy()))
