"""Vectors of new pieces: means of the vectors of the known pieces that translate them, fitted to whole sentences.

How well a new piece f goes with a known piece e is √(p(e|f) · p(f|e)), from IBM model 1 in both directions
(``pipelines.students.lexical.ibm1``). A row begins as the mean of the rows of the best few known pieces, weighted by it
and scaled to their mean length; pieces are aligned in the language that has them in most sentences. Then all new rows
move together, so that the mean row of a sentence comes near that of its translation (``fit``).

What each gives, measured: docs/small.md. Array names end in their shape: V vocabulary, C cells, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.students.lexical.ibm1 import estimate_translations, find_cooccurrence
from pipelines.students.transplant.fit import fit_rows
from pipelines.students.transplant.sentences import Pair, Sentences, cut_sentences
from pipelines.students.transplant.vocabulary import Pairs


@dataclass(frozen=True)
class Alignment:
    """How rows are found: iterations of EM, how many known pieces a row is the mean of, and the steps and the ridge
    of the fit to sentences."""

    iterations: int
    neighbours: int
    steps: int
    ridge: float


def find_rows(tokenizer: Any, texts: Pairs, known_VD: np.ndarray, how: Alignment) -> np.ndarray:
    """The rows of the whole vocabulary, float32: the known ones first, as they are, but for letters of other scripts.

    A new piece that is in no sentence gets the mean of the known rows.
    """
    sentences = cut_sentences(tokenizer, texts, len(known_VD))
    rows_VD = np.tile(known_VD.mean(0), (len(sentences.form_V), 1)).astype(np.float32)
    rows_VD[: len(known_VD)] = known_VD
    _average_rows(rows_VD, sentences, how)
    fit_rows(rows_VD, sentences, how.steps, how.ridge)
    return np.asarray(rows_VD[sentences.form_V])


def _average_rows(rows_VD: np.ndarray, sentences: Sentences, how: Alignment) -> None:
    """Set each new row to the mean of those of its translations, in place."""
    most_V = np.zeros(len(rows_VD), np.int64)  # sentences that a piece is in, of the language that has most
    for pairs in sentences.pairs.values():
        count_V = _count_sentences(pairs, len(rows_VD))
        is_wanted_V = sentences.is_new_V & (count_V > most_V)
        most_V = np.maximum(most_V, count_V)
        cells = find_cooccurrence([(pair.right.tolist(), pair.left.tolist()) for pair in pairs])
        left_given_right_C, right_given_left_C = estimate_translations(cells, how.iterations)
        weights_C = np.sqrt(left_given_right_C * right_given_left_C)
        left_C = np.array(cells.other, np.int64)[cells.cell_other]
        bounds = np.searchsorted(cells.cell_one, np.arange(len(cells.one) + 1))  # cells are sorted by their piece
        for piece, begin, end in zip(cells.one, bounds[:-1], bounds[1:], strict=True):
            if is_wanted_V[piece] and end > begin:  # a sentence may have no known piece beside it
                best = begin + np.lexsort((left_C[begin:end], -weights_C[begin:end]))[: how.neighbours]
                rows_VD[piece] = _average(rows_VD[left_C[best]], weights_C[best])


def _count_sentences(pairs: Sequence[Pair], size: int) -> np.ndarray:
    """How many right sentences each piece is in: [V]."""
    once = [np.unique(pair.right) for pair in pairs]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *once]), minlength=size)


def _average(rows_ND: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """The weighted mean of rows, made as long as they are in the mean."""
    share_N = weights_N / weights_N.sum()
    mean_D = share_N @ rows_ND
    length = share_N @ np.linalg.norm(rows_ND, axis=1)
    return np.asarray(mean_D * (length / max(float(np.linalg.norm(mean_D)), 1e-9)), np.float32)
