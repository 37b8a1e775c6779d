"""How many units an experiment needs, and how long it lasts, before it is started.

The fixed size is the textbook's for two independent samples (normal approximation; Cohen 1988, chapters 2 and 6). A
sequential test, which may be looked at all the time, needs more if the effect is exactly the smallest one that matters
(`sequential_units`: the size at which the confidence sequence alone has the power wanted), and usually stops earlier
when the effect is larger.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist

from flyball.errors import InvalidInput
from flyball.stats.sequential import check_alpha

__all__ = ["Size", "of_means", "of_proportions"]

_MOST_UNITS = 1e15  # more than any traffic; beyond, sizes overflow


@dataclass(frozen=True)
class Size:
    """Units of both arms together: of a test at one fixed look, and of the sequential one.

    `effect` is the smallest difference to be found, in the metric's unit; `days` is None where no traffic is known.
    """

    effect: float
    alpha: float
    power: float
    share: float
    fixed_units: int
    sequential_units: int
    days: float | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields by name."""
        return asdict(self)


def of_means(
    effect: float,
    deviation: float,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    correlation: float = 0.0,
    units_a_day: float | None = None,
) -> Size:
    """Return the size for a difference of means.

    Args:
        effect: the smallest difference that matters, not 0.
        deviation: standard deviation of a unit's outcome, > 0.
        alpha, power: two-sided error and power.
        share: of the units in the treated arm, within (0, 1).
        correlation: of outcome and covariate, where there is one: CUPED leaves 1 − correlation² of the variance.
        units_a_day: new units a day in both arms, for the duration.

    Raises:
        InvalidInput: a value outside its range.
    """
    if not (deviation > 0 and math.isfinite(deviation)):
        raise InvalidInput(f"the deviation is {deviation:g}; expected a number above 0")
    if not -1 < correlation < 1:
        raise InvalidInput(f"the correlation is {correlation:g}; expected a number between -1 and 1")
    variance = deviation * deviation * (1 - correlation * correlation)
    _check(effect, alpha, power, share)
    one_unit = variance * (1 / share + 1 / (1 - share))  # variance of the difference, times the units of both arms
    return _size(effect, one_unit, alpha, power, share, units_a_day)


def of_proportions(
    baseline: float,
    effect: float,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    units_a_day: float | None = None,
) -> Size:
    """Return the size for a difference of shares: `baseline` of the control, `baseline + effect` of the treated.

    Raises:
        InvalidInput: a value outside its range, or shares outside (0, 1).
    """
    treated = baseline + effect
    if not (0 < baseline < 1 and 0 < treated < 1):
        raise InvalidInput(f"the shares are {baseline:g} and {treated:g}; expected both between 0 and 1")
    _check(effect, alpha, power, share)
    one_unit = treated * (1 - treated) / share + baseline * (1 - baseline) / (1 - share)
    return _size(effect, one_unit, alpha, power, share, units_a_day)


def _size(effect: float, one_unit: float, alpha: float, power: float, share: float, a_day: float | None) -> Size:
    beyond = NormalDist().inv_cdf(power)
    square = effect * effect
    if square == 0 or not math.isfinite(one_unit / square) or one_unit / square > _MOST_UNITS:
        raise InvalidInput(f"to find a difference of {effect:g} takes more units than can be; say a larger one")
    scale = one_unit / square
    fixed = math.ceil(scale * (NormalDist().inv_cdf(1 - alpha / 2) + beyond) ** 2)
    # The sequence is tuned to be narrowest at the planned size, where t · rho² is this constant whatever the size.
    scaled = -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))
    bound = math.sqrt((scaled + 1) / scaled * (math.log1p(scaled) - 2 * math.log(alpha)))
    sequential = math.ceil(scale * (bound + beyond) ** 2)
    if a_day is not None and not a_day > 0:
        raise InvalidInput(f"there are {a_day:g} units a day; expected more than 0")
    return Size(effect, alpha, power, share, fixed, sequential, sequential / a_day if a_day else None)


def _check(effect: float, alpha: float, power: float, share: float) -> None:
    check_alpha(alpha)
    if effect == 0 or not math.isfinite(effect):
        raise InvalidInput(f"the smallest effect is {effect:g}; expected a difference that matters, not 0")
    if not 0.5 <= power < 1:
        raise InvalidInput(f"the power is {power:g}; expected from 0.5 to below 1, such as 0.8")
    if not 0 < share < 1:
        raise InvalidInput(f"the share is {share:g}; expected a share between 0 and 1, such as 0.5")
