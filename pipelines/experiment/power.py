"""How many questions a test needs, and what it can find with those at hand.

The paired t-test of n differences with effect d_z = mean / standard deviation has a statistic that is noncentral t with
n - 1 degrees of freedom and noncentrality d_z sqrt(n) (Cohen 1988, ch. 2). The paired TOST rejects where the mean lies
within bound - t s / sqrt(n) of 0; given s this is a normal probability, and s is chi distributed (Phillips 1990,
J. Pharmacokinet. Biopharm. 18, 137-144).

There is no power at the observed effect: it is a function of the p-value and says nothing new (Hoenig and Heisey 2001,
The American Statistician 55, 19-24).

Cost: milliseconds a call.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

POWER = 0.80
MOST = 10_000_000  # questions that are looked for
LARGEST = 1e6  # effect that is looked for, in standard deviations
FARTHEST = 5  # noncentrality with which the other side has a chance below 3e-7, too small for scipy at some n
NODES = 200  # of the integral over the standard deviation


def power_of_t(effect: float, n: int, alpha: float, sides: int = 1) -> float:
    """The chance that the paired t-test of ``n`` questions finds a true ``effect`` (d_z, at least 0) at ``alpha``."""
    from scipy import stats

    limit = float(stats.t.isf(alpha / sides, n - 1))
    noncentrality = effect * math.sqrt(n)
    above = float(stats.nct.sf(limit, n - 1, noncentrality))
    if sides == 1 or noncentrality > FARTHEST:
        return above
    return above + float(stats.nct.cdf(-limit, n - 1, noncentrality))


def power_of_tost(effect: float, bound: float, n: int, alpha: float) -> float:
    """The chance that the paired TOST of ``n`` questions finds equivalence within ``bound`` where the true effect is
    ``effect``; both in standard deviations of the differences."""
    from scipy import stats

    limit, root = float(stats.t.isf(alpha, n - 1)), math.sqrt(n)
    most = float(stats.chi2.cdf((n - 1) * (bound * root / limit) ** 2, n - 1))  # above it no mean is within reach
    nodes, weights = _quadrature()
    deviation = np.sqrt(stats.chi2.ppf(most * nodes, n - 1) / (n - 1))
    upper, lower = (bound - effect) * root - limit * deviation, -(bound + effect) * root + limit * deviation
    inside = np.clip(stats.norm.cdf(upper) - stats.norm.cdf(lower), 0, None)
    return float(most * weights @ inside)


@lru_cache(maxsize=1)
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2


def find_effect(power_at: Callable[[float], float]) -> float | None:
    """The smallest effect at which a power that grows with the effect is 80 %; None where there is none."""
    from scipy.optimize import brentq

    high = 1e-3
    while not power_at(high) >= POWER:
        high *= 2
        if high > LARGEST:
            return None
    return float(brentq(lambda effect: power_at(effect) - POWER, 0, high, xtol=1e-9 * high))


def find_questions(power_at: Callable[[int], float]) -> int | None:
    """The smallest number of questions at which the power is 80 %; None where that is above ten million."""
    high = 2
    while not power_at(high) >= POWER:
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= POWER else (middle, high)
    return high
