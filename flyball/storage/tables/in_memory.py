"""Lazy frames that are nothing but rows in memory: taken as they are, without an engine that streams them.

A small append would else wait longer for that engine's threads than for all it does with the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = ["held"]


def held(frame: pl.LazyFrame) -> pl.DataFrame | None:
    """Return the rows of a lazy frame that was made of a frame and not changed since; None of any other.

    Polars tells such a frame by its plan alone, one line that begins with `DF`; where a release words it otherwise rows
    are streamed, as those of files are.
    """
    plan = frame.explain(optimized=False)
    return frame.collect() if plan.startswith("DF [") and "\n" not in plan else None
