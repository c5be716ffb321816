"""Texts to rows: what a model reads of each text, tokenised without padding.

The library's own ``preprocess`` decides what a row is (prompt, special tokens, markers, expansion, truncation). For
documents, most models' ``preprocess`` gives what the tokenizer gives alone in a third of the time. Whether a model's
does is found out once, by comparing the two on sample texts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipelines.students.base import Task

TEXTS_PER_CALL = 256  # of preprocess, which pads them for each other
DOC_PROMPTS = ("document", "passage", "corpus")  # the names sentence-transformers looks for, in its order
SAMPLES = ["", "a", "One text, and its end.", "long " * 3000]  # the last is truncated by every model with a limit

# the features of one text: tensors [T] or [T, …], and what is the same for every text of a task (a prompt's length)
Row = dict[str, Any]


def make_writable(text: str) -> str:
    """Put U+FFFD in the place of each lone surrogate, which no tokenizer reads. The length stays."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Located(NamedTuple):
    """A text's whole row, None where the model cannot read all of it, and where its tokens stand in the text."""

    row: Row | None
    spans: list[tuple[int, int]]


class Tokens:
    """The tokenizer of a sentence-transformers model for one task. ``prompt`` stands before each text: the model's own
    one where none is given.

    Attributes:
        longest: tokens that the model reads of a text, its own tokens among them.
        own: tokens of an empty text: special tokens, marker, prompt.
    """

    def __init__(self, model: Any, task: Task, prompt: str | None = None):
        self.model, self.task = model, task
        names = ("query",) if task == "query" else DOC_PROMPTS
        own: str = next((model.prompts[name] for name in names if model.prompts.get(name)), "")
        self.prompt = own if prompt is None else prompt
        self.longest: int = getattr(model[0], f"{task}_length", None) or model.max_seq_length or 512
        samples = self._preprocessed(SAMPLES)
        self.own = len(samples[0]["input_ids"])
        self._numbers = _first_numbers(samples)
        self._same = {name: value for name, value in samples[0].items() if not isinstance(value, Tensor)}
        self._is_plain = self._preprocess_is_plain(samples)

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """The features of each text, without padding."""
        texts = [make_writable(text) for text in texts]
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
            [self.prompt + make_writable(text) for text in texts],
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        begin = len(self.prompt)
        located = []
        for index, offsets in enumerate(encoded["offset_mapping"]):
            fits = self._is_plain and len(encoded["input_ids"][index]) <= self.longest
            spans = [(max(start, begin) - begin, end - begin) for start, end in offsets if end > max(start, begin)]
            located.append(Located(self._row(encoded["input_ids"][index]) if fits else None, spans))
        return located

    def _tokenised(self, texts: Sequence[str]) -> list[Row]:
        from transformers.tokenization_utils_base import TruncationStrategy
        from transformers.utils import PaddingStrategy

        tokenizer = self.model.tokenizer
        tokenizer.set_truncation_and_padding(
            padding_strategy=PaddingStrategy.DO_NOT_PAD,
            truncation_strategy=TruncationStrategy.LONGEST_FIRST,
            max_length=self.longest,
            stride=0,
            pad_to_multiple_of=None,
            padding_side=None,
        )
        # "fast" leaves out the offsets, which nobody reads here
        encodings = tokenizer.backend_tokenizer.encode_batch_fast([self.prompt + text for text in texts])
        return [self._row(encoding.ids) for encoding in encodings]

    def _row(self, ids: Sequence[int]) -> Row:
        """The features of a text: its token ids, and what is the same number for every token."""
        ids_T = torch.from_numpy(np.array(ids, np.int64))
        masks = {name: torch.full_like(ids_T, number) for name, number in self._numbers.items()}
        return {"input_ids": ids_T, **masks, **self._same}

    def _preprocessed(self, texts: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            some = list(texts[start : start + TEXTS_PER_CALL])
            rows += _without_padding(self.model.preprocess(some, prompt=self.prompt or None, task=self.task))
        return rows

    def _preprocess_is_plain(self, samples: Sequence[Row]) -> bool:
        """Whether ``preprocess``, which made ``samples``, does what the tokenizer does alone."""
        if not hasattr(self.model.tokenizer, "backend_tokenizer"):
            return False
        return all(_are_equal(one, other) for one, other in zip(self._tokenised(SAMPLES), samples, strict=True))


def _first_numbers(rows: Sequence[Row]) -> dict[str, int]:
    """The first number of each feature that has one for each token, but for the token ids."""
    names = [n for n, value in rows[0].items() if isinstance(value, Tensor) and value.ndim == 1 and n != "input_ids"]
    return {name: int(torch.cat([row[name] for row in rows])[0]) for name in names}


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
