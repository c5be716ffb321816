"""Faiss indexes for single-vector students, by inner product: flat (exact), IVF, HNSW.

Each passage is one vector. Passages are searched, deeper and deeper until ``k`` documents are found and no passage
outside can beat or tie the last of them (MaxP). A shard is built and held in memory: 4·dim bytes per passage, and 8·m
more for HNSW; ``shard_rows`` bounds it. The IVF cells are the same in all shards, so with all of them probed shards
score as the whole would.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from cluster.component import Component
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes.base import FloatArray, IntArray, Query, Ranking, SearchOptions, ShardPlan, check_dim
from pipelines.indexes.files import Docs, DocsWriter, VectorRows, stream_vectors
from pipelines.indexes.maxsim import rank
from pipelines.indexes.sample import draw, take_census

TRAIN_PER_CELL = 256  # faiss takes no more than this per centroid


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

    def open(self, directory: Path) -> "FaissShard":
        """Open a finished shard."""
        return FaissShard(directory)


class FaissBuilder:
    """Learns the cells where there are any; adds each shard's vectors to an index."""

    role: Literal["vectors"] = "vectors"

    def __init__(self, config: Faiss):
        self.config = config

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Train the cells of an IVF, on some node."""
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

    def _empty(self, dim: int, out: Place) -> Any:
        import faiss

        if self.config.structure == "flat":
            return faiss.IndexFlatIP(dim)
        if self.config.structure == "ivf":
            return faiss.read_index(str((out / "codec" / "cells.faiss").fetch()))
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
        sample_PN = draw(census, TRAIN_PER_CELL * cells, TRAIN_PER_CELL * cells, self.config.seed)
        cells = min(cells, len(sample_PN))
        dim = sample_PN.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.min_points_per_centroid = self.config.seed, 1
        index.train(sample_PN)
        place = self.out / "codec" / "cells.faiss"
        place.write(faiss.serialize_index(index).tobytes())
        return {"cells": cells, "sampled": len(sample_PN)}


class FaissShard:
    """A shard searched by faiss. The index is read into memory."""

    at_once = 1 << 10

    def __init__(self, directory: Path):
        import faiss

        facts = json.loads((directory / "shard.json").read_text())
        self.lang: str = facts["lang"]
        self.docs = Docs(directory)
        self.structure: str = facts["index"]["structure"]
        self.index: Any = faiss.read_index(str(directory / "index.faiss")) if len(self.docs) else None

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
        """See ``Shard.search``. A query is one vector, [1, dim]."""
        rankings: list[Ranking] = [[] for _ in queries]
        if self.index is None:
            return rankings
        todo = np.array([i for i, query in enumerate(queries) if self._is_query(query)], np.int64)
        depth = min(2 * options.k, self.index.ntotal)
        while len(todo):
            vectors_BN = np.concatenate([np.asarray(queries[i], np.float32) for i in todo])
            scores, passages = self.index.search(vectors_BN, depth, params=self._params(options, depth))
            enough = np.array([self._enough(*found, options.k, depth) for found in zip(scores, passages, strict=True)])
            for row in np.flatnonzero(enough):
                rankings[todo[row]] = self._maxp(scores[row], passages[row], options.k)
            todo = todo[~enough]
            depth = min(4 * depth, self.index.ntotal)
        return rankings

    def _is_query(self, query: Query) -> bool:
        vectors = np.asarray(query)
        check_dim(vectors, self.index.d)
        if len(vectors) > 1:
            raise ValueError(f"a faiss index takes queries of one vector, got {len(vectors)}: use plaid or exact")
        return len(vectors) == 1

    def _params(self, options: SearchOptions, depth: int) -> Any:
        """If not told: an IVF visits an eighth of its cells, at least 32; HNSW keeps a queue of 128 or more."""
        import faiss

        library: Any = faiss  # its stubs do not know the classes that are made when it is loaded
        if self.structure == "ivf":
            cells = self.index.nlist
            return library.SearchParametersIVF(nprobe=min(cells, options.probes or max(32, cells // 8)))
        if self.structure == "hnsw":
            return library.SearchParametersHNSW(efSearch=max(options.candidates or 128, depth))
        return None

    def _enough(self, scores: FloatArray, passages: IntArray, k: int, depth: int) -> bool:
        """Whether no passage that was not returned can change the best k documents."""
        if depth >= self.index.ntotal or passages[-1] < 0:
            return True
        docs, first = np.unique(self.docs.of_passages(passages), return_index=True)
        return len(docs) >= k and bool(scores[np.sort(first)[k - 1]] > scores[-1])

    def _maxp(self, scores: FloatArray, passages: IntArray, k: int) -> Ranking:
        found = passages >= 0
        docs, first = np.unique(self.docs.of_passages(passages[found]), return_index=True)
        return rank(self.docs.ids, docs, scores[found][first], k)


def _check_single(rows: VectorRows) -> None:
    if int(rows.tokens_P.max()) > 1:
        raise StepError(
            f"a faiss index holds one vector per passage, got a passage of {int(rows.tokens_P.max())}: "
            "use plaid or exact for a late-interaction student"
        )
