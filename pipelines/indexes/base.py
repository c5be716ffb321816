"""What every index promises: how it is built shard by shard, and how a shard is searched.

An index config (``Exact``, ``Bm25``, ``Faiss``, ``Plaid``) has two methods. ``build()`` returns its ``Builder``;
``open()`` turns a finished shard directory into a ``Shard``. Each shard holds documents of one language. What must be
the same in all shards for their scores to be comparable (a codec, term statistics) is made first by ``Builder.prepare``
and read by ``Builder.write``, so that cutting a collection into shards changes no score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Query = FloatArray | str
Ranking = list[tuple[str, float]]


class SearchOptions(Component):
    """How deep and how wide to search. What is None takes the index's default for this ``k``.

    Attributes:
        k: documents returned.
        probes: cells visited: per query token in PLAID, per query in faiss IVF; all when there are fewer.
        candidates: PLAID: passages kept by the first pruning, per shard; faiss HNSW: length of the search queue.
        threshold: PLAID: a centroid counts in the first pruning when its cosine to some query token reaches this.
    """

    k: int = Field(100, ge=1)
    probes: int | None = Field(None, ge=1)
    candidates: int | None = Field(None, ge=1)
    threshold: float | None = Field(None, ge=-1, le=1)


@dataclass(frozen=True)
class ShardPlan:
    """Which parts of a language's table make a shard. ``rows`` are those of ``parts``, rejected ones included."""

    name: str
    lang: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]


class Shard(Protocol):
    """A searchable shard. Threads may share it: searching changes nothing.

    ``at_once`` is how many queries a call should bring, where there are several shards to ask.
    """

    lang: str
    at_once: int

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
        """For each query at most ``options.k`` (doc id, score), best first, ties by doc id.

        A query is a float32 matrix [tokens, dim] for a vector index (its rows need not have norm 1: a norm is a weight)
        and a text for a lexical one. A query of no tokens finds nothing.
        """


class Builder(Protocol):
    """Builds the shards of one kind of index from the parts of VECTORS or DOCS tables."""

    role: Literal["vectors", "docs"]

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Make below ``out`` what all shards share; returns facts about it."""

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write the files of one shard into an empty local directory, reading what ``prepare`` left below ``out``.

        Memory holds one part and what grows with a shard's documents alone. Returns facts: ``docs`` at least.
        """


def check_dim(query_QD: FloatArray, dim: int) -> None:
    """Raise ValueError when a query's vectors are not of the index's width."""
    if query_QD.ndim != 2 or query_QD.shape[1] != dim:
        raise ValueError(
            f"expected a query matrix [tokens, {dim}], got shape {query_QD.shape}: "
            "encode queries with the model that encoded the documents"
        )
