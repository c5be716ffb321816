"""The data sets of a training: what each must hold, and who says which passages belong to a query.

A data set is ``queries`` (by language where there are several), ``docs`` by language, and what the loss reads:
``scores``, the teacher's rankings; or ``qrels`` by language and ``rankings``, the selection, whose passages that are
not relevant are the negatives, and ``scores`` beside them where a teacher says which negatives are false.

Episodes of a meta-learning read ``qrels`` by language, and by pair of languages ``questions`` and ``passages``, which
are rankings (see ``pipelines.nearest``), where sets are similar or negatives are not random. A data set of sentence
pairs is ``pairs`` by language, and nothing else, with episodes or without; one of a teacher's vectors is ``docs``, and
``vectors`` by the language that the teacher read.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cluster.artifact import Artifact
from cluster.errors import StepError
from cluster.step import flatten
from pipelines.docstore import Docstore, RowStore
from pipelines.positives import Positives
from pipelines.training.batches import Candidates, Passages
from pipelines.training.losses import Loss
from pipelines.training.meta.config import Meta

NEEDS = {  # what a data set holds, by what the loss reads
    "scores": frozenset({"queries", "docs", "scores"}),
    "labels": frozenset({"queries", "docs", "qrels", "rankings"}),
    "pairs": frozenset({"pairs"}),
    "vectors": frozenset({"docs", "vectors"}),
}
RANKED = ("scores", "rankings", "questions", "passages")
TABLES = {name: name for name in ("queries", "docs", "qrels", "pairs", "vectors")} | dict.fromkeys(RANKED, "rankings")


def find_needs(loss: Loss, meta: Meta | None = None) -> frozenset[str]:
    """What each data set must hold for this loss, or for episodes around it."""
    if meta and loss.reads != "pairs":
        ranked = {"questions": meta.sampling == "similar", "passages": meta.negatives != "random"}
        return frozenset({"queries", "docs", "qrels"}) | {role for role, is_read in ranked.items() if is_read}
    return NEEDS[loss.reads] | ({"scores"} if loss.reads_teacher else frozenset())


def check_data(data: Mapping[str, Mapping[str, Any]], needs: Iterable[str], shares: Iterable[str]) -> None:
    """See that each data set holds what the loss reads, and nothing else, in the tables that it expects.

    Raises:
        StepError: it does not; the message names the data set and the key.
    """
    if set(data) != set(shares):
        raise StepError(f"expected a share for each data set, got data {sorted(data)} and shares {sorted(shares)}")
    for name, artifacts in data.items():
        if set(artifacts) != set(needs):
            raise StepError(
                f"data.{name}: this loss reads {', '.join(sorted(needs))}, got {', '.join(sorted(artifacts))}; all "
                "data sets of a mixture hold the same"
            )
        for path, artifact in flatten(artifacts).items():
            expected, found = TABLES[path.partition(".")[0]], artifact.manifest.table
            if found != expected:
                raise StepError(f"data.{name}.{path}: expected a table of {expected}, got {found} ({artifact.name})")


def open_queries(queries: Artifact | Mapping[str, Artifact]) -> dict[str, Docstore]:
    """The questions by language. A single table says in its rows which language it is in."""
    if isinstance(queries, Mapping):
        return {lang: Docstore.open(artifact) for lang, artifact in sorted(queries.items())}
    store = Docstore.open(queries)
    return {str(store.row_at(0)["lang"]) if len(store) else "": store}


def open_docs(docs: Mapping[str, Artifact]) -> dict[str, Docstore]:
    """The collection by language."""
    return {lang: Docstore.open(artifact) for lang, artifact in sorted(docs.items())}


def open_passages(artifacts: Mapping[str, Any]) -> Passages:
    """Open what says which passages belong to a query: the teacher's scores, or labels and a selection."""
    scores = RowStore.open(artifacts["scores"]) if "scores" in artifacts else None
    if "qrels" in artifacts:
        return LabelledPassages(artifacts["qrels"], RowStore.open(artifacts["rankings"]), scores)
    if scores is None:
        raise StepError(f"expected scores, or qrels and rankings, got {', '.join(sorted(artifacts))}")
    return ScoredPassages(scores)


class ScoredPassages:
    """The passages that a teacher scored, best first; see ``pipelines.training.batches.Passages``."""

    def __init__(self, scores: RowStore):
        self.name, self._scores = scores.name, scores

    def __len__(self) -> int:
        return len(self._scores)

    def candidates(self, row: int, pool: int) -> Candidates:
        """The best ``pool``."""
        ranking = self._scores.row_at(row)
        scores = np.asarray(ranking["scores"][:pool], np.float32)
        return Candidates(ranking["query_id"], ranking["doc_ids"][:pool], scores)


class LabelledPassages:
    """The relevant passages of each query that has one, then the others of its ranking, best first: its negatives.

    ``qrels`` are judgements by language; an id is the same passage in every language, so a passage that is relevant in
    one is relevant in all. Without any, a query's relevant passage is that of its own id: it was written from it. A
    query without a relevant passage, or without a ranking, has no row. ``teacher`` are rankings with a teacher's
    scores.
    """

    def __init__(self, qrels: Mapping[str, Artifact], rankings: RowStore, teacher: RowStore | None = None):
        judged = f" with {', '.join(artifact.name for artifact in qrels.values())}" if qrels else ""
        self.name, self._rankings, self._teacher = f"{rankings.name}{judged}", rankings, teacher
        self._positives = Positives(qrels)
        found = rankings.positions(self._positives.judged) if qrels else np.arange(len(rankings))
        self._rows = np.sort(found[found >= 0])

    def __len__(self) -> int:
        return len(self._rows)

    def candidates(self, row: int, pool: int) -> Candidates:
        """The relevant passages and ``pool`` others."""
        ranking = self._rankings.row_at(int(self._rows[row]))
        relevant = self._positives.of(ranking["query_id"])
        others = [doc_id for doc_id in ranking["doc_ids"] if doc_id not in relevant][:pool]
        scores = np.array([1.0] * len(relevant) + [0.0] * len(others), np.float32)
        teacher = self._find_scores(ranking["query_id"])
        return Candidates(ranking["query_id"], [*relevant, *others], scores, len(relevant), teacher)

    def _find_scores(self, query_id: str) -> dict[str, float]:
        """A teacher's scores of a query's passages by id; none where there is no teacher, or it rejected the query."""
        if self._teacher is None or query_id not in self._teacher:
            return {}
        scored = self._teacher.row(query_id)
        return dict(zip(scored["doc_ids"], scored["scores"], strict=True))
