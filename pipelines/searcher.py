"""Searching in one process: encode the query, search the shards, pool the languages, fetch the texts.

The command line uses it; the server does the same with one deployment per shard. Cost: loading the encoder (seconds),
then one query's encoding and the search of each shard.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.devices import device
from pipelines.docstore import Docstore
from pipelines.indexes.base import SearchOptions
from pipelines.search import open_shards, pool, search
from pipelines.students import load_encoder


class Searcher:
    """An index of several languages with its student and its documents.

    Raises StepError, naming the step to run, when one of them is not complete.
    """

    def __init__(self, index: Artifact, student: Artifact, docs: Mapping[str, Artifact]):
        for artifact in (index, student, *docs.values()):
            _ = artifact.manifest  # before anything is loaded, and where a missing file would be all that is told
        self.index = index
        self.docs = {lang: Docstore.open(artifact) for lang, artifact in docs.items()}
        self.encoder = load_encoder((student.place / "best").fetch(), device())

    def search(self, query: str, langs: Sequence[str], options: SearchOptions) -> list[dict[str, Any]]:
        """The best passages over ``langs``, each with rank, doc_id, lang, score, title and text."""
        encoded = self.encoder.encode_queries([query])
        by_lang = {lang: search(open_shards(self.index.place, lang), encoded, options)[0] for lang in langs}
        hits = []
        for rank, (name, score) in enumerate(pool(by_lang, options.k), start=1):
            lang, _, doc_id = name.partition(":")
            row = {key: self.docs[lang].row(doc_id)[key] for key in ("title", "text")}
            hits.append({"rank": rank, "doc_id": doc_id, "lang": lang, "score": score, **row})
        return hits


class ExamplesConfig(Component):
    """Queries to show at the end of a run, and how to search for them."""

    queries: tuple[str, ...]
    options: SearchOptions


def find_examples(config: ExamplesConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Write ``examples.json``: query → hits, best language first and each language once (a DirectoryWork).

    Inputs: ``index``, ``student`` and ``docs`` by language. One language would fill the page where many answer alike,
    so the examples show the best passage of each of the best languages.
    """
    docs: Mapping[str, Artifact] = inputs["docs"]
    searcher = Searcher(inputs["index"], inputs["student"], docs)
    found = {query: _spread(searcher, query, list(docs), config.options) for query in config.queries}
    (out / "examples.json").write(json.dumps(found, ensure_ascii=False, indent=1).encode())
    return {"queries": len(found)}


def _spread(searcher: Searcher, query: str, langs: Sequence[str], options: SearchOptions) -> list[dict[str, Any]]:
    """The best hit of each language, in the order of their scores."""
    best = [hit for lang in langs for hit in searcher.search(query, [lang], options.model_copy(update={"k": 1}))]
    ranked = sorted(best, key=lambda hit: (-hit["score"], hit["lang"]))[: options.k]
    return [hit | {"rank": rank} for rank, hit in enumerate(ranked, start=1)]
