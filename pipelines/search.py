"""Search: rankings from the shards of an index, and the one merge that steps, the command line and the server share.

Rankings of the shards of a language are merged by score; the rankings of several languages are pooled into one by the
same rule, each document named ``<lang>:<doc_id>``. Cost: that of the shards (see each index); a merge of s rankings is
one sort of s·k pairs.
"""

import json
from collections.abc import Mapping, Sequence
from heapq import nsmallest

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.errors import StepError
from cluster.storage import Place
from cluster.table import good
from pipelines.chunks import chunk
from pipelines.indexes import open_shard
from pipelines.indexes.base import Query, Ranking, SearchOptions, Shard
from pipelines.indexes.files import read_vectors
from pipelines.tables import RANKINGS


class SearchConfig(Component):
    """What to search: the documents of one language; how deep."""

    lang: str
    options: SearchOptions = SearchOptions()


class Search:
    """Maps query VECTORS, or QUERIES for a lexical index, to RANKINGS (a RowWork). Input: ``index``.

    A query without a hit gets an empty ranking; a rejected query stays rejected.
    """

    def __init__(self, config: SearchConfig, inputs: Mapping[str, Artifact]):
        self.config = config
        self.shards = open_shards(inputs["index"].place, config.lang)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Search for the queries of one part."""
        asked = rows["reject"].is_null().to_pylist()
        answers = iter(search(self.shards, _queries(rows), self.config.options))
        found = [next(answers) if ask else None for ask in asked]
        names = [hits if hits is None else [name for name, _ in hits] for hits in found]
        scores = [hits if hits is None else [score for _, score in hits] for hits in found]
        columns = [rows[0].cast(pa.string()), names, scores, rows["reject"]]
        return pa.table(columns, schema=RANKINGS.schema)


def _queries(rows: pa.Table) -> list[Query]:
    """The queries of the good rows: texts of QUERIES, matrices of VECTORS."""
    if "text" in rows.column_names:
        return list(good(rows)["text"].to_pylist())
    return [matrix for piece in read_vectors(rows) for matrix in piece.matrices]


def open_shards(index: Place, lang: str | None) -> list[Shard]:
    """Open the shards of ``lang`` (None: all) of an index artifact, fetching them to this node if need be.

    Raises StepError when the index holds no such language.
    """
    listed = json.loads((index / "index.json").read())["shards"]
    names = [shard["name"] for shard in listed if lang in (None, shard["lang"])]
    if not names:
        raise StepError(f"the index holds {sorted({s['lang'] for s in listed})}, not {lang!r}: search one of those")
    return [open_shard((index / "shards" / name).fetch()) for name in names]


def search(shards: Sequence[Shard], queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
    """Search every shard and merge: the rankings that one shard of all the documents would give.

    A query whose vectors are all zero (its text holds nothing that the encoder knows) finds nothing: every document
    would score 0, and the first ``k`` ids would look like an answer.
    """
    found: list[Ranking] = []
    for some in chunk(queries, min(shard.at_once for shard in shards)):
        by_shard = [shard.search(some, options) for shard in shards]
        found += [merge(rankings, options.k) for rankings in zip(*by_shard, strict=True)]
    return [ranking if _asks(query) else [] for query, ranking in zip(queries, found, strict=True)]


def _asks(query: Query) -> bool:
    return isinstance(query, str) or bool(np.any(query))


def merge(rankings: Sequence[Sequence[tuple[str, float]]], k: int) -> Ranking:
    """The best ``k`` (doc id, score) of several rankings of different documents, best first, ties by doc id."""
    return nsmallest(k, (hit for ranking in rankings for hit in ranking), key=lambda hit: (-hit[1], hit[0]))


def pool(rankings: Mapping[str, Sequence[tuple[str, float]]], k: int) -> Ranking:
    """Merge one ranking per language into a multilingual one, whose documents are named ``<lang>:<doc_id>``."""
    named = [[(f"{lang}:{name}", score) for name, score in ranking] for lang, ranking in rankings.items()]
    return merge(named, k)
