"""Searching in one process: encode the query, search the languages' shards, pool them, fetch the texts.

The command line and the examples of a run use it; the server does the same with one deployment per shard. Cost: loading
the encoder (seconds) and opening each language's shards once, then one query's encoding and its search.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.artifact import Artifact
from cluster.errors import RecipeError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.encoder import EncoderConfig, open_encoder
from pipelines.filters.subset import Selector, Subset
from pipelines.indexes.base import Query, Ranking, SearchOptions, ShardGroup
from pipelines.search import open_shards, pool, search
from pipelines.students import Encoder
from pipelines.vectors import IntArray

if TYPE_CHECKING:
    from pipelines.segments.snapshot import Snapshot


class Searcher:
    """An index of several languages, its documents, and the encoder of its queries (None for a lexical index).

    The shards of a language are opened when it is first searched, and stay open. With a ``snapshot`` of the index, what
    was added to it is found too, and what was deleted is not. Raises StepError, naming the step to run, when an
    artifact is not complete.
    """

    def __init__(
        self,
        index: Artifact,
        docs: Mapping[str, Artifact],
        encoder: Encoder | None = None,
        snapshot: "Snapshot | None" = None,
    ):
        for artifact in (index, *docs.values()):
            _ = artifact.manifest  # raises before anything is loaded
        kind = json.loads((index.place / "index.json").read())["kind"]
        if (kind == "bm25") == (encoder is not None):
            needed = "texts as queries and no encoder" if kind == "bm25" else "the encoder that encoded its documents"
            raise RecipeError(f"an index of kind {kind} takes {needed}: open the searcher of {index.name} so")
        self.index = index
        self.snapshot = snapshot
        self.docs: dict[str, Any] = {
            lang: snapshot.open_docs(lang) if snapshot else Docstore.open(artifact) for lang, artifact in docs.items()
        }
        self.encoder = encoder
        self._shards: dict[str, ShardGroup] = {}
        self._selectors: dict[str, Selector] = {}

    def search(
        self, query: str, langs: Sequence[str], options: SearchOptions, subset: Subset | None = None
    ) -> list[dict[str, Any]]:
        """The best ``options.k`` passages over ``langs``, of all documents or those of ``subset``, each with rank,
        doc_id, lang, score, title and text. Raises RecipeError where the subset does not fit the documents."""
        by_lang = self._search_each(query, langs, options, subset)
        return self._fetch_texts(pool(by_lang, options.k))

    def search_spread(self, query: str, langs: Sequence[str], options: SearchOptions) -> list[dict[str, Any]]:
        """The best passage of each of the best ``options.k`` languages: where many answer alike, one language's
        passages would fill the page."""
        by_lang = self._search_each(query, langs, options.model_copy(update={"k": 1}))
        return self._fetch_texts(pool(by_lang, options.k))

    def _search_each(
        self, query: str, langs: Sequence[str], options: SearchOptions, subset: Subset | None = None
    ) -> dict[str, Ranking]:
        within = {lang: self._select(lang, subset) for lang in langs}
        encoded: Query = self.encoder.encode_queries([query])[0] if self.encoder else query
        return {lang: search(self._open(lang), [encoded], options, within[lang])[0] for lang in langs}

    def _select(self, lang: str, subset: Subset | None) -> IntArray | None:
        if subset is None:
            return None
        if lang not in self._selectors:
            group, docs = self._open(lang), self.docs[lang]
            if self.snapshot:
                self._selectors[lang] = self.snapshot.select_from(group, docs)
            else:
                self._selectors[lang] = Selector(group.docs, [docs] * (len(group.docs.docs_S1) - 1))
        return self._selectors[lang].select(subset)

    def _open(self, lang: str) -> ShardGroup:
        if lang not in self._shards:
            self._shards[lang] = self.snapshot.open(lang) if self.snapshot else open_shards(self.index.place, lang)
        return self._shards[lang]

    def _fetch_texts(self, ranking: Ranking) -> list[dict[str, Any]]:
        hits = []
        for rank, (name, score) in enumerate(ranking, start=1):
            lang, _, doc_id = name.partition(":")
            row = self.docs[lang].row(doc_id)
            texts = {"title": row["title"], "text": row["text"]}
            hits.append({"rank": rank, "doc_id": doc_id, "lang": lang, "score": score, **texts})
        return hits


class ExamplesConfig(EncoderConfig):
    """Queries to show at the end of a run, how to search for them, and the encoder: a ``model``, a ``student`` among
    the inputs, or neither for a lexical index."""

    queries: tuple[str, ...]
    options: SearchOptions


def find_examples(config: ExamplesConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Write ``examples.json``: query → hits, the best passage of each of the best languages (a DirectoryWork).

    Inputs: ``index``, ``docs`` by language, and ``student`` where one encodes the queries. Runs on a worker: the
    documents and shards are fetched there and not to the driver.
    """
    arguments = {"config": config, "inputs": dict(inputs), "out": out}
    (facts,) = fan_out("examples", FindExamples, arguments, [None])
    return facts


class FindExamples:
    """Searches for all example queries (a UnitWork)."""

    def __init__(self, config: ExamplesConfig, inputs: Mapping[str, Any], out: Place):
        self.config, self.inputs, self.out = config, inputs, out

    def __call__(self, unit: None) -> dict[str, Any]:
        """Write ``examples.json``; returns the number of queries."""
        config, docs = self.config, self.inputs["docs"]
        reads_text = config.model is None and "student" not in self.inputs
        encoder = None if reads_text else open_encoder(config, self.inputs)
        searcher = Searcher(self.inputs["index"], docs, encoder)
        found = {query: searcher.search_spread(query, list(docs), config.options) for query in config.queries}
        (self.out / "examples.json").write(json.dumps(found, ensure_ascii=False, indent=1).encode())
        return {"queries": len(found)}
