"""Which stage of a data product may follow which, and what each means.

proposed     somebody wants it; nothing is promised
incubating   it is made and tried; it may change
active       it keeps its service levels
deprecated   it keeps them still, and will be gone: use something else
retired      it is gone: its outputs are not read any more
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from flyball.errors import Conflict, InvalidInput, did_you_mean, listed

__all__ = ["FIRST", "NEXT", "STAGES", "Stage", "check_move", "check_stage"]

Stage = Literal["proposed", "incubating", "active", "deprecated", "retired"]

NEXT: Mapping[Stage, tuple[Stage, ...]] = {
    "proposed": ("incubating", "active", "retired"),
    "incubating": ("active", "proposed", "retired"),
    "active": ("deprecated",),
    "deprecated": ("active", "retired"),
    "retired": (),
}
STAGES: tuple[Stage, ...] = tuple(NEXT)
FIRST: Stage = "proposed"


def check_stage(word: str) -> Stage:
    """Return the stage that a word names. Raises InvalidInput."""
    for stage in STAGES:
        if stage == word:
            return stage
    raise InvalidInput(f'"{word}" is not a stage{did_you_mean(word, STAGES)} (known: {listed(STAGES)})')


def check_move(name: str, before: Stage, after: Stage) -> None:
    """Raise Conflict unless `after` may follow `before`."""
    if after not in NEXT[before]:
        can = f"from there it can become {listed(NEXT[before])}" if NEXT[before] else "nothing follows that"
        raise Conflict(f"data-product/{name} is {before} and cannot become {after}; {can}")
