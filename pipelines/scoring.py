"""The step *score*: RANKINGS of a selection -> RANKINGS of the same documents under a teacher.

The languages of the teacher's inputs are its own: the artifacts given as ``queries`` and ``docs`` decide what it reads,
whatever the selector searched and whatever the student will see. Scores fall along a row; ties stand in the order of
doc ids. A document without text (its translation was rejected) is left out. The rankings of a search are ordered again
in the same way (retrieve and rerank), as deep as ``depth``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from cluster.artifact import Artifact
from cluster.component import Component
from pipelines.docstore import Docstore
from pipelines.models import locate
from pipelines.precision import refuse_auto
from pipelines.scorers import Scorer
from pipelines.scorers.base import Collection, Teacher
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
    """

    def __init__(self, config: ScoreConfig, inputs: Mapping[str, Artifact]) -> None:
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
        """The teacher's scores for all documents of all selections, one after another."""
        if not selections:
            return np.empty(0, np.float32)
        doc_ids = list(dict.fromkeys(doc_id for s in selections for doc_id in s.doc_ids))
        place = {doc_id: j for j, doc_id in enumerate(doc_ids)}
        pairs_P2 = np.array([(i, place[doc_id]) for i, s in enumerate(selections) for doc_id in s.doc_ids])
        queries = [s.query for s in selections]
        scores_P = self._teacher.score(queries, self._docs.texts(doc_ids), pairs_P2)
        if not np.isfinite(scores_P).all():
            bad = int((~np.isfinite(scores_P)).argmax())
            i, j = pairs_P2[bad]
            raise FloatingPointError(
                f"the teacher's score of query {selections[i].query_id} with document {doc_ids[j]} is {scores_P[bad]}: "
                'its model overflows. Set score.scorer.precision = "fp32" (or "bf16", which has the range of fp32)'
            )
        return scores_P


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
