"""Ensembles of teachers: their scores of the same documents of a query, brought to one scale, and averaged.

    none      the scores as they are: of teachers that share a scale
    z         (s - mean) / standard deviation over the query's documents; 0 where all are equal
    min_max   (s - least) / (greatest - least): from 0 to 1; 0 where all are equal
    rank      1 - (rank - 1) / n, ranks from 1 and ties sharing the mean of theirs (Borda's count, from 1/n to 1)

    score = sum of weight · scaled score / sum of weights

Every scale but ``none`` is per query: what a teacher thinks of the query as a whole is lost, and the softmax over its
documents becomes another. A student that learns from z-scores sees at most a few units between best and worst:
the step *calibration* says at which temperature.

Legend: M teachers, K documents of a query, P pairs.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from cluster.component import Component
from pipelines.scorers.base import Collection, Teacher
from pipelines.scorers.bm25 import Bm25Scorer
from pipelines.scorers.cross_encoder import CrossEncoderScorer
from pipelines.scorers.dense import DenseScorer
from pipelines.scorers.llm import LlmScorer
from pipelines.scorers.monot5 import MonoT5Scorer
from pipelines.weights import Weights

Scale = Literal["z", "min_max", "rank", "none"]
Member = Annotated[
    CrossEncoderScorer | MonoT5Scorer | LlmScorer | DenseScorer | Bm25Scorer, Field(discriminator="kind")
]


class Merging(Component):
    """How scores of several teachers become one: see the module. ``weights`` has one for each (None: equal ones)."""

    normalise: Scale = "z"
    weights: Weights = None

    def merge(self, scores_MK: np.ndarray) -> np.ndarray:
        """The teachers' scores of one query's documents as one, float32 [K]."""
        scaled_MK = np.stack([scale(scores_K, self.normalise) for scores_K in scores_MK.astype(np.float64)])
        return np.average(scaled_MK, axis=0, weights=self.weights).astype(np.float32)


class EnsembleScorer(Merging):
    """Several teachers. A recipe's teacher is planned as a step for each of them and one that merges, so that each
    keeps its scores; where a system reranks, they are loaded together."""

    kind: Literal["ensemble"] = "ensemble"
    of: tuple[Member, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check_members(self) -> "EnsembleScorer":
        if self.weights is not None and len(self.weights) != len(self.of):
            raise ValueError(f"weights has {len(self.weights)} numbers for {len(self.of)} teachers: give one for each")
        return self

    def build(self, collection: Collection) -> "EnsembleTeacher":
        """Load all of them in this process."""
        return EnsembleTeacher(self, [member.build(collection) for member in self.of])


class EnsembleTeacher:
    """Loaded teachers that answer together."""

    def __init__(self, merging: Merging, teachers: Sequence[Teacher]) -> None:
        self._merging, self._teachers = merging, teachers

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Merged scores, float32; a query's documents are those of its pairs."""
        scores_MP = np.stack([teacher.score(queries, docs, pairs_P2) for teacher in self._teachers])
        merged_P = np.empty(len(pairs_P2), np.float32)
        for query in np.unique(pairs_P2[:, 0]):
            of_query = pairs_P2[:, 0] == query
            merged_P[of_query] = self._merging.merge(scores_MP[:, of_query])
        return merged_P


def scale(scores_K: np.ndarray, how: Scale) -> np.ndarray:
    """One teacher's scores of a query's documents on another scale, float64 [K]."""
    if how == "rank":
        _, place, count = np.unique(-scores_K, return_inverse=True, return_counts=True)
        rank_K = (np.cumsum(count) - (count - 1) / 2)[place]
        return 1 - (rank_K - 1) / len(scores_K)
    if how == "none" or not np.ptp(scores_K):
        return scores_K if how == "none" else np.zeros_like(scores_K)
    if how == "min_max":
        return (scores_K - scores_K.min()) / np.ptp(scores_K)
    return (scores_K - scores_K.mean()) / scores_K.std()
