"""How unlike the rows that a model learnt from a row is, by what registering kept of those (`data.blocks`).

For each input: the share of the reference's rows that are at least as unusual there. Of a number that is how far out in
the tails it lies, both sides together, by the reference's quantiles; outside all that was seen it goes on falling with
the distance. Of a text, or of a missing value, it is the share of rows whose value is no more frequent. The shares are
joined by Fisher's method: were the inputs independent, −2 Σ ln(share) would be χ² with two degrees of freedom each.

Source: R. A. Fisher, Statistical Methods for Research Workers, 4th ed. (1932), §21.1; the distribution function of χ²
with an even number of degrees of freedom: Johnson, Kotz, Balakrishnan, Continuous Univariate Distributions 1, ch. 18.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.errors import NotFound
from flyball.stats.profiles import Profile

__all__ = ["Strangeness"]

Shares = npt.NDArray[np.float64]


class Strangeness:
    """Scores rows against a reference.

    Arguments:
        profiles: of the reference's columns; inputs that are not among them do not count.

    Raises:
        NotFound: there is no column to compare.
    """

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        if not profiles:
            raise NotFound("nothing is known of the rows that the model learnt from, so none can be called strange")
        self.columns = tuple(profiles)
        self._profiles = profiles

    def of(self, rows: pl.DataFrame) -> Shares:
        """Return a score for each row, 0 to 1: the share of the reference's rows that would be less strange.

        A score of 0.999 is one row in a thousand, as far as the inputs are independent.
        """
        total = np.zeros(rows.height)
        for name, profile in self._profiles.items():
            total -= np.log(_share(rows[name], profile))
        return 1.0 - _survival(total, len(self.columns))


def _share(column: pl.Series, profile: Profile) -> Shares:
    """Return for each value the share of the reference's rows at least as unusual; never 0."""
    counts, rows = np.asarray(profile.counts, np.float64), max(profile.rows, 1)
    least = 1.0 / (rows + 1)
    by_bin = np.array([counts[counts <= count].sum() for count in counts]) / rows
    if not profile.bins.is_numeric:
        place: dict[str, Any] = {name: at for at, name in enumerate(profile.bins.names)}
        texts = column.cast(pl.String)
        codes = texts.replace_strict(place, default=len(place), return_dtype=pl.Int64) if place else None
        found = np.full(len(column), len(place)) if codes is None else codes.to_numpy().copy()
        absent = column.is_nan().fill_null(True) if column.dtype.is_float() else column.is_null()
        found[absent.to_numpy()] = len(counts) - 1
        of_texts: Shares = np.maximum(by_bin[found], least)
        return of_texts
    edges = np.asarray(profile.bins.edges)
    values = column.cast(pl.Float64).to_numpy()
    known = max(counts[:-1].sum(), 1.0)
    below = np.interp(values, edges, np.cumsum(counts[: len(edges)]) / known)
    tails = np.minimum(1.0, 2.0 * np.minimum(below, 1.0 - below))
    width = max(float(edges[-1] - edges[0]), np.finfo(float).tiny)
    beyond = np.maximum(np.maximum(edges[0] - values, values - edges[-1]), 0.0)
    shares = np.maximum(tails, least) * width / (width + beyond)
    missing = np.maximum(by_bin[-1], least)
    of_numbers: Shares = np.where(np.isnan(values), missing, np.maximum(shares, np.finfo(float).tiny))
    return of_numbers


def _survival(half: Shares, inputs: int) -> Shares:
    """Return P(χ² with 2·inputs degrees of freedom > 2·half) = e^(−half) · Σ half^i / i!, i < inputs."""
    term = np.exp(-half)
    total = term.copy()
    for number in range(1, inputs):
        term = term * half / number
        total += term
    survival: Shares = np.minimum(total, 1.0)
    return survival
