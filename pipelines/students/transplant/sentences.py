"""Sentence pairs as pieces: what is counted, and which pieces are to get a vector.

The two forms of a Chinese piece, at the beginning of a run and inside it, are counted as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipelines.students.transplant.vocabulary import INSIDE, Pairs, is_chinese

LONGEST = 64  # pieces of a sentence; pairs with a longer one are left out, since alignment takes time with the square


class Pair(NamedTuple):
    """The numbers of the pieces of a sentence, those that the English model knows, and of its translation."""

    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Sentences:
    """Sentence pairs by language, cut into pieces.

    Of all pieces of the vocabulary ``is_new_V`` says which are to get a vector, and ``form_V`` gives the piece that
    each is counted as.
    """

    pairs: dict[str, list[Pair]]
    is_new_V: np.ndarray
    form_V: np.ndarray


def cut_sentences(tokenizer: Any, texts: Pairs, known: int) -> Sentences:
    """Cut sentence pairs into pieces. New are those beyond the ``known`` ones, and known letters of other scripts."""
    vocabulary = tokenizer.get_vocab()
    form_V = _join_forms(vocabulary)
    is_new_V = np.arange(len(vocabulary)) >= known
    is_new_V[[at for piece, at in vocabulary.items() if _is_foreign(piece)]] = True

    def cut(sentences: list[str]) -> list[np.ndarray]:
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
        return [np.array(one.ids, np.int64) for one in encoded]

    pairs = {}
    for lang in sorted(texts):
        left, right = (cut([pair[side] for pair in texts[lang]]) for side in (0, 1))
        kept = ((one, other) for one, other in zip(left, right, strict=True) if max(len(one), len(other)) <= LONGEST)
        pairs[lang] = [Pair(one[one < known], form_V[other]) for one, other in kept]
    return Sentences(pairs, is_new_V, form_V)


def _join_forms(vocabulary: Mapping[str, int]) -> np.ndarray:
    """For each piece the one that it is counted as: itself, or the form of a Chinese piece that begins a run."""
    form_V = np.arange(len(vocabulary))
    for piece, at in vocabulary.items():
        bare = piece.removeprefix(INSIDE)
        if bare != piece and bare in vocabulary and is_chinese(bare):
            form_V[at] = vocabulary[bare]
    return form_V


def _is_foreign(piece: str) -> bool:
    """Whether a piece is of letters beyond Latin, Greek and the marks of both: those of the known vocabulary are there
    for single letters of other scripts, and mean nothing."""
    letters = [letter for letter in piece.removeprefix(INSIDE) if letter.isalpha()]
    return bool(letters) and all(ord(letter) >= 0x400 and not 0x1E00 <= ord(letter) < 0x2000 for letter in letters)
