"""Correlations of similarities with gold scores: Pearson and Spearman, bootstrap intervals, and a value for each pair.

Spearman is Pearson over ranks, ties sharing their mean rank, as in ``scipy.stats``. Knows numpy alone.

A correlation is no mean over pairs, so tests that compare two systems question by question do not fit it as they are.
``influence`` gives each pair a value whose mean is the correlation, and whose variance over n is that of the
correlation as n grows (the infinitesimal jackknife: Efron 1982, The Jackknife, the Bootstrap and Other Resampling
Plans, chapter 6). A paired t-test over these values compares two systems on the same pairs, with the dependence of the
two correlations in it; it needs some hundred pairs.

Legend: N pairs, S systems or pairs of languages, R resamples.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Measure = Literal["pearson", "spearman"]
MEASURES: tuple[Measure, ...] = ("pearson", "spearman")
RESAMPLES = 1000
AT_ONCE = 100  # resamples in memory together
LEVEL = 0.95


def correlate(measure: Measure, values_N: np.ndarray, gold_N: np.ndarray) -> float:
    """The correlation of values with gold scores; nan where either does not vary, or there are fewer than two."""
    if measure == "spearman":
        values_N, gold_N = mid_ranks(values_N), mid_ranks(gold_N)
    return float(_weighted_pearson(values_N, gold_N, np.ones((1, len(gold_N))))[0])


def mid_ranks(values_N: np.ndarray) -> np.ndarray:
    """The share of values below each, those equal to it counted half: ranks from 0 to 1."""
    return _weighted_mid_ranks(_Order(values_N), np.ones((1, len(values_N))))[0]


def influence(measure: Measure, values_N: np.ndarray, gold_N: np.ndarray) -> np.ndarray:
    """A value for each pair, float64 [N]: their mean is the correlation, their variance / N its variance.

    With A the mean of the product, V and W the variances of the two sides, r = A / √(V W) and
    value = r + dA / √(V W) − r / 2 · (dV / V + dW / W), where d is the derivative by the weight of the pair. For ranks,
    which depend on all pairs, that has a second term: how the pair moves the ranks of the others.
    """
    n = len(gold_N)
    by_rank = measure == "spearman"
    x, y = (mid_ranks(values_N), mid_ranks(gold_N)) if by_rank else (values_N, gold_N)
    x, y = (np.asarray(side, np.float64) - np.mean(side) for side in (x, y))
    cross, v, w = (x * y).mean(), (x * x).mean(), (y * y).mean()
    d_cross, d_v, d_w = x * y - cross, x * x - v, y * y - w
    if by_rank:
        above_x, above_y = (_sums_above(_Order(np.asarray(side))) for side in (values_N, gold_N))
        d_cross = d_cross + above_x(y) / n + above_y(x) / n - 2 * cross
        d_v, d_w = d_v + 2 * above_x(x) / n - 2 * v, d_w + 2 * above_y(y) / n - 2 * w
    r = cross / np.sqrt(v * w)
    found: np.ndarray = r + d_cross / np.sqrt(v * w) - r / 2 * (d_v / v + d_w / w)
    return found


def bootstrap(measure: Measure, columns: Sequence[np.ndarray], gold_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """Correlations of several columns of values with the same gold scores, over the same resamples of pairs: [R, S].

    A column is an array [N]. Resampling by whole pairs keeps what columns have in common, so that a mean over columns
    has its interval too. A resample in which gold scores or values do not vary gives nan.
    """
    n, random = len(gold_N), np.random.default_rng(seed)
    by_rank = measure == "spearman"
    gold_order, orders = _Order(gold_N), [_Order(column) for column in columns]
    found = np.empty((RESAMPLES, len(columns)))
    for start in range(0, RESAMPLES, AT_ONCE):
        counts_RN = random.multinomial(n, np.full(n, 1 / n), min(AT_ONCE, RESAMPLES - start)).astype(np.float64)
        gold = _weighted_mid_ranks(gold_order, counts_RN) if by_rank else gold_N
        for number, column in enumerate(columns):
            values = _weighted_mid_ranks(orders[number], counts_RN) if by_rank else column
            found[start : start + len(counts_RN), number] = _weighted_pearson(values, gold, counts_RN)
    return found


def percentiles(resampled_R: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of a bootstrap; (None, None) where no resample gave a number."""
    found = resampled_R[np.isfinite(resampled_R)]
    if not len(found):
        return None, None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


class _Order:
    """Where values stand when they are sorted, and which of them are equal."""

    def __init__(self, values_N: np.ndarray):
        self.order = np.argsort(values_N, kind="stable")
        in_order = np.asarray(values_N)[self.order]
        self.starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))  # of runs of equal ones
        self.run_N = np.empty(len(values_N), np.int64)  # the run of each value
        self.run_N[self.order] = np.cumsum(np.concatenate([[0], (in_order[1:] != in_order[:-1]).astype(np.int64)]))


def _weighted_mid_ranks(order: _Order, weights_RN: np.ndarray) -> np.ndarray:
    """Mid-ranks from 0 to 1 [R, N] where each value is there as often as its weight says."""
    in_runs = np.add.reduceat(weights_RN[:, order.order], order.starts, axis=1)
    middle = np.cumsum(in_runs, axis=1) - in_runs / 2
    return (middle / weights_RN.sum(1, keepdims=True))[:, order.run_N]


def _sums_above(order: _Order) -> Callable[[np.ndarray], np.ndarray]:
    """A function from numbers [N] to their sums over the values above each value, equal ones counted half [N]."""

    def sums(numbers_N: np.ndarray) -> np.ndarray:
        in_runs = np.add.reduceat(numbers_N[order.order], order.starts)
        from_here = np.cumsum(in_runs[::-1])[::-1]
        return (from_here - in_runs / 2)[order.run_N]

    return sums


def _weighted_pearson(values: np.ndarray, gold: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Pearson's correlation [R] under weights; values and gold are [N] or [R, N]."""
    total = weights_RN.sum(1, keepdims=True)
    x = values - (weights_RN * values).sum(1, keepdims=True) / total
    y = gold - (weights_RN * gold).sum(1, keepdims=True) / total
    cross, v, w = ((weights_RN * product).sum(1) for product in (x * y, x * x, y * y))
    flat = (v <= 1e-12 * total[:, 0] * np.abs(values).max() ** 2) | (w <= 1e-12 * total[:, 0] * np.abs(gold).max() ** 2)
    found: np.ndarray = np.divide(cross, np.sqrt(v * w), out=np.full(len(cross), np.nan), where=~flat)
    return found
