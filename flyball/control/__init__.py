"""Control: compares wanted with observed, and acts.

A controller gets the name of a resource and the world, reads what it needs, changes what it must and returns an
outcome. It keeps nothing between calls, so a restart at any point changes nothing. What wakes it is one rule: a change
of X wakes X, X's owner and every resource whose spec refers to X; a timer is the only other alarm.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from flyball.clock import Clock
from flyball.ledger import Fence, Ledger, Transaction

__all__ = ["Blocked", "Controller", "Outcome", "Retry", "World"]


@dataclass(frozen=True)
class Retry:
    """Come back after a while: a timer, not a failure."""

    after_s: float


@dataclass(frozen=True)
class Blocked:
    """It waits for something that will wake it: a person, another resource. Shown on the overview."""

    reason: str


Outcome = Retry | Blocked | None


@dataclass(frozen=True)
class World:
    """What a controller sees: the ledger under the lease, and the clock."""

    ledger: Ledger
    clock: Clock
    actor: str
    fence: Fence | None = None

    def read(self) -> AbstractContextManager[Transaction]:
        """Open the ledger for reading."""
        return self.ledger.read()

    def write(self, cause: int | None = None) -> AbstractContextManager[Transaction]:
        """Open a transaction in the controller's name; it fails once another control plane holds the lease."""
        return self.ledger.write(self.actor, cause, self.fence)


class Controller(Protocol):
    """Keeps the resources of one kind as wanted."""

    kind: str

    def reconcile(self, name: str, world: World) -> Outcome:
        """Bring one resource a step nearer to its spec; the resource may be gone, then clean up after it.

        An exception is retried with back-off and shown in the resource's status as `error`.
        """
        ...
