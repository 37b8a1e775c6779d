"""Rows to learn from: a frame that knows which column is the target and which are inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from flyball.ledger.refs import Ref

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """A frame with a target. `origin` names the version that the rows come from, `purpose` what they were read for."""

    frame: pl.DataFrame
    target: str
    inputs: tuple[str, ...]
    event_time: str | None = None
    origin: Ref | None = None
    left_out: tuple[str, ...] = field(default=())
    purpose: str | None = None

    @classmethod
    def of(
        cls,
        frame: pl.DataFrame,
        target: str | None,
        *,
        event_time: str | None = None,
        inputs: Sequence[str] | None = None,
        left_out: Sequence[str] = (),
        origin: Ref | None = None,
        purpose: str | None = None,
    ) -> Rows:
        """Return rows with a target; inputs are all other columns but the event time and those left out.

        Raises:
            InvalidInput: no target, an unknown column, or a target that is null in every row.
        """
        if target is None:
            raise InvalidInput("the dataset names no target; declare one: fb.dataset(name, target=column)")
        for column in (target, *(inputs or ()), *left_out):
            if column not in frame.columns:
                near = did_you_mean(column, frame.columns)
                raise InvalidInput(f'there is no column "{column}"{near} (there are: {listed(frame.columns)})')
        known = frame.filter(frame[target].is_not_null())
        if frame.height and not known.height:
            raise InvalidInput(f'the target "{target}" is missing in all {frame.height:,} rows')
        without = {target, event_time, *left_out}
        chosen = tuple(inputs) if inputs is not None else tuple(c for c in frame.columns if c not in without)
        return cls(known, target, chosen, event_time, origin, tuple(left_out), purpose)

    @property
    def X(self) -> pl.DataFrame:  # the field's name for it
        """The inputs, (rows, inputs)."""
        return self.frame.select(self.inputs)

    @property
    def y(self) -> np.ndarray[Any, Any]:
        """The target, (rows,)."""
        return self.frame[self.target].to_numpy()

    def __len__(self) -> int:
        return self.frame.height

    def split(self, test: str | float = 0.2, by: str | None = None) -> tuple[Rows, Rows]:
        """Return (train, test): the newest rows are the test.

        Args:
            test: a span of time such as `30d`, or a share of the rows.
            by: the column to go by; default: the event time, else the order of the rows.

        Raises:
            InvalidInput: an unknown column, a span without a time column, or a part would be empty.
        """
        column = by or self.event_time
        if column is not None and column not in self.frame.columns:
            raise InvalidInput(f'there is no column "{column}" to split by{did_you_mean(column, self.frame.columns)}')
        frame = self.frame.sort(column, maintain_order=True) if column else self.frame
        if isinstance(test, str):
            if column is None or not frame[column].dtype.is_temporal():
                raise InvalidInput(f"a test of {test!r} needs a column of time; give by=, or a share such as 0.2")
            border = frame[column].max() - parse_duration(test)  # type: ignore[operator]
            is_train = frame[column] <= border
            parts = frame.filter(is_train), frame.filter(~is_train)
        else:
            if not 0 < test < 1:
                raise InvalidInput(f"a test of {test} is no share of the rows; expected a number between 0 and 1")
            cut = frame.height - round(frame.height * test)
            parts = frame.head(cut), frame.slice(cut)
        if not parts[0].height or not parts[1].height:
            raise InvalidInput(
                f"test={test!r} leaves {parts[0].height:,} rows to train and {parts[1].height:,} to test"
            )
        return replace(self, frame=parts[0]), replace(self, frame=parts[1])
