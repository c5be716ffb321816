"""Searching PLAID: cells, two prunings by centroid scores, exact MaxSim on decompressed vectors.

    1  each query token probes its nearest cells; the passages in their lists are candidates
    2  score them with the centroids that some query token is near (``threshold``), keep ``candidates``
    3  score those with all their centroids, keep a quarter
    4  decompress the rest, score exactly, take each document's best passage

(Santhanam et al. 2022, PLAID, section 4.) The shards of a group go through these stages together, so that a query
costs what it would cost in one shard of all their documents: a product with the centroids, a look at the lists of the
probed cells, then about ``candidates`` passages of table look-ups and a quarter of them decompressed. A group that
holds a share of its language's documents keeps its share of ``candidates`` (``share_out``), and k passages at least.
Measured 30 ms (k = 10) to 110 ms (k = 1000) on 2 busy cores, 2,700 passages.
Codes, residuals and lists are memory-mapped: a process holds the centroids, a few numbers per passage and cell, and the
doc ids. A query takes memory for one byte per passage, its candidates' numbers and scores, and a block of tokens.
Legend: Q query tokens, C centroids, F cells that hold a token of the group, P passages, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.indexes.base import Query, Ranking, SearchOptions, check_dim, read_lang, share_out
from pipelines.indexes.files import Docs, Stack, blocks, load_npy, offsets, ranges
from pipelines.indexes.maxsim import best, maxsim, rank, slack, take_passages
from pipelines.indexes.plaid.codec import Codec
from pipelines.vectors import FloatArray, IntArray

TOKENS = 1 << 14  # tokens scored at a time
# Up to k: probes, threshold, candidates. PLAID's own (1, .5, 256; 2, .45, 1024; 4, .4, 4096) find 6 points less of the
# top 10, and 20 less of the top 100, than everything probed would; these, less than half a point.
DEFAULTS = ((10, (8, 0.3, 1024)), (100, (16, 0.3, 4096)), (None, (32, 0.25, 16384)))


@dataclass(frozen=True)
class Depth:
    """The depth of one search of a group, with nothing left to defaults.

    ``probes`` are doubled until ``enough`` passages are candidates; 0 where the user set the probes.
    """

    k: int
    probes: int
    candidates: int
    threshold: float
    enough: int

    @classmethod
    def of(cls, options: SearchOptions, passages_per_doc: float, share: float) -> "Depth":
        """Resolve defaults by ``k``, and the group's share of the candidates. These are passages: a document counts as
        many as it has."""
        k = options.k
        probes, threshold, candidates = next(rest for top, rest in DEFAULTS if top is None or k <= top)
        least = round(k * passages_per_doc)
        budget = options.candidates or round(max(candidates, 16 * k) * passages_per_doc)
        return cls(
            k=k,
            probes=options.probes or probes,
            candidates=min(budget, max(share_out(budget, share), least)),
            threshold=threshold if options.threshold is None else options.threshold,
            enough=0 if options.probes else least,
        )


class InvertedLists:
    """The passages of each cell of one shard."""

    def __init__(self, directory: Path):
        self.passages = load_npy(directory / "ivf.npy")
        self.starts_C1 = offsets(np.load(directory / "ivf_lengths.npy"))

    def take(self, cells: IntArray) -> IntArray:
        """The passages that have a token in one of ``cells``, numbered within the shard; one for each such cell."""
        starts = self.starts_C1[cells]
        return self.passages[ranges(starts, self.starts_C1[cells + 1] - starts)]


class PlaidGroup:
    """PLAID shards of one codec, searched as one."""

    def __init__(self, directories: Sequence[Path], share: float):
        self.lang = read_lang(directories)
        self.share = share
        self.docs = Docs(directories)
        self.codec = Codec.load(directories[0])
        self.codes_T = Stack([load_npy(directory / "0.codes.npy") for directory in directories])
        self.residuals_TW = Stack([load_npy(directory / "0.residuals.npy") for directory in directories])
        self.lists = [InvertedLists(directory) for directory in directories]
        self.filled_F = np.flatnonzero(sum(np.diff(lists.starts_C1) for lists in self.lists))
        self.passages = int(self.docs.passages_S1[-1])

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
        """See ``ShardGroup.search``."""
        depth = Depth.of(options, self.passages / max(1, len(self.docs)), self.share)
        return [self._search(np.asarray(query, np.float32), depth) for query in queries]

    def _search(self, query_QN: FloatArray, depth: Depth) -> Ranking:
        check_dim(query_QN, self.codec.dim)
        if not len(query_QN) or not self.passages:
            return []
        scores_CQ = self.codec.centroids_CN @ query_QN.T
        passages = self._find_candidates(scores_CQ, depth)
        if len(passages) > depth.candidates:
            near_C = _find_near(scores_CQ, query_QN, depth.threshold)
            passages = _keep(passages, self._approximate(scores_CQ, passages, near_C), depth.candidates)
        if len(passages) > (keep := max(depth.candidates // 4, depth.k)):
            passages = _keep(passages, self._approximate(scores_CQ, passages), keep)
        return self._rank(query_QN, passages, depth.k)

    def _find_candidates(self, scores_CQ: FloatArray, depth: Depth) -> IntArray:
        """The passages in the probed cells, ascending; more cells are probed until there are enough."""
        scores_QF = np.ascontiguousarray(scores_CQ[self.filled_F].T)
        passages = self._probe(scores_QF, depth.probes)
        while len(passages) < depth.enough and depth.probes < len(self.filled_F):
            depth = replace(depth, probes=2 * depth.probes)
            passages = self._probe(scores_QF, depth.probes)
        return passages

    def _probe(self, scores_QF: FloatArray, probes: int) -> IntArray:
        """The passages, ascending, with a token in one of the ``probes`` nearest filled cells of a query token.

        Languages share their centroids: the very nearest cell of an English word may hold no token of this language.
        """
        if probes >= len(self.filled_F):
            return np.arange(self.passages)
        nearest = np.argpartition(scores_QF, -probes, axis=1)[:, -probes:]
        cells = self.filled_F[np.unique(nearest)]
        is_candidate_P = np.zeros(self.passages, bool)
        for lists, first, end in zip(self.lists, self.docs.passages_S1, self.docs.passages_S1[1:], strict=False):
            is_candidate_P[first:end][lists.take(cells)] = True
        return np.flatnonzero(is_candidate_P)

    def _approximate(self, scores_CQ: FloatArray, passages: IntArray, near_C: np.ndarray | None = None) -> FloatArray:
        """MaxSim with centroids in the place of tokens, float32 (P,). With ``near_C`` only those centroids count, and
        passages without any come last."""
        return np.concatenate(
            [_approximate_block(scores_CQ, *self._take_codes(p), near_C) for p in self._cut(passages)]
        )

    def _rank(self, query_QN: FloatArray, passages: IntArray, k: int) -> Ranking:
        """The best ``k`` documents by MaxSim with the decompressed tokens: in float32, the best again in float64 (see
        ``pipelines.indexes.maxsim``)."""
        docs_P = self.docs.of_passages(passages)
        docs, first = np.unique(docs_P, return_index=True)
        near = best(np.maximum.reduceat(self._score(query_QN, passages), first), k, 2 * slack(query_QN))
        is_near_P = np.isin(docs_P, docs[near])
        scores_P = self._score(query_QN.astype(np.float64), passages[is_near_P])
        docs, first = np.unique(docs_P[is_near_P], return_index=True)
        return rank(self.docs, docs, np.maximum.reduceat(scores_P, first), k)

    def _score(self, query_QN: FloatArray, passages: IntArray) -> FloatArray:
        """MaxSim with the decompressed tokens (P,), in the query's type."""
        return np.concatenate([self._score_block(query_QN, piece) for piece in self._cut(passages)])

    def _score_block(self, query_QN: FloatArray, passages: IntArray) -> FloatArray:
        tokens, starts = take_passages(passages, self.docs.token_starts_P1)
        vectors_TN = self.codec.decode(self.codes_T.take(tokens), self.residuals_TW.take(tokens))
        return maxsim(query_QN, vectors_TN.astype(query_QN.dtype, copy=False), starts)

    def _take_codes(self, passages: IntArray) -> tuple[IntArray, IntArray]:
        """The codes of the passages' tokens, and where each passage starts among them."""
        tokens, starts = take_passages(passages, self.docs.token_starts_P1)
        return self.codes_T.take(tokens), starts

    def _cut(self, passages: IntArray) -> Iterator[IntArray]:
        """Runs of passages of about ``TOKENS`` tokens together."""
        starts = self.docs.token_starts_P1
        for first, last in blocks(offsets(starts[passages + 1] - starts[passages]), TOKENS):
            yield passages[first:last]


def _find_near(scores_CQ: FloatArray, query_QN: FloatArray, threshold: float) -> np.ndarray:
    """Mask (C,) of the centroids with at least this cosine to a query token, whatever the token's weight."""
    norms_Q = np.maximum(np.linalg.norm(query_QN, axis=1), 1e-12)
    return (scores_CQ / norms_Q).max(axis=1) >= threshold


def _approximate_block(
    scores_CQ: FloatArray, codes_T: IntArray, starts: IntArray, near_C: np.ndarray | None
) -> FloatArray:
    """See ``PlaidGroup._approximate``."""
    if near_C is not None:
        kept_T = near_C.take(codes_T)
        codes_T, starts = codes_T[kept_T], offsets(np.add.reduceat(kept_T, starts[:-1], dtype=np.int64))
    scores_P = np.full(len(starts) - 1, -np.inf, np.float32)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        scores_P[filled] = np.maximum.reduceat(scores_CQ.take(codes_T, axis=0), starts[filled], axis=0).sum(axis=1)
    return scores_P


def _keep(passages: IntArray, scores_P: FloatArray, count: int) -> IntArray:
    """The ``count`` passages with the highest scores, ascending."""
    return np.sort(passages[np.argpartition(-scores_P, count - 1)[:count]])
