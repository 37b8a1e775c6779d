"""A Python model for the contract of flavours: its module is what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def weighted(columns: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return a weighted sum."""
    return 2.0 * columns["a"] - np.nan_to_num(columns["b"])
