"""The step *score*: RANKINGS of a selection -> RANKINGS of the same documents under a teacher.

The languages of the teacher's inputs are its own: the artifacts given as ``queries`` and ``docs`` decide what it reads,
whatever the selector searched and whatever the student will see. Scores fall along a row; ties stand in the order of
doc ids. A document without text (its translation was rejected) is left out. The rankings of a search are ordered again
in the same way (retrieve and rerank), as deep as ``depth``. Pairs that the same teacher has scored in a finished step
are copied (``pipelines.scored``): a deeper selection costs its new pairs alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.errors import StepError
from pipelines.docstore import Docstore
from pipelines.models import locate
from pipelines.precision import refuse_auto
from pipelines.scored import ScoredPairs
from pipelines.scorers import Scorer
from pipelines.scorers.base import Collection, Teacher
from pipelines.scorers.ensemble import Merging
from pipelines.tables import RANKINGS


class ScoreConfig(Component):
    """The teacher, and the languages of the queries and documents that it is given."""

    scorer: Scorer
    query_lang: str
    doc_lang: str
    depth: int | None = Field(None, ge=1)  # score so many of a row's documents, the first ones; None: all

    @model_validator(mode="after")
    def _precision_is_resolved(self) -> "ScoreConfig":
        refuse_auto(self.scorer, "score.scorer")
        return self


class Score:
    """RowWork: rows of RANKINGS -> the same queries with the teacher's scores.

    ``inputs["queries"]`` is a QUERIES artifact and ``inputs["docs"]`` a DOCS artifact, in the teacher's languages.
    Queries are held in memory as one Arrow table, documents are memory-mapped; the pairs of a part are scored together.
    ``facts`` holds how many pairs of a part the teacher ``scored``, and how many were ``copied`` from which step.
    """

    facts: dict[str, Any]

    def __init__(self, config: ScoreConfig, inputs: Mapping[str, Artifact]) -> None:
        self._scored = ScoredPairs.find(type(self), config, inputs)
        config = locate(config, inputs)
        self._depth = config.depth
        self._docs = Docstore.open(inputs["docs"])
        self._queries = inputs["queries"].read(["query_id", "text"])
        self._teacher: Teacher = config.scorer.build(Collection(inputs["docs"], config.query_lang, config.doc_lang))

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Score a part."""
        found = pc.index_in(rows["query_id"], value_set=self._queries["query_id"])
        texts = self._queries["text"].take(found).to_pylist()
        selections = [self._selection(row, text) for row, text in zip(rows.to_pylist(), texts, strict=True)]
        scores = iter(self._scores([s for s in selections if s.reject is None]).tolist())
        return RANKINGS.of([_ranked(s, [next(scores) for _ in s.doc_ids]) for s in selections])

    def _selection(self, row: dict[str, Any], query: str | None) -> "_Selection":
        """The documents to score of a row, or the reason to reject it."""
        if row["reject"] is not None:
            return _Selection(row["query_id"], "", [], row["reject"])
        if query is None:
            return _Selection(row["query_id"], "", [], "the query has no text")
        selected = row["doc_ids"][: self._depth]
        if self._depth and not selected:  # a search that found nothing; a selection of nothing is rejected
            return _Selection(row["query_id"], query, [], None)
        there = self._docs.positions(selected) >= 0
        doc_ids = [doc_id for doc_id, is_there in zip(selected, there, strict=True) if is_there]
        return _Selection(row["query_id"], query, doc_ids, None if doc_ids else "no selected document has a text")

    def _scores(self, selections: "list[_Selection]") -> np.ndarray:
        """The teacher's scores for all documents of all selections, one after another; copied where they are there."""
        pairs = [(s.query_id, s.query, doc_id) for s in selections for doc_id in s.doc_ids]
        scores_P, copied = self._scored.look_up([s.query_id for s in selections], [s.doc_ids for s in selections])
        new = np.flatnonzero(np.isnan(scores_P))
        scores_P[new] = self._ask([pairs[k] for k in new.tolist()])
        self.facts = {"scored": len(new)} | ({"copied": copied} if copied else {})
        return scores_P

    def _ask(self, pairs: list[tuple[str, str, str]]) -> np.ndarray:
        """The teacher's scores of (query id, query, doc id): each text is given once."""
        if not pairs:
            return np.empty(0, np.float32)
        queries = {query_id: text for query_id, text, _ in pairs}
        query_places = {query_id: i for i, query_id in enumerate(queries)}
        doc_places = {doc_id: j for j, doc_id in enumerate(dict.fromkeys(doc_id for _, _, doc_id in pairs))}
        pairs_P2 = np.array([(query_places[query_id], doc_places[doc_id]) for query_id, _, doc_id in pairs])
        scores_P = self._teacher.score(list(queries.values()), self._docs.texts(doc_places), pairs_P2)
        if not np.isfinite(scores_P).all():
            bad = int((~np.isfinite(scores_P)).argmax())
            raise FloatingPointError(
                f"the teacher's score of query {pairs[bad][0]} with document {pairs[bad][2]} is {scores_P[bad]}: "
                'its model overflows. Set score.scorer.precision = "fp32" (or "bf16", which has the range of fp32)'
            )
        return scores_P


class MergeConfig(Merging):
    """How the scores of several teachers become one: see ``pipelines.scorers.ensemble``."""


class MergeScores:
    """RowWork: RANKINGS of several teachers over one selection -> their ensemble. ``rows`` names one table for each.

    A document that a teacher did not score (its translation into that teacher's language was rejected) is left out.
    """

    def __init__(self, config: MergeConfig, inputs: Mapping[str, Artifact]) -> None:
        self._config = config

    def __call__(self, *tables: pa.Table) -> pa.Table:
        """Merge a part."""
        if self._config.weights is not None and len(self._config.weights) != len(tables):
            raise StepError(f"expected a weight for each of {len(tables)} teachers, got {list(self._config.weights)}")
        aligned = zip(*(table.to_pylist() for table in tables), strict=True)
        return RANKINGS.of([self._merge(rows) for rows in aligned])

    def _merge(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        query_id = rows[0]["query_id"]
        if reject := next((row["reject"] for row in rows if row["reject"] is not None), None):
            return _ranked(_Selection(query_id, "", [], reject), [])
        scores = [dict(zip(row["doc_ids"], row["scores"], strict=True)) for row in rows]
        shared = [doc_id for doc_id in scores[0] if all(doc_id in others for others in scores)]
        if not shared:
            reject = "no document has a score of every teacher" if any(scores) else None
            return _ranked(_Selection(query_id, "", [], reject), [])
        merged_K = self._config.merge(np.array([[of_teacher[doc_id] for doc_id in shared] for of_teacher in scores]))
        return _ranked(_Selection(query_id, "", shared, None), merged_K.tolist())


class _Selection(NamedTuple):
    query_id: str
    query: str
    doc_ids: list[str]
    reject: str | None


def _ranked(selection: _Selection, scores: list[float]) -> dict[str, Any]:
    """A row of RANKINGS: scores falling, ties by doc id."""
    row = {"query_id": selection.query_id, "reject": selection.reject}
    if selection.reject is not None:
        return row
    order = sorted(zip(scores, selection.doc_ids, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return {**row, "doc_ids": [doc_id for _, doc_id in order], "scores": [score for score, _ in order]}
