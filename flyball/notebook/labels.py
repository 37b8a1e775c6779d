"""A set of labels by people: add to it, ask what holds and what was known when, how far the labellers agree."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.labels.agreeing import Agreement
    from flyball.data.labels.sets import Imported
    from flyball.platform import Platform

__all__ = ["LabelSet"]


class LabelSet:
    """A declared set of labels, by name."""

    def __init__(self, name: str, home: Callable[[], Platform]) -> None:
        self.name = name
        self._home = home

    def add(self, source: Any, labeller: str | None = None, **options: Any) -> Imported:
        """Add a batch of labels; the same again adds nothing, and a wrong row keeps all of them out.

        Args:
            source: a frame, records or a path, with the key's columns, `label`, and perhaps `labeller`, `labelled_at`
                and `known_at` (times with a zone; default: now).
            labeller: who made them all, where no column says so.
            options: see `data.labels.sets.LabelSets.add`.

        Raises:
            InvalidInput: a row is wrong; says which.
        """
        return self._home().add_labels(self.name, source, labeller=labeller, **options)

    def table(self, at: datetime | None = None) -> pl.DataFrame:
        """Return what holds for each labelled item, now or as it was known at a time with a zone."""
        return self._home().label_table(self.name, at)

    def as_of(self, rows: pl.DataFrame, at: str) -> pl.DataFrame:
        """Return the rows with `label` and `label_state` as they were known at each row's own time, in column `at`."""
        return self._home().label_sets.as_of(self.name, rows, at)

    def join(self, frame: pl.LazyFrame, target: str, label_time: str = "label_time") -> pl.LazyFrame:
        """Return the rows with their label as column `target`, and since when it was known; null where none holds."""
        return self._home().label_sets.join(self.name, frame, target, label_time)

    def agreement(self, at: datetime | None = None) -> Agreement:
        """Return how far the labellers agree: `.alpha`, `.fleiss`, `.pairs`, each with its interval."""
        return self._home().label_sets.agreement(self.name, at)

    def open_items(self, limit: int = 100) -> pl.DataFrame:
        """Return the items that need somebody: disputed, short of labellers, or without a label."""
        return self._home().open_labels(self.name, limit)

    def __repr__(self) -> str:
        return f"LabelSet({self.name!r})"
