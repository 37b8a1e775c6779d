"""Which variant answers a request by what is known of it: a contextual bandit's draw, inside the request. Pure.

The controller fits each arm's regression of rewards on the context and puts it into the snapshot; here the arms'
probabilities are worked out for one context, and one of them is drawn by a hash of the request's id, so that a repeated
request meets the same variant. The probability of the drawn arm is logged, for whoever asks later what other arms would
have earned (`stats.contexts.arm_values`).

`linear_ucb` gives the arm with the highest bound what the others' least shares leave (Li et al. 2010, algorithm 1).
`linear_thompson` draws by the probability that an arm is the best when weights are drawn from their posterior (Agrawal
& Goyal 2013): of two arms that is Φ of their distance, so no weights need be drawn. Of more the winner is found by a
tournament of such pairs in the order of the table, whose probabilities multiply and so are known exactly too.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

import numpy as np

from flyball.serving.snapshot import ContextArm, Contextual

__all__ = ["Chooser", "context_number"]

_SCALE = 1.0 / 2.0**64
_HALF_ROOT = math.sqrt(0.5)


class Chooser:
    """Draws the variants of a deployment by context."""

    __slots__ = ("_is_ucb", "_least", "_places", "_rows", "_size", "inputs", "names")

    def __init__(self, contextual: Contextual) -> None:
        self.names = tuple(arm.name for arm in contextual.arms)
        self.inputs = contextual.inputs
        self._size = len(contextual.inputs) + 1
        self._least = contextual.least
        self._is_ucb = contextual.policy == "linear_ucb"
        # One product of NumPy gives all expectations and the components of all deviations: a call costs what twenty
        # multiplications of Python do. Thompson's draw needs them of differences of arms only, one a pair.
        if self._is_ucb:
            blocks = [np.array([arm.weights, *arm.spread]) for arm in contextual.arms]
        else:
            blocks = [
                _apart(one, other) for place, other in enumerate(contextual.arms) for one in contextual.arms[:place]
            ]
        self._rows = np.concatenate(blocks)
        self._places = tuple(range(0, len(self._rows), self._size + 1))

    def probabilities(self, context: list[float]) -> list[float]:
        """Return the probability of each arm, in the order of `names`; `context` holds the inputs as numbers."""
        found = self._rows.dot(np.array([1.0, *context])).tolist()
        size, count = self._size, len(self.names)
        if not self._is_ucb and count == 2:
            first = self._least + (1.0 - 2 * self._least) * _above_zero(found[0], found[1:])
            return [first, 1.0 - first]
        of_places = [(found[place], found[place + 1 : place + 1 + size]) for place in self._places]
        if self._is_ucb:
            bounds = [mean + math.sqrt(sum([x * x for x in apart])) for mean, apart in of_places]
            highest = max(bounds)
            wins = [float(bound == highest) for bound in bounds]
            leading = sum(wins)
            wins = [win / leading for win in wins]
        else:
            pairs = iter([_above_zero(*pair) for pair in of_places])
            wins = [1.0]
            for _ in range(1, count):
                kept = [win * next(pairs) for win in wins]
                wins = [*kept, max(0.0, 1.0 - sum(kept))]
        rest = 1.0 - count * self._least
        return [self._least + rest * win for win in wins]

    def choose(self, context: list[float], seed: str) -> tuple[str, float]:
        """Return the variant that is drawn, and the probability with which it was; the same seed draws the same."""
        odds = self.probabilities(context)
        digest = blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=8, key=b"context").digest()
        place = int.from_bytes(digest, "big") * _SCALE
        for name, share in zip(self.names, odds, strict=True):
            if place < share:
                return name, share
            place -= share
        return self.names[0], odds[0]  # rounding left nothing


def context_number(value: Any) -> float:
    """Return an input as a number; what is none, or is missing, counts as 0 here and where the arms are fitted."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) else 0.0


def _apart(one: ContextArm, other: ContextArm) -> np.ndarray[Any, Any]:
    """Return a row for how much better one arm is expected to be, and rows for the deviation of that."""
    weights = np.subtract(one.weights, other.weights)
    return np.vstack([weights, np.linalg.qr(np.vstack([one.spread, other.spread]), mode="r")])


def _above_zero(mean: float, components: list[float]) -> float:
    """Return the probability that a normal is above zero whose deviation has these components."""
    variance = sum([x * x for x in components])
    if variance <= 0.0:
        return 0.5 if mean == 0.0 else float(mean > 0.0)
    return 0.5 + 0.5 * math.erf(mean * _HALF_ROOT / math.sqrt(variance))
