"""Searching PLAID."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.indexes.base import Query, Ranking, SearchOptions, check_dim, read_lang
from pipelines.indexes.files import Docs, load_npy, offsets
from pipelines.indexes.maxsim import best, maxsim, rank, slack
from pipelines.indexes.plaid.codec import Codec
from pipelines.indexes.plaid.depth import Depth
from pipelines.vectors import FloatArray, IntArray

DEEP = 8
MARGIN = 0.15


class PlaidGroup:
    """PLAID shards of one codec, searched as one."""

    def __init__(self, directories: Sequence[Path], share: float):
        from pipelines.indexes.compiled import addresses
        from pipelines.indexes.plaid import kernels

        self.kernels = kernels
        self.lang = read_lang(directories)
        self.share = share
        self.docs = Docs(directories)
        self.codec = Codec.load(directories[0])
        names = ("0.codes", "0.residuals", "ivf")
        files = [[load_npy(directory / f"{name}.npy") for name in names] for directory in directories]
        files = [[c, r, offsets(np.load(d / "ivf_lengths.npy")), i] for (c, r, i), d in zip(files, directories)]
        self.files = files
        self.is_filled_C = np.any([np.diff(starts) > 0 for _, _, starts, _ in files], axis=0)
        self.shards = kernels.Shards(
            np.array([addresses(arrays) for arrays in files]),
            self.docs.passages_S1,
            self.docs.token_starts_P1,
            files[0][0].itemsize,
            files[0][1].shape[1],
        )
        self.passages = int(self.docs.passages_S1[-1])
        self.weights = self.codec.weights_of_byte.view(np.float64)

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
        """See ``ShardGroup.search``."""
        depth = Depth.of(options, self.passages / max(1, len(self.docs)), self.share)
        return [self._search(np.asarray(query, np.float32), depth) for query in queries]

    def _search(self, query_QN: FloatArray, depth: Depth) -> Ranking:
        check_dim(query_QN, self.codec.dim)
        if not len(query_QN) or not self.passages:
            return []
        k = self.kernels
        lanes_LN = np.zeros((-(-len(query_QN) // k.LANES) * k.LANES, self.codec.dim), np.float32)
        lanes_LN[: len(query_QN)] = query_QN
        scores_CL = self.codec.centroids_CN @ lanes_LN.T
        passages, scores_P = self._find(scores_CL, len(query_QN), depth)
        if len(passages) > depth.candidates:
            passages = _keep(passages, scores_P, depth.candidates)
        if len(passages) > depth.exact:
            passages = _keep(passages, self._approximate(query_QN, scores_CL, passages), depth.exact)
        return self._rank(query_QN, lanes_LN, np.sort(passages), depth.k)

    def _find(self, scores_CL, tokens, depth):
        filled = int(self.is_filled_C.sum())
        probes = min(depth.probes, filled)
        while True:
            cells_QK = np.full((tokens, probes), -1, np.int64)
            best_QK = np.full((tokens, probes), -np.inf, np.float32)
            self.kernels.find_cells(scores_CL, self.is_filled_C, cells_QK, best_QK)
            gains_QK = best_QK - best_QK[:, -1:]
            scores_P, seen_P = np.zeros(self.passages, np.float32), np.zeros(self.passages, np.int32)
            found = np.empty(self.passages, np.int32)
            count = self.kernels.score_lists(cells_QK, gains_QK, self.shards, scores_P, seen_P, found)
            if count >= depth.enough or probes == filled:
                return found[:count], scores_P[found[:count]]
            probes = min(2 * probes, filled)

    def _approximate(self, query_QN, scores_CL, passages):
        shape = (len(query_QN), len(passages), DEEP)
        near = self.kernels.Near(np.zeros(shape, np.int64), np.empty(shape, np.float32))
        scores_P = np.empty(len(passages), np.float32)
        margins = (MARGIN * np.linalg.norm(query_QN, axis=1)).astype(np.float32)
        self.kernels.score_cells(passages, self.shards, scores_CL, margins, near, scores_P)
        if not DEEP:
            return scores_P
        w = self.codec.weights_of_byte
        per = w.shape[1]
        tables = (query_QN.reshape(len(query_QN), -1, per) @ w.T).reshape(len(query_QN), -1)
        self.kernels.score_near(near, tables, scores_P)
        return scores_P

    def _decode(self, passages: IntArray):
        starts = offsets(self.docs.token_starts_P1[passages + 1] - self.docs.token_starts_P1[passages])
        vectors_TN = np.empty((starts[-1], self.codec.dim), np.float32)
        self.kernels.decode(passages, self.shards, self.codec.centroids_CN, self.weights, vectors_TN)
        return vectors_TN, starts

    def _rank(self, query_QN, lanes_LN, passages, k):
        docs_P = self.docs.of_passages(passages)
        docs, first = np.unique(docs_P, return_index=True)
        vectors_TN, starts = self._decode(passages)
        scores_P = np.empty(len(passages), np.float32)
        self.kernels.add_best(vectors_TN @ lanes_LN.T, starts, scores_P)
        near = best(np.maximum.reduceat(scores_P, first), k, 2 * slack(query_QN))
        is_near_P = np.isin(docs_P, docs[near])
        vectors_TN, starts = self._decode(passages[is_near_P])
        scores_P = maxsim(query_QN.astype(np.float64), vectors_TN.astype(np.float64), starts)
        docs, first = np.unique(docs_P[is_near_P], return_index=True)
        return rank(self.docs, docs, np.maximum.reduceat(scores_P, first), k)


def _keep(passages: IntArray, scores_P: FloatArray, count: int) -> IntArray:
    """The ``count`` passages with the highest scores, ascending."""
    return np.sort(passages[np.argpartition(-scores_P, count - 1)[:count]])
