"""MaxSim, MaxP and the best k, in numpy.

    s(q, passage) = Σ_i max_j q_i · p_j          (Khattab & Zaharia 2020, section 3.3)
    s(q, doc)     = max over its passages        (MaxP, Dai & Callan 2019)

Float32 sums depend in their last bits on how a matrix was cut into blocks. So that equal documents tie, and shards
score as the whole would, what is returned is scored once more in float64 and then rounded to float32.
Letters: Q query tokens, B queries, D docs, P passages, T tokens, N dim.
"""

import numpy as np
import pyarrow as pa

from pipelines.indexes.base import FloatArray, IntArray, Ranking
from pipelines.indexes.files import ranges


def maxsim(query_QN: FloatArray, tokens_TN: FloatArray, starts_P1: IntArray) -> FloatArray:
    """Score the passages that start at ``starts_P1`` of ``tokens_TN`` against one query: (P,), the inputs' type."""
    return np.maximum.reduceat(query_QN @ tokens_TN.T, starts_P1[:-1], axis=1).sum(axis=0)


def maxsim_batch(queries: list[FloatArray], tokens_TN: FloatArray, starts_P1: IntArray) -> FloatArray:
    """Score the passages against several queries, each of at least one token: (B, P)."""
    best_QP = np.maximum.reduceat(np.concatenate(queries) @ tokens_TN.T, starts_P1[:-1], axis=1)
    firsts = np.cumsum([0, *(len(query) for query in queries[:-1])])
    return np.add.reduceat(best_QP, firsts, axis=0)


def best(scores: FloatArray, k: int, slack: float = 0.0) -> IntArray:
    """Where the ``k`` highest scores are, with all that tie with the k-th or are at most ``slack`` below; unordered."""
    if len(scores) <= k:
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth - slack)


def rank(ids: pa.Array, docs: IntArray, scores: FloatArray, k: int) -> Ranking:
    """The best ``k`` of ``docs`` (positions in ``ids``) by (-score, doc id), scores rounded to float32."""
    scores = scores.astype(np.float32)
    keep = best(scores, k)
    names = ids.take(pa.array(docs[keep])).to_pylist()
    found = zip(names, scores[keep].tolist(), strict=True)
    return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]


def slack(query_QN: FloatArray) -> float:
    """How far a float32 MaxSim score may be off, generously: 1e-5 per query token of norm 1."""
    return 1e-5 * float(np.linalg.norm(query_QN, axis=1).sum()) + 1e-6


def take_passages(passages: IntArray, token_starts_P1: IntArray) -> tuple[IntArray, IntArray]:
    """The tokens of some passages, and where each passage starts among them (one entry more than passages)."""
    starts = token_starts_P1[passages]
    lengths = token_starts_P1[passages + 1] - starts
    return ranges(starts, lengths), np.concatenate([[0], np.cumsum(lengths)])
