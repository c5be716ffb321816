"""Language models as teachers: how much more likely the model is to answer "yes" than "no" when it is asked whether a
passage answers a query.

    log_probability   log p(yes) after a softmax over the two words: at most 0, as MonoT5's (Nogueira et al. 2020,
                      "Document Ranking with a Pretrained Sequence-to-Sequence Model", section 3)
    log_odds          log p(yes) − log p(no): any number; tells good documents apart more strongly

Cost: one pass over the prompt's tokens per pair and no decoding; vLLM computes what prompts begin with in common once.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from cluster.component import Speed
from pipelines.engines.vllm import VllmGenerator, VllmOptions, load
from pipelines.models import Pretrained
from pipelines.prompts import fill_prompt, read_prompt
from pipelines.scorers.base import Collection

PLACEHOLDERS = ("query", "passage")


class LlmScorer(Pretrained):
    """A causal language model that vLLM runs in the actor.

    ``prompt`` is the name of a prompt in ``pipelines/scorers/prompts``, the path of a file, or a text, with {query} and
    {passage}. ``yes`` and ``no`` are the two answers, one token each. ``score`` is the scale of the scores: see the
    module. ``max_length`` cuts queries and passages, in tokens each. ``pairs_at_once`` bounds a call of the engine.
    """

    may_be_student: ClassVar[bool] = False

    kind: Literal["llm"] = "llm"
    prompt: str = "relevance"
    yes: str = "yes"
    no: str = "no"
    score: Literal["log_probability", "log_odds"] = "log_probability"
    max_length: int = Field(512, ge=1)
    pairs_at_once: Speed = Speed(16_384)
    engine: VllmOptions = VllmOptions()

    @field_validator("prompt")
    @classmethod
    def _read_prompt(cls, value: str) -> str:
        return read_prompt(value, "pipelines.scorers", PLACEHOLDERS)

    def build(self, collection: Collection) -> "LlmTeacher":
        """Start the engine in this process. Nothing of the collection is read."""
        return LlmTeacher(self, load(self, self.engine))


class LlmTeacher:
    """A loaded language model."""

    def __init__(self, config: LlmScorer, generator: VllmGenerator) -> None:
        self._config = config
        self._generator = generator

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Scores, float32, on the scale that the config names."""
        queries = self._generator.cut(queries, self._config.max_length)
        docs = self._generator.cut(docs, self._config.max_length)
        scores_P = np.empty(len(pairs_P2), np.float32)
        for start in range(0, len(pairs_P2), self._config.pairs_at_once):
            pairs = pairs_P2[start : start + self._config.pairs_at_once].tolist()
            prompts = [fill_prompt(self._config.prompt, query=queries[i], passage=docs[j]) for i, j in pairs]
            answers = (self._config.yes, self._config.no)
            scores_P[start : start + len(pairs)] = self._rescale(self._generator.log_probabilities(prompts, answers))
        return scores_P

    def _rescale(self, answers_P2: np.ndarray) -> np.ndarray:
        odds_P = answers_P2[:, 0] - answers_P2[:, 1]
        if self._config.score == "log_odds":
            return odds_P
        return -np.logaddexp(0, -odds_P)  # log softmax over the two, of the first
