"""The ledger keeps what is wanted, what happened and what was made: resources, runs, versions, and the edges between.

Each noun has a narrow protocol in the module that bears its name; `sql` implements all of them over SQLite or
PostgreSQL. Reading goes through `ledger.read()`, changing through `ledger.write(actor, cause)`: one transaction that
holds the change and its journal event, or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from flyball.ledger.access_keys import AccessKeys
from flyball.ledger.artifacts import Artifacts
from flyball.ledger.deliveries import Deliveries
from flyball.ledger.evaluation_sets import EvaluationSets, Scorers
from flyball.ledger.experiments import Experiments
from flyball.ledger.journal import Journal
from flyball.ledger.lineage import Lineage
from flyball.ledger.logged_models import LoggedModels
from flyball.ledger.notes import Notes
from flyball.ledger.papers import Papers
from flyball.ledger.points import Points
from flyball.ledger.promotions import Promotions
from flyball.ledger.removal import Removal
from flyball.ledger.resources import Resources
from flyball.ledger.run_columns import RunColumns
from flyball.ledger.runs import Runs
from flyball.ledger.search import Search
from flyball.ledger.traces import Traces
from flyball.ledger.versions import Versions

__all__ = ["Fence", "Ledger", "Transaction"]


@dataclass(frozen=True)
class Fence:
    """Proof of a lease: a write that carries it fails with `Unavailable` once another holder has taken over."""

    lease: str
    holder: str
    epoch: int


class Transaction(Protocol):
    """What one transaction sees; in `read()` the methods that change raise `Forbidden`."""

    @property
    def resources(self) -> Resources: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def run_columns(self) -> RunColumns: ...
    @property
    def experiments(self) -> Experiments: ...
    @property
    def points(self) -> Points: ...
    @property
    def artifacts(self) -> Artifacts: ...
    @property
    def logged_models(self) -> LoggedModels: ...
    @property
    def traces(self) -> Traces: ...
    @property
    def evaluation_sets(self) -> EvaluationSets: ...
    @property
    def scorers(self) -> Scorers: ...
    @property
    def removal(self) -> Removal: ...
    @property
    def versions(self) -> Versions: ...
    @property
    def notes(self) -> Notes: ...
    @property
    def promotions(self) -> Promotions: ...
    @property
    def papers(self) -> Papers: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def access_keys(self) -> AccessKeys: ...
    @property
    def lineage(self) -> Lineage: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def search(self) -> Search: ...

    def part(self, actor: str, cause: int | None = None, *, is_checked: bool = False) -> AbstractContextManager[None]:
        """What is done within is done by `actor`, and undone alone when it raises.

        `is_checked` says that it raises before its first change or not at all, which saves a savepoint.
        """
        ...


class Ledger(Protocol):
    """Opens transactions."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Open a snapshot for reading."""
        ...

    def write(
        self, actor: str, cause: int | None = None, fence: Fence | None = None
    ) -> AbstractContextManager[Transaction]:
        """Open a transaction that commits at the end of the block and rolls back when the block raises.

        Args:
            actor: who acts, as a reference: `user/alice`, `controller/monitor`.
            cause: the journal event because of which this is done; the default for all events of the transaction.
            fence: the lease under which this is written.

        Raises:
            Unavailable: the fence is no longer valid, or the database cannot be reached.
        """
        ...

    def acquire(
        self, lease: str, holder: str, ttl_s: float, is_dead: Callable[[str], bool] = lambda _holder: False
    ) -> Fence | None:
        """Take or renew a lease; None when another holder has it, it has not run out and `is_dead(holder)` is false."""
        ...

    def release(self, fence: Fence) -> None:
        """Give a lease back, if it is still held."""
        ...

    def compact(self) -> None:
        """Give up the space of what was replaced or removed, so that its bytes are no longer in the database's files.

        Raises:
            Unavailable: others kept the database busy for too long; nothing is lost, try again.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
