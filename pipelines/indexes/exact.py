"""The exact index scores every document: the oracle of the others, and the right choice up to some 100,000 documents.

MaxSim over late-interaction vectors; with one vector per passage this is the inner product. Vectors stay float16 on
disk (2·dim bytes per token) and are read block by block: memory per group of queries is a block and 4 bytes per query
and passage. Cost: about 2·dim·(query tokens)·(doc tokens) operations per query; queries are searched in groups, so that
each block is read and widened once per group.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes.base import Query, Ranking, SearchOptions, ShardPlan, check_dim, read_lang
from pipelines.indexes.files import Docs, DocsWriter, NpyAppender, Stack, blocks, load_npy, offsets, ranges
from pipelines.indexes.maxsim import best, maxsim, maxsim_batch, rank, slack, take_passages
from pipelines.vectors import FloatArray, IntArray, stream_vectors

TOKENS = 1 << 14  # document tokens per block: 64 MB of similarities with a full group of queries
QUERY_TOKENS = 1 << 10  # query tokens per group


class Exact(Component):
    """Config of the exact index."""

    kind: Literal["exact"] = "exact"

    def build(self) -> "ExactBuilder":
        """The builder."""
        return ExactBuilder()

    def open(self, directories: Sequence[Path], share: float = 1.0) -> "ExactGroup":
        """Open finished shards of one language, to be searched as one."""
        return ExactGroup(directories)


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

    def merge(self, sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
        """See ``Builder.merge``."""
        docs = Docs(sources)
        vectors_TN = Stack([load_npy(source / "vectors.npy") for source in sources])
        with DocsWriter(directory) as written, NpyAppender(directory / "vectors.npy", "<f2") as vectors:
            written.copy(docs, kept)
            vectors.append(vectors_TN.slice(0, 0))  # where nothing is kept, the width is
            for tokens in docs.token_blocks(kept):
                vectors.append(vectors_TN.take(tokens))
        return written.facts


class ExactGroup:
    """Shards whose every passage is scored."""

    def __init__(self, directories: Sequence[Path]):
        self.lang = read_lang(directories)
        self.docs = Docs(directories)
        self.vectors_TN = Stack([load_npy(directory / "vectors.npy") for directory in directories])

    def hide(self, ids: Sequence[pa.Array]) -> None:
        """See ``ShardGroup.hide``."""
        self.docs.hide(ids)

    def search(self, queries: Sequence[Query], options: SearchOptions, within: IntArray | None = None) -> list[Ranking]:
        """See ``ShardGroup.search``. Costs in proportion to the documents that are searched."""
        rankings: list[Ranking] = [[] for _ in queries]
        if not self.docs.count or (within is not None and not len(within)):
            return rankings
        passages = None if within is None else self.docs.passages_of(within)
        firsts_D = self.docs.passage_starts_D1[:-1] if within is None else self._count_passages(within)[:-1]
        matrices = [np.asarray(query, np.float32) for query in queries]
        for query_QN in matrices:
            check_dim(query_QN, self.vectors_TN.shape[1])
        for first, last in blocks(offsets(np.array([len(query) for query in matrices])), QUERY_TOKENS):
            numbers = [i for i in range(first, last) if len(matrices[i])]
            scores_BP = self._scan([matrices[i] for i in numbers], passages)
            scores_BD = np.maximum.reduceat(scores_BP, firsts_D, axis=1)
            for i, scores_D in zip(numbers, scores_BD, strict=True):
                near = self._best(scores_D, options.k, 2 * slack(matrices[i]), within)
                rankings[i] = rank(self.docs, near, self._rescore(matrices[i], near), options.k)
        return rankings

    def _count_passages(self, docs: IntArray) -> IntArray:
        """Where the passages of each of ``docs`` start among all of theirs, and the end."""
        return offsets(self.docs.passage_starts_D1[docs + 1] - self.docs.passage_starts_D1[docs])

    def _best(self, scores_D: FloatArray, k: int, slack: float, within: IntArray | None) -> IntArray:
        """As ``best``, of the documents that are not hidden. ``scores_D`` are of all, or of those of ``within``."""
        if within is not None:
            return within[best(scores_D, k, slack)]
        if self.docs.is_hidden_D is None:
            return best(scores_D, k, slack)
        living = self.docs.living
        return living[best(scores_D[living], k, slack)]

    def _scan(self, queries: list[FloatArray], passages: IntArray | None) -> FloatArray:
        """Score passages, all or some, against each query: (B, P), float32."""
        places = self.docs.token_starts_P1
        starts = places if passages is None else offsets(places[passages + 1] - places[passages])
        scores_BP = np.empty((len(queries), len(starts) - 1), np.float32)
        for first, last in blocks(starts, TOKENS) if queries else ():
            if passages is None:
                block_TN = self.vectors_TN.slice(starts[first], starts[last])
            else:
                block_TN = self.vectors_TN.take(take_passages(passages[first:last], places)[0])
            block_starts = starts[first : last + 1] - starts[first]
            scores_BP[:, first:last] = maxsim_batch(queries, block_TN.astype(np.float32), block_starts)
        return scores_BP

    def _rescore(self, query_QN: FloatArray, docs: IntArray) -> FloatArray:
        """The float64 scores of ``docs``."""
        query_QN = query_QN.astype(np.float64)
        cuts = blocks(offsets(self.docs.count_tokens(docs)), TOKENS)
        return np.concatenate([self._rescore_block(query_QN, docs[first:last]) for first, last in cuts])

    def _rescore_block(self, query_QN: FloatArray, docs: IntArray) -> FloatArray:
        firsts = self.docs.passage_starts_D1[docs]
        starts_D1 = self._count_passages(docs)
        tokens, starts = take_passages(ranges(firsts, np.diff(starts_D1)), self.docs.token_starts_P1)
        scores_P = maxsim(query_QN, self.vectors_TN.take(tokens).astype(np.float64), starts)
        return np.maximum.reduceat(scores_P, starts_D1[:-1])
