"""Cross-encoders as teachers: query and document are read together, and the score is what ``score`` names.

    logit             the model's raw output: any real number; what a reranker with one output was trained on
    log_sigmoid       log σ(logit): the log-probability of "relevant" of a model with one output; at most 0
    log_probability   log softmax over a model's two outputs, of the second, which stands for "relevant"; at most 0

Distillation takes a softmax over the documents of a query, so the scale decides what the student is to learn. MonoT5,
the papers' teacher, gives log p("true") (pygaggle's log-softmax over two tokens), which is what log_sigmoid gives of a
reranker with one output: it hardly tells good documents apart, where raw logits tell them apart strongly. The sigmoid
that ``CrossEncoder.predict`` applies is none of these.

All pairs of a part are scored as one list, sorted by their length in tokens and cut into batches that hold a number of
tokens; little is padding. Cost: one forward pass of (query + document) tokens per pair, nearly all of a recipe's time.

Legend: P pairs, B pairs in a batch, L tokens, O outputs of the model.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cluster.component import Speed
from cluster.errors import RecipeError
from pipelines.batching import by_length, put_back
from pipelines.devices import device
from pipelines.models import Pretrained, resolve
from pipelines.precision import Wanted, cast_weights, require_resolved
from pipelines.scorers.base import Collection, score_in_windows

TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 16_384}  # of the first more leave the caches; the second was not measured
OUTPUTS = {"logit": 1, "log_sigmoid": 1, "log_probability": 2}


class CrossEncoderScorer(Pretrained):
    """A sequence-classification model, loaded by sentence-transformers.

    ``score`` is the scale of the scores: see the module. ``max_length`` truncates pairs, the longer side first, in
    tokens (None: the model's own limit). ``precision`` is what the model computes with, "auto" being resolved at
    planning; the last layer and scores are float32, so that close documents do not tie. ``batch_tokens`` bounds a
    batch, padding included (None: 2,048 on a CPU, where larger ones leave its caches, 16,384 on a GPU).
    """

    may_be_student: ClassVar[bool] = False

    kind: Literal["cross_encoder"] = "cross_encoder"
    score: Literal["logit", "log_sigmoid", "log_probability"] = "logit"
    max_length: int | None = Field(None, ge=8)
    precision: Wanted = "fp32"
    batch_tokens: Speed | None = None

    def build(self, collection: Collection) -> "CrossEncoderTeacher":
        """Load the model on the device of this process. Nothing of the collection is read."""
        return CrossEncoderTeacher(self)


class CrossEncoderTeacher:
    """A loaded cross-encoder."""

    def __init__(self, config: CrossEncoderScorer) -> None:
        from sentence_transformers import CrossEncoder

        self._config = config
        self._precision = require_resolved(config.precision)
        self._model = CrossEncoder(resolve(config), max_length=config.max_length, device=device())
        self._model = self._model.float().eval()
        outputs = self._count_outputs()
        if outputs != OUTPUTS[config.score]:
            raise RecipeError(
                f"scorer 'cross_encoder': {config.model} is a {type(self._model.transformers_model).__name__} with "
                f"{outputs or 'untrained'} outputs; score = {config.score!r} needs a sequence-classification model "
                f"with {OUTPUTS[config.score]}: choose another model, or another of {', '.join(OUTPUTS)}"
            )
        last = self._last_layer(outputs)
        self._model.set_keep_in_fp32_modules(last)
        cast_weights(self._model, self._precision, keep=last)
        self._batch_tokens = config.batch_tokens or TOKENS_PER_BATCH[self._model.device.type]

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Scores, float32, on the scale that the config names."""
        return score_in_windows(self._scores, queries, docs, pairs_P2)

    def _scores(self, queries: list[str], docs: list[str]) -> np.ndarray:
        from pipelines.students.inference import map_batches

        tokenizer = self._model.tokenizer
        tokens = tokenizer(queries, docs, truncation="longest_first", max_length=self._model.max_seq_length)

        def score_batch(batch: np.ndarray) -> np.ndarray:
            inputs = {name: [rows[i] for i in batch] for name, rows in tokens.items()}
            features_BL: Any = tokenizer.pad(inputs, return_tensors="pt").to(self._model.device)
            return self._rescale(self._model(dict(features_BL))["scores"].float()).cpu().numpy()

        batches = by_length([len(ids) for ids in tokens["input_ids"]], self._batch_tokens)
        return put_back(batches, map_batches(score_batch, batches, self._model.device.type, self._precision))

    def _rescale(self, logits_BO: Any) -> Any:
        from torch.nn.functional import logsigmoid

        if self._config.score == "log_probability":
            return logits_BO.log_softmax(-1)[:, 1]
        logits_B = logits_BO.reshape(-1)
        return logits_B if self._config.score == "logit" else logsigmoid(logits_B)

    def _count_outputs(self) -> int | None:
        """The outputs of a sequence-classification model; None of any other, to which transformers would give a head of
        random weights."""
        config = getattr(self._model.transformers_model, "config", None)
        trained = getattr(config, "architectures", None) or [type(self._model.transformers_model).__name__]
        if not any("ForSequenceClassification" in name for name in trained):
            return None
        return getattr(config, "num_labels", None)

    def _last_layer(self, outputs: int) -> list[str]:
        """The name of the linear layer whose output the logits are; none where a model's head has another form."""
        from torch.nn import Linear

        names = [n for n, m in self._model.named_modules() if type(m) is Linear and m.out_features == outputs]
        return names[-1:]
