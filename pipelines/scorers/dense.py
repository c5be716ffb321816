"""Bi-encoders as teachers: the similarity of two vectors.

Cost: one forward pass per distinct text of a part, then one product of two vectors per pair.

Legend: P pairs, Q queries, N docs, D dimensions.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from cluster.component import Speed
from pipelines.devices import device
from pipelines.models import Pretrained, resolve
from pipelines.precision import Wanted
from pipelines.scorers.base import Collection

PAIRS_AT_ONCE = 65536  # bounds the gathered vectors: 65536 x 384 x 4 bytes = 100 MB a side


class DenseScorer(Pretrained):
    """A SentenceTransformer. ``similarity`` is cosine or the dot product, times ``scale``.

    A cosine lies in [-1, 1]: under a softmax that is nearly flat, so distillation wants ``scale`` (1 / temperature)
    here or a temperature in its loss. ``query_prompt`` and ``doc_prompt`` are put before the texts ("query: ").
    ``max_length`` truncates texts, in tokens (None: the model's own limit). ``precision`` is what the model computes
    with, "auto" being resolved at planning; vectors and scores are float32. ``batch_tokens`` bounds a batch, padding
    included (None: 2,048 on a CPU, 65,536 on a GPU).
    """

    kind: Literal["dense"] = "dense"
    similarity: Literal["cosine", "dot"] = "cosine"
    scale: float = Field(1.0, gt=0)
    query_prompt: str = ""
    doc_prompt: str = ""
    max_length: int | None = Field(None, ge=8)
    precision: Wanted = "fp32"
    batch_tokens: Speed | None = None

    def build(self, collection: Collection) -> "DenseTeacher":
        """Load the model on the device of this process. Nothing of the collection is read."""
        return DenseTeacher(self)


class DenseTeacher:
    """A loaded bi-encoder."""

    def __init__(self, config: DenseScorer) -> None:
        from sentence_transformers import SentenceTransformer

        from pipelines.precision import require_resolved
        from pipelines.students.encoder import TextEncoder

        model = SentenceTransformer(resolve(config), device=device()).float()
        model.prompts = {"query": config.query_prompt, "document": config.doc_prompt}
        model.similarity_fn_name = config.similarity
        if config.max_length:
            model.max_seq_length = config.max_length
        self._encoder = TextEncoder(model, "dot", require_resolved(config.precision), config.batch_tokens)
        self._scale = np.float32(config.scale)

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Similarities, float32."""
        queries_QD = np.concatenate(self._encoder.encode_queries(queries))
        docs_ND = np.concatenate(self._encoder.encode_docs(docs))
        scores_P = np.empty(len(pairs_P2), np.float32)
        for start in range(0, len(pairs_P2), PAIRS_AT_ONCE):
            pairs = pairs_P2[start : start + PAIRS_AT_ONCE]
            scores_P[start : start + len(pairs)] = np.einsum("pd,pd->p", queries_QD[pairs[:, 0]], docs_ND[pairs[:, 1]])
        return scores_P * self._scale
