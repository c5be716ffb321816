"""The negative of a triplet: a passage in one of a set's languages that is not relevant in any language.

The distance of the student that training begins with decides which passages are near: Euclidean between unit vectors,
√(2 − 2 · cosine), for a student of one vector per text (the triplet loss of MAML-Align), and the score with its sign
turned for one of a vector per token, whose scores are sums.
"""

from collections.abc import Callable, Mapping

import numpy as np

from cluster.errors import StepError
from pipelines.docstore import RowStore
from pipelines.training.meta.config import Meta
from pipelines.training.meta.specs import Part

TRIES = 1000  # passages drawn in place of one that is relevant
Relevant = Callable[[str], frozenset[str]]


class RandomNegatives:
    """Draws from all passages of a set's languages, each as probable as any other."""

    def __init__(self, docs: Mapping[str, RowStore], relevant: Relevant):
        self._docs, self._relevant = docs, relevant

    def __call__(
        self, query_id: str, part: Part, positive: tuple[str, str], random: np.random.Generator
    ) -> tuple[str, str]:
        """The language and the id of a negative. Raises StepError where every passage that was drawn is relevant."""
        stores, relevant = [self._docs[lang] for lang in part.docs], self._relevant(query_id)
        ends = np.cumsum([len(store) for store in stores])
        for _ in range(TRIES):
            at = int(random.integers(ends[-1]))
            number = int(np.searchsorted(ends, at, side="right"))
            doc_id = stores[number].id_at(at - int(ends[number]) + len(stores[number]))
            if doc_id not in relevant:
                return part.docs[number], doc_id
        raise _no_negative(query_id, part)


class NearNegatives:
    """Draws from the passages whose distance is in the range that ``train.meta.negatives`` names. Where none is, takes
    the one that is nearest to the range. Passages beyond the ranking are not looked at (``train.meta.candidates``)."""

    def __init__(self, meta: Meta, rankings: Mapping[str, RowStore], relevant: Relevant):
        self._meta, self._rankings, self._relevant = meta, rankings, relevant

    def __call__(
        self, query_id: str, part: Part, positive: tuple[str, str], random: np.random.Generator
    ) -> tuple[str, str]:
        """The language and the id of a negative. Raises StepError where every ranked passage is relevant."""
        relevant, names, distances, limit = self._relevant(query_id), [], [], 0.0
        for lang in part.docs:
            ranking = self._rankings[f"{part.query}-{lang}"].row(query_id)
            for doc_id, score in zip(ranking["doc_ids"], ranking["scores"], strict=True):
                if (lang, doc_id) == positive:
                    limit = -score
                if doc_id not in relevant:
                    names.append((lang, doc_id))
                    distances.append(-score)
        if not names:
            raise _no_negative(query_id, part)
        return names[choose(np.array(distances), limit, self._meta, random)]


def choose(distances: np.ndarray, positive: float, meta: Meta, random: np.random.Generator) -> int:
    """The place of a passage whose distance is in the range, given that of the relevant passage."""
    bound = positive + meta.negative_margin
    low, high = {"hard": (-np.inf, positive), "semi_hard": (positive, bound), "easy": (bound, np.inf)}[meta.negatives]
    inside = np.flatnonzero((distances >= low) & (distances < high))
    if len(inside):
        return int(random.choice(inside))
    beside = np.maximum(low - distances, distances - high)
    return int(np.argmin(beside))


def _no_negative(query_id: str, part: Part) -> StepError:
    return StepError(
        f"question {query_id!r} has no passage in {' and '.join(part.docs)} that is not relevant to it: expected one "
        "to contrast with. Add documents, or raise train.meta.candidates"
    )
