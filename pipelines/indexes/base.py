"""The contract of an index: how it is built shard by shard, and how shards are searched.

An index config (``Exact``, ``Bm25``, ``Faiss``, ``Plaid``) has two methods. ``build()`` returns its ``Builder``;
``open(directories, share)`` opens finished shards of one language as a ``ShardGroup``. What must be the same in all
shards for their scores to be comparable (a codec, term statistics) is made first by ``Builder.prepare`` and read by
``Builder.write``, so that cutting a collection into shards changes no score.

A group ranks as one shard of all its documents would, and costs about the same: how deep to search is a budget of the
collection, not of a shard. ``share`` is the part of the language's documents that the group holds, 1 when it holds all;
groups that are searched in different processes divide the budget by it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa
from pydantic import Field

from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.vectors import FloatArray, IntArray

if TYPE_CHECKING:
    from pipelines.indexes.files import Docs

UNEVEN = 2.0  # see share_out; tests/benchmarks/bench_shards.py measures what it keeps
Query = FloatArray | str
Ranking = list[tuple[str, float]]


class SearchOptions(Component):
    """How deep and how wide to search a language. None takes the index's default for this ``k``.

    Attributes:
        k: documents returned.
        probes: cells visited: per query token in PLAID, per query in faiss IVF; all when there are fewer.
        candidates: PLAID: passages kept by the first pruning, of all shards together; faiss HNSW: length of the search
            queue.
        decoded: PLAID: passages kept by the second pruning and scored by their decoded vectors.
        threshold: PLAID: a probed cell counts in the first pruning when its cosine to the query token reaches this.
        device: PLAID: what torch searches on, ``cuda`` or ``cpu``; None takes compiled loops on processors.
    """

    k: int = Field(100, ge=1)
    probes: int | None = Field(None, ge=1)
    candidates: int | None = Field(None, ge=1)
    decoded: int | None = Field(None, ge=1)
    threshold: float | None = Field(None, ge=-1, le=1)
    device: str | None = Field(None, pattern=r"^(cpu|cuda(:\d+)?)$")


@dataclass(frozen=True)
class ShardPlan:
    """Which parts of a language's table make a shard. ``rows`` counts the rows of each part, rejected ones included."""

    name: str
    lang: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]


class ShardGroup(Protocol):
    """Shards of one language, opened to be searched as one. Threads may share it: searching changes nothing."""

    lang: str
    docs: "Docs"

    def search(self, queries: Sequence[Query], options: SearchOptions, within: IntArray | None = None) -> list[Ranking]:
        """Return for each query at most ``options.k`` (doc id, score), best first, ties by doc id.

        A query is a float32 matrix [tokens, dim] for a vector index (its rows need not have norm 1: a norm is a weight)
        and a text for a lexical one. A query of no tokens finds nothing. ``within`` limits the search to some
        documents, given by their ascending numbers, none of them hidden: they are ranked as an index of them alone
        would rank them.
        """

    def hide(self, ids: Sequence[pa.Array]) -> None:
        """Rank from now on as an index without these documents would. Ids are given shard by shard. Not to be called
        while a thread searches."""


class Builder(Protocol):
    """Builds the shards of one kind of index from the parts of VECTORS or DOCS tables."""

    role: Literal["vectors", "docs"]

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Write below ``out`` what all shards share; return facts about it."""

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write the files of one shard into an empty local directory, reading what ``prepare`` left below ``out``.

        Memory holds one part and a few numbers per document of the shard. Return facts: ``docs`` at least.
        """

    def merge(self, sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
        """Write one shard of some documents of finished shards into an empty local directory.

        The sources are of one language and of one index: what it shares is the same in all. Documents keep what was
        stored of them to the bit. ``kept`` are their numbers, ascending, counted through all sources. Return facts.
        """


def share_out(budget: int, share: float) -> int:
    """The part of a search budget (passages) that falls to a group with this share of the documents.

    More than its share, since the best passages of a query may stand together: ``UNEVEN`` times as much, and never more
    than all.
    """
    return min(budget, math.ceil(UNEVEN * budget * share)) if share < 1 else budget


def read_lang(directories: Sequence[Path]) -> str:
    """The language of shards that are opened together. Raises ValueError when they have several."""
    langs = {json.loads((directory / "shard.json").read_text())["lang"] for directory in directories}
    if len(langs) != 1:
        raise ValueError(f"expected shards of one language, got {sorted(langs)}: open each language by itself")
    return str(langs.pop())


def check_dim(query_QD: FloatArray, dim: int) -> None:
    """Raise ValueError when a query's vectors are not of the index's width."""
    if query_QD.ndim != 2 or query_QD.shape[1] != dim:
        raise ValueError(
            f"expected a query matrix [tokens, {dim}], got shape {query_QD.shape}: "
            "encode queries with the model that encoded the documents"
        )
