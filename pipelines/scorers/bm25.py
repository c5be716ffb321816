"""BM25 as a teacher: the scores of given documents for a query, with the statistics of the whole collection.

    idf(t)      = ln(1 + (N - n_t + 0.5) / (n_t + 0.5))
    score(q, d) = sum over the tokens t of q of  idf(t) * f / (f + k1 * (1 - b + b * |d| / avgdl)),
                  where f is the count of t in d

(Robertson and Zaragoza 2009, with the idf that Lucene uses, which is never negative, and without its constant factor
k1 + 1.) A token that comes twice in the query counts twice.

Cost: one pass over the collection for N, n_t and avgdl, made once per node and cached; its memory grows with the
vocabulary, not with the collection.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from cluster.component import Component, fingerprint
from cluster.errors import StepError
from cluster.nodecache import cached
from pipelines.scorers.base import Collection
from pipelines.tokenize import load_analyser


class Bm25Scorer(Component):
    """BM25 with term saturation ``k1`` and length normalisation ``b``; the defaults are those of MS MARCO baselines."""

    kind: Literal["bm25"] = "bm25"
    k1: float = Field(0.9, ge=0)
    b: float = Field(0.4, ge=0, le=1)

    def build(self, collection: Collection) -> "Bm25Teacher":
        """Count the collection, or find the counts of an earlier actor on this node."""
        return Bm25Teacher(self, collection)


class Bm25Teacher:
    """The statistics of one collection."""

    def __init__(self, config: Bm25Scorer, collection: Collection) -> None:
        key = fingerprint([collection.docs.place.uri, collection.docs.manifest.created, collection.doc_lang])
        counts = json.loads(cached("bm25", key, lambda out: _count(collection, out)).read_text("utf-8"))
        if not counts["docs"]:
            raise StepError(f"scorer 'bm25': {collection.docs.name} holds no documents to count")
        self._k1, self._b = config.k1, config.b
        self._docs: int = counts["docs"]
        self._mean_length: float = counts["tokens"] / counts["docs"]
        self._docs_with: dict[str, int] = counts["docs_with"]
        self._analyse = load_analyser(collection.doc_lang)  # of the query too: the two must give the same terms

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """BM25 scores, float32; 0 where query and document share no token."""
        asked = [self._analyse(text) for text in queries]
        counted = [Counter(self._analyse(text)) for text in docs]
        scores = [self._score(asked[i], counted[j]) for i, j in pairs_P2.tolist()]
        return np.asarray(scores, np.float32)

    def _score(self, query: list[str], doc: Counter[str]) -> float:
        length = doc.total() / self._mean_length if self._mean_length else 0.0
        floor = self._k1 * (1 - self._b + self._b * length)
        return sum(self.idf(token) * doc[token] / (doc[token] + floor) for token in query if token in doc)

    def idf(self, token: str) -> float:
        """How much a token tells, by how few documents hold it."""
        docs_with = self._docs_with.get(token, 0)
        return float(np.log1p((self._docs - docs_with + 0.5) / (docs_with + 0.5)))


def _count(collection: Collection, out: Path) -> None:
    """Write N, the number of tokens, and in how many documents each token is."""
    docs, tokens, docs_with = 0, 0, Counter[str]()
    analyse = load_analyser(collection.doc_lang)
    for texts in collection.texts():
        for text in texts:
            words = analyse(text)
            docs, tokens = docs + 1, tokens + len(words)
            docs_with.update(set(words))
    out.write_text(json.dumps({"docs": docs, "tokens": tokens, "docs_with": docs_with}, ensure_ascii=False), "utf-8")
