"""Intervals and p-values that stay valid however often one looks: the evidence of running experiments.

A 95 % interval for a fixed number of rows, looked at all day, excludes the truth sooner or later. A *confidence
sequence* holds at all times at once: with probability 1 − α the truth never leaves it. So a controller may look twice a
second and stop when it knows enough; the price is a wider interval (at the planned size and α = 0.05, 1.55 times).

| what | method | holds |
|---|---|---|
| a difference of means | normal mixture over the arms' moments | in the limit; see `FEWEST_UNITS` |
| a mean within [0, 1], such as a share | beta mixture of Bernoulli likelihoods | exactly, for any number of rows |
| counts of arms against shares | `sample_ratio`, Dirichlet mixture | exactly |

The normal mixture. With estimate θ̂, its variance V after t units, and ρ² tuned to the planned size,

    log Λ = ½ [ tρ² / (tρ² + 1) · θ̂² / V − log(tρ² + 1) ],   p = min(1, 1 / Λ),
    θ̂ ± √( V · (tρ² + 1) / (tρ²) · 2 log(√(tρ² + 1) / α) ),

which is at once the mixture sequential probability ratio test (Johari, Pekelis & Walsh 2015, "Always valid inference",
eq. 8 with τ² = ρ²σ²) and the asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021,
Theorem 2.2, tuned as in appendix B.2): the interval excludes 0 exactly when p < α.

The beta mixture. For a mean m, ∫ Π (q/m)^x ((1−q)/(1−m))^(1−x) dBeta(q; a, b) is a martingale when x is 0 or 1 (Howard,
Ramdas, McAuliffe & Sekhon 2021, the beta-binomial boundary) and, as each factor is convex in x, a supermartingale for
any x within [0, 1]; by Ville's inequality it exceeds 1/α at some time with probability at most α. It needs only the
number of rows and their sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.outcomes import Difference, Floats, Outcomes, difference

__all__ = [
    "FEWEST_UNITS",
    "Look",
    "bounded",
    "bounded_difference",
    "compare",
    "half_width",
    "log_gamma",
    "log_ratio",
    "tuning",
]

FEWEST_UNITS = 100  # of each arm; before that the limit theorem does not hold, and nothing is said
FEWEST_OF_TWO = 10  # of each arm, where outcomes are 0 and 1: units of the rarer outcome
_HALVINGS = 60


@dataclass(frozen=True)
class Look:
    """A difference at one look of many: `low` and `high` hold at all looks together; NaN while nothing can be said."""

    low: Floats
    value: Floats
    high: Floats
    p_value: Floats
    units: Floats
    alpha: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the fields of one comparison by name, None while nothing can be said."""
        fields = {"low": self.low, "value": self.value, "high": self.high, "p_value": self.p_value, "units": self.units}
        values = {name: float(value) for name, value in fields.items()}
        return {
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
            "alpha": self.alpha,
        }


def tuning(planned_units: float, alpha: float) -> float:
    """Return the ρ² whose interval is narrowest after `planned_units` units of both arms together.

    Raises:
        InvalidInput: no units, or an alpha outside (0, 1).
    """
    check_alpha(alpha)
    if not planned_units > 0:
        raise InvalidInput(f"the planned size is {planned_units:g} units; expected more than zero")
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned_units


def log_ratio(found: Difference, rho_squared: float) -> Floats:
    """Return log Λ against a difference of zero; 1/Λ is a p-value that may be looked at at any time."""
    scaled = found.units * rho_squared
    squared = found.value**2 / np.where(found.variance > 0, found.variance, np.inf)
    return np.asarray((scaled / (scaled + 1) * squared - np.log1p(scaled)) / 2)


def half_width(found: Difference, rho_squared: float, alpha: float) -> Floats:
    """Return half the width of the confidence sequence at this look."""
    scaled = np.maximum(found.units * rho_squared, 1e-300)
    factor = (scaled + 1) / scaled * (np.log1p(scaled) - 2 * math.log(alpha))
    return np.asarray(np.sqrt(found.variance * factor))


def compare(
    treated: Outcomes, control: Outcomes, planned_units: float, alpha: float = 0.05, is_adjusted: bool = False
) -> Look:
    """Compare two arms at one look of any number of looks.

    Args:
        treated, control: moments over all units so far.
        planned_units: of both arms together, where the interval is to be narrowest; fixed before the start.
        alpha: the probability that the truth is ever outside.
        is_adjusted: by the covariate (CUPED).

    Raises:
        InvalidInput: alpha or planned units.
    """
    rho_squared = tuning(planned_units, alpha)
    found = difference(treated, control, is_adjusted)
    is_known = (found.variance > 0) & _is_enough(treated) & _is_enough(control)
    half = np.where(is_known, half_width(found, rho_squared, alpha), np.nan)
    p_value = np.where(is_known, np.minimum(1.0, np.exp(-log_ratio(found, rho_squared))), np.nan)
    return Look(found.value - half, found.value, found.value + half, p_value, found.units, alpha)


def _is_enough(arm: Outcomes) -> npt.NDArray[np.bool_]:
    """Return whether an arm's mean is near its limit: enough units, and of 0 and 1 enough of the rarer one."""
    rarer = np.minimum(arm.total, arm.units - arm.total)
    is_binary = np.isclose(arm.squares, arm.units * arm.mean * (1 - arm.mean), rtol=1e-9, atol=1e-12)
    return np.asarray((arm.units >= FEWEST_UNITS) & (~is_binary | (rarer >= FEWEST_OF_TWO)))


def bounded(count: npt.ArrayLike, total: npt.ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Return the confidence sequence of a mean of values within [0, 1]: exact at all times together.

    Args:
        count: how many values; 0 gives (0, 1).
        total: their sum.

    Raises:
        InvalidInput: a sum outside [0, count], or alpha.
    """
    check_alpha(alpha)
    n, s = np.broadcast_arrays(np.asarray(count, dtype=np.float64), np.asarray(total, dtype=np.float64))
    if not ((n >= 0) & (s >= 0) & (s <= n * (1 + 1e-12))).all():
        raise InvalidInput("a sum of values within [0, 1] lies between 0 and their number; these do not")
    s = np.minimum(s, n)
    a = b = 0.5  # Jeffreys' prior: narrow for shares near 0 and 1, as those of errors are
    mixture = log_gamma(a + s) + log_gamma(b + n - s) - log_gamma(a + b + n)
    limit = mixture - (2 * math.lgamma(0.5) - math.lgamma(1.0)) + math.log(alpha)  # log-likelihood at the ends
    middle = np.where(n > 0, s / np.maximum(n, 1), 0.5)

    def is_in(mean: Floats) -> npt.NDArray[np.bool_]:
        likelihood = np.where(s > 0, s * np.log(np.maximum(mean, 1e-300)), 0.0)
        likelihood = likelihood + np.where(n > s, (n - s) * np.log(np.maximum(1 - mean, 1e-300)), 0.0)
        return np.asarray(likelihood >= limit)

    ends = []
    for edge in (0.0, 1.0):
        outside, inside = np.full(n.shape, edge), np.array(middle)
        for _ in range(_HALVINGS):
            between = (outside + inside) / 2
            kept = is_in(between)
            inside, outside = np.where(kept, between, inside), np.where(kept, outside, between)
        ends.append(np.where(is_in(np.full(n.shape, edge)), edge, outside))
    return ends[0], ends[1]


def bounded_difference(
    treated: tuple[float, float], control: tuple[float, float], alpha: float = 0.05
) -> tuple[float, float, float]:
    """Return low, estimate and high of a difference of two means within [0, 1], each arm given as (count, sum).

    Each arm's own sequence holds at 1 − α/2, so both do together at 1 − α, whatever one arm has to do with the other.
    """
    (low, high), (other_low, other_high) = (bounded(*arm, alpha / 2) for arm in (treated, control))
    value = treated[1] / max(treated[0], 1) - control[1] / max(control[0], 1)
    return float(low - other_high), value, float(high - other_low)


def check_alpha(alpha: float) -> None:
    """Raise InvalidInput unless alpha is a probability of error."""
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha is {alpha:g}; expected a probability of error between 0 and 1, such as 0.05")


def log_gamma(x: npt.ArrayLike) -> Floats:
    """Return log Γ(x) for x > 0, to twelve figures: Stirling's series (NIST DLMF 5.11.1) after eight steps up."""
    at = np.asarray(x, dtype=np.float64)
    shift = np.zeros_like(at)
    for step in range(8):
        shift = shift + np.log(at + step)
    up = at + 8
    inverse = 1 / (up * up)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))) / up
    return np.asarray((up - 0.5) * np.log(up) - up + 0.5 * math.log(2 * math.pi) + series - shift)
