"""Search: rankings from the shards of an index, and the merges that steps, the command line and the server share.

Rankings of different documents are merged by score; the rankings of several languages are pooled into one by the same
rule, each document named ``<lang>:<doc_id>``.

Batch search has two steps, since how many shards an index has is not known when it is planned:

    search_shards  cuts the shards of each language into groups of at most ``group_gb``. Where there are several, a unit
                   is one group × a run of query parts: a worker opens one group at a time and writes the rankings of
                   each part to ``found/<group>/<digest of the part's query ids>.parquet``
    Search         maps query rows to rankings: merged from those files, or, where all shards of the language are one
                   group, found by searching it (``search_shards`` then does nothing, and starts no workers)

Cost: that of the index (see each kind) per query and group; a merge of s rankings is one sort of s·k pairs.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from heapq import nsmallest
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from cluster.artifact import Artifact, read_part, write_part
from cluster.component import Component
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from cluster.table import good
from pipelines.indexes import open_group
from pipelines.indexes.base import Query, Ranking, SearchOptions, ShardGroup
from pipelines.tables import RANKINGS
from pipelines.vectors import IntArray, read_vectors

QUERIES_PER_UNIT = 1 << 13  # a few minutes of PLAID; a group is opened once for them. Not measured on a cluster


class SearchConfig(Component):
    """What to search: the documents of one language; how deep."""

    lang: str
    options: SearchOptions = SearchOptions()


class Search:
    """Maps query VECTORS, or QUERIES for a lexical index, to RANKINGS (a RowWork).

    Inputs: ``index``, and ``found`` where a ``search_shards`` step comes before. A query without a hit gets an empty
    ranking; a rejected query stays rejected.
    """

    version = 2  # depth is a budget of the language's documents, no longer of each shard

    def __init__(self, config: SearchConfig, inputs: Mapping[str, Artifact]):
        self.config = config
        self.found = inputs["found"].place / "found" if "found" in inputs else None
        groups = inputs["found"].manifest.facts["groups"] if "found" in inputs else {}
        self.groups: list[str] = groups.get(config.lang, [])
        self.shards = None if self.groups else open_shards(inputs["index"].place, config.lang)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Search for the queries of one part, or merge what was found for them."""
        if self.shards:
            return rank_rows(self.shards, rows, self.config.options)
        assert self.found
        by_group = [_read_hits(self.found / group / _part_name(rows)) for group in self.groups]
        return _to_rankings(rows, [merge(rankings, self.config.options.k) for rankings in zip(*by_group, strict=True)])


class ShardSearchConfig(Component):
    """How to search an index whose shards do not fit one worker.

    Attributes:
        options: as in the ``Search`` step that reads the result.
        group_gb: the shards of a language are opened in groups of at most so many gigabytes of files. It is content:
            an approximate index searched in several groups finds slightly other documents.
    """

    options: SearchOptions = SearchOptions()
    group_gb: float = Field(4, gt=0)


def search_shards(config: ShardSearchConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Search each group of shards of the languages that have several, on the cluster (a DirectoryWork).

    Inputs: ``rows`` (query VECTORS, or QUERIES) and ``index``. Returns the names of those languages' groups.
    """
    index, rows = inputs["index"], inputs["rows"]
    groups = {lang: named for lang, named in plan_groups(index.place, config.group_gb).items() if len(named) > 1}
    runs = _cut_parts([part.rows for part in rows.manifest.parts])
    units = [[group, *run] for named in groups.values() for group in named for run in runs]
    if units:
        members = {group: shards for named in groups.values() for group, shards in named.items()}
        arguments = {"config": config, "index": index.place, "groups": members, "parts": rows.parts, "out": out}
        fan_out("search", SearchGroup, arguments, units)
    return {"groups": {lang: list(named) for lang, named in groups.items()}}


class SearchGroup:
    """Searches one group of shards for a run of query parts per call (a UnitWork); keeps the last group open.

    Units of one group follow one another, so a worker opens few. A part that a killed run wrote is not searched again.
    """

    def __init__(
        self, config: ShardSearchConfig, index: Place, groups: Mapping[str, list[str]], parts: list[Place], out: Place
    ):
        self.config, self.index, self.groups, self.parts, self.out = config, index, groups, parts, out
        self.group = ""
        self.shards: ShardGroup | None = None

    def __call__(self, unit: tuple[str, int, int]) -> dict[str, Any]:
        """Search ``group`` for the parts from ``first`` to ``last``; write a file of RANKINGS for each."""
        group, first, last = unit
        for part in self.parts[first:last]:
            rows = read_part(part)
            file = self.out / "found" / group / _part_name(rows)
            if not file.exists():
                write_part(file, RANKINGS.conform(rank_rows(self._open(group), rows, self.config.options)))
        return {}

    def _open(self, group: str) -> ShardGroup:
        if self.shards is None or self.group != group:
            self.shards = None  # the old one is closed before the new one is opened
            self.group, self.shards = group, open_shards(self.index, lang_of(group), self.groups[group])
        return self.shards


def plan_groups(index: Place, group_gb: float) -> dict[str, dict[str, list[str]]]:
    """Cut the shards of each language into consecutive groups of at most ``group_gb``, of one shard at least.

    Returns lang → group → its shards, by name; a group is named after its first shard.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    room = 0.0
    for shard in _list_shards(index):
        of_lang = groups.setdefault(shard["lang"], {})
        if not of_lang or shard["bytes"] > room:
            of_lang[shard["name"]], room = [], group_gb * 1e9
        of_lang[list(of_lang)[-1]].append(shard["name"])
        room -= shard["bytes"]
    return groups


def rank_rows(shards: ShardGroup, rows: pa.Table, options: SearchOptions) -> pa.Table:
    """RANKINGS of the queries of VECTORS or QUERIES rows; rejected rows keep their reason."""
    return _to_rankings(rows, search(shards, _queries(rows), options))


def _queries(rows: pa.Table) -> list[Query]:
    """The queries of the good rows: texts of QUERIES, or matrices of VECTORS."""
    if "text" in rows.column_names:
        return list(good(rows)["text"].to_pylist())
    return [matrix for piece in read_vectors(rows) for matrix in piece.matrices]


def open_shards(index: Place, lang: str, names: Collection[str] | None = None) -> ShardGroup:
    """Open the shards of ``lang`` of an index artifact (or those of them with these names) to be searched as one,
    fetching them to this node if need be.

    Some of a language's shards are searched with their share of the depth. Raises StepError when the index holds no
    such language.
    """
    facts = json.loads((index / "index.json").read())
    listed = facts["shards"]
    of_lang = [shard for shard in listed if shard["lang"] == lang]
    if not of_lang:
        raise StepError(f"the index holds {sorted({s['lang'] for s in listed})}, not {lang!r}: search one of those")
    shards = [shard for shard in of_lang if names is None or shard["name"] in names]
    share = sum(shard["docs"] for shard in shards) / max(1, sum(shard["docs"] for shard in of_lang))
    levels = facts.get("levels", {}).get(lang, ())
    return open_group([(index / "shards" / shard["name"]).fetch() for shard in shards], share, levels)


def lang_of(shard: str) -> str:
    """The language of a shard by its name, ``<lang>-<number>`` (see ``pipelines.index``)."""
    return shard.rpartition("-")[0]


def search(
    shards: ShardGroup, queries: Sequence[Query], options: SearchOptions, within: IntArray | None = None
) -> list[Ranking]:
    """Search for each query, all documents or those ``within``; a query whose vectors are all zero finds nothing.

    (Its text holds no word that the encoder knows. Every document would score 0, and the first ``k`` ids would look
    like an answer.)
    """
    found = shards.search(queries, options, within)
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


def _list_shards(index: Place) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = json.loads((index / "index.json").read())["shards"]
    return shards


def _cut_parts(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Runs ``[first, last)`` of parts with about ``QUERIES_PER_UNIT`` rows together."""
    runs: list[tuple[int, int]] = []
    size = QUERIES_PER_UNIT
    for number, count in enumerate(rows):
        if size + count > QUERIES_PER_UNIT:
            runs.append((number, number))
            size = 0
        runs[-1] = (runs[-1][0], number + 1)
        size += count
    return runs


def _part_name(rows: pa.Table) -> str:
    """The file of what was found for a part: named by the part's keys, so that it cannot be taken for another's."""
    ids = json.dumps(rows[0].to_pylist(), ensure_ascii=False)
    return f"{blake2b(ids.encode(), digest_size=8).hexdigest()}.parquet"


def _read_hits(part: Place) -> list[Ranking]:
    """The rankings of the good rows of a part of RANKINGS."""
    rows = good(read_part(part, ["doc_ids", "scores"]))
    columns = zip(rows["doc_ids"].to_pylist(), rows["scores"].to_pylist(), strict=True)
    return [list(zip(names, scores, strict=True)) for names, scores in columns]


def _to_rankings(rows: pa.Table, found: Sequence[Ranking]) -> pa.Table:
    """RANKINGS of query rows, given the ranking of each good one."""
    rankings = iter(found)
    hits = [next(rankings) if is_good else None for is_good in rows["reject"].is_null().to_pylist()]
    names = [ranking if ranking is None else [name for name, _ in ranking] for ranking in hits]
    scores = [ranking if ranking is None else [score for _, score in ranking] for ranking in hits]
    return pa.table([rows[0].cast(pa.string()), names, scores, rows["reject"]], schema=RANKINGS.schema)
