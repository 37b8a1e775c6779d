"""What a demo is about: rows to learn from, a stream to replay, and sizes that fit the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

    from flyball.demo.faults import Fault
    from flyball.features.lookup import ViewSpec
    from flyball.features.views import FeatureView

__all__ = ["Job", "Misuse", "Sizes", "SourceTable", "Stream", "Tick"]

Record = dict[str, Any]


class Misuse(InvalidInput):
    """Options that do not go together, or that name what is not there: exit code 2."""


@dataclass(frozen=True)
class Tick:
    """The requests `start` to `stop` that come at one instant, and what was pushed just before them."""

    start: int
    stop: int
    at: datetime | None = None
    label: str = ""  # how the instant is shown
    pushes: tuple[tuple[ViewSpec, list[Record]], ...] = ()


@dataclass(frozen=True)
class Stream:
    """Requests in time order.

    Attributes:
        records: what each request asks.
        truth: what turned out, None where it never did.
        told_at: number of the tick at which the truth of each request is known; beyond the last: after the end.
        ticks: instants, in order.
        keys: what keeps a caller on one variant, one a request.
    """

    records: Sequence[Record]
    truth: Sequence[Any]
    told_at: Sequence[int]
    ticks: Sequence[Tick]
    keys: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def tick_of(self, request: int) -> Tick:
        """Return the first tick that starts at or after a request, or the last."""
        return next((t for t in self.ticks if t.start >= request), self.ticks[-1])


@dataclass(frozen=True)
class Sizes:
    """How much of the stream each part of the loop takes, in requests.

    Measured on the flights (41.8 thousand requests): a drift stands two windows after the fault; 7,000 labelled
    answers teach enough for a gate that asks for evidence; 2,500 an arm let a canary be compared with the champion.
    """

    window: int  # of the drift monitor
    horizon: int  # windows in the whole stream
    fault_at: int  # the request from which on the feed is wrong
    labels: int  # labelled answers after the drift began, before retraining starts
    hold_requests: int  # answers of the canary that end a step
    hold_labels: int  # of them with known truth, before the last step ends
    quality_window: int

    @classmethod
    def of(cls, requests: int) -> Sizes:
        """Return sizes in proportion to the stream.

        Raises:
            InvalidInput: there are too few requests for windows of 50.
        """
        if requests < FEWEST_REQUESTS:
            raise InvalidInput(
                f"there are {requests:,} rows to replay, half of the table; the demo needs at least {FEWEST_REQUESTS:,}"
            )
        window = max(50, min(2000, round(requests / 20)))
        return cls(
            window=window,
            horizon=max(20, -(-requests // window)),
            fault_at=round(requests * 0.287 / window) * window,
            labels=max(300, round(requests / 6)),
            hold_requests=max(10, round(requests / 420)),
            hold_labels=max(50, round(requests * 0.06)),
            quality_window=min(1000, max(100, requests // 40)),
        )


FEWEST_REQUESTS = 1500  # below this, nothing that is asked of evidence can be shown


@dataclass(frozen=True)
class SourceTable:
    """A table that features are computed from, and the file that it was read from."""

    frame: pl.DataFrame
    file: str
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One demo.

    Attributes:
        name: of model and deployment; `dataset`: of the rows to learn from.
        title: a sentence for people; `notes`: what was found while preparing, a sentence each.
        rows: to learn from, as they are published; `spec`: the dataset's declaration beside its contract.
        contract: the ODCS document, as text of YAML.
        inputs: columns that the model takes; `test`: an expression that is true for the rows that judge.
        metric: what decides; `least`: what the first gate asks of it.
        slices: columns whose worst values are told.
        sources, views: of the features that are looked up; empty where all comes with the request.
        fault: what goes wrong, None for nothing; `why_no_fault` says why, where that was not asked for.
        is_strict: whether the loop must end in a promotion; a table of one's own decides that by itself.
    """

    name: str
    dataset: str
    title: str
    rows: pl.DataFrame
    spec: Mapping[str, Any]
    contract: str
    inputs: tuple[str, ...]
    test: pl.Expr
    metric: str
    least: float
    stream: Stream
    sizes: Sizes
    slices: tuple[str, ...] = ()
    sources: Mapping[str, SourceTable] = field(default_factory=dict)
    views: tuple[FeatureView, ...] = ()
    fault: Fault | None = None
    why_no_fault: str = ""
    notes: tuple[str, ...] = ()
    is_strict: bool = True
    is_watched_only: bool = False  # whatever is decided is well, as long as it is explained
