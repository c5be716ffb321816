"""The step *nearest*: for each question the texts that are nearest to it under the student that training begins with.

Maps QUERIES to RANKINGS, row by row: of the questions of a language, or of its passages. The texts are encoded when an
actor starts, and each part of the questions is compared with all of them; memory holds the vectors of the texts. The
scores are distances with their sign turned: Euclidean between unit vectors, −√(2 − 2 · cosine), for a student of one
vector per text, else the score by MaxSim.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from cluster.component import Component
from pipelines.devices import device
from pipelines.docstore import Docstore
from pipelines.indexes.maxsim import score_all
from pipelines.positives import Positives
from pipelines.precision import Precision
from pipelines.students.base import Task
from pipelines.tables import RANKINGS
from pipelines.training.start import open_start


class NearestConfig(Component):
    """How many texts are ranked for a question, and what they are. A question's relevant passages are ranked too where
    they are farther than these; a question itself is never among those nearest to it. ``first`` says which student of
    the input ``student`` takes the first step, see ``pipelines.training.config.TrainingRun``."""

    depth: int = Field(ge=1)
    role: Task
    first: Literal["start", "best"] = "start"
    precision: Precision = "fp32"


class Nearest:
    """RowWork: QUERIES -> RANKINGS. Inputs: ``student`` (a *start*, or another training), ``texts`` (QUERIES or DOCS of
    a language), and for documents ``qrels`` of them."""

    def __init__(self, config: NearestConfig, inputs: Mapping[str, Any]) -> None:
        from pipelines.students import load_encoder

        self._is_other = config.role == "query"  # a question is not near to itself
        self._depth = config.depth
        self._encoder = load_encoder(open_start(inputs["student"], config.first), device(), config.precision)
        store = Docstore.open(inputs["texts"])
        self._ids = list(store.ids)
        self._at = {text_id: at for at, text_id in enumerate(self._ids)}
        texts = [store.text_at(at) for at in range(len(store))]
        encode = self._encoder.encode_docs if config.role == "document" else self._encoder.encode_queries
        self._vectors = encode(texts)
        self._positives = Positives({"": inputs["qrels"]}) if "qrels" in inputs else None

    def __call__(self, queries: pa.Table) -> pa.Table:
        """Rank for one part. Rejected rows stay rejected."""
        rows = queries.to_pylist()
        good = [row for row in rows if row["reject"] is None]
        ranked = {}
        if good:
            scores_QN = self._score([row["text"] for row in good])
            ranked = {row["query_id"]: self._rank(row["query_id"], s) for row, s in zip(good, scores_QN, strict=True)}
        return RANKINGS.of(
            [{"query_id": row["query_id"], "reject": row["reject"], **ranked.get(row["query_id"], {})} for row in rows]
        )

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        scores_QN = score_all(self._encoder.encode_queries(texts), self._vectors)
        if self._encoder.similarity == "maxsim":
            return scores_QN
        return -np.sqrt(np.clip(2 - 2 * scores_QN, 0, None))

    def _rank(self, query_id: str, scores_N: np.ndarray) -> dict[str, Any]:
        """The texts of a question, nearest first; ties in the order of the table."""
        order = np.argsort(-scores_N, kind="stable")
        nearest = order[: self._depth + 1].tolist()
        kept = [at for at in nearest if not (self._is_other and self._ids[at] == query_id)][: self._depth]
        if self._positives:
            relevant = [self._at[doc_id] for doc_id in self._positives.of(query_id) if doc_id in self._at]
            kept += sorted(set(relevant) - set(kept), key=lambda at: (-scores_N[at], at))
        return {"doc_ids": [self._ids[at] for at in kept], "scores": scores_N[kept].astype(np.float32).tolist()}
