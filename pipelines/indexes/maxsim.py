"""MaxSim, MaxP and the best k, in numpy.

    s(q, passage) = Σ_i max_j q_i · p_j          (Khattab & Zaharia 2020, section 3.3)
    s(q, doc)     = max over its passages        (MaxP, Dai & Callan 2019)

The last bits of a float32 sum depend on how a matrix was cut into blocks. Returned documents are therefore scored once
more in float64 and rounded to float32: equal documents tie, and shards score as the whole would.
Letters: Q query tokens, B queries, D docs, P passages, T tokens, N dim.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.indexes.base import Ranking
from pipelines.indexes.files import Docs, blocks, offsets, ranges
from pipelines.vectors import FloatArray, IntArray

TOKENS = 1 << 14  # document tokens per block


def maxsim(query_QN: FloatArray, tokens_TN: FloatArray, starts_P1: IntArray) -> FloatArray:
    """Score the passages that start at ``starts_P1`` of ``tokens_TN`` against one query: (P,), the inputs' type."""
    return np.maximum.reduceat(query_QN @ tokens_TN.T, starts_P1[:-1], axis=1).sum(axis=0)


def maxsim_batch(queries: Sequence[FloatArray], tokens_TN: FloatArray, starts_P1: IntArray) -> FloatArray:
    """Score the passages against several queries, each of at least one token: (B, P)."""
    best_QP = np.maximum.reduceat(np.concatenate(queries) @ tokens_TN.T, starts_P1[:-1], axis=1)
    firsts = np.cumsum([0, *(len(query) for query in queries[:-1])])
    return np.add.reduceat(best_QP, firsts, axis=0)


def score_all(queries: Sequence[FloatArray], docs: Sequence[FloatArray]) -> FloatArray:
    """Score every document [t, N] against every query [q, N]: float32 (B, D), a block of documents at a time."""
    starts_D1 = offsets(np.array([len(doc) for doc in docs]))
    scores_BD = np.empty((len(queries), len(docs)), np.float32)
    for first, last in blocks(starts_D1, TOKENS):
        block_TN = np.concatenate(docs[first:last])
        scores_BD[:, first:last] = maxsim_batch(queries, block_TN, starts_D1[first : last + 1] - starts_D1[first])
    return scores_BD


def best(scores: FloatArray, k: int, slack: float = 0.0) -> IntArray:
    """Positions, ascending, of the ``k`` highest scores and of all that are at most ``slack`` below the k-th."""
    if len(scores) <= k:
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth - slack)


def rank(docs: Docs, found: IntArray, scores: FloatArray, k: int) -> Ranking:
    """Rank documents, given by their numbers, by (-score, doc id): the best ``k``, scores rounded to float32."""
    scores = scores.astype(np.float32)
    keep = best(scores, k)
    hits = zip(docs.names(found[keep]), scores[keep].tolist(), strict=True)
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def slack(query_QN: FloatArray) -> float:
    """Bound of the rounding error of a float32 MaxSim score: 1e-5 per query token of norm 1, which is generous."""
    return 1e-5 * float(np.linalg.norm(query_QN, axis=1).sum()) + 1e-6


def take_passages(passages: IntArray, token_starts_P1: IntArray) -> tuple[IntArray, IntArray]:
    """The token numbers of ``passages``, and where each passage starts among them (one entry more than passages)."""
    starts = token_starts_P1[passages]
    lengths = token_starts_P1[passages + 1] - starts
    return ranges(starts, lengths), offsets(lengths)
