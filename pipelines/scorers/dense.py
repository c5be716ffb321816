"""Bi-encoders as teachers: the similarity of two vectors.

Cost: one forward pass per distinct text of a part, then one product of two vectors per pair.

Legend: P pairs, Q queries, N docs, D dimensions.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from cluster.component import Speed
from pipelines.models import Pretrained, resolve
from pipelines.scorers.base import Collection

PAIRS_AT_ONCE = 65536  # bounds the gathered vectors: 65536 x 384 x 4 bytes = 100 MB a side


class DenseScorer(Pretrained):
    """A SentenceTransformer. ``similarity`` is cosine or the dot product, times ``scale``.

    A cosine lies in [-1, 1]: under a softmax that is nearly flat, so distillation wants ``scale`` (1 / temperature)
    here or a temperature in its loss. ``query_prompt`` and ``doc_prompt`` are put before the texts ("query: ").
    """

    kind: Literal["dense"] = "dense"
    similarity: Literal["cosine", "dot"] = "cosine"
    scale: float = Field(1.0, gt=0)
    query_prompt: str = ""
    doc_prompt: str = ""
    max_length: int | None = Field(None, ge=8)
    batch_size: Speed = Speed(64)

    def build(self, collection: Collection) -> "DenseTeacher":
        """Load the model, on a GPU where there is one. The collection does not matter to it."""
        return DenseTeacher(self)


class DenseTeacher:
    """A loaded bi-encoder."""

    def __init__(self, config: DenseScorer) -> None:
        from sentence_transformers import SentenceTransformer

        self._config = config
        self._model = SentenceTransformer(resolve(config))
        if config.max_length:
            self._model.max_seq_length = config.max_length

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Similarities, float32."""
        queries_QD = self._encode(queries, self._config.query_prompt)
        docs_ND = self._encode(docs, self._config.doc_prompt)
        scores_P = np.empty(len(pairs_P2), np.float32)
        for start in range(0, len(pairs_P2), PAIRS_AT_ONCE):
            some = pairs_P2[start : start + PAIRS_AT_ONCE]
            scores_P[start : start + len(some)] = np.einsum("pd,pd->p", queries_QD[some[:, 0]], docs_ND[some[:, 1]])
        return scores_P * np.float32(self._config.scale)

    def _encode(self, texts: list[str], prompt: str) -> np.ndarray:
        return self._model.encode(
            texts,
            prompt=prompt,
            batch_size=self._config.batch_size,
            normalize_embeddings=self._config.similarity == "cosine",
            show_progress_bar=False,
            convert_to_numpy=True,
        ).astype(np.float32)
