"""Mixtures: from which data set a batch is drawn, which of that data set's batches it is, and how many queries each
data set gives where there is a bound on all of them together.

A batch comes from one data set alone. Both answers are functions of (seed, number): the choices are drawn in blocks,
each from a random stream of its own, and a batch's number inside its data set is the count of earlier batches that
chose the same one. So resuming is a seek, as in ``batches``: block sums of 200,000 batches take 10 ms, once.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from pipelines.training.batches import MIXTURE_STREAM, SAMPLE_STREAM, Candidates, Passages, stream

BLOCK = 4096  # batches whose data sets are drawn together


class Mixture:
    """Chooses data sets with a probability proportional to share · size^(1 / temperature); sizes count queries."""

    def __init__(self, shares: Mapping[str, float], sizes: Mapping[str, int], temperature: float, seed: int):
        self.names = tuple(sorted(shares))
        weights = np.array([shares[name] * sizes[name] ** (1 / temperature) for name in self.names])
        self.probabilities = weights / weights.sum()
        self._seed = seed
        self._choices = lru_cache(maxsize=4)(self._draw_choices)
        self._counts = lru_cache(maxsize=None)(self._count_choices)

    def locate(self, number: int) -> tuple[str, int]:
        """The data set of batch ``number``, and the batch's number inside it."""
        if len(self.names) == 1:
            return self.names[0], number
        block, offset = divmod(number, BLOCK)
        choices = self._choices(block)
        chosen = int(choices[offset])
        before = sum(int(self._counts(earlier)[chosen]) for earlier in range(block))
        return self.names[chosen], before + int((choices[:offset] == chosen).sum())

    def _draw_choices(self, block: int) -> np.ndarray:
        uniform = stream(self._seed, MIXTURE_STREAM, block).random(BLOCK)
        ends = np.cumsum(self.probabilities)[:-1]
        return np.searchsorted(ends, uniform, side="right")

    def _count_choices(self, block: int) -> np.ndarray:
        return np.bincount(self._draw_choices(block), minlength=len(self.names))


def divide_examples(sizes: Mapping[str, int], examples: int) -> dict[str, int]:
    """How many queries each data set gives where all together give ``examples``: equal numbers, to one. What a small
    one does not have, the others give. A larger number of examples takes nothing away from any of them."""
    left, given = examples, {}
    for place, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        given[name] = min(sizes[name], left // (len(sizes) - place))
        left -= given[name]
    return given


class Sample:
    """The first ``size`` queries of a data set in an order that the seed decides, so that a larger sample holds a
    smaller one; see ``pipelines.training.batches.Passages``."""

    def __init__(self, passages: Passages, size: int, seed: int):
        self.name, self._passages = passages.name, passages
        self._rows = np.sort(stream(seed, SAMPLE_STREAM, 0).permutation(len(passages))[:size])

    def __len__(self) -> int:
        return len(self._rows)

    def candidates(self, row: int, pool: int) -> Candidates:
        """Those of the query at this row of the sample."""
        return self._passages.candidates(int(self._rows[row]), pool)
