"""Faults: one field of every request that is wrong from some request on, in a way that its contract cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Fault"]


@dataclass(frozen=True)
class Fault:
    """From request `since` on, `column` holds `values` (one a request of the whole stream) in place of what is true.

    `is_in_inputs` is False for a fault that leaves the inputs looking as ever, so that only the quality can show it.
    """

    column: str
    values: Sequence[Any]
    since: int
    sentence: str
    is_in_inputs: bool = True

    def applied(self, number: int, record: dict[str, Any]) -> dict[str, Any]:
        """Return what request `number` asks with the fault in it."""
        return record if number < self.since else {**record, self.column: self.values[number]}
