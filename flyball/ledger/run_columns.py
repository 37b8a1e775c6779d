"""What an index of runs reads: whole experiments once, then only what changed.

An index that has read up to the number of `head` misses nothing at or below it: numbers follow the order of commits.
It reads `logged` before the runs themselves, since what is folded into a run meanwhile comes with the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from flyball.ledger.points import Logged
from flyball.ledger.runs import RunFacts

__all__ = ["RunColumns"]


class RunColumns(Protocol):
    """Reads the facts of many runs; deleted ones are among them, with their mark."""

    def head(self) -> int:
        """Return the newest number that a change has."""
        ...

    def of_experiment(self, experiment: str) -> Iterator[RunFacts]:
        """Yield the runs of an experiment, in no order."""
        ...

    def changed(self, after: int, experiments: Iterable[str]) -> Iterator[RunFacts]:
        """Yield the runs of experiments that changed after a number."""
        ...

    def removed(self, after: int) -> list[str]:
        """Return the ids of the runs of any experiment that were removed for good after a number."""
        ...

    def named(self, ids: Iterable[str]) -> Iterator[RunFacts]:
        """Yield the runs of these ids that are there."""
        ...

    def marks(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the number of the newest change of each of these runs that is there, what was logged included."""
        ...

    def logged(self, after: int, experiments: Iterable[str]) -> Iterator[Logged]:
        """Yield the points of experiments' runs that were logged after a number and that no `latest` holds yet."""
        ...

    def loose(self, ids: Iterable[str]) -> Iterator[Logged]:
        """Yield all points of these runs that their `latest` does not hold yet."""
        ...

    def loose_of_experiment(self, experiment: str) -> Iterator[Logged]:
        """Yield all points of an experiment's runs that their `latest` does not hold yet."""
        ...
