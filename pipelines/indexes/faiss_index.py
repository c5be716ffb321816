"""Faiss indexes for single-vector students, by inner product: flat (exact), IVF, HNSW.

Each passage is one vector. Passages are searched to a growing depth until ``k`` documents are found and no passage
beyond can beat or tie the last of them (MaxP). A shard is built and held in memory: 4·dim bytes per passage, and 8·m
more for HNSW; ``shard_rows`` bounds it. The IVF cells are the same in all shards, so that these rank as the whole does.
HNSW graphs, one per shard, do not: each is searched with its share of the queue.

Legend: B queries, H passages found, N dim.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from cluster.component import Component
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes.base import Query, Ranking, SearchOptions, ShardPlan, check_dim, read_lang, share_out
from pipelines.indexes.files import Docs, DocsWriter
from pipelines.indexes.maxsim import rank
from pipelines.indexes.sample import draw, take_census
from pipelines.vectors import FloatArray, IntArray, VectorRows, stream_vectors

TRAIN_PER_CELL = 256  # faiss takes no more than this per centroid
AT_ONCE = 1 << 14  # vectors that are read from an index to be scored


class Faiss(Component):
    """Config of a faiss index.

    Attributes:
        structure: flat is exact; ivf visits the nearest cells; hnsw walks a graph.
        cells: ivf: number of cells; None is 4·√(passages of a shard).
        m: hnsw: neighbours per vector. 32 is faiss's own default.
        ef_build: hnsw: queue while building; its recall depends on it.
        seed: of the k-means sample.
    """

    kind: Literal["faiss"] = "faiss"
    structure: Literal["flat", "ivf", "hnsw"] = "flat"
    cells: int | None = Field(None, ge=1)
    m: int = Field(32, ge=2)
    ef_build: int = Field(200, ge=1)
    seed: int = 0

    def build(self) -> "FaissBuilder":
        """The builder."""
        return FaissBuilder(self)

    def open(self, directories: Sequence[Path], share: float = 1.0) -> "FaissGroup":
        """Open finished shards of one language, to be searched as one."""
        return FaissGroup(directories, share)


class FaissBuilder:
    """Learns the cells where there are any; adds each shard's vectors to an index."""

    role: Literal["vectors"] = "vectors"

    def __init__(self, config: Faiss):
        self.config = config

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Train the cells of an IVF, on a worker."""
        if self.config.structure != "ivf":
            return {}
        arguments = {"config": self.config, "plans": list(plans), "out": out}
        (facts,) = fan_out("train", TrainCells, arguments, [None])
        return facts

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write ``docs.arrow``, ``tokens.npy`` and ``index.faiss``. See ``Builder.write``."""
        import faiss

        index: Any = None
        with DocsWriter(directory) as docs:
            for rows in stream_vectors(plan.parts):
                _check_single(rows)
                if index is None:
                    index = self._empty(rows.vectors_TN.shape[1], out)
                docs.append(rows)
                index.add(rows.vectors_TN.astype(np.float32))
        if index is not None:
            faiss.write_index(index, str(directory / "index.faiss"))
        return docs.facts

    def merge(self, sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
        """See ``Builder.merge``. A graph is built anew."""
        import faiss

        docs, index = Docs(sources), None
        passages = docs.passages_of(kept)
        with DocsWriter(directory) as written:
            written.copy(docs, kept)
            for source, first, end in zip(sources, docs.passages_S1, docs.passages_S1[1:], strict=False):
                if first == end:
                    continue
                part: Any = faiss.read_index(str(source / "index.faiss"))
                vectors_PN = _reconstruct(part)
                if index is None:
                    index = self._empty(part.d, part)
                low, high = np.searchsorted(passages, [first, end])
                index.add(vectors_PN[passages[low:high] - first])
        if index is not None:
            faiss.write_index(index, str(directory / "index.faiss"))
        return written.facts

    def _empty(self, dim: int, cells: Any) -> Any:
        """An index without vectors; ``cells``: the place of the index, or a part with the cells of an IVF."""
        import faiss

        if self.config.structure == "flat":
            return faiss.IndexFlatIP(dim)
        if self.config.structure == "ivf":
            if not isinstance(cells, Place):
                empty = faiss.clone_index(cells)
                empty.reset()
                return empty
            return faiss.read_index(str((cells / "codec" / "cells.faiss").fetch()))
        index = faiss.IndexHNSWFlat(dim, self.config.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.config.ef_build
        return index


class TrainCells:
    """Learns the cells that all shards of an IVF share from a sample of all languages."""

    def __init__(self, config: Faiss, plans: list[ShardPlan], out: Place):
        self.config, self.plans, self.out = config, plans, out

    def __call__(self, unit: None) -> dict[str, Any]:
        """Write ``codec/cells.faiss``: a trained index without vectors."""
        import faiss

        census = take_census(self.plans, self.config.seed)
        cells = self.config.cells or max(1, int(4 * np.sqrt(census.passages / len(self.plans))))
        sample_PN = draw(census, TRAIN_PER_CELL * cells, TRAIN_PER_CELL * cells, self.config.seed).astype(np.float32)
        cells = min(cells, len(sample_PN))
        dim = sample_PN.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.min_points_per_centroid = self.config.seed, 1
        index.train(sample_PN)
        place = self.out / "codec" / "cells.faiss"
        place.write(faiss.serialize_index(index).tobytes())
        return {"cells": cells, "sampled": len(sample_PN)}


class FaissGroup:
    """Shards searched by faiss, read into memory: flat and ivf as one index, hnsw as a graph per shard."""

    def __init__(self, directories: Sequence[Path], share: float):
        import faiss

        self.lang = read_lang(directories)
        self.docs = Docs(directories)
        self.structure: str = json.loads((directories[0] / "shard.json").read_text())["index"]["structure"]
        filled = np.flatnonzero(np.diff(self.docs.passages_S1))
        parts = [faiss.read_index(str(directories[i] / "index.faiss")) for i in filled.tolist()]
        self.parts: list[Any] = parts if self.structure == "hnsw" else _merge(parts)
        self.firsts = self.docs.passages_S1[filled]  # the first passage of each part
        self.share = share / max(1, len(self.parts))
        self._lock = Lock()

    def hide(self, ids: Sequence[pa.Array]) -> None:
        """See ``ShardGroup.hide``."""
        self.docs.hide(ids)

    def search(self, queries: Sequence[Query], options: SearchOptions, within: IntArray | None = None) -> list[Ranking]:
        """See ``ShardGroup.search``. A query is one vector, [1, dim]. A search ``within`` documents scores all of
        them, whatever the structure."""
        rankings: list[Ranking] = [[] for _ in queries]
        if not self.parts:
            return rankings
        if within is not None:
            return [self._score_all(query, within, options.k) if self._is_query(query) else [] for query in queries]
        todo = np.array([i for i, query in enumerate(queries) if self._is_query(query)], np.int64)
        depth = 2 * options.k
        while len(todo):
            vectors_BN = np.concatenate([np.asarray(queries[i], np.float32) for i in todo])
            scores_BH, passages_BH, bounds_B = self._search_parts(vectors_BN, options, depth)
            found = [self._maxp(*row, options.k) for row in zip(scores_BH, passages_BH, strict=True)]
            enough_B = np.array([_is_enough(*row, options.k) for row in zip(found, bounds_B, strict=True)])
            for row in np.flatnonzero(enough_B):
                rankings[todo[row]] = found[row]
            todo = todo[~enough_B]
            depth *= 4
        return rankings

    def _score_all(self, query: Query, docs: IntArray, k: int) -> Ranking:
        """Rank all of ``docs``."""
        passages = self.docs.passages_of(docs)
        query_N = np.asarray(query, np.float32)[0]
        scores_P = np.empty(len(passages), np.float32)
        for part, first in zip(self.parts, self.firsts, strict=False):
            with self._lock:
                _map_vectors(part)
            start, end = np.searchsorted(passages, [first, first + part.ntotal])
            for low in range(start, end, AT_ONCE):
                some = passages[low : min(end, low + AT_ONCE)] - first
                scores_P[low : low + len(some)] = part.reconstruct_batch(some) @ query_N
        return self._maxp(scores_P, passages, k)

    def _search_parts(
        self, vectors_BN: FloatArray, options: SearchOptions, depth: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """Search each part to ``depth``: scores (B, H), passages (B, H), -1 where nothing was found, and (B,) the score
        that no other passage can exceed, -inf where there is none."""
        bounds_B = np.full(len(vectors_BN), -np.inf, np.float32)
        scores, passages = [], []
        for part, first in zip(self.parts, self.firsts, strict=False):
            reach = min(depth, part.ntotal)
            scores_BH, passages_BH = part.search(vectors_BN, reach, params=self._params(options, reach))
            if reach < part.ntotal:
                last_B = np.where(passages_BH[:, -1] < 0, -np.inf, scores_BH[:, -1])
                bounds_B = np.maximum(bounds_B, last_B)
            scores.append(scores_BH)
            passages.append(np.where(passages_BH < 0, -1, passages_BH + first))
        return np.concatenate(scores, axis=1), np.concatenate(passages, axis=1), bounds_B

    def _is_query(self, query: Query) -> bool:
        vectors = np.asarray(query)
        check_dim(vectors, self.parts[0].d)
        if len(vectors) > 1:
            raise ValueError(f"a faiss index takes queries of one vector, got {len(vectors)}: use plaid or exact")
        return len(vectors) == 1

    def _params(self, options: SearchOptions, depth: int) -> Any:
        """By default an IVF visits an eighth of its cells, at least 32, and HNSW keeps a queue of 128, shared out over
        the graphs."""
        import faiss

        library: Any = faiss  # its stubs lack the classes that are made when it is loaded
        if self.structure == "ivf":
            cells = self.parts[0].nlist
            return library.SearchParametersIVF(nprobe=min(cells, options.probes or max(32, cells // 8)))
        if self.structure == "hnsw":
            return library.SearchParametersHNSW(efSearch=max(share_out(options.candidates or 128, self.share), depth))
        return None

    def _maxp(self, scores_H: FloatArray, passages_H: IntArray, k: int) -> Ranking:
        """Rank the documents of the passages found, each by its best passage."""
        found = np.flatnonzero(passages_H >= 0)
        if self.docs.is_hidden_D is not None:
            found = found[~self.docs.is_hidden_D[self.docs.of_passages(passages_H[found])]]
        by_passage = found[np.lexsort((-scores_H[found], self.docs.of_passages(passages_H[found])))]
        docs, first = np.unique(self.docs.of_passages(passages_H[by_passage]), return_index=True)
        return rank(self.docs, docs, scores_H[by_passage][first], k)


def _merge(parts: list[Any]) -> list[Any]:
    """One index of all vectors, numbered through; the others are emptied. For structures whose cells are the same."""
    if not parts:
        return []
    first, *rest = parts
    for part in rest:
        first.merge_from(part, first.ntotal if hasattr(first, "nlist") else 0)
    return [first]


def _map_vectors(index: Any) -> None:
    """Let an IVF note, once, where each vector is: 8 bytes each."""
    if hasattr(index, "nlist"):
        index.make_direct_map()


def _reconstruct(index: Any) -> FloatArray:
    """The vectors of an index in the order in which they were added."""
    _map_vectors(index)
    return np.asarray(index.reconstruct_n(0, index.ntotal))


def _is_enough(ranking: Ranking, bound: float, k: int) -> bool:
    """Whether no passage that scores ``bound`` or less can change a ranking of ``k`` documents."""
    return bound == -np.inf or (len(ranking) == k and ranking[-1][1] > bound)


def _check_single(rows: VectorRows) -> None:
    if int(rows.tokens_P.max()) > 1:
        raise StepError(
            f"a faiss index holds one vector per passage, got a passage of {int(rows.tokens_P.max())}: "
            "use plaid or exact for a late-interaction student"
        )
