"""Which columns of a table can be inputs: what is no value to learn from, and what holds the answer, stays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from flyball.errors import listed
from flyball.stats.metrics import metric

__all__ = ["inputs_of", "tells_the_target"]

_MOST_SUMMED = 60  # columns of which sums of two are tried
_NEARLY_UNIQUE = 0.5
_SAMPLE = 20_000
_BINS = 64
_SUSPICIOUS = {"binary": 0.99, "multiclass": 0.99, "regression": 0.97}


def inputs_of(frame: pl.DataFrame, target: str, taken: Sequence[str]) -> tuple[pl.DataFrame, list[str], list[str]]:
    """Return the frame with its inputs in types that a model takes, their names, and a sentence on each left out."""
    inputs, notes = [], []
    for name in (c for c in frame.columns if c not in taken):
        reason = _unfit(frame[name])
        if reason:
            notes.append(f"{name} is left out: {reason}")
        else:
            inputs.append(name)
    for leak in _sums(frame, target, inputs):
        inputs = [name for name in inputs if name not in leak]
        whole = f"{' + '.join(leak)} is {target}" if len(leak) > 1 else f"{leak[0]} is {target} itself"
        notes.append(f"{listed(leak)} {'are' if len(leak) > 1 else 'is'} left out: {whole}, the answer in other words")
    return frame.with_columns(_prepared(frame[name]) for name in inputs), inputs, notes


def tells_the_target(frame: pl.DataFrame, target: str, task: str, inputs: Sequence[str]) -> list[str]:
    """Return a warning for each input that alone predicts the target nearly perfectly.

    It is judged by what it predicts, binned, on rows other than those that the bins' means come from.
    """
    rows = frame.sample(min(_SAMPLE, frame.height), shuffle=True, seed=0)
    half = rows.height // 2
    y = rows[target].cast(pl.Float64).to_numpy()
    found = []
    for name in inputs:
        codes = _codes(rows[name])
        if task == "multiclass":
            score = _right_by_majority(codes, y, half)
        else:
            answers = _means(codes, y, half)
            chosen = metric("auc" if task == "binary" else "r2")
            truth = y[half:]
            score = float(chosen.compute(truth, answers)) if np.unique(truth).size > 1 else 0.0
            score = max(score, 1 - score) if task == "binary" else score
        if score >= _SUSPICIOUS[task]:
            found.append(
                f"warning: {name} alone predicts {target} nearly perfectly ({score:.3f}); is it known in time?"
            )
    return found


def _unfit(column: pl.Series) -> str:
    """Return why a column is no input, empty when it may be one."""
    dtype, known = column.dtype, column.drop_nulls()
    if known.is_empty():
        return "it has no value in any row"
    if dtype.is_temporal():
        return "it is a time; say with --time or --label-time what it is"
    if dtype.is_nested() or dtype in (pl.Object, pl.Binary):
        return f"its type is {dtype}"
    distinct = known.n_unique()
    if distinct == 1:
        return "it has the same value in every row"
    if dtype.is_integer() and distinct == column.len() and known.sort().diff().drop_nulls().n_unique() == 1:
        return "it numbers the rows"
    if dtype == pl.String and distinct > 100 and distinct > _NEARLY_UNIQUE * known.len():
        return f"nearly every row has a text of its own ({distinct:,} in {known.len():,} rows)"
    return ""


def _prepared(column: pl.Series) -> pl.Series:
    """Return a column as numbers or texts; whole numbers that may be missing become fractions, which have NaN."""
    if column.dtype == pl.Boolean:
        column = column.cast(pl.Int64)
    if column.dtype.is_numeric():
        is_whole = column.dtype.is_integer() and not column.null_count()
        return column.cast(pl.Int64 if is_whole else pl.Float64)
    return column.cast(pl.String)


def _sums(frame: pl.DataFrame, target: str, inputs: Sequence[str]) -> list[list[str]]:
    """Return inputs that equal the target, and pairs whose sum does."""
    if not frame[target].dtype.is_numeric():
        return []
    numbers = [name for name in inputs if frame[name].dtype.is_numeric()][:_MOST_SUMMED]
    y = frame[target].cast(pl.Float64).to_numpy()
    columns = {name: frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in numbers}
    few = slice(0, 50)
    found = [[name] for name, values in columns.items() if np.array_equal(values, y)]
    for i, first in enumerate(numbers):
        for second in numbers[i + 1 :]:
            a, b = columns[first], columns[second]
            if [first] in found or [second] in found or not np.allclose(a[few] + b[few], y[few]):
                continue
            if np.allclose(a + b, y):
                found.append([first, second])
    return found


def _codes(column: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return a column cut into at most 64 values: texts and few numbers by value, many numbers by quantile."""
    if column.dtype == pl.String or column.n_unique() <= _BINS:
        return column.cast(pl.String).fill_null("").cast(pl.Categorical).to_physical().cast(pl.Int64).to_numpy()
    values = column.cast(pl.Float64).to_numpy()
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, _BINS)))
    return np.asarray(np.searchsorted(edges, np.nan_to_num(values, nan=edges[0] - 1)), dtype=np.int64)


def _means(codes: np.ndarray, y: np.ndarray, half: int) -> np.ndarray:
    size = int(codes.max()) + 1
    counts = np.bincount(codes[:half], minlength=size)
    sums = np.bincount(codes[:half], weights=y[:half], minlength=size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), y[:half].mean())
    return np.asarray(means[codes[half:]])


def _right_by_majority(codes: np.ndarray, y: np.ndarray, half: int) -> float:
    seen = pl.DataFrame({"code": codes[:half], "y": y[:half]}).group_by("code").agg(pl.col("y").mode().min())
    after = pl.DataFrame({"code": codes[half:], "truth": y[half:]}).join(seen, on="code", how="left")
    return float((after["y"] == after["truth"]).fill_null(False).sum()) / max(after.height, 1)
