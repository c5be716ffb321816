"""The scores of all stages of one search, by which it is known what shallower searches would find."""

from dataclasses import dataclass

import numpy as np

from pipelines.vectors import FloatArray, IntArray


@dataclass(frozen=True)
class Trace:
    """What a search found out about its candidates, P of them, ascending.

    Attributes:
        docs_P: the numbers of their documents.
        first_P: scores by the probed cells; −inf of passages that no probed cell holds.
        cells_P: scores by the cells of all their tokens.
        decoded_P: scores by their decoded vectors; −inf of those that were not decoded.
    """

    docs_P: IntArray
    first_P: FloatArray
    cells_P: FloatArray
    decoded_P: FloatArray

    def find(self, candidates: int, decoded: int) -> tuple[IntArray, FloatArray]:
        """The documents, ascending, and their scores that a search with the same probes finds that keeps fewer.

        It is what such a search finds, where this one decoded all that it decodes and no passages tie in between.
        """
        passages: IntArray = np.arange(len(self.docs_P))
        if candidates < len(passages):
            passages = passages[self.first_P > -np.inf]
            passages = keep(passages, self.first_P[passages], candidates)
        passages = keep(passages, self.cells_P[passages], decoded)
        docs, first = np.unique(self.docs_P[passages], return_index=True)
        return docs, np.maximum.reduceat(self.decoded_P[passages], first) if len(docs) else self.decoded_P[:0]


def keep(numbers: IntArray, scores: FloatArray, count: int) -> IntArray:
    """The ``count`` of ascending ``numbers`` with the highest scores, ascending."""
    if len(numbers) <= count:
        return numbers
    return np.sort(numbers[np.argpartition(-scores, count - 1)[:count]])
