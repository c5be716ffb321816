"""Searching PLAID: find passages by their cells, score them by all their cells, decode the best. Compiled loops.

    1  a product of all centroids with the query; each query token probes its nearest filled cells
    2  the passages in the lists of those cells: for each query token, the score of a passage's best probed cell above
       that of the last cell probed, which stands for all cells that were not; the best ``candidates`` are kept
    3  MaxSim with a centroid in the place of each token; the best ``decoded`` are kept
    4  MaxSim with the decoded vectors; each document's best passage

1, 3 and 4 are PLAID's (Santhanam et al. 2022, section 4); 2 is WARP's (2501.17788, section 4) without the residuals.
What else was tried, and what each gave: docs/index.md. A group of no more passages than ``candidates`` begins with 3,
and so does a search within so few; one within more probes as many cells as the whole takes to find as many documents.
The shards of a group go through the stages together; a group that holds a share of its language's documents keeps its
share of ``candidates`` (``share_out``), and k documents at least.

Many queries are searched by a thread each; the passages of a single one are divided among the threads. A query takes
memory for 4 bytes per centroid and query token, 12 per passage, and 64 kB. Codes, residuals and lists are
memory-mapped: a process holds the centroids, a few numbers per passage and cell, and the doc ids.
Legend: Q query tokens, L the same padded, C centroids, K probes, P passages, N dim.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pipelines.indexes.base import Query, Ranking, SearchOptions, check_dim, read_lang
from pipelines.indexes.files import Docs, Stack
from pipelines.indexes.maxsim import rank
from pipelines.indexes.plaid.codec import Codec
from pipelines.indexes.plaid.depth import Depth, Level
from pipelines.indexes.plaid.on_device import DeviceShards
from pipelines.indexes.plaid.shard import check_shards, open_files
from pipelines.indexes.plaid.trace import Trace, keep
from pipelines.vectors import FloatArray, IntArray

AT_ONCE = 4  # queries whose scores of all centroids are held, for each thread
T = TypeVar("T")
SLICE = 32  # passages of one query that a thread takes at least


@dataclass(frozen=True)
class Findable:
    """The passages that a search may find: how many, of how many documents, and which of all passages they are not,
    None where they are all."""

    passages: int
    docs: int
    is_left_out_P: np.ndarray | None = None

    def keep(self, passages: IntArray) -> IntArray:
        """Those of some passages that may be found."""
        return passages if self.is_left_out_P is None else passages[~self.is_left_out_P[passages]]

    def list_all(self) -> IntArray:
        """All that may be found, ascending."""
        if self.is_left_out_P is None:
            return np.arange(self.passages, dtype=np.int32)
        return np.flatnonzero(~self.is_left_out_P).astype(np.int32)


class PlaidGroup:
    """PLAID shards of one codec, searched as one. Opening a group compiles the kernels where no cache has them."""

    def __init__(self, directories: Sequence[Path], share: float, version: int, levels: Sequence[Level] = ()):
        from pipelines.indexes.compiled import addresses, count_threads
        from pipelines.indexes.plaid import kernels

        check_shards(list(directories), version)
        self.lang = read_lang(directories)
        self.share, self.levels = share, levels
        self.docs = Docs(directories)
        self.codec = Codec.load(directories[0])
        self.threads = count_threads()
        self._pool = ThreadPoolExecutor(self.threads)
        self._kernels = kernels
        passages_S, starts = np.diff(self.docs.passages_S1), self.docs.token_starts_P1[self.docs.passages_S1]
        counts = zip(directories, passages_S.tolist(), np.diff(starts).tolist(), strict=True)
        self.files = [open_files(directory, self.codec, *own) for directory, *own in counts]  # kernels read by address
        codes, residuals = self.files[0][:2]
        self._shards = kernels.Shards(
            np.array([addresses(files) for files in self.files]),
            self.docs.passages_S1,
            self.docs.token_starts_P1,
            codes.itemsize,
            residuals.shape[1],
        )
        self._tables = kernels.CodecTables(self.codec.centroids_CN, self.codec.weights_of_byte.view(np.float64))
        self.is_filled_C = np.any([np.diff(starts) > 0 for _, _, starts, _ in self.files], axis=0)
        self.passages = int(self.docs.passages_S1[-1])
        self.living = Findable(self.passages, len(self.docs))  # what is not hidden
        self._on_device: dict[str, DeviceShards] = {}
        self._copying = Lock()

    def hide(self, ids: Sequence[pa.Array]) -> None:
        """See ``ShardGroup.hide``. Reads the codes of all tokens, to know which cells hold one that is left."""
        self.docs.hide(ids)
        if self.docs.is_hidden_D is None:
            return
        self.living = self._limit(self.docs.living)
        codes_T = Stack([codes for codes, *_ in self.files])
        self.is_filled_C = np.zeros_like(self.is_filled_C)
        for tokens in self.docs.token_blocks(self.docs.living):
            self.is_filled_C[codes_T.take(tokens)] = True

    def _limit(self, docs: IntArray) -> Findable:
        """The passages of documents, given by their numbers."""
        is_left_out_D = np.ones(len(self.docs), bool)
        is_left_out_D[docs] = False
        is_left_out_P = np.repeat(is_left_out_D, np.diff(self.docs.passage_starts_D1))
        return Findable(self.passages - int(np.count_nonzero(is_left_out_P)), len(docs), is_left_out_P)

    def search(self, queries: Sequence[Query], options: SearchOptions, within: IntArray | None = None) -> list[Ranking]:
        """See ``ShardGroup.search``."""
        findable = self.living if within is None else self._limit(within)
        part = 1.0 if within is None else findable.passages / max(1, self.living.passages)
        depth = Depth.of(options, findable.passages, findable.docs, self.share, self.levels, part)
        matrices = [np.asarray(query, np.float32) for query in queries]
        for query_QN in matrices:
            check_dim(query_QN, self.codec.dim)
        if options.device:
            return [self._search_on(options.device, query_QN, depth, findable) for query_QN in matrices]
        if depth.decodes_all(findable.passages):  # their cells' scores are not asked for
            return [self._rank(query_QN, findable.list_all(), depth.k, self.threads) for query_QN in matrices]
        if len(matrices) == 1:
            scores_CL = self._score_centroids(matrices[0])
            return [self._search(matrices[0], scores_CL, depth, findable, self.threads)]
        return list(self._map(partial(self._search, depth=depth, findable=findable, threads=1), matrices))

    def trace(self, queries: Sequence[FloatArray], level: Level) -> Iterator[Trace]:
        """Search each query at a depth, and keep the scores of every stage."""
        depth = Depth.of(SearchOptions(k=level.k), self.living.passages, self.living.docs, 1.0, [level])
        return self._map(partial(self._trace, depth=depth), [query.astype(np.float32) for query in queries])

    def _map(self, search: Callable[[FloatArray, FloatArray], T], queries: Sequence[FloatArray]) -> Iterator[T]:
        """Call ``search`` with each query and the scores of all centroids, in threads."""
        for first in range(0, len(queries), AT_ONCE * self.threads):
            some = queries[first : first + AT_ONCE * self.threads]
            scores = [self._score_centroids(query_QN) for query_QN in some]  # BLAS has threads of its own
            yield from self._pool.map(search, some, scores)

    def _score_centroids(self, query_QN: FloatArray) -> FloatArray:
        """The scores of all centroids: (C, L), the query padded with tokens of zeros."""
        return self.codec.score(self._pad(query_QN))

    def _pad(self, query_QN: FloatArray) -> FloatArray:
        """The query, a token in each column: (N, L)."""
        lanes = self._kernels.LANES
        query_NL = np.zeros((self.codec.dim, -(-len(query_QN) // lanes) * lanes), np.float32)
        query_NL[:, : len(query_QN)] = query_QN.T
        return query_NL

    def _search(
        self, query_QN: FloatArray, scores_CL: FloatArray, depth: Depth, findable: Findable, threads: int
    ) -> Ranking:
        if not len(query_QN) or not findable.passages:
            return []
        if depth.scores_all(findable.passages):
            passages = findable.list_all()
        else:
            passages = keep(*self._find(query_QN, scores_CL, depth, findable), depth.candidates)
        if len(passages) > depth.decoded:
            passages = keep(passages, self._score_cells(passages, scores_CL, len(query_QN), threads), depth.decoded)
        return self._rank(query_QN, passages, depth.k, threads)

    def _trace(self, query_QN: FloatArray, scores_CL: FloatArray, depth: Depth) -> Trace:
        found, first = self._find(query_QN, scores_CL, depth, self.living)
        if depth.scores_all(self.living.passages):
            passages = self.living.list_all()
            first_P = np.full(len(passages), -np.inf, np.float32)
            first_P[np.searchsorted(passages, found)] = first
        else:
            passages = keep(found, first, depth.candidates)
            first_P = first[np.searchsorted(found, passages)]
        cells_P = self._score_cells(passages, scores_CL, len(query_QN), 1)
        decoded = keep(passages, cells_P, depth.decoded)
        decoded_P = np.full(len(passages), -np.inf, np.float32)
        decoded_P[np.searchsorted(passages, decoded)] = self._score_decoded(query_QN, decoded, 1)
        return Trace(self.docs.of_passages(passages), first_P, cells_P, decoded_P)

    def _rank(self, query_QN: FloatArray, passages: IntArray, k: int, threads: int) -> Ranking:
        """Rank documents by their best of these passages, decoded."""
        if not len(query_QN) or not len(passages):
            return []
        return self._rank_docs(passages, self._score_decoded(query_QN, passages, threads), k)

    def _score_cells(self, passages: IntArray, scores_CL: FloatArray, tokens: int, threads: int) -> FloatArray:
        """MaxSim of the query's ``tokens`` with centroids in the place of the passages' tokens."""

        def score_cells(some: IntArray, scores: FloatArray) -> None:
            self._kernels.score_cells(some, self._shards, scores_CL, tokens, scores)

        return self._divide(score_cells, passages, threads)

    def _score_decoded(self, query_QN: FloatArray, passages: IntArray, threads: int) -> FloatArray:
        """MaxSim of the query with the passages' decoded vectors."""
        query_NL = self._pad(query_QN)

        def score_decoded(some: IntArray, scores: FloatArray) -> None:
            self._kernels.score_decoded(some, self._shards, self._tables, query_NL, len(query_QN), scores)

        return self._divide(score_decoded, passages, threads)

    def _search_on(self, device: str, query_QN: FloatArray, depth: Depth, findable: Findable) -> Ranking:
        """Search by torch. The first search copies the shards to the device; threads wait for it."""
        if not len(query_QN) or not findable.passages:
            return []
        with self._copying:
            if device not in self._on_device:
                self._on_device[device] = DeviceShards(self, device)
        return self._rank_docs(*self._on_device[device].rank(query_QN, depth, findable), depth.k)

    def _rank_docs(self, passages: IntArray, scores_P: FloatArray, k: int) -> Ranking:
        """The documents of the best passages, which are given ascending."""
        docs, first = np.unique(self.docs.of_passages(passages), return_index=True)
        return rank(self.docs, docs, np.maximum.reduceat(scores_P, first), k)

    def _find(
        self, query_QN: FloatArray, scores_CL: FloatArray, depth: Depth, findable: Findable
    ) -> tuple[IntArray, FloatArray]:
        """The passages in the probed cells and their first scores; more cells are probed until there are enough.

        Languages share their centroids: the very nearest cell of an English word may hold no token of this language.
        """
        filled = int(self.is_filled_C.sum())
        probes = min(depth.probes, filled)
        while True:
            cells_QK = np.full((len(query_QN), probes), -1, np.int64)
            scores_QK = np.full(cells_QK.shape, -np.inf, np.float32)
            self._kernels.find_cells(scores_CL, self.is_filled_C, cells_QK, scores_QK)
            near_QK = scores_QK >= depth.threshold * np.linalg.norm(query_QN, axis=1, keepdims=True)
            gains_QK = np.where(near_QK, scores_QK - scores_QK[:, -1:], np.float32(0))
            scores_P, seen_P = np.zeros(self.passages, np.float32), np.zeros(self.passages, np.int32)
            found = np.empty(self.passages, np.int32)
            count = self._kernels.score_lists(cells_QK, gains_QK, self._shards, scores_P, seen_P, found)
            passages = findable.keep(found[:count])
            if len(passages) >= depth.enough or probes == filled:
                passages = np.sort(passages)
                return passages, scores_P[passages]
            probes = min(2 * probes, filled)

    def _divide(self, score: Callable[[IntArray, FloatArray], Any], passages: IntArray, threads: int) -> FloatArray:
        """The scores of ``passages``, divided among threads: of any number of them each score is the same."""
        scores_P = np.empty(len(passages), np.float32)
        slices = max(1, min(threads, len(passages) // SLICE))
        if slices == 1:
            score(passages, scores_P)
        else:
            list(self._pool.map(score, np.array_split(passages, slices), np.array_split(scores_P, slices)))
        return scores_P
