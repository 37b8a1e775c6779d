"""Bandits: which arm to give how much traffic, from what the arms earned so far. Pure functions on sums.

A policy returns shares, one an arm, that add up to 1. The traffic table moves between batches of answers and not at
every request, so a policy that names one arm gives it the whole share; `with_floor` keeps a least share for each arm,
without which an arm that was unlucky early is never seen again, and what drifts is never noticed.

| name | source | rewards |
|---|---|---|
| epsilon_greedy | Sutton & Barto 2018, 2.4 | any |
| ucb1 | Auer, Cesa-Bianchi & Fischer 2002, figure 1 | within [0, 1] |
| thompson_bernoulli | Thompson 1933; Agrawal & Goyal 2012, algorithm 2 | within [0, 1] |
| thompson_normal | Agrawal & Goyal 2013, algorithm 2 with each arm's own variance | any |
| linear_ucb | Li, Chu, Langford & Schapire 2010, algorithm 1 (disjoint) | any, with a context |
| linear_thompson | Agrawal & Goyal 2013, "Contextual bandits …", algorithm 1 (disjoint) | any, with a context |

Randomness is a seed: the same sums and seed give the same shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput

__all__ = [
    "LinearArm",
    "Pulls",
    "epsilon_greedy",
    "linear_thompson",
    "linear_ucb",
    "thompson_bernoulli",
    "thompson_normal",
    "ucb1",
    "with_floor",
]

Floats = npt.NDArray[np.float64]

_DRAWS = 2000  # shares of Thompson's posterior to about one per cent


@dataclass(frozen=True)
class Pulls:
    """What one arm earned: how many rewards, their sum and the sum of their squares."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        """The mean reward; 0 where there is none."""
        return self.total / self.count if self.count else 0.0

    def add(self, reward: float) -> Pulls:
        """Return these with one reward more."""
        return Pulls(self.count + 1, self.total + reward, self.squares + reward * reward)


def epsilon_greedy(arms: Sequence[Pulls], epsilon: float = 0.1) -> Floats:
    """Give `epsilon` to all alike and the rest to the best arm so far; arms without a reward come first."""
    _check_share("epsilon", epsilon)
    best = _leading([math.inf if not arm.count else arm.mean for arm in arms])
    return epsilon / len(arms) + (1 - epsilon) * best


def ucb1(arms: Sequence[Pulls]) -> Floats:
    """Give everything to the arm with the highest mean + √(2 ln n / nᵢ), n being the rewards of all arms.

    Raises:
        InvalidInput: a mean outside [0, 1].
    """
    _check_unit(arms)
    count = sum(arm.count for arm in arms)
    bounds = [arm.mean + math.sqrt(2 * math.log(count) / arm.count) if arm.count else math.inf for arm in arms]
    return _leading(bounds)


def thompson_bernoulli(arms: Sequence[Pulls], seed: int, draws: int = _DRAWS) -> Floats:
    """Return how often each arm is the best when all means are drawn from Beta(1 + sum, 1 + rest).

    Raises:
        InvalidInput: a mean outside [0, 1].
    """
    _check_unit(arms)
    generator = np.random.default_rng(seed)
    drawn = [generator.beta(1 + arm.total, 1 + max(arm.count - arm.total, 0.0), draws) for arm in arms]
    return _wins(np.stack(drawn))


def thompson_normal(arms: Sequence[Pulls], seed: int, draws: int = _DRAWS) -> Floats:
    """Return how often each arm is the best when means are drawn from Student's t about each arm's own.

    That is the posterior under the prior 1/σ²; an arm with fewer than three rewards is as likely as any.
    """
    generator = np.random.default_rng(seed)
    if any(arm.count < 3 for arm in arms):
        return _leading([-arm.count for arm in arms])
    drawn = []
    for arm in arms:
        spread = max(arm.squares - arm.total * arm.mean, 0.0) / (arm.count - 1)
        drawn.append(arm.mean + math.sqrt(spread / arm.count) * generator.standard_t(arm.count - 1, draws))
    return _wins(np.stack(drawn))


@dataclass(frozen=True)
class LinearArm:
    """Ridge regression of rewards on contexts: `gram` is I + Σ x xᵀ, shape (d, d); `moment` is Σ r x, shape (d,)."""

    gram: Floats
    moment: Floats

    @classmethod
    def empty(cls, size: int, ridge: float = 1.0) -> LinearArm:
        """Return an arm that has seen nothing, for contexts of `size` numbers."""
        return cls(np.eye(size) * ridge, np.zeros(size))

    def add(self, context: Floats, reward: float) -> LinearArm:
        """Return this with one answer more; a matrix of contexts, shape (n, d), with rewards, shape (n,), adds all."""
        rows = np.atleast_2d(context)
        return LinearArm(self.gram + rows.T @ rows, self.moment + rows.T @ np.atleast_1d(np.asarray(reward)))

    @property
    def weights(self) -> Floats:
        """The regression's weights."""
        return np.asarray(np.linalg.solve(self.gram, self.moment))


def linear_ucb(arms: Sequence[LinearArm], context: Floats, width: float = 1.0) -> Floats:
    """Give everything to the arm with the highest xᵀw + width · √(xᵀ gram⁻¹ x)."""
    bounds = [
        float(context @ arm.weights + width * math.sqrt(context @ np.linalg.solve(arm.gram, context))) for arm in arms
    ]
    return _leading(bounds)


def linear_thompson(
    arms: Sequence[LinearArm], context: Floats, seed: int, width: float = 1.0, draws: int = _DRAWS
) -> Floats:
    """Return how often each arm is the best when weights are drawn from N(w, width² · gram⁻¹)."""
    generator = np.random.default_rng(seed)
    drawn = []
    for arm in arms:  # of the weights only their product with the context counts, which is normal too
        spread = width * math.sqrt(context @ np.linalg.solve(arm.gram, context))
        drawn.append(float(context @ arm.weights) + spread * generator.standard_normal(draws))
    return _wins(np.stack(drawn))


def with_floor(shares: npt.ArrayLike, least: float) -> Floats:
    """Return shares of which none is below `least`; what that takes is taken from the others in proportion.

    Raises:
        InvalidInput: there are too many arms for it.
    """
    found = np.asarray(shares, dtype=np.float64)
    _check_share("least share", least)
    if least * len(found) > 1 + 1e-12:
        raise InvalidInput(
            f"{len(found)} arms cannot each have a share of {least:g}; expected at most {1 / len(found):g}"
        )
    return np.asarray(least + found / found.sum() * (1 - least * len(found)))


def _leading(scores: Sequence[float]) -> Floats:
    """Return shares of 1 / k for the k arms with the highest score."""
    found = np.asarray(scores) == max(scores)
    return np.asarray(found / found.sum(), dtype=np.float64)


def _wins(drawn: Floats) -> Floats:
    return np.asarray(np.bincount(drawn.argmax(axis=0), minlength=len(drawn)) / drawn.shape[1], dtype=np.float64)


def _check_unit(arms: Sequence[Pulls]) -> None:
    for arm in arms:
        if not -1e-9 <= arm.total <= arm.count + 1e-9:
            raise InvalidInput(f"a mean reward is {arm.mean:g}; this policy expects rewards within 0 to 1")


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidInput(f"the {name} is {share:g}; expected a share from 0 to 1")
