"""Validation by sentence pairs: Pearson's correlation of cosines with gold scores, the mean over all language pairs.

The pairs are the same in every measurement: the first ``max_queries`` by a hash of their ids. Each worker encodes its
share of them in every language; cosines are gathered, so the result is the same for any number of workers.

Legend: N pairs, L languages, D dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from cluster.artifact import Artifact
from cluster.errors import StepError
from pipelines.correlation import correlate
from pipelines.pairs import LeftSentences, RightSentences
from pipelines.students.base import Encoder
from pipelines.tables import BEST_SCORE
from pipelines.training.config import Validation
from pipelines.training.validate import draw


class PairPool:
    """The dev pairs, by language. ``langs`` are L languages; all have the same pairs."""

    label: ClassVar[str] = "Pearson"

    def __init__(self, pairs: Mapping[str, Artifact], config: Validation):
        self.langs = sorted(pairs)
        left = {lang: LeftSentences.open(pairs[lang]) for lang in self.langs}
        right = {lang: RightSentences.open(pairs[lang]) for lang in self.langs}
        ids = sorted(left[self.langs[0]].ids, key=draw)[: config.max_queries]
        self._sides = [{lang: store.texts(ids) for lang, store in side.items()} for side in (left, right)]
        self.gold = np.array([left[self.langs[0]].row(pair_id)["score"] for pair_id in ids]) / BEST_SCORE
        if len(ids) < 3 or np.ptp(self.gold) == 0:
            raise StepError(
                f"{left[self.langs[0]].name}: a correlation needs at least 3 pairs whose scores are not all equal, got "
                f"{len(ids)}: set validate_split to a split that has them, or raise train.validation.max_queries"
            )

    def evaluate(
        self, encoder: Encoder, gather: Callable[[Any], Sequence[Any]], rank: int = 0, world: int = 1
    ) -> float:
        """The mean correlation; ``gather`` gives every worker the cosines of all. Cosines that are all equal correlate
        with nothing and count as 0."""
        shares = gather(self._cosines(encoder, rank, world))
        values_NLL = np.empty((len(self.gold), len(self.langs), len(self.langs)))
        for number, share in enumerate(shares):
            values_NLL[number::world] = share
        columns = values_NLL.reshape(len(self.gold), -1).T
        return float(np.mean(np.nan_to_num([correlate("pearson", column, self.gold) for column in columns])))

    def _cosines(self, encoder: Encoder, rank: int, world: int) -> np.ndarray:
        """Of this worker's pairs, by the languages of the left and the right sentence: [N of this worker, L, L]."""
        vectors = []
        for side in self._sides:
            texts = [text for lang in self.langs for text in side[lang][rank::world]]
            encoded = np.concatenate(encoder.encode_queries(texts)) if texts else np.empty((0, encoder.dim))
            unit = encoded / np.maximum(np.linalg.norm(encoded, axis=1, keepdims=True), 1e-12)
            vectors.append(unit.reshape(len(self.langs), -1, encoder.dim))
        found: np.ndarray = np.einsum("lnd,mnd->nlm", *vectors)
        return found
