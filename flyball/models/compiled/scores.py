"""The last step of a compiled model up to its raw scores: an ensemble of trees, or a product with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from flyball.errors import Corrupt, InvalidInput
from flyball.models.compiled import kernel

__all__ = ["Linear", "Scores", "Trees", "read_scores"]

Array = np.ndarray[Any, Any]


class Scores(Protocol):
    """From the matrix (rows, features), which may be changed, to scores (rows, outputs)."""

    path: ClassVar[str]

    def __call__(self, table: Array) -> Array:
        """Return the scores. Raises InvalidInput: a value that the model does not take."""
        ...

    def document(self) -> dict[str, Any]:
        """Return plain values and arrays; `read_scores` reads them."""
        ...


@dataclass(frozen=True)
class Trees:
    """An ensemble, run by `kernel.c`.

    Attributes:
        features: columns of the matrix.
        nodes: of all trees, of `kernel.NODE`; children are numbers in this array and stand behind their parent.
        roots, offsets: of each tree its first node, and the first output that it adds to.
        base: what each output begins with; shape (outputs,).
        leaves: of leaves with several values, shape (leaves, values); else (0, 1).
        scale, divisor: each value is multiplied, each sum divided.
        is_single: whether the model sees float32. takes_missing: whether it takes NaN.
        sets, known: uint32 words (sets, 8) of the categories that go left, and (features, 8) of those known.
    """

    path: ClassVar[str] = "trees"

    features: int
    nodes: Array
    roots: Array
    offsets: Array
    base: Array
    leaves: Array
    scale: float = 1.0
    divisor: float = 1.0
    is_single: bool = False
    takes_missing: bool = True
    sets: Array | None = None
    known: Array | None = None

    def __post_init__(self) -> None:
        """Prove that the kernel stays within the arrays and ends. Raises Corrupt, Unavailable (no compiler)."""
        sets = np.zeros((1, 8), np.uint32) if self.sets is None else self.sets
        known = np.zeros((self.features, 8), np.uint32) if self.known is None else self.known
        _check(self, sets, known)
        arrays = [
            np.ascontiguousarray(array, dtype)
            for array, dtype in (
                (self.nodes, kernel.NODE),
                (self.roots, np.int64),
                (self.offsets, np.int64),
                (self.leaves, np.float64),
                (self.base, np.float64),
                (sets, np.uint32),
                (known, np.uint32),
            )
        ]
        integers = [len(self.roots), self.features, len(self.base), self.leaves.shape[1]]
        run = kernel.Kernel([*integers, self.is_single, self.sets is not None], [self.scale, self.divisor], arrays)
        object.__setattr__(self, "_run", run)

    def __call__(self, table: Array) -> Array:
        scores, found = self._run(table)  # type: ignore[attr-defined]
        if found & kernel.TOO_LARGE:
            raise InvalidInput(
                "the model cannot take these rows: a number is too large for float32, which it computes in"
            )
        if found & kernel.HAS_NAN and not self.takes_missing:
            raise InvalidInput("the model cannot take these rows: a value is missing")
        return scores  # type: ignore[no-any-return]

    def document(self) -> dict[str, Any]:
        names = ("features", "scale", "divisor", "is_single", "takes_missing", "roots", "offsets", "base", "leaves")
        nodes = {name: self.nodes[name] for name in kernel.NODE.names or ()}
        return {
            "path": self.path, **{name: getattr(self, name) for name in names}, "nodes": nodes,
            "sets": self.sets, "known": self.known,
        }  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """Scores = matrix · weightsᵀ + intercept, by the very calls that scikit-learn makes, so that BLAS sums alike.

    Attributes:
        weights: (outputs, features), or (features,) where the model has them so; intercept: (outputs,) or a number.
        is_by_column: whether the model's matrix lies column by column, as one made from a frame does.
    """

    path: ClassVar[str] = "linear"

    weights: Array
    intercept: Array
    is_by_column: bool = False

    def __call__(self, table: Array) -> Array:
        if self.is_by_column:
            table = np.asfortranarray(table)
        scores = table @ self.weights.T + self.intercept
        if not np.isfinite(scores).all():
            raise InvalidInput("the model cannot take these rows: a value is missing or too large")
        return scores.reshape(len(table), -1)

    def document(self) -> dict[str, Any]:
        return {
            "path": self.path, "weights": self.weights, "intercept": self.intercept, "is_by_column": self.is_by_column
        }  # fmt: skip


def read_scores(document: Mapping[str, Any]) -> Scores:
    """Read what `document` returned. Raises Corrupt, Unavailable (trees where there is no compiler)."""
    given = {key: value for key, value in document.items() if key != "path"}
    try:
        if document["path"] == Linear.path:
            return Linear(**given)
        nodes = np.zeros(len(given["nodes"]["feature"]), kernel.NODE)
        for name in kernel.NODE.names or ():
            nodes[name] = given["nodes"][name]
        return Trees(**{**given, "nodes": nodes})
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise Corrupt(f"the model's compiled form is not as this release writes it: {error!r:.200}") from error


def _check(trees: Trees, sets: Array, known: Array) -> None:
    nodes, count, outputs = trees.nodes, len(trees.nodes), len(trees.base)
    at = np.arange(count)
    left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    is_leaf = (left == at) & (right == at)
    split = ~is_leaf
    categorical = split & (nodes["flags"] & 2 != 0)
    number = nodes["threshold"][categorical]
    width = trees.leaves.shape[1] if trees.leaves.ndim == 2 else 0
    holds = (
        0 < count < 2**31
        and trees.features > 0
        and width > 0
        and trees.nodes.dtype == kernel.NODE
        and bool((left[split] > at[split]).all() and (right[split] > at[split]).all())
        and bool((left[split] < count).all() and (right[split] < count).all())
        and bool(((nodes["feature"] >= 0) & (nodes["feature"] < trees.features)).all())
        and len(trees.roots) == len(trees.offsets) > 0
        and bool(((trees.roots >= 0) & (trees.roots < count)).all())
        and bool(((trees.offsets >= 0) & (trees.offsets + width <= outputs)).all())
        and sets.shape[1:] == (8,)
        and known.shape == (trees.features, 8)
        and bool(((number >= 0) & (number < len(sets)) & (number == np.trunc(number))).all())
        and (trees.sets is not None or not categorical.any())
        and (width == 1 or bool(((nodes["flags"][is_leaf] >> 3) < len(trees.leaves)).all()))
        and bool((nodes["flags"] >= 0).all())
    )
    if not holds:
        raise Corrupt("a compiled tree points outside its own arrays; the form was not made by Flyball")
