"""Validation: nDCG@20 of dev queries over a fixed pool of documents in all languages, searched exactly.

Each worker encodes its share of the pool and offers its best 20 per query; the merge is the same for any number of
workers. Costs one encoding of the pool, and queries · documents MaxSims.
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from cluster.artifact import Artifact
from cluster.errors import StepError
from pipelines.docstore import Docstore
from pipelines.indexes.maxsim import score_all
from pipelines.students.base import Encoder
from pipelines.training.config import Validation

DEPTH = 20
DOCS_AT_ONCE = 64

BestDocs = list[list[tuple[float, str]]]  # for each query, (score, name of the document)


class Pool:
    """The dev queries and the documents that they are searched in, which are named ``<lang>:<doc_id>``. ``qrels`` are
    those of each language: its documents may have ids of their own."""

    label: ClassVar[str] = f"nDCG@{DEPTH}"

    def __init__(
        self, queries: Docstore, qrels: Mapping[str, Artifact], docs: Mapping[str, Docstore], config: Validation
    ):
        judged: dict[str, dict[str, int]] = defaultdict(dict)
        for lang, judgements in qrels.items():
            for row in judgements.read(["query_id", "doc_id", "relevance"]).to_pylist():
                if row["relevance"] > 0 and row["query_id"] in queries and row["doc_id"] in docs[lang]:
                    judged[row["query_id"]][f"{lang}:{row['doc_id']}"] = row["relevance"]
        kept = sorted((q for q in judged if judged[q]), key=draw)[: config.max_queries]
        if not kept:
            raise StepError(
                f"no dev query of {queries.name} has a relevant document in the dev collection: expected qrels of the "
                "same ids. Set validate_split to a split that has judgements, or to none"
            )
        self.relevant = [judged[q] for q in kept]
        self.queries = queries.texts(kept)
        self.names = sorted(self._choose(docs, config.max_docs))
        self._docs = docs

    def _choose(self, docs: Mapping[str, Docstore], most: int) -> list[str]:
        """All relevant documents, then those whose hash is lowest: the same sample in any order of reading."""
        needed = {name for names in self.relevant for name in names}
        others = (f"{lang}:{doc}" for lang in docs for doc in docs[lang].ids)
        room = max(0, most - len(needed))
        return [*needed, *heapq.nsmallest(room, (name for name in others if name not in needed), key=draw)]

    def search(self, encoder: Encoder, rank: int = 0, world: int = 1) -> BestDocs:
        """The best 20 for each query among this worker's share of the pool."""
        names = self.names[rank::world]
        if not names:
            return [[] for _ in self.queries]
        queries = encoder.encode_queries(self.queries)
        scores = []
        for start in range(0, len(names), 32 * DOCS_AT_ONCE):
            part = names[start : start + 32 * DOCS_AT_ONCE]
            texts = [self._docs[lang].text(doc) for lang, _, doc in (name.partition(":") for name in part)]
            scores.append(score_all(queries, encoder.encode_docs(texts)))
        return best_of([list(zip(row, names, strict=True)) for row in np.concatenate(scores, axis=1).tolist()])

    def measure(self, found: BestDocs) -> float:
        """Mean nDCG@20 of the merged findings."""
        values = [
            ndcg([relevant.get(name, 0) for _, name in ranked], list(relevant.values()))
            for ranked, relevant in zip(best_of(found), self.relevant, strict=True)
        ]
        return float(np.mean(values))

    def evaluate(
        self, encoder: Encoder, gather: Callable[[Any], Sequence[Any]], rank: int = 0, world: int = 1
    ) -> float:
        """Mean nDCG@20; ``gather`` gives every worker the findings of all."""
        shares = gather(self.search(encoder, rank, world))
        return self.measure([[pair for share in shares for pair in share[q]] for q in range(len(self.queries))])


def best_of(found: BestDocs) -> BestDocs:
    """The best 20 of each query; ties by name."""
    return [sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:DEPTH] for pairs in found]


def ndcg(gains: Sequence[int], all_gains: Sequence[int], depth: int = DEPTH) -> float:
    """nDCG@depth as trec_eval has it: linear gains, discount log2(rank + 1), the ideal over all relevant documents."""

    def total(values: Sequence[int]) -> float:
        return sum(value / np.log2(rank + 2) for rank, value in enumerate(values[:depth]))

    ideal = total(sorted(all_gains, reverse=True))
    return float(total(gains) / ideal) if ideal else 0.0


def draw(name: str) -> bytes:
    """A hash by which a sample is chosen: the lowest ones."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
