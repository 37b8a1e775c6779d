"""A batch that was kept aside because it broke its contract: look at it, then fix, release or drop it, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from flyball.notebook.showing import text_of

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.quarantine import Change, Held, Mode
    from flyball.ledger.refs import Ref
    from flyball.ledger.versions import Version
    from flyball.platform import Platform

__all__ = ["Batch"]


class Batch:
    """A batch of `quarantine/<dataset>`; the rows are read when they are asked for."""

    def __init__(self, held: Held, home: Callable[[], Platform]) -> None:
        self._held = held
        self._home = home

    @property
    def ref(self) -> Ref:
        """`quarantine/flights@3`."""
        return self._held.ref

    @property
    def number(self) -> int:
        """Its number among the batches of the dataset."""
        return self._held.version.number

    @property
    def state(self) -> str:
        """Held, fixed, released or dropped; as it was when this was asked for."""
        return self._held.state

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self._held.rows

    @property
    def report(self) -> Mapping[str, Any]:
        """What the contract's check found, as JSON values; see `data.reports.ContractReport`."""
        return self._held.report

    @property
    def failures(self) -> list[str]:
        """The broken rules, a sentence each."""
        results = self.report.get("results", [])
        return [f"{r['id']}: {r['message']}" for r in results if not r["passed"] and r["severity"] == "error"]

    def frame(self, *, failing: bool = True) -> pl.LazyFrame:
        """Return the rows, lazily, with a column `_failed` more: the rules that each breaks now.

        Args:
            failing: only the rows that break a rule; a batch may also fail as a whole.

        Raises:
            InvalidInput: its rows were dropped.
        """
        return self._home().inspect(self.ref.name, self.number, failing=failing)

    def fix(self, change: Change | Mapping[str, str], reason: str = "", mode: Mode | None = None) -> Version:
        """Publish it after a change, if it keeps the contract then; else it stays held.

        Args:
            change: new values by column, in SQL (`{"age": "abs(age)"}`) or as Polars expressions; a frame that takes
                the batch's place; or a function from the rows, lazy, to other rows.
            reason: a sentence that stays with it.
            mode: append or overwrite; default: as it was meant.

        Raises:
            ContractBroken: it still breaks the contract.
            InvalidInput: the change cannot be made.
            Conflict: it is not held any more.
        """
        return self._home().fix(self.ref.name, self.number, change, reason=reason, mode=mode)

    def release(self, reason: str, mode: Mode | None = None) -> Version:
        """Publish it as it is, although it breaks the contract. Raises InvalidInput without a reason, Conflict."""
        return self._home().release(self.ref.name, self.number, reason, mode=mode)

    def drop(self, reason: str) -> Batch:
        """Delete its rows, bytes too; the report stays. Raises InvalidInput without a reason, Conflict."""
        return Batch(self._home().drop(self.ref.name, self.number, reason), self._home)

    def __str__(self) -> str:
        became = f" by {self._held.actor}" if self._held.actor else ""
        outcome = f", now {self._held.outcome}" if self._held.outcome else ""
        head = f"{self.ref}: {self.state}{became}{outcome}, {self.rows:,} rows"
        return "\n".join([head, *(f"  {text_of(sentence, 200)}" for sentence in self.failures)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
