"""Cross-encoders as teachers: query and document are read together; the score is the raw logit, in float32.

Never the sigmoid that ``CrossEncoder.predict`` applies: it flattens the differences that a student is to learn
(distillation takes a softmax over the documents of a query, to which logits are the natural input).

All pairs of a part are scored as one list, sorted by their length in tokens and cut into batches that hold a number of
tokens; little is padding. Cost: one forward pass of (query + document) tokens per pair, nearly all of a recipe's time.

Legend: P pairs, B pairs in a batch, L tokens.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cluster.component import Speed
from cluster.errors import RecipeError
from pipelines.models import Pretrained, resolve
from pipelines.scorers.base import Collection

CPU_TOKENS, GPU_TOKENS = 2048, 16384
WINDOW = 16384  # pairs tokenized at a time: sorting over more saves no padding, and their tokens stay below 100 MB


class CrossEncoderScorer(Pretrained):
    """A sequence-classification model with one output, loaded by sentence-transformers.

    ``max_length`` truncates pairs, the longer side first, in tokens (None: the model's own limit). ``batch_tokens``
    bounds a batch, padding included (None: 2048 on a CPU, where larger ones leave its caches, 16384 on a GPU).
    ``dtype`` is that of the weights; scores are float32.
    """

    may_be_student: ClassVar[bool] = False

    kind: Literal["cross_encoder"] = "cross_encoder"
    max_length: int | None = Field(None, ge=8)
    batch_tokens: Speed | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def build(self, collection: Collection) -> "CrossEncoderTeacher":
        """Load the model, on a GPU where there is one. The collection does not matter to it."""
        return CrossEncoderTeacher(self)


class CrossEncoderTeacher:
    """A loaded cross-encoder."""

    def __init__(self, config: CrossEncoderScorer) -> None:
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(
            resolve(config),
            max_length=config.max_length,
            model_kwargs={"dtype": config.dtype},
        ).eval()
        architecture = self._model.transformers_model
        outputs = getattr(getattr(architecture, "config", None), "num_labels", None)
        if outputs != 1 or "ForSequenceClassification" not in type(architecture).__name__:
            raise RecipeError(
                f"scorer 'cross_encoder': {config.model} is a {type(architecture).__name__} with {outputs} outputs; "
                "expected a sequence-classification model with one output"
            )
        usual = CPU_TOKENS if self._model.device.type == "cpu" else GPU_TOKENS
        self._batch_tokens = config.batch_tokens or usual

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Raw logits, float32."""
        scores_P = np.empty(len(pairs_P2), np.float32)
        order_P = np.argsort([len(queries[i]) + len(docs[j]) for i, j in pairs_P2.tolist()], kind="stable")
        for start in range(0, len(order_P), WINDOW):
            window = order_P[start : start + WINDOW]
            scores_P[window] = self._logits(
                [queries[i] for i in pairs_P2[window, 0]], [docs[j] for j in pairs_P2[window, 1]]
            )
        return scores_P

    def _logits(self, queries: list[str], docs: list[str]) -> np.ndarray:
        import torch

        tokenizer = self._model.tokenizer
        tokens = tokenizer(queries, docs, truncation="longest_first", max_length=self._model.max_seq_length)
        logits_P = np.empty(len(queries), np.float32)
        for batch in batches([len(ids) for ids in tokens["input_ids"]], self._batch_tokens):
            inputs = {name: [rows[i] for i in batch] for name, rows in tokens.items()}
            features_BL: Any = tokenizer.pad(inputs, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                logits_P[batch] = self._model(dict(features_BL))["scores"].float().reshape(-1).cpu().numpy()
        return logits_P


def batches(lengths: list[int], budget: int) -> list[np.ndarray]:
    """Cut 0..n-1, longest first, into batches of at most ``budget`` tokens counting the padding.

    The longest batch comes first, so a budget that is too large for the device fails at once, not after hours. A text
    longer than the budget is a batch alone.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    cuts, longest, start = [], 0, 0
    for place, i in enumerate(order):
        longest = longest if place > start else lengths[i]
        if (place - start + 1) * longest > budget and place > start:
            cuts.append(place)
            start, longest = place, lengths[i]
    return [batch for batch in np.split(order, cuts) if len(batch)]
