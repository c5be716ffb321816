"""The lexical student's only module: texts in, a vector per word out. Imports torch.

A word's vector is the unit vector along letters(word) + row(word): a fixed part that any word has, and a learned row.
A word without a row borrows: from the words that share its beginning, and from those that share its ending (a pair of
unspaced characters, from its characters). A query's vectors are multiplied by how much each word matters.

There is no context, so a text costs a look-up per word: about 300,000 words a second on one core.

Tensor names end in their shape: B texts, T words, N words, D dimensions, V words that have rows.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, normalize

from pipelines.students.lexical.letters import WORDS_AT_ONCE, LetterVectors, spelled
from pipelines.students.lexical.words import is_unspaced, spans, without_article, words

UNKNOWN = 0  # the id of a word without a row
WORDS_FILE = "words.json"
WHERE = ("subfolder", "token", "cache_folder", "revision", "local_files_only")  # the library's words for finding files
SHORTEST_BEGINNING, SHORTEST_ENDING = 4, 5  # letters that kin must share …
BEGINNING_SHARE, ENDING_SHARE = 0.5, 0.4  # … and what part of the word they must be
KIN = 64  # at most so many words are borrowed from
AFTER_ALL = "\U0010ffff"


class WordSpans:
    """What the library asks of a tokenizer here: where the words of a text stand."""

    is_fast, pad_token_id = True, UNKNOWN

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[tuple[int, int]]]]:
        """Offsets as a fast tokenizer gives them, for each text."""
        return {"offset_mapping": [list(spans(text)) for text in texts]}


class WordVectors(InputModule):
    """See above. ``vocabulary`` are the words that have rows; word n has id n + 1."""

    config_keys: list[str] = [
        *("dim", "ngram_rows", "ngram_sizes", "skeleton", "beginning", "ending"),
        *("query_length", "document_length", "seed"),
    ]
    forward_kwargs: set[str] = {"task"}
    letters_of_rows: Tensor
    by_beginning: Tensor
    by_ending: Tensor

    def __init__(self, vocabulary: Sequence[str], **config: Any):
        super().__init__()
        for key in self.config_keys:
            setattr(self, key, config[key])
        self.vocabulary = list(vocabulary)
        self.ids = {word: number for number, word in enumerate(self.vocabulary, 1)}
        self.tokenizer: Any = WordSpans()
        self.letters = LetterVectors(self.dim, self.ngram_rows, self.ngram_sizes, self.skeleton, self.seed)
        size = len(self.vocabulary) + 1
        self.word_rows = nn.Parameter(torch.zeros(size, self.dim))
        # a text touches few rows, and a step has many passes: their gradients stay sparse until they are added up
        self.word_rows.register_post_accumulate_grad_hook(_densify)
        self.query_weights = nn.Parameter(torch.zeros(size))  # logarithms
        self.score_scale = nn.Parameter(torch.zeros(()))  # logarithm; changes no ranking, and how sure a softmax is
        self._beginnings, by_beginning = _ordered([without_article(word) for word in self.vocabulary])
        self._endings, by_ending = _ordered([without_article(word)[::-1] for word in self.vocabulary])
        self.register_buffer("by_beginning", by_beginning, persistent=False)
        self.register_buffer("by_ending", by_ending, persistent=False)
        fixed_VD = torch.cat([torch.zeros(1, self.dim), self.letter_vectors(self.vocabulary)])
        self.register_buffer("letters_of_rows", fixed_VD, persistent=False)

    @property
    def max_seq_length(self) -> int:
        """The longest document, in words."""
        return self.document_length

    def get_embedding_dimension(self) -> int:
        """D."""
        return self.dim

    def letter_vectors(self, some: Sequence[str]) -> Tensor:
        """The fixed parts of these words, [N, D]."""
        parts = [some[at : at + WORDS_AT_ONCE] for at in range(0, len(some), WORDS_AT_ONCE)]
        device = self.word_rows.device
        vectors = [self.letters(torch.from_numpy(spelled(part)).to(device)) for part in parts]
        return torch.cat([torch.zeros(0, self.dim, device=device), *vectors])

    def known_vectors(self, ids_N: Tensor) -> Tensor:
        """Unit vectors [N, D] of words that have rows."""
        return normalize(self.letters_of_rows[ids_N] + self._rows(ids_N), dim=-1)

    def _rows(self, ids_N: Tensor) -> Tensor:
        return embedding(ids_N, self.word_rows, padding_idx=UNKNOWN, sparse=True)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Features [B, T, …] of texts: ids, which words are there, and letters and kin of words without rows.

        A document's words are taken once each: MaxSim asks only for the best.
        """
        is_query = kwargs.get("task") == "query"
        length = self.query_length if is_query else self.document_length
        texts = [words((prompt or "") + str(text))[:length] for text in inputs]
        if not is_query:
            texts = [list(dict.fromkeys(found)) for found in texts]
        longest = max((len(found) for found in texts), default=0)
        ids_BT = np.zeros((len(texts), longest), np.int64)
        mask_BT = np.zeros((len(texts), longest), np.int64)
        unknown = []
        for row, found in enumerate(texts):
            ids_BT[row, : len(found)] = [self.ids.get(word, UNKNOWN) for word in found]
            mask_BT[row, : len(found)] = 1
            unknown += [(row, at, word) for at, word in enumerate(found) if word not in self.ids]
        codes_NL = spelled([word for _, _, word in unknown])
        codes_BTL = np.zeros((*ids_BT.shape, codes_NL.shape[1]), np.uint8)
        kin_BT4 = np.zeros((*ids_BT.shape, 4), np.int32)
        for (row, at, word), codes in zip(unknown, codes_NL, strict=True):
            codes_BTL[row, at], kin_BT4[row, at] = codes, self._kin(word)
        features = {"input_ids": ids_BT, "attention_mask": mask_BT, "letters": codes_BTL, "kin": kin_BT4}
        return {name: torch.from_numpy(array) for name, array in features.items()}

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Add ``token_embeddings`` [B, T, D]: unit vectors for documents, weighted ones for queries."""
        ids_BT = features["input_ids"]
        ids_N, where_BT = torch.unique(ids_BT, return_inverse=True)
        vectors_BTD = embedding(where_BT, self.known_vectors(ids_N))
        unknown_BT = (ids_BT == UNKNOWN) & features["attention_mask"].bool()
        if unknown_BT.any():
            borrowed_ND = self._unknown_vectors(features["letters"][unknown_BT], features["kin"][unknown_BT])
            vectors_BTD = vectors_BTD.index_put((unknown_BT,), borrowed_ND)
        if task == "query":
            vectors_BTD = vectors_BTD * (embedding(ids_BT, self.query_weights[:, None]) + self.score_scale).exp()
        return {**features, "token_embeddings": vectors_BTD}

    def _unknown_vectors(self, codes_NL: Tensor, kin_N4: Tensor) -> Tensor:
        vectors_ND = self.letters(codes_NL)
        # characters of an unspaced pair stand for themselves, in full; words that look alike count for part
        alone_N = (kin_N4 < 0).any(1)[:, None]
        for order, share, column in ((self.by_beginning, self.beginning, 0), (self.by_ending, self.ending, 2)):
            first_N, count_N = kin_N4[:, column].long(), kin_N4[:, column + 1].long().abs()
            within = torch.arange(int(count_N.sum()), device=count_N.device)
            starts_N = count_N.cumsum(0) - count_N
            flat = order[(first_N - starts_N).repeat_interleave(count_N) + within]
            mean_ND = embedding_bag(flat, self.word_rows, starts_N, mode="mean", sparse=True)
            vectors_ND = vectors_ND + torch.where(alone_N, 1.0, share) * mean_ND
        return normalize(vectors_ND, dim=-1)

    def _kin(self, word: str) -> tuple[int, int, int, int]:
        """Whom an unknown word borrows from: (first, count) in the order by beginning, and in that by ending. Counts
        are negative where they are the characters of an unspaced pair."""
        if is_unspaced(word):
            return (*self._character(self._beginnings, word[0], -1), *self._character(self._endings, word[-1], -1))
        stem = without_article(word)
        if stem.isdigit():
            return (0, 0, 0, 0)
        begins = _sharing(self._beginnings, stem, max(SHORTEST_BEGINNING, BEGINNING_SHARE * len(stem)))
        return (*begins, *_sharing(self._endings, stem[::-1], max(SHORTEST_ENDING, ENDING_SHARE * len(stem))))

    @staticmethod
    def _character(ordered: list[str], character: str, sign: int) -> tuple[int, int]:
        at = bisect_left(ordered, character)
        return (at, sign) if at < len(ordered) and ordered[at] == character else (0, 0)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write config.json, words.json and model.safetensors."""
        self.save_config(output_path)
        (Path(output_path) / WORDS_FILE).write_text(json.dumps(self.vocabulary, ensure_ascii=False), encoding="utf-8")
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Self:
        """Read what ``save`` wrote."""
        where = {key: kwargs[key] for key in WHERE if key in kwargs}
        listed = cls.load_file_path(model_name_or_path, WORDS_FILE, **where)
        if listed is None:
            raise FileNotFoundError(
                f"expected {WORDS_FILE} beside the weights in {model_name_or_path}: copy the whole directory"
            )
        vocabulary = json.loads(Path(listed).read_text(encoding="utf-8"))
        module = cls(vocabulary, **cls.load_config(model_name_or_path, **where))
        return cls.load_torch_weights(model_name_or_path, model=module, **where)


def _densify(rows: nn.Parameter) -> None:
    """What comes after (clipping, the sum over workers, AdamW) wants dense gradients."""
    if rows.grad is not None and rows.grad.is_sparse:
        rows.grad = rows.grad.coalesce().to_dense()  # coalesced, so that sums are always taken in the same order


def _ordered(keys: list[str]) -> tuple[list[str], Tensor]:
    """The keys in order, and the ids of the words they come from."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [keys[n] for n in order], torch.tensor([n + 1 for n in order], dtype=torch.long)


def _sharing(ordered: list[str], key: str, shortest: float) -> tuple[int, int]:
    """(first, count) of the keys that share the longest beginning with ``key``; (0, 0) where that is too short."""
    at = bisect_left(ordered, key)
    shared = max((_common(ordered[n], key) for n in (at - 1, at) if 0 <= n < len(ordered)), default=0)
    if shared < shortest:
        return 0, 0
    beginning = key[:shared]
    first = bisect_left(ordered, beginning)
    return first, min(KIN, bisect_left(ordered, beginning + AFTER_ALL) - first)


def _common(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
