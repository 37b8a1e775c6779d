"""Rewards against contexts: sums that add up and can be taken out again, the regression they give, and what arms earn.

A contextual bandit draws the arm of a request by what is known of it. Of each arm it needs the regression of rewards on
contexts (`bandits.LinearArm`), standardised here, so that neither the inputs' units nor the reward's matter. As each
answer's arm was drawn with a known probability p, what an arm would earn if everyone met it is estimated without bias
by the mean over all answers of r / p where the arm was drawn, else 0 (Horvitz & Thompson 1952; Dudík, Langford & Li
2011, eq. 1), and with less variance by dividing by the sum of 1 / p instead (Swaminathan & Joachims 2015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.stats.bandits import LinearArm

__all__ = ["ContextSums", "Fitted", "Move", "arm_values", "fitted"]

Floats = npt.NDArray[np.float64]
Move = tuple[Sequence[float], float | None, float | None, float | None]
"""An answer's context, the probability with which its arm was drawn (None: unknown), its reward before and now."""

_SCALARS = 5  # count, Σ r², Σ 1/p, Σ r/p, Σ (r/p)²


@dataclass(frozen=True)
class ContextSums:
    """Sums over the rewarded answers of one arm; x is (1, *context), of `size` numbers.

    `high` holds Σ x xᵀ (size², row by row), Σ r x (size) and five scalars; `low` what rounding took from each.
    """

    size: int
    high: Floats
    low: Floats

    @classmethod
    def empty(cls, size: int) -> ContextSums:
        """Return the sums over no answers."""
        length = size * size + size + _SCALARS
        return cls(size, np.zeros(length), np.zeros(length))

    def moved(self, moves: Sequence[Move]) -> ContextSums:
        """Return the sums after some rewards became known, were corrected (the reward before is taken out) or went."""
        signed = [(x, p, r, sign) for x, p, old, new in moves for r, sign in ((old, -1.0), (new, 1.0)) if r is not None]
        if not signed:
            return self
        x = np.array([(1.0, *context) for context, _, _, _ in signed])
        sign, r = np.array([s for *_, s in signed]), np.array([reward for _, _, reward, _ in signed])
        w = np.array([0.0 if p is None else 1 / p for _, p, _, _ in signed])
        weighted = x * sign[:, None]
        scalars = [
            sign.sum(),
            (sign * r * r).sum(),
            (sign * w).sum(),
            (sign * r * w).sum(),
            (sign * (r * w) ** 2).sum(),
        ]
        added = np.concatenate([(weighted.T @ x).ravel(), weighted.T @ r, scalars])
        total = self.high + added
        back = total - self.high  # Knuth's two-sum: the error of each addition, exactly
        error = (self.high - (total - back)) + (added - back)
        return ContextSums(self.size, total, self.low + error)

    @property
    def gram(self) -> Floats:
        """Σ x xᵀ, shape (size, size)."""
        return self._all[: self.size**2].reshape(self.size, self.size)

    @property
    def moment(self) -> Floats:
        """Σ r x, shape (size,)."""
        return self._all[self.size**2 : -_SCALARS]

    @property
    def count(self) -> float:
        """How many answers have a reward."""
        return float(self._all[-5])

    @property
    def squares(self) -> float:
        """Σ r²."""
        return float(self._all[-4])

    @property
    def odds(self) -> tuple[float, float, float]:
        """Σ 1/p, Σ r/p and Σ (r/p)²."""
        return float(self._all[-3]), float(self._all[-2]), float(self._all[-1])

    @property
    def _all(self) -> Floats:
        return self.high + self.low

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, which `from_dict` takes."""
        return {"size": self.size, "high": self.high.tolist(), "low": self.low.tolist()}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> ContextSums:
        """Return what `as_dict` gave."""
        return cls(kept["size"], np.array(kept["high"]), np.array(kept["low"]))


@dataclass(frozen=True)
class Fitted:
    """One arm's regression, of rewards standardised over all arms, for x = (1, *context) as it comes.

    `weights` · x is the expected reward, |`spread` x| the standard deviation of that; shapes (size,) and (size, size).
    """

    weights: Floats
    spread: Floats


def fitted(sums: Mapping[str, ContextSums], size: int, *, higher_is_better: bool = True) -> dict[str, Fitted]:
    """Return the regressions of some arms; where less is better, of the reward's negative.

    An arm without rewards is expected to earn what all do, give or take their standard deviation.
    """
    every = list(sums.values()) or [ContextSums.empty(size)]
    gram, moment = sum(one.gram for one in every), sum(one.moment for one in every)
    count, squares = sum(one.count for one in every), sum(one.squares for one in every)
    change, mean, scale = np.eye(size), 0.0, 1.0
    if count >= 2:
        middle = gram[0] / count  # type: ignore[index]
        deviation = np.sqrt(np.maximum(np.diag(np.asarray(gram)) / count - middle**2, 0.0))
        is_known = deviation > 1e-9 * np.maximum(np.abs(middle), 1e-9)
        inverse = np.where(is_known, 1 / np.where(is_known, deviation, 1.0), 0.0)  # what is always alike has no say
        change = np.diag(inverse)
        change[:, 0] = -middle * inverse
        change[0] = np.eye(size)[0]
        mean = float(moment[0]) / count  # type: ignore[index]
        scale = math.sqrt(max(squares / count - mean * mean, 0.0)) or 1.0
    sign = 1.0 if higher_is_better else -1.0
    found = {}
    for name, one in sums.items():
        z_moment = change @ (one.moment - mean * one.gram[0]) * (sign / scale)
        arm = LinearArm(np.eye(size) + change @ one.gram @ change.T, z_moment)
        weights = arm.weights
        rewards = (one.squares - 2 * mean * one.moment[0] + one.count * mean * mean) / scale**2
        left = rewards - 2 * weights @ z_moment + weights @ (arm.gram - np.eye(size)) @ weights
        noise = math.sqrt(max(left, 0.0) / (one.count - size)) if one.count > 2 * size else 1.0
        spread = np.linalg.inv(np.linalg.cholesky(arm.gram)) @ change
        found[name] = Fitted(change.T @ weights, max(noise, 1e-6) * spread)
    return found


def arm_values(sums: Mapping[str, ContextSums]) -> dict[str, dict[str, float | None]]:
    """Return what each arm would earn if everyone met it, from answers whose arm was drawn with a known probability.

    Returns:
        By arm `value` (unbiased), its standard error `error` and `normalised`, which varies less; None while unknown.
    """
    count = sum(one.count for one in sums.values())
    found: dict[str, dict[str, float | None]] = {}
    for name, one in sums.items():
        weights, weighted, squares = one.odds
        if count < 2 or not weights:
            found[name] = {"value": None, "error": None, "normalised": None}
            continue
        value = weighted / count
        error = math.sqrt(max(squares / count - value * value, 0.0) / (count - 1))
        found[name] = {"value": value, "error": error, "normalised": weighted / weights}
    return found
