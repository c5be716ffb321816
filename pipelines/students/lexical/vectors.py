"""The lexical student's only module: maps texts to one vector per word.

A word's vector is letters(word) + row(word), normalised: a fixed part that every word has, and a learned row. A word
without a row takes, weighted, the mean row of the words with the same prefix and of those with the same suffix; a pair
of unspaced characters takes the rows of its two characters. In a query each vector is multiplied by the word's weight.

There is no context, so a text costs one look-up per word: about 300,000 words a second on one core.

Tensor names end in their shape: B texts, T words, N words, L letter codes, D dimensions, V words that have rows.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, normalize

from pipelines.students.files import find_file
from pipelines.students.lexical.letters import WORDS_PER_CHUNK, LetterVectors, encode_letters
from pipelines.students.lexical.words import find_spans, is_unspaced, split_words, strip_article

UNKNOWN = 0  # the id of a word without a row
FILES = CONFIG_FILE, WORDS_FILE, WEIGHTS_FILE = "config.json", "words.json", "model.safetensors"
# the library's options that say where a file is
LOCATION_KEYS = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
# An affix is shared by related words, rather than by chance, if it has this many letters and this share of the word.
MIN_PREFIX, MIN_SUFFIX = 4, 5
MIN_PREFIX_SHARE, MIN_SUFFIX_SHARE = 0.5, 0.4
MAX_NEIGHBOURS = 64  # words whose rows are averaged for a word without one
LAST_CODE_POINT = "\U0010ffff"  # sorts behind every letter


class WordSpans:
    """The tokenizer that sentence-transformers and this project's windows expect; it gives the offsets of words."""

    is_fast, pad_token_id = True, UNKNOWN

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[tuple[int, int]]]]:
        """Return the character offsets [first, last) of the words of each text, in the form of a fast tokenizer."""
        return {"offset_mapping": [list(find_spans(text)) for text in texts]}


class WordVectors(nn.Module):
    """Word vectors as an input module of sentence-transformers, which asks for methods and for no base class.

    ``vocabulary`` lists the words that have rows; word n has id n + 1, and id 0 is every other word. ``config`` holds
    a value for each of ``config_keys``; they are the settings of ``Lexical`` and are saved with the weights.
    """

    config_keys: list[str] = [
        *("dim", "ngram_rows", "ngram_sizes", "skeleton", "beginning", "ending"),
        *("query_length", "document_length", "seed"),
    ]
    forward_kwargs: set[str] = {"task"}
    dim: int
    ngram_rows: int
    ngram_sizes: list[int]
    skeleton: float
    beginning: float
    ending: float
    query_length: int
    document_length: int
    seed: int
    fixed_VD: Tensor
    is_computed_V: Tensor
    ids_by_prefix_V: Tensor
    ids_by_suffix_V: Tensor

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
        # A text reads few rows, and a training step adds up many passes: gradients stay sparse within each pass.
        self.word_rows.register_post_accumulate_grad_hook(_densify)
        self.query_weights = nn.Parameter(torch.zeros(size))  # in logarithms
        # One factor of all scores: it changes no ranking, only how peaked a softmax over scores is.
        self.score_scale = nn.Parameter(torch.zeros(()))  # in logarithms
        self._stems, ids_by_prefix_V = _sort_keys([strip_article(word) for word in self.vocabulary])
        self._reversed_stems, ids_by_suffix_V = _sort_keys([strip_article(word)[::-1] for word in self.vocabulary])
        self.register_buffer("ids_by_prefix_V", ids_by_prefix_V, persistent=False)
        self.register_buffer("ids_by_suffix_V", ids_by_suffix_V, persistent=False)
        # the words' letter vectors, each computed when a text first holds the word
        self.register_buffer("fixed_VD", torch.zeros(size, self.dim), persistent=False)
        self.register_buffer("is_computed_V", torch.arange(size) == UNKNOWN, persistent=False)

    @property
    def max_seq_length(self) -> int:
        """Length of the longest document that is read whole, in words."""
        return self.document_length

    def get_embedding_dimension(self) -> int:
        """Return D, the dimension of the vectors."""
        return self.dim

    def compute_letter_vectors(self, words: Sequence[str]) -> Tensor:
        """Compute the fixed part of the words' vectors, [N, D]."""
        chunks = [words[at : at + WORDS_PER_CHUNK] for at in range(0, len(words), WORDS_PER_CHUNK)]
        device = self.word_rows.device
        vectors = [self.letters(torch.from_numpy(encode_letters(chunk)).to(device)) for chunk in chunks]
        return torch.cat([torch.zeros(0, self.dim, device=device), *vectors])

    def compute_known_vectors(self, ids_N: Tensor) -> Tensor:
        """Compute the unit vectors [N, D] of words that have rows."""
        self._add_letter_vectors(ids_N[~self.is_computed_V[ids_N]])
        rows_ND = embedding(ids_N, self.word_rows, padding_idx=UNKNOWN, sparse=True)
        return normalize(self.fixed_VD[ids_N] + rows_ND, dim=-1)

    def _add_letter_vectors(self, ids_N: Tensor) -> None:
        """Compute the letter vectors of words that have none yet, in float32 whatever the caller computes with."""
        if len(ids_N):
            with torch.no_grad(), torch.autocast(ids_N.device.type, enabled=False):
                words = [self.vocabulary[number - 1] for number in ids_N.tolist()]
                self.fixed_VD[ids_N] = self.compute_letter_vectors(words)
                self.is_computed_V[ids_N] = True

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Compute the features of texts, each [B, T, …]: word ids, attention mask, and for words without a row their
        letter codes and the neighbours whose rows they take (see ``_find_neighbours``).

        A document keeps one occurrence of each word: MaxSim takes the maximum, so repetitions change nothing.
        """
        is_query = kwargs.get("task") == "query"
        length = self.query_length if is_query else self.document_length
        texts = [split_words((prompt or "") + str(text))[:length] for text in inputs]
        if not is_query:
            texts = [list(dict.fromkeys(words)) for words in texts]
        longest = max((len(words) for words in texts), default=0)
        ids_BT = np.zeros((len(texts), longest), np.int64)
        mask_BT = np.zeros((len(texts), longest), np.int64)
        unknown = []
        for row, words in enumerate(texts):
            ids_BT[row, : len(words)] = [self.ids.get(word, UNKNOWN) for word in words]
            mask_BT[row, : len(words)] = 1
            unknown += [(row, at, word) for at, word in enumerate(words) if word not in self.ids]
        codes_NL = encode_letters([word for _, _, word in unknown])
        codes_BTL = np.zeros((*ids_BT.shape, codes_NL.shape[1]), np.uint8)
        neighbours_BT4 = np.zeros((*ids_BT.shape, 4), np.int32)
        for (row, at, word), codes in zip(unknown, codes_NL, strict=True):
            codes_BTL[row, at], neighbours_BT4[row, at] = codes, self._find_neighbours(word)
        features = {
            "input_ids": ids_BT,
            "attention_mask": mask_BT,
            "letters": codes_BTL,
            "neighbours": neighbours_BT4,
        }
        return {name: torch.from_numpy(array) for name, array in features.items()}

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Add ``token_embeddings``, float32 [B, T, D]: unit vectors for documents, weighted vectors for queries."""
        ids_BT = features["input_ids"]
        ids_N, index_BT = torch.unique(ids_BT, return_inverse=True)
        vectors_BTD = embedding(index_BT, self.compute_known_vectors(ids_N))
        unknown_BT = (ids_BT == UNKNOWN) & features["attention_mask"].bool()
        if unknown_BT.any():
            unknown_ND = self._compute_unknown_vectors(
                features["letters"][unknown_BT], features["neighbours"][unknown_BT]
            )
            vectors_BTD = vectors_BTD.index_put((unknown_BT,), unknown_ND)
        if task == "query":
            vectors_BTD = vectors_BTD * (embedding(ids_BT, self.query_weights[:, None]) + self.score_scale).exp()
        return {**features, "token_embeddings": vectors_BTD}

    def _compute_unknown_vectors(self, codes_NL: Tensor, neighbours_N4: Tensor) -> Tensor:
        """Compute the unit vectors [N, D] of words without a row, from their letters and their neighbours' rows."""
        vectors_ND = self.letters(codes_NL)
        # The characters of an unspaced pair have its meaning and count in full; words with the same affix are only
        # similar and count by the configured weight.
        is_pair_N1 = (neighbours_N4 < 0).any(1)[:, None]
        for ids_V, weight, column in (
            (self.ids_by_prefix_V, self.beginning, 0),
            (self.ids_by_suffix_V, self.ending, 2),
        ):
            first_N, count_N = neighbours_N4[:, column].long(), neighbours_N4[:, column + 1].long().abs()
            # ids_V[first : first + count] of every word, one after the other
            offsets = torch.arange(int(count_N.sum()), device=count_N.device)
            starts_N = count_N.cumsum(0) - count_N
            ids = ids_V[(first_N - starts_N).repeat_interleave(count_N) + offsets]
            mean_ND = embedding_bag(ids, self.word_rows, starts_N, mode="mean", sparse=True)
            vectors_ND = vectors_ND + torch.where(is_pair_N1, 1.0, weight) * mean_ND
        return normalize(vectors_ND, dim=-1)

    def _find_neighbours(self, word: str) -> tuple[int, int, int, int]:
        """Find the words whose rows a word without one takes, as (first, count, first, count).

        The first range is one of ``ids_by_prefix_V``, the second of ``ids_by_suffix_V``. The counts are −1 for the two
        characters of an unspaced pair, and 0 where there are no neighbours; a number has none.
        """
        if is_unspaced(word):
            return (*_find_character(self._stems, word[0]), *_find_character(self._reversed_stems, word[-1]))
        stem = strip_article(word)
        if stem.isdigit():
            return (0, 0, 0, 0)
        same_prefix = _find_range(self._stems, stem, max(MIN_PREFIX, MIN_PREFIX_SHARE * len(stem)))
        min_suffix = max(MIN_SUFFIX, MIN_SUFFIX_SHARE * len(stem))
        return (*same_prefix, *_find_range(self._reversed_stems, stem[::-1], min_suffix))

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config.json, words.json and model.safetensors."""
        where = Path(output_path)
        config = {key: getattr(self, key) for key in self.config_keys}
        (where / CONFIG_FILE).write_text(json.dumps(config, indent=4), encoding="utf-8")
        (where / WORDS_FILE).write_text(json.dumps(self.vocabulary, ensure_ascii=False), encoding="utf-8")
        save_model(self, str(where / WEIGHTS_FILE))

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Self:
        """Load a module that ``save`` wrote.

        Raises:
            FileNotFoundError: one of its files is not there.
        """
        location = {key: kwargs[key] for key in LOCATION_KEYS if key in kwargs}
        found = {name: find_file(model_name_or_path, name, **location) for name in FILES}
        if missing := [name for name, path in found.items() if not path]:
            raise FileNotFoundError(
                f"expected {' and '.join(missing)} among the files of {model_name_or_path}: copy the whole directory"
            )
        config, words, weights = (path for path in found.values() if path)
        module = cls(json.loads(words.read_text("utf-8")), **json.loads(config.read_text("utf-8")))
        load_model(module, weights)
        return module


def _densify(rows: nn.Parameter) -> None:
    """Make the gradient dense: gradient clipping, the sum over workers and AdamW need it so."""
    if rows.grad is not None and rows.grad.is_sparse:
        rows.grad = rows.grad.coalesce().to_dense()  # coalesced, so that sums are always taken in the same order


def _sort_keys(keys: list[str]) -> tuple[list[str], Tensor]:
    """Sort the keys of the vocabulary. Returns the sorted keys and the word ids that they belong to, int64."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [keys[n] for n in order], torch.tensor([n + 1 for n in order], dtype=torch.long)


def _find_character(sorted_keys: list[str], character: str) -> tuple[int, int]:
    """Find a single character among the keys: (its position, −1), or (0, 0) if it has no row."""
    at = bisect_left(sorted_keys, character)
    return (at, -1) if at < len(sorted_keys) and sorted_keys[at] == character else (0, 0)


def _find_range(sorted_keys: list[str], key: str, min_length: float) -> tuple[int, int]:
    """Find the keys that share the longest prefix with ``key``: (first, count), of at most MAX_NEIGHBOURS keys, or
    (0, 0) if that prefix is shorter than ``min_length``."""
    at = bisect_left(sorted_keys, key)
    neighbours = [sorted_keys[n] for n in (at - 1, at) if 0 <= n < len(sorted_keys)]
    length = max((_count_common_letters(other, key) for other in neighbours), default=0)
    if length < min_length:
        return 0, 0
    prefix = key[:length]
    first = bisect_left(sorted_keys, prefix)
    return first, min(MAX_NEIGHBOURS, bisect_left(sorted_keys, prefix + LAST_CODE_POINT) - first)


def _count_common_letters(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
