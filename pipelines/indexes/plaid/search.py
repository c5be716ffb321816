"""Searching PLAID: cells, two prunings by centroid scores, exact MaxSim on decompressed vectors.

    1  each query token probes its nearest cells; the passages in their lists are candidates
    2  score them with the centroids that some query token is near (``threshold``), keep ``candidates``
    3  score those with all their centroids, keep a quarter
    4  decompress the rest, score exactly, take each document's best passage

(Santhanam et al. 2022, PLAID, section 4.) Cost per query: a product of the query with the centroids, then about
``candidates`` passages of table look-ups and a quarter of them decompressed: measured 30 ms (k = 10) to
110 ms (k = 1000) on 2 busy cores, 2,700 passages.
Codes, residuals and lists are memory-mapped: a shard holds its centroids and its doc ids in memory, and what the system
keeps of its files; the shards of one process share the centroids.
Letters: Q query tokens, C centroids, P passages, T tokens, N dim.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.indexes.base import FloatArray, IntArray, Query, Ranking, SearchOptions, check_dim
from pipelines.indexes.files import Docs, load_npy, offsets, ranges
from pipelines.indexes.maxsim import maxsim, rank, take_passages
from pipelines.indexes.plaid.codec import Codec

TOKENS = 1 << 14  # tokens decompressed at a time
# Up to k: probes, threshold, candidates. PLAID's own (1, .5, 256; 2, .45, 1024; 4, .4, 4096) find 6 points less of the
# top 10, and 20 less of the top 100, than everything probed would; these, less than half a point.
DEFAULTS = ((10, (8, 0.3, 1024)), (100, (16, 0.3, 4096)), (None, (32, 0.25, 16384)))


@dataclass(frozen=True)
class Depth:
    """The options of a search with nothing left open."""

    k: int
    probes: int
    candidates: int
    threshold: float
    wanted: int  # probes are doubled until so many passages are candidates; 0 where the user set the probes

    @classmethod
    def of(cls, options: SearchOptions, passages_per_doc: float) -> "Depth":
        """Fill in what the user left open, by ``k``. Candidates are passages: a document counts as many as it has."""
        k = options.k
        probes, threshold, candidates = next(rest for top, rest in DEFAULTS if top is None or k <= top)
        return cls(
            k,
            options.probes or probes,
            options.candidates or round(max(candidates, 16 * k) * passages_per_doc),
            threshold if options.threshold is None else options.threshold,
            0 if options.probes else round(k * passages_per_doc),
        )


class PlaidShard:
    """A PLAID shard."""

    at_once = 1  # queries are searched one by one, and the next shard finds the last query's centroid scores

    def __init__(self, directory: Path):
        self.lang: str = json.loads((directory / "shard.json").read_text())["lang"]
        self.docs = Docs(directory)
        self.codec = Codec.load(directory)
        self.codes_T = load_npy(directory / "0.codes.npy")
        self.residuals_TW = load_npy(directory / "0.residuals.npy")
        self.ivf = load_npy(directory / "ivf.npy")
        self.ivf_starts_C1 = offsets(np.load(directory / "ivf_lengths.npy"))
        self.filled = np.flatnonzero(np.diff(self.ivf_starts_C1))
        self.passages = len(self.docs.token_starts_P1) - 1

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
        """See ``Shard.search``."""
        depth = Depth.of(options, self.passages / max(1, len(self.docs)))
        return [self._search(np.asarray(query, np.float32), depth) for query in queries]

    def _search(self, query_QN: FloatArray, depth: Depth) -> Ranking:
        check_dim(query_QN, self.codec.dim)
        if not len(query_QN) or not self.passages:
            return []
        scores_CQ = self.codec.scores(query_QN)
        passages = self._probe(scores_CQ, depth.probes)
        while len(passages) < depth.wanted and depth.probes < len(self.filled):
            depth = replace(depth, probes=2 * depth.probes)
            passages = self._probe(scores_CQ, depth.probes)
        if len(passages) > depth.candidates:
            near_C = self._near(scores_CQ, query_QN, depth.threshold)
            passages = _keep(passages, self._approximate(scores_CQ, passages, near_C), depth.candidates)
        if len(passages) > (keep := max(depth.candidates // 4, depth.k)):
            passages = _keep(passages, self._approximate(scores_CQ, passages), keep)
        scores_P = self._exact(query_QN, passages)
        docs, first = np.unique(self.docs.of_passages(passages), return_index=True)
        return rank(self.docs.ids, docs, np.maximum.reduceat(scores_P, first), depth.k)

    def _probe(self, scores_CQ: FloatArray, probes: int) -> IntArray:
        """The passages, ascending, with a token in one of the ``probes`` nearest cells of a query token that hold any.

        Languages share their centroids: the very nearest cell of an English word may hold no token of this language.
        """
        if probes >= len(self.filled):
            return np.arange(self.passages)
        cells = self.filled[np.unique(np.argpartition(-scores_CQ[self.filled], probes - 1, axis=0)[:probes])]
        starts = self.ivf_starts_C1[cells]
        return np.unique(self.ivf[ranges(starts, self.ivf_starts_C1[cells + 1] - starts)])

    def _near(self, scores_CQ: FloatArray, query_QN: FloatArray, threshold: float) -> np.ndarray:
        """Which centroids have at least this cosine with a query token, whatever the token's weight."""
        norms_Q = np.maximum(np.linalg.norm(query_QN, axis=1), 1e-12)
        return (scores_CQ / norms_Q).max(axis=1) >= threshold

    def _approximate(self, scores_CQ: FloatArray, passages: IntArray, near_C: np.ndarray | None = None) -> FloatArray:
        """MaxSim with centroids in the place of tokens. Those not near are left out; passages without any come last."""
        tokens, starts = take_passages(passages, self.docs.token_starts_P1)
        codes_T = self.codes_T[tokens]
        if near_C is not None:
            kept_T = near_C[codes_T]
            codes_T, starts = codes_T[kept_T], offsets(np.add.reduceat(kept_T, starts[:-1], dtype=np.int64))
        scores = np.full(len(passages), -np.inf, np.float32)
        some = np.flatnonzero(np.diff(starts))
        if len(some):
            scores[some] = np.maximum.reduceat(scores_CQ[codes_T], starts[some], axis=0).sum(axis=1)
        return scores

    def _exact(self, query_QN: FloatArray, passages: IntArray) -> FloatArray:
        """MaxSim with the decompressed tokens, products in float64: see ``pipelines.indexes.maxsim``."""
        lengths = np.diff(self.docs.token_starts_P1)[passages]
        pieces = np.array_split(passages, -(-int(lengths.sum()) // TOKENS))
        return np.concatenate([self._exact_block(query_QN.astype(np.float64), p) for p in pieces if len(p)])

    def _exact_block(self, query_QN: FloatArray, passages: IntArray) -> FloatArray:
        tokens, starts = take_passages(passages, self.docs.token_starts_P1)
        vectors_TN = self.codec.decode(self.codes_T[tokens], self.residuals_TW[tokens])
        return maxsim(query_QN, vectors_TN.astype(np.float64), starts)


def _keep(passages: IntArray, scores: FloatArray, count: int) -> IntArray:
    """The ``count`` passages with the highest scores, ascending."""
    return np.sort(passages[np.argpartition(-scores, count - 1)[:count]])
