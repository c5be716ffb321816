"""Which passages are relevant to a query: those that were judged so, or the passage that the query was written from.

A synthetic query has the id of its passage, so it needs no judgements. Judgements are held in memory: about 200 bytes
per query.

``WithPositives`` puts them into a selection, since a teacher must score them also where the selector missed them.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from cluster.artifact import Artifact
from cluster.component import Component
from pipelines.tables import RANKINGS

NO_POSITIVE = "no relevant passage is known"


class Positives:
    """The relevant passages of each query.

    ``qrels`` are QRELS by the language of the documents that they judge. An id is the same passage in every language.
    Without any, the passage of a query's own id is relevant to it.
    """

    def __init__(self, qrels: Mapping[str, Artifact]) -> None:
        relevant: dict[str, dict[str, None]] = defaultdict(dict)
        for lang in sorted(qrels):
            for table in qrels[lang].tables(["query_id", "doc_id", "relevance"]):
                for row in table.to_pylist():
                    if row["relevance"] > 0:
                        relevant[row["query_id"]][row["doc_id"]] = None
        self._relevant = {query: tuple(doc_ids) for query, doc_ids in relevant.items()}
        self._are_judged = bool(qrels)

    @property
    def most(self) -> int:
        """The largest number of relevant passages that a query has."""
        return max(map(len, self._relevant.values()), default=0) if self._are_judged else 1

    @property
    def judged(self) -> list[str]:
        """The ids of the queries that have a relevant passage by judgement."""
        return list(self._relevant)

    def of(self, query_id: str) -> tuple[str, ...]:
        """The ids of the passages that are relevant to a query; none where there is no judgement of it."""
        return self._relevant.get(query_id, ()) if self._are_judged else (query_id,)


class PositivesConfig(Component):
    """How much of a selection is mined (see ``Mine.depth``). No work reads ``query_lang``, the language of the queries;
    it stays because fingerprints hold it."""

    query_lang: str
    depth: int = Field(ge=1)


class WithPositives:
    """RowWork: RANKINGS -> the same, as deep as they are mined, with each query's relevant passages: what a teacher
    scores.

    One that was not selected comes last, with the score of the one before it: a teacher gives the score that counts.
    ``inputs["qrels"]`` are QRELS by language; without, a query's positive is the passage of its own id.
    """

    def __init__(self, config: PositivesConfig, inputs: Mapping[str, Any]) -> None:
        self._relevant = Positives(inputs.get("qrels", {}))
        self._depth = config.depth + 2 * self._relevant.most  # see Mine.last_rank

    def __call__(self, rankings: pa.Table) -> pa.Table:
        """Complete a part."""
        return RANKINGS.of([self._completed(row) for row in rankings.to_pylist()])

    def _completed(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["reject"] is not None:
            return row
        relevant = self._relevant.of(row["query_id"])
        if not relevant:
            return {"query_id": row["query_id"], "reject": NO_POSITIVE}
        doc_ids = row["doc_ids"][: self._depth]
        selected = dict(zip(row["doc_ids"], row["scores"], strict=True))
        scores = [selected[name] for name in doc_ids]
        missing = [name for name in relevant if name not in doc_ids]
        last = scores[-1] if scores else 0.0
        return {**row, "doc_ids": doc_ids + missing, "scores": scores + [last] * len(missing)}
