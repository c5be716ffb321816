"""Vectors of new pieces: means of the vectors of known pieces that stand in the same sentence pairs.

How well a new piece f goes with a known piece e is Dice's coefficient over sentence pairs (Dice 1945):

    2 · |pairs with f on the right and e on the left| / (|pairs with f| + |pairs with e|)

A new row is the mean of the rows of the best few known pieces, weighted by a power of the coefficient and scaled to
their mean length. Sentences are counted in the language that has the piece most often. The two forms of a Chinese
piece, at the beginning of a run and inside it, are counted as one.

Array names end in their shape: S sentence pairs, F pieces on the right, V vocabulary, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from pipelines.students.transplant.vocabulary import INSIDE, is_chinese

PIECES_AT_ONCE = 2048
Pairs = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Averaging:
    """How many pieces a row is the mean of, and the power of Dice's coefficient that weighs them."""

    neighbours: int
    power: float


def find_rows(tokenizer: Any, pairs: Pairs, known_VD: np.ndarray, how: Averaging) -> np.ndarray:
    """The rows of the whole vocabulary, float32: the known ones first, as they are, but for letters of other scripts.

    A new piece that is in no sentence gets the mean of the known rows.
    """
    vocabulary = tokenizer.get_vocab()
    same_V = _join_forms(vocabulary)
    learnt_V = np.zeros(len(vocabulary), bool)
    learnt_V[len(known_VD) :] = True
    learnt_V[[at for piece, at in vocabulary.items() if _is_foreign(piece)]] = True
    rows_VD = np.tile(known_VD.mean(0), (len(vocabulary), 1)).astype(np.float32)
    rows_VD[: len(known_VD)] = known_VD
    most_V = np.zeros(len(vocabulary))  # sentences of a language that a piece is in, of the language that has most
    for lang in sorted(pairs):
        left_SV = _mark(tokenizer, [left for left, _ in pairs[lang]], len(vocabulary))[:, : len(known_VD)]
        right_VS = _mark(tokenizer, [right for _, right in pairs[lang]], len(vocabulary), same_V).T.tocsr()
        left_V, right_V = left_SV.sum(0), right_VS.sum(1)
        wanted_F = np.flatnonzero(learnt_V & (right_V > most_V))
        most_V = np.maximum(most_V, right_V)
        for start in range(0, len(wanted_F), PIECES_AT_ONCE):
            some_F = wanted_F[start : start + PIECES_AT_ONCE]
            together = right_VS[some_F] @ left_SV
            for at, piece in enumerate(some_F):
                span = slice(together.indptr[at], together.indptr[at + 1])
                with_it = together.indices[span]
                dice = 2 * together.data[span] / (right_V[piece] + left_V[with_it])
                best = np.lexsort((with_it, -dice))[: how.neighbours]
                if len(best):
                    rows_VD[piece] = _average(known_VD[with_it[best]], dice[best] ** how.power)
    return rows_VD[same_V]


def _average(rows_ND: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """The weighted mean of rows, made as long as they are in the mean."""
    share_N = weights_N / weights_N.sum()
    mean_D = share_N @ rows_ND
    length = share_N @ np.linalg.norm(rows_ND, axis=1)
    return np.asarray(mean_D * (length / max(float(np.linalg.norm(mean_D)), 1e-9)), np.float32)


def _join_forms(vocabulary: Mapping[str, int]) -> np.ndarray:
    """For each piece the one that it is counted as: itself, or the form of a Chinese piece that begins a run."""
    same_V = np.arange(len(vocabulary))
    for piece, at in vocabulary.items():
        bare = piece.removeprefix(INSIDE)
        if bare != piece and bare in vocabulary and is_chinese(bare):
            same_V[at] = vocabulary[bare]
    return same_V


def _mark(tokenizer: Any, sentences: Sequence[str], size: int, same_V: np.ndarray | None = None) -> csr_array:
    """Which pieces are in which sentences, 1 or 0: [S, V]."""
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(list(sentences), add_special_tokens=False)
    ids = [
        np.unique(np.array(e.ids, np.int64) if same_V is None else same_V[np.array(e.ids, np.int64)]) for e in encoded
    ]
    starts = np.concatenate([[0], np.cumsum([len(of_one) for of_one in ids])])
    indices = np.concatenate([np.zeros(0, np.int64), *ids])
    return csr_array((np.ones(len(indices), np.float32), indices, starts), shape=(len(sentences), size))


def _is_foreign(piece: str) -> bool:
    """Whether a piece is of letters beyond Latin, Greek and the marks of both: those of the known vocabulary are there
    for single letters of other scripts, and mean nothing."""
    letters = [letter for letter in piece.removeprefix(INSIDE) if letter.isalpha()]
    return bool(letters) and all(ord(letter) >= 0x400 and not 0x1E00 <= ord(letter) < 0x2000 for letter in letters)
