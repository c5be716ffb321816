"""Least squares: new rows with which the mean row of each sentence is near that of its translation.

    minimise over R:  Σ_s |s| · ‖ mean row of the right pieces − mean row of the left pieces ‖² + ridge · ‖R − start‖²

for sentence pairs s of |s| left pieces. A word gets what the words beside it do not explain: alignment, which asks for
each word by itself, gives a frequent neighbour too much. A piece of many sentences moves, one of few stays where it
began. Solved by conjugate gradients (Hestenes and Stiefel 1952), all dimensions side by side; a step takes two products
of the sparse matrix of the right sentences with a row for each piece. Rows keep the length with which they began.

Array names end in their shape: S sentence pairs, F new pieces, D dimensions.
"""

from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from pipelines.students.transplant.sentences import Sentences


def fit_rows(rows_VD: np.ndarray, sentences: Sentences, steps: int, ridge: float) -> None:
    """Fit the new rows to the sentences, in place."""
    new_F = np.flatnonzero(sentences.is_new_V & (sentences.form_V == np.arange(len(rows_VD))))
    right_SF, target_SD = _make_system(rows_VD, sentences, new_F)
    start_FD = rows_VD[new_F]
    moved_FD = start_FD + _solve(right_SF, target_SD - right_SF @ start_FD, steps, ridge)
    lengths_F = np.linalg.norm(start_FD, axis=1) / np.maximum(np.linalg.norm(moved_FD, axis=1), 1e-9)
    rows_VD[new_F] = moved_FD * lengths_F[:, None]


def _make_system(rows_VD: np.ndarray, sentences: Sentences, new_F: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """The weights of the new pieces in the sentences [S, F], and what they are to add up to [S, D]: the mean of the
    left rows without what known pieces on the right add."""
    at_V = np.full(len(rows_VD), -1, np.int64)
    at_V[new_F] = np.arange(len(new_F))
    columns, weights, targets = [], [], []
    for left, right in chain.from_iterable(sentences.pairs.values()):
        is_new = sentences.is_new_V[right]
        if len(left) and is_new.any():
            scale = len(left) ** 0.5
            columns.append(at_V[right[is_new]])
            weights.append(np.full(len(columns[-1]), scale / len(right), np.float32))
            known_D = rows_VD[right[~is_new]].sum(0) / len(right)
            targets.append(scale * (rows_VD[left].mean(0) - known_D))
    starts = np.cumsum([0, *map(len, columns)])
    dim = rows_VD.shape[1]
    cells = (np.concatenate([np.zeros(0, np.float32), *weights]), np.concatenate([np.zeros(0, np.int64), *columns]))
    right_SF = csr_array((*cells, starts), shape=(len(columns), len(new_F)))
    return right_SF, np.asarray(targets, np.float32).reshape(-1, dim)


def _solve(matrix_SF: csr_array, target_SD: np.ndarray, steps: int, ridge: float) -> np.ndarray:
    """The X [F, D] with the least ‖matrix · X − target‖² + ridge · ‖X‖², after so many steps from 0."""
    transposed_FS = matrix_SF.T.tocsr()
    residual_FD = transposed_FS @ target_SD
    found_FD, direction_FD = np.zeros_like(residual_FD), residual_FD.copy()
    size_D = np.square(residual_FD).sum(0)
    for _ in range(steps):
        product_FD = transposed_FS @ (matrix_SF @ direction_FD) + ridge * direction_FD
        step_D = size_D / np.maximum((direction_FD * product_FD).sum(0), 1e-30)
        found_FD += step_D * direction_FD
        residual_FD -= step_D * product_FD
        before_D, size_D = size_D, np.square(residual_FD).sum(0)
        direction_FD = residual_FD + size_D / np.maximum(before_D, 1e-30) * direction_FD
    return found_FD
