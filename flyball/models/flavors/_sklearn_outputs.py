"""How answers of scikit-learn are named and typed; shared by the plain and the fast way, which must agree in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.models._columns import Column

__all__ = ["classes_of", "named", "tidy"]


def named(likely: Column) -> dict[str, Column]:
    """Return class probabilities of shape (rows, classes) as "probability" of the second of two, or all of them."""
    if likely.shape[1] == 2:
        return {"probability": np.ascontiguousarray(likely[:, 1])}
    return {"probabilities": likely}


def tidy(values: Any) -> Column:
    """Return labels and numbers as outputs have them: object for text, 64 bits for numbers."""
    array = np.asarray(values)
    if array.dtype.kind in "US":
        return array.astype(object)
    wide = {"i": np.dtype(np.int64), "u": np.dtype(np.int64), "f": np.dtype(np.float64)}
    return array.astype(wide.get(array.dtype.kind, array.dtype), copy=False)


def classes_of(model: Any) -> Column | None:
    """Return the labels in the order of the probabilities, or None when the model is no classifier."""
    found = getattr(model, "classes_", None)
    return found if isinstance(found, np.ndarray) else None
