"""What the units of an experiment's arm gave: sums that add up, from which every verdict of an experiment is made.

The unit is the *key* that the traffic table hashes (a user, a customer), not the row: one user's hundred rows say
little more than ten of them, and a test that counts them as a hundred finds differences that are not there. So rows are
first averaged by key (`serving.experiments`): a unit's outcome is the mean of its rows. A row without a key is a unit.

A covariate is something of the unit that was known before it was assigned to an arm. Where it explains the outcome, the
difference of arms is adjusted for it (CUPED: Deng, Xu, Kohavi & Walker 2013, eqs. 4-6), which leaves 1 − ρ² of its
variance, ρ being the correlation of covariate and outcome. One slope for all arms, pooled within arms, so that the
adjustment cannot favour one.

All fields are arrays of one shape, () for one arm; simulations have many arms in one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput

__all__ = ["Difference", "Outcomes", "difference", "merged", "outcomes_of", "slope"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Moments of the units of one arm.

    Attributes:
        units: how many.
        mean, covariate_mean: of outcome and covariate.
        squares, covariate_squares: sums of squared deviations from these means.
        products: sum of the products of both deviations.
    """

    units: Floats = field(default_factory=lambda: np.zeros(()))
    mean: Floats = field(default_factory=lambda: np.zeros(()))
    squares: Floats = field(default_factory=lambda: np.zeros(()))
    covariate_mean: Floats = field(default_factory=lambda: np.zeros(()))
    covariate_squares: Floats = field(default_factory=lambda: np.zeros(()))
    products: Floats = field(default_factory=lambda: np.zeros(()))

    @property
    def total(self) -> Floats:
        """The sum of the outcomes."""
        return self.units * self.mean

    @property
    def variance(self) -> Floats:
        """The outcomes' variance (n − 1); 0 for fewer than two units."""
        return np.asarray(self.squares / np.maximum(self.units - 1, 1))

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name, of one arm."""
        return {name: float(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Any) -> Outcomes:
        """Return what `as_dict` gave. Raises InvalidInput for other names."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise InvalidInput(f"outcomes have no {sorted(unknown)[0]!r}; expected {sorted(cls.__dataclass_fields__)}")
        return cls(**{name: np.asarray(value, dtype=np.float64) for name, value in values.items()})


@dataclass(frozen=True)
class Difference:
    """Treated − control: its estimate, the variance of that estimate, and the units of both arms."""

    value: Floats
    variance: Floats
    units: Floats


def outcomes_of(values: npt.ArrayLike, covariates: npt.ArrayLike | None = None) -> Outcomes:
    """Return the moments over the last axis of `values`, one a unit; `covariates` has the same shape.

    Raises:
        InvalidInput: a value is not finite, or the shapes differ.
    """
    y = np.asarray(values, dtype=np.float64)
    x = np.zeros_like(y) if covariates is None else np.asarray(covariates, dtype=np.float64)
    if x.shape != y.shape:
        raise InvalidInput(
            f"there are covariates of shape {x.shape} for outcomes of shape {y.shape}; expected the same"
        )
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise InvalidInput("an outcome or covariate is not finite; leave out units whose value is unknown")
    if y.shape[-1] == 0:
        nothing = np.zeros(y.shape[:-1])
        return Outcomes(nothing, nothing, nothing, nothing, nothing, nothing)
    mean, covariate_mean = y.mean(axis=-1), x.mean(axis=-1)
    dy, dx = y - mean[..., None], x - covariate_mean[..., None]
    units = np.full(mean.shape, float(y.shape[-1]))
    sums = ((dy * dy).sum(axis=-1), (dx * dx).sum(axis=-1), (dx * dy).sum(axis=-1))
    return Outcomes(units, mean, sums[0], covariate_mean, sums[1], sums[2])


def merged(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the moments of all units together (Chan, Golub & LeVeque 1983); no unit may be in two parts."""
    found = Outcomes()
    for part in parts:
        units = found.units + part.units
        share = part.units / np.maximum(units, 1)
        dy, dx = part.mean - found.mean, part.covariate_mean - found.covariate_mean
        weight = found.units * share
        found = Outcomes(
            units,
            found.mean + dy * share,
            found.squares + part.squares + dy * dy * weight,
            found.covariate_mean + dx * share,
            found.covariate_squares + part.covariate_squares + dx * dx * weight,
            found.products + part.products + dx * dy * weight,
        )
    return found


def slope(arms: Sequence[Outcomes]) -> Floats:
    """Return the slope of outcome on covariate, pooled within arms; 0 where the covariate does not vary."""
    products = np.asarray(sum(arm.products for arm in arms))
    squares = np.asarray(sum(arm.covariate_squares for arm in arms))
    return np.asarray(np.where(squares > 0, products / np.where(squares > 0, squares, 1.0), 0.0))


def difference(treated: Outcomes, control: Outcomes, is_adjusted: bool = False) -> Difference:
    """Return treated − control, adjusted for the covariate where asked; arms without units have variance 0."""
    beta = slope((treated, control)) if is_adjusted else np.zeros(())
    value = treated.mean - control.mean - beta * (treated.covariate_mean - control.covariate_mean)
    variance = np.zeros(())
    for arm in (treated, control):
        squares = arm.squares - 2 * beta * arm.products + beta * beta * arm.covariate_squares
        one = np.maximum(squares, 0.0) / np.maximum(arm.units - 1, 1) / np.maximum(arm.units, 1)
        variance = variance + one
    return Difference(np.asarray(value), np.asarray(variance), np.asarray(treated.units + control.units))
