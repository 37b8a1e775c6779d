"""What whoever looks at a page may see of a dataset: which columns are hidden and why, its rows, samples without them.

Rows come from `platform.frame`, where policies are kept; here pages learn in advance what they must leave out of what
is kept elsewhere (profiles, samples of failing rows), and why, to say it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from flyball.data.masking import REDACTED
from flyball.errors import FlyballError
from flyball.ledger.refs import Ref
from flyball.platform import Platform
from flyball.web.pages.site import parameters

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Head", "Sight", "cell", "head_from", "head_of", "sight_of", "without"]

_LONG_CELL = 80  # characters of a cell that a table shows
_LONG_LIST = 12  # entries of a list in a cell


@dataclass(frozen=True)
class Sight:
    """Whether a dataset may be looked at, and how its hidden columns are shown, by column.

    `reason` says why it may not; `purpose` is what the address says the reader reads for.
    """

    allowed: bool
    reason: str = ""
    masks: Mapping[str, str] = field(default_factory=dict)
    purpose: str | None = None

    def hides(self, column: str) -> bool:
        """Whether a column's values must not be shown as they are."""
        return not self.allowed or column in self.masks or column.partition(".")[0] in self.masks


@dataclass(frozen=True)
class Head:
    """Some rows of a version as texts, which columns are numbers; `reason` says why there are none."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numeric: Sequence[bool] = ()
    reason: str = ""


def sight_of(platform: Platform, dataset: str, columns: Iterable[str], request: Request | None = None) -> Sight:
    """Return what may be seen of a dataset, for the purpose in the address; what cannot be decided is not shown."""
    purpose = parameters(request, "purpose").get("purpose") if request is not None else None
    try:
        found = platform.guard.decision(dataset, columns, platform.principal, purpose)
    except FlyballError as error:
        return Sight(False, f"what may be seen cannot be decided: {error}", purpose=purpose)
    masks = {name: f"{mask.how}, by {mask.because}" for name, mask in found.masks.items()}
    return Sight(found.allowed, found.reason, masks, purpose)


def head_of(platform: Platform, target: Ref, sight: Sight, count: int, start: int = 0) -> Head:
    """Return some rows of a version as whoever asks may see them, or the sentence that says why not."""
    if not sight.allowed:
        return Head(reason=sight.reason)
    try:
        frame = platform.frame(target, purpose=sight.purpose).slice(start, count).collect()
    except FlyballError as error:
        return Head(reason=str(error))
    return head_from(frame)


def head_from(frame: pl.DataFrame) -> Head:
    """Return rows that policies have let through as a table shows them."""
    rows = [[cell(value) for value in row] for row in frame.iter_rows()]
    return Head(frame.columns, rows, [dtype.is_numeric() for dtype in frame.dtypes])


def cell(value: Any) -> str:
    """Return a value as a table shows it: missing ones empty, bytes as their count, long ones cut."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list) and len(value) > _LONG_LIST:
        return f"{cell(value[:_LONG_LIST])[:-1]}, … {len(value):,} in all]"[-200:]
    if isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = str(value)
    return text if len(text) <= _LONG_CELL else text[: _LONG_CELL - 1] + "…"


def without(report: Mapping[str, Any] | None, sight: Sight) -> Mapping[str, Any] | None:
    """Return a contract's report whose samples of rows do not show what is hidden."""
    if not report:
        return None
    results = [
        {**result, "sample": [_masked(one, sight) for one in result.get("sample", ())]} for result in report["results"]
    ]
    return {**report, "results": results}


def _masked(sample: Mapping[str, Any], sight: Sight) -> dict[str, Any]:
    shown = {
        name: REDACTED if value is not None and sight.hides(name) else value
        for name, value in sample.get("values", {}).items()
    }
    return {**sample, "values": shown}
