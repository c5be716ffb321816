"""Paired tests and intervals of differences: equivalence (TOST), the t statistic, the ratio of means, corrections.

They add to ``pipelines.significance``, which has the t-test, flips of sign, the interval of a mean and Holm's
correction.

Legend: Q questions.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.experiment.claims import Correction
from pipelines.significance import LEVEL, holm, is_constant, p_value
from pipelines.significance import Test as By


def correct(families: Sequence[object], p_values: Sequence[float | None], method: Correction) -> list[float | None]:
    """Correct each p-value for its family; None stays None and does not count."""
    adjusted = list(p_values)
    for family in dict.fromkeys(families):
        members = [i for i, of in enumerate(families) if of == family and p_values[i] is not None]
        values = [p_values[i] or 0.0 for i in members]
        found = holm(values) if method == "holm" else [min(1.0, len(values) * p) for p in values]
        for i, p in zip(members, found, strict=True):
            adjusted[i] = p
    return adjusted


def tost(differences: np.ndarray, bound: float, by: By = "t") -> tuple[float | None, float | None]:
    """The p-values of |mean| < bound (TOST: the greater of two one-sided tests), and of |mean| > bound."""
    inside = [p_value(differences + bound, by, "greater"), p_value(differences - bound, by, "less")]
    outside = [p_value(differences + bound, by, "less"), p_value(differences - bound, by, "greater")]
    known = [[p for p in side if p is not None] for side in (inside, outside)]
    return max(known[0], default=None), min((min(1.0, 2 * p) for p in known[1]), default=None)


def t_statistic(differences: np.ndarray) -> float | None:
    """Student's t of the mean; None without variance, or for fewer than two questions."""
    if len(differences) < 2 or is_constant(differences):
        return None
    return float(differences.mean() / differences.std(ddof=1) * np.sqrt(len(differences)))


def ratio_interval(a_Q: np.ndarray, b_Q: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """The ratio of the means of a and b and its 95 % interval by Fieller's theorem (1954), paired by question.

    Its limits are the ratios r for which the t statistic of a - r b is the quantile of the t distribution. They are
    None where b's mean is not significantly above 0, since no interval is bounded then, and the ratio too where that
    mean is not above 0.
    """
    from scipy import stats

    a, b, n = float(a_Q.mean()), float(b_Q.mean()), len(a_Q)
    if b <= 0:
        return None, None, None
    if n < 2:
        return a / b, None, None
    (of_a, both), (_, of_b) = np.cov(a_Q, b_Q) / n * float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) ** 2
    square = b * b - of_b
    if square <= 0:
        return a / b, None, None
    middle, root = a * b - both, max(0.0, (a * b - both) ** 2 - square * (a * a - of_a)) ** 0.5
    return a / b, float((middle - root) / square), float((middle + root) / square)
