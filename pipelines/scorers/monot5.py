"""MonoT5 as a teacher: a T5 or mT5 that reads query and document and answers with one word (Nogueira et al. 2020).

    prompt            Query: QUERY Document: DOCUMENT Relevant:
    log_probability   log softmax over the logits of the words for "false" and "true", of "true"; at most 0
    logit             the logit of "true" minus that of "false": any real number, log p(true) / p(false)

The logits are those of the decoder's first step, and of its vocabulary only the two words are computed: of mT5's
250,000 rows two. The words are the checkpoint's own, as its authors trained it (pygaggle's table):

    T5   "▁true" and "▁false"    castorini/monot5-*
    mT5  "▁yes" and "▁no"        unicamp-dl/mt5-base-*
         "▁true" and "▁"         unicamp-dl/mt5-13b-mmarco-100k (the papers' teacher), mt5-3B-mmarco-en-pt: set them

A prompt longer than ``max_length`` loses the end of its document; pygaggle cuts off "Relevant:" too, which tells the
model what it is asked.

Legend: P pairs, B pairs in a batch, L tokens of the longest prompt.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from cluster.component import Speed
from cluster.errors import RecipeError
from pipelines.batching import by_length, put_back
from pipelines.devices import device
from pipelines.models import Pretrained, resolve
from pipelines.precision import Wanted, require_resolved
from pipelines.scorers.base import Collection, score_in_windows

TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 16_384}  # as for cross-encoders; of this model not measured
PROMPT, END = "Query: {query} Document: {document}", "Relevant:"
WORDS = {"t5": ("▁true", "▁false"), "mt5": ("▁yes", "▁no")}
TRUE_OR_NOTHING = ("unicamp-dl/mt5-13b-mmarco-100k", "unicamp-dl/mt5-3B-mmarco-en-pt")


class MonoT5Scorer(Pretrained):
    """A sequence-to-sequence T5 or mT5, loaded by transformers.

    ``score`` is the scale of the scores: see the module. ``true_token`` and ``false_token`` are entries of the model's
    vocabulary ("": those of its family). ``max_length`` bounds a prompt, in tokens. ``precision`` is what the model
    computes with, "auto" being resolved at planning; in fp16 the layers that overflow stay in float32. The last layer
    and scores are float32. ``batch_tokens`` bounds a batch, padding included (None: 2,048 on a CPU, 16,384 on a GPU).
    """

    may_be_student: ClassVar[bool] = False

    kind: Literal["monot5"] = "monot5"
    score: Literal["log_probability", "logit"] = "log_probability"
    true_token: str = ""
    false_token: str = ""
    max_length: int = Field(512, ge=16)
    precision: Wanted = "fp32"
    batch_tokens: Speed | None = None

    @model_validator(mode="after")
    def _check_words(self) -> "MonoT5Scorer":
        if bool(self.true_token) != bool(self.false_token):
            raise ValueError("give true_token and false_token, or neither: a score compares the two")
        if self.model in TRUE_OR_NOTHING and not self.true_token:
            raise ValueError(
                f"model = {self.model!r} answers with other words than its family: set true_token = '▁true' and "
                "false_token = '▁'"
            )
        return self

    def build(self, collection: Collection) -> "MonoT5Teacher":
        """Load the model on the device of this process. Nothing of the collection is read."""
        return MonoT5Teacher(self)


class MonoT5Teacher:
    """A loaded MonoT5."""

    def __init__(self, config: MonoT5Scorer) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self._config = config
        self._precision = require_resolved(config.precision)
        directory = resolve(config)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(directory, dtype=torch.float32)
        if model.config.model_type not in WORDS:
            raise RecipeError(
                f"scorer 'monot5': {config.model} is a {model.config.model_type}; expected a model of "
                f"{', '.join(WORDS)}: choose another model, or score.scorer.kind = 'cross_encoder'"
            )
        self._keep_words(model)
        if self._precision == "fp16":
            for name, module in model.named_modules():
                if name.endswith(".wo"):  # of the feed-forward layers: their sums leave the range of float16
                    _keep_in_float32(module, device())
        self._model = model.to(device()).eval()
        self._start: int = model.config.decoder_start_token_id
        self._end_ids: list[int] = self._tokenizer(END)["input_ids"]  # with the token that ends a text
        self._batch_tokens = config.batch_tokens or TOKENS_PER_BATCH[self._model.device.type]

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Scores, float32, on the scale that the config names."""
        return score_in_windows(self._scores, queries, docs, pairs_P2)

    def _scores(self, queries: list[str], docs: list[str]) -> np.ndarray:
        import torch

        from pipelines.students.inference import map_batches

        prompts = self._prompts(queries, docs)

        def score_batch(batch: np.ndarray) -> np.ndarray:
            features_BL = self._tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, return_tensors="pt")
            start_B1 = torch.full((len(batch), 1), self._start, device=self._model.device)
            out = self._model(**features_BL.to(self._model.device), decoder_input_ids=start_B1, use_cache=False)
            return self._rescale(out.logits[:, 0].float()).cpu().numpy()

        batches = by_length([len(ids) for ids in prompts], self._batch_tokens)
        return put_back(batches, map_batches(score_batch, batches, self._model.device.type, self._precision))

    def _prompts(self, queries: list[str], docs: list[str]) -> list[list[int]]:
        """Token ids of the prompts, the end of a long document cut off."""
        texts = [PROMPT.format(query=q, document=d) for q, d in zip(queries, docs, strict=True)]
        most = self._config.max_length - len(self._end_ids)
        tokens = self._tokenizer(texts, add_special_tokens=False, truncation=True, max_length=most)
        return [ids + self._end_ids for ids in tokens["input_ids"]]

    def _rescale(self, logits_B2: Any) -> Any:
        """Scores [B] of the logits of "true" and "false"."""
        if self._config.score == "log_probability":
            return logits_B2.log_softmax(-1)[:, 0]
        return logits_B2[:, 0] - logits_B2[:, 1]

    def _keep_words(self, model: Any) -> None:
        """Replace the model's last layer by its rows for "true" and "false", in float32."""
        import torch

        family = WORDS[model.config.model_type]
        words = (self._config.true_token, self._config.false_token) if self._config.true_token else family
        vocabulary = self._tokenizer.get_vocab()
        if missing := [word for word in words if word not in vocabulary]:
            raise RecipeError(
                f"scorer 'monot5': {missing[0]!r} is no token of {self._config.model}: set score.scorer.true_token and "
                "false_token to the words that it was trained to answer with"
            )
        rows_2D = model.get_output_embeddings().weight[[vocabulary[word] for word in words]].detach().clone()
        head = torch.nn.Linear(rows_2D.shape[1], 2, bias=False)
        head.weight = torch.nn.Parameter(rows_2D)
        _keep_in_float32(head, device())
        model.lm_head = head


def _keep_in_float32(layer: Any, device_type: str) -> None:
    """Let a linear layer compute in float32, whatever the precision around it."""
    import torch

    forward = layer.forward

    def compute(inputs: Any) -> Any:
        with torch.autocast(device_type, enabled=False):
            return forward(inputs.float())

    layer.forward = compute
