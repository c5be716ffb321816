"""Texts to rows: what a model reads of each text, tokenised without padding.

The library's own ``preprocess`` decides what a row is (prompt, special tokens, markers, expansion, truncation). Of the
documents of most models it is what a plain call of the tokenizer gives in half the time; whether it is, is found out
once per model, by comparing the two on sample texts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipelines.students.base import Task

TEXTS_PER_CALL = 256  # of preprocess, which pads them for each other
DOC_PROMPTS = ("document", "passage", "corpus")  # the names sentence-transformers looks for, in its order
SAMPLES = ["", "a", "One text, and its end.", "long " * 3000]  # the last is truncated by every model with a limit

# the features of one text: tensors [T] or [T, …], and what is the same for every text of a task (a prompt's length)
Row = dict[str, Any]


class Located(NamedTuple):
    """A text's whole row, None where the model cannot read all of it, and where its tokens stand in the text."""

    row: Row | None
    spans: list[tuple[int, int]]


class Tokens:
    """The tokenizer of a sentence-transformers model for one task.

    Attributes:
        longest: tokens that the model reads of a text, its own tokens among them.
        own: tokens of an empty text: special tokens, marker, prompt.
    """

    def __init__(self, model: Any, task: Task):
        self.model, self.task = model, task
        names = ("query",) if task == "query" else DOC_PROMPTS
        self.prompt: str = next((model.prompts[name] for name in names if model.prompts.get(name)), "")
        self.longest: int = getattr(model[0], f"{task}_length", None) or model.max_seq_length or 512
        self._sample: Row = self._preprocessed(SAMPLES[:1])[0]
        self.own = len(self._sample["input_ids"])
        self._is_plain = self._preprocess_is_plain()

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """The features of each text, without padding."""
        return self._tokenised(texts) if self._is_plain else self._preprocessed(texts)

    def locate(self, texts: Sequence[str]) -> list[Located]:
        """The whole row of each text, and its spans [start, end) in characters: of every token that stands for some
        of the text, in its order. One call of the tokenizer.

        Raises:
            ValueError: the tokenizer does not know where its tokens stand.
        """
        tokenizer = self.model.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"passages need a tokenizer that knows where tokens stand in the text, got {type(tokenizer).__name__}: "
                "use a checkpoint with a tokenizer.json"
            )
        if not texts:
            return []
        encoded = tokenizer(
            [self.prompt + text for text in texts], return_offsets_mapping=True, truncation=False, verbose=False
        )
        begin = len(self.prompt)
        located = []
        for index, offsets in enumerate(encoded["offset_mapping"]):
            fits = self._is_plain and len(encoded["input_ids"][index]) <= self.longest
            spans = [(max(start, begin) - begin, end - begin) for start, end in offsets if end > max(start, begin)]
            located.append(Located(self._row(encoded, index) if fits else None, spans))
        return located

    def _tokenised(self, texts: Sequence[str]) -> list[Row]:
        if not texts:
            return []
        encoded = self.model.tokenizer(
            [self.prompt + text for text in texts], truncation=True, max_length=self.longest, verbose=False
        )
        return [self._row(encoded, index) for index in range(len(texts))]

    def _row(self, encoded: Any, index: int) -> Row:
        return {
            name: torch.tensor(encoded[name][index]) if isinstance(value, Tensor) else value
            for name, value in self._sample.items()
        }

    def _preprocessed(self, texts: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            some = list(texts[start : start + TEXTS_PER_CALL])
            rows += _without_padding(self.model.preprocess(some, prompt=self.prompt or None, task=self.task))
        return rows

    def _preprocess_is_plain(self) -> bool:
        """Whether ``preprocess`` does what a call of the tokenizer does."""
        features = {name for name, value in self._sample.items() if isinstance(value, Tensor)}
        names = set(getattr(self.model.tokenizer, "model_input_names", ()))
        if not getattr(self.model.tokenizer, "is_fast", False) or not features <= names:
            return False
        pairs = zip(self._tokenised(SAMPLES), self._preprocessed(SAMPLES), strict=True)
        return all(_are_equal(one, other) for one, other in pairs)


def _are_equal(one: Row, other: Row) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        for name, value in one.items()
    )


def _without_padding(features: dict[str, Any]) -> list[Row]:
    """Cut a padded batch into rows."""
    mask = features["attention_mask"]
    keep = mask.bool()
    if "query_expansion_positions" in features:
        keep = keep | features["query_expansion_positions"].bool()
    return [{k: v[i][keep[i]] if isinstance(v, Tensor) else v for k, v in features.items()} for i in range(len(mask))]
