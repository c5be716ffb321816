"""The exact index: every document is scored. The oracle of the others, and the right choice up to some 100,000 docs.

MaxSim over late-interaction vectors; with one vector per passage this is the inner product. Vectors stay float16 on
disk (2·dim bytes per token) and are read block by block, so memory does not grow with the shard. Cost: about
2·dim·(query tokens)·(doc tokens) operations per query; queries are taken several at a time, so that the vectors are
read and widened once for all of them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes.base import FloatArray, IntArray, Query, Ranking, SearchOptions, ShardPlan, check_dim
from pipelines.indexes.files import Docs, DocsWriter, NpyAppender, load_npy, offsets, ranges, stream_vectors
from pipelines.indexes.maxsim import best, maxsim, maxsim_batch, rank, slack, take_passages

TOKENS = 1 << 14  # document tokens per block: 64 MB of similarities with a full group of queries
QUERY_TOKENS = 1 << 10  # query tokens per group


class Exact(Component):
    """Config of the exact index."""

    kind: Literal["exact"] = "exact"

    def build(self) -> "ExactBuilder":
        """The builder."""
        return ExactBuilder()

    def open(self, directory: Path) -> "ExactShard":
        """Open a finished shard."""
        return ExactShard(directory)


class ExactBuilder:
    """Copies the vectors of each shard into one array."""

    role: Literal["vectors"] = "vectors"

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Nothing is shared."""
        return {}

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write ``docs.arrow``, ``tokens.npy`` and ``vectors.npy``. See ``Builder.write``."""
        with DocsWriter(directory) as docs, NpyAppender(directory / "vectors.npy", "<f2") as vectors:
            for rows in stream_vectors(plan.parts):
                docs.append(rows)
                vectors.append(rows.vectors_TN)
        return docs.facts


class ExactShard:
    """A shard whose every passage is scored."""

    at_once = 1 << 10

    def __init__(self, directory: Path):
        self.lang: str = json.loads((directory / "shard.json").read_text())["lang"]
        self.docs = Docs(directory)
        self.vectors_TN = load_npy(directory / "vectors.npy")

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
        """See ``Shard.search``."""
        rankings: list[Ranking] = [[] for _ in queries]
        if not len(self.docs):
            return rankings
        matrices = [np.asarray(query, np.float32) for query in queries]
        for group in self._groups(matrices):
            scores_BP = self._scan([matrices[i] for i in group])
            scores_BD = np.maximum.reduceat(scores_BP, self.docs.passage_starts_D1[:-1], axis=1)
            for i, scores_D in zip(group, scores_BD, strict=True):
                near = best(scores_D, options.k, 2 * slack(matrices[i]))
                rankings[i] = rank(self.docs.ids, near, self._rescore(matrices[i], near), options.k)
        return rankings

    def _groups(self, queries: list[FloatArray]) -> Iterator[list[int]]:
        """Queries that have tokens, in groups of at most QUERY_TOKENS."""
        group: list[int] = []
        size = 0
        for i, query in enumerate(queries):
            check_dim(query, self.vectors_TN.shape[1])
            if group and size + len(query) > QUERY_TOKENS:
                yield group
                group, size = [], 0
            if len(query):
                group.append(i)
                size += len(query)
        if group:
            yield group

    def _scan(self, queries: list[FloatArray]) -> FloatArray:
        starts = self.docs.token_starts_P1
        scores_BP = np.empty((len(queries), len(starts) - 1), np.float32)
        first = 0
        while first < len(starts) - 1:
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + TOKENS, side="right")) - 1)
            block_TN = self.vectors_TN[starts[first] : starts[last]].astype(np.float32)
            scores_BP[:, first:last] = maxsim_batch(queries, block_TN, starts[first : last + 1] - starts[first])
            first = last
        return scores_BP

    def _rescore(self, query_QN: FloatArray, docs: IntArray) -> FloatArray:
        """The float64 scores of some documents."""
        tokens = self.docs.tokens_of(docs)
        pieces = np.array_split(docs, -(-int(tokens.sum()) // TOKENS))
        return np.concatenate([self._rescore_block(query_QN.astype(np.float64), piece) for piece in pieces])

    def _rescore_block(self, query_QN: FloatArray, docs: IntArray) -> FloatArray:
        firsts = self.docs.passage_starts_D1[docs]
        counts = self.docs.passage_starts_D1[docs + 1] - firsts
        tokens, starts = take_passages(ranges(firsts, counts), self.docs.token_starts_P1)
        scores_P = maxsim(query_QN, self.vectors_TN[tokens].astype(np.float64), starts)
        return np.maximum.reduceat(scores_P, offsets(counts)[:-1])
