"""How every benchmark reports: a table for people and, as the last line, the same as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TextIO

__all__ = ["Measure", "report"]


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        work: what was done, in words.
        value: how much it took, in `unit`.
        peer, peer_value: another tool doing the same work, measured in the same run.
        limit: what the machine allows for this work (a bare commit, the model alone), in the same unit.
        target: what is aimed at, in the same unit.
        better: which way is better.
    """

    work: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    limit: float | None = None
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if not self.peer_value or not self.value:
            return None
        times = self.peer_value / self.value
        return times if self.better == "lower" else 1 / times

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON values, in the order of the table."""
        found = {**asdict(self), "ratio": self.ratio, "met": self.met}
        order = ("work", "value", "unit", "peer", "peer_value", "ratio", "limit", "target", "met")
        return {key: _rounded(found[key]) for key in order}


def report(measures: Sequence[Measure], out: TextIO = sys.stdout) -> None:
    """Print the table and, as the last line, the JSON list."""
    head = ["work", "value", "unit", "peer", "ratio", "limit", "target", ""]
    rows = [_cells(measure) for measure in measures]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        padded = [
            cell.rjust(w) if i in (1, 4, 5, 6) else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(padded).rstrip(), file=out)
    print(json.dumps([measure.to_dict() for measure in measures]), file=out, flush=True)


def _cells(measure: Measure) -> list[str]:
    peer = f"{measure.peer}: {_text(measure.peer_value)}" if measure.peer else ""
    ratio = f"{_text(measure.ratio)}x" if measure.ratio is not None else ""
    sign = "≤" if measure.better == "lower" else "≥"
    target = f"{sign} {_text(measure.target)}" if measure.target is not None else ""
    verdict = {True: "met", False: "NOT MET", None: ""}[measure.met]
    return [measure.work, _text(measure.value), measure.unit, peer, ratio, _text(measure.limit), target, verdict]


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
