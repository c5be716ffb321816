"""Search: rankings from the shards of an index, and the one merge that steps, the command line and the server share.

Rankings of the shards of a language are merged by score; the rankings of several languages are pooled into one by the
same rule, each document named ``<lang>:<doc_id>``. Cost: that of the shards (see each index); a merge of s rankings is
one sort of s·k pairs.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from heapq import nsmallest

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.errors import StepError
from cluster.storage import Place
from cluster.table import good
from pipelines.indexes import open_group
from pipelines.indexes.base import Query, Ranking, SearchOptions, ShardGroup
from pipelines.tables import RANKINGS
from pipelines.vectors import read_vectors


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


def open_shards(index: Place, lang: str, names: Collection[str] | None = None) -> ShardGroup:
    """Open the shards of ``lang`` of an index artifact (or those of them with these names) to be searched as one,
    fetching them to this node if need be.

    Raises StepError when the index holds no such language.
    """
    listed = json.loads((index / "index.json").read())["shards"]
    of_lang = [shard for shard in listed if shard["lang"] == lang]
    if not of_lang:
        raise StepError(f"the index holds {sorted({s['lang'] for s in listed})}, not {lang!r}: search one of those")
    shards = [shard for shard in of_lang if names is None or shard["name"] in names]
    share = sum(shard["docs"] for shard in shards) / max(1, sum(shard["docs"] for shard in of_lang))
    return open_group([(index / "shards" / shard["name"]).fetch() for shard in shards], share)


def open_shard(index: Place, name: str) -> ShardGroup:
    """Open one shard of an index artifact by itself. ``name`` is ``<lang>-<number>``, as in index.json."""
    return open_shards(index, name.rpartition("-")[0], [name])


def search(shards: ShardGroup, queries: Sequence[Query], options: SearchOptions) -> list[Ranking]:
    """Search for each query; one whose vectors are all zero finds nothing.

    (Its text holds no word that the encoder knows. Every document would score 0, and the first ``k`` ids would look
    like an answer.)
    """
    found = shards.search(queries, options)
    return [[] if _is_empty(query) else ranking for query, ranking in zip(queries, found, strict=True)]


def _is_empty(query: Query) -> bool:
    return not isinstance(query, str) and not np.any(query)


def merge(rankings: Sequence[Sequence[tuple[str, float]]], k: int) -> Ranking:
    """The best ``k`` (doc id, score) of several rankings of different documents, best first, ties by doc id."""
    return nsmallest(k, (hit for ranking in rankings for hit in ranking), key=lambda hit: (-hit[1], hit[0]))


def pool(rankings: Mapping[str, Sequence[tuple[str, float]]], k: int) -> Ranking:
    """Merge one ranking per language into a multilingual one, whose documents are named ``<lang>:<doc_id>``."""
    named = [[(f"{lang}:{name}", score) for name, score in ranking] for lang, ranking in rankings.items()]
    return merge(named, k)
