"""Sample-ratio mismatch: do the arms have the shares of units that the traffic table gave them?

If not, units were lost or added unequally (a crash, a cache, a robot), and no comparison of the arms means anything. It
is asked at every look, so the test is sequential (Lindon & Malek 2020, "Anytime-valid inference for multinomial count
data", eq. 9): the Bayes factor of a Dirichlet mixture around the table's shares against the shares themselves; its
inverse is a p-value that holds at all times together, exactly. `by_chi_squared` is for one look at a fixed size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.exact import chi2_tail
from flyball.stats.outcomes import Floats
from flyball.stats.sequential import log_gamma

__all__ = ["ALPHA", "by_chi_squared", "p_value"]

ALPHA = 0.001  # a false alarm throws an experiment away, and real mismatches are seldom small

_CONCENTRATION = 1000.0  # deviations of one or two per cent of the units are what the mixture looks for


def p_value(counts: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Return the probability, at all looks together, of counts so far from the shares.

    Args:
        counts: units by arm, shape (…, arms).
        shares: expected of each arm, shape (arms,); any positive scale.

    Raises:
        InvalidInput: a share that is not positive, a negative count, or shapes that do not fit.
    """
    n, share = _checked(counts, shares)
    prior = _CONCENTRATION * share
    factor = log_gamma(prior.sum()) - log_gamma(prior.sum() + n.sum(axis=-1))
    factor = factor + (log_gamma(prior + n) - log_gamma(prior) - n * np.log(share)).sum(axis=-1)
    return np.asarray(np.minimum(1.0, np.exp(-np.maximum(factor, 0.0))))


def by_chi_squared(counts: npt.ArrayLike, shares: npt.ArrayLike) -> float:
    """Return Pearson's p-value at one look that was fixed beforehand. Raises as `p_value`."""
    n, share = _checked(counts, shares)
    expected = n.sum() * share
    if not n.sum():
        return 1.0
    return chi2_tail(float(((n - expected) ** 2 / expected).sum()), len(share) - 1)


def _checked(counts: npt.ArrayLike, shares: npt.ArrayLike) -> tuple[Floats, Floats]:
    n, share = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if share.ndim != 1 or n.shape[-1:] != share.shape or len(share) < 2:
        raise InvalidInput(
            f"there are counts of shape {n.shape} for shares of shape {share.shape}; expected one an arm"
        )
    if not (share > 0).all() or not (n >= 0).all():
        raise InvalidInput("a share is not positive or a count is negative; leave out arms that get nothing")
    return n, share / share.sum()
