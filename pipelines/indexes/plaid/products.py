"""Inner products in bfloat16: of vectors of 8 bits of precision, added up in float32, rounded to 8 bits again.

That is enough to find a near cell, and where the processor multiplies bfloat16 (AMX, AVX-512) torch does it several
times as fast as BLAS multiplies float32. Elsewhere, and where there is too little to do for loading torch to pay, BLAS
multiplies the same rounded numbers: both give the same but for the order of the sums. Vectors and scores are kept as
the bits of their numbers: uint16 and int16. Importing this module compiles its loops.
Legend: C centroids, G groups, R rows, T tokens, N dim, V groups visited.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import types

from pipelines.indexes.compiled import kernel, subroutine
from pipelines.precision import BF16_FLAGS, cpu_flags
from pipelines.vectors import FloatArray, IntArray

PAYS = 1 << 36  # multiplications from which on torch is loaded: BLAS takes about as long for them as that does
ROWS, FILL, COLUMNS = 1 << 13, 1 << 8, 32  # of a product; the rows and the columns of one by torch are multiples
LOWEST = -(1 << 15)
_array, _F4, _I2, _I4, _I8, _U2 = types.Array, types.float32, types.int16, types.int32, types.int64, types.uint16
_READ_F4_2, _READ_U2_2, _READ_I2_2 = (_array(kind, 2, "C", readonly=True) for kind in (_F4, _U2, _I2))
_READ_I4_1, _READ_I8_1 = (_array(kind, 1, "C", readonly=True) for kind in (_I4, _I8))
_F4_2, _U2_2, _I4_1, _I8_1 = _array(_F4, 2, "C"), _array(_U2, 2, "C"), _array(_I4, 1, "C"), _array(_I8, 1, "C")


class Products:
    """Multiplies bfloat16: by torch where ``multiplications`` are enough for that to pay on this processor."""

    def __init__(self, multiplications: float = 0):
        self.by_torch = multiplications >= PAYS and bool(BF16_FLAGS & cpu_flags())

    def prepare(self, right_CN: IntArray) -> Any:
        """Vectors that others are to be multiplied with, in the form that ``__call__`` takes."""
        if self.by_torch:
            padded = np.concatenate([right_CN, np.repeat(right_CN[-1:], -len(right_CN) % COLUMNS, axis=0)])
            return _tensor(padded).T
        return widen(right_CN).T

    def __call__(self, left_TN: IntArray, rows_R: IntArray, right: Any) -> Iterator[tuple[IntArray, IntArray]]:
        """The scores of rows of ``left_TN`` with all of ``right``, as bits: yields some of the rows, and their scores.

        Where torch multiplies, shapes are filled up to a few sizes: for each shape that it meets it compiles a loop.
        Scores then have more rows, and more columns, of the last vector again. BLAS and torch thread products.
        """
        for start in range(0, len(rows_R), ROWS):
            some = rows_R[start : start + ROWS]
            if self.by_torch:
                filled = np.concatenate([some, np.repeat(some[-1:], -len(some) % FILL)])
                scores = _tensor(left_TN.take(filled, axis=0)) @ right
                yield some, scores.view(_torch().int16).numpy()
            else:
                wide = np.empty((len(some), left_TN.shape[1]), np.uint32)
                _take_wide(left_TN, some, wide)
                yield some, _round_rows(wide.view(np.float32) @ right).view(np.int16)


def _tensor(bits: IntArray) -> Any:
    torch = _torch()
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def _torch() -> Any:
    import torch

    return torch


def round_to_bits(vectors_TN: FloatArray) -> IntArray:
    """The bits of the nearest numbers of bfloat16, of ties the even ones."""
    bits_TN = np.empty(vectors_TN.shape, np.uint16)
    for start in range(0, len(vectors_TN), ROWS):
        wide_TN = to_float32(vectors_TN[start : start + ROWS])
        _round(wide_TN.view(np.uint32), bits_TN[start : start + ROWS])
    return bits_TN


def to_float32(vectors_TN: FloatArray) -> FloatArray:
    """The vectors as float32, not copied where they are; finite numbers of float16 are converted faster than by
    numpy."""
    if vectors_TN.dtype != np.float16:
        return np.ascontiguousarray(vectors_TN, np.float32)
    wide_TN = np.empty(vectors_TN.shape, np.float32)
    _widen_halves(np.ascontiguousarray(vectors_TN).view(np.uint16), wide_TN.view(np.uint32), wide_TN)
    return wide_TN


def _round_rows(values_TN: FloatArray) -> IntArray:
    bits_TN = np.empty(values_TN.shape, np.uint16)
    _round(values_TN.view(np.uint32), bits_TN)
    return bits_TN


def widen(bits_TN: IntArray) -> FloatArray:
    """The float32 numbers of these bits."""
    wide_TN = np.empty(bits_TN.shape, np.uint32)
    _widen(bits_TN, wide_TN)
    return wide_TN.view(np.float32)


@kernel(types.void(_array(types.uint32, 2, "C", readonly=True), _U2_2))
def _round(wide_TN, bits_TN):  # type: ignore[no-untyped-def]
    for t in range(len(wide_TN)):
        wide_N, bits_N = wide_TN[t], bits_TN[t]
        for n in range(len(wide_N)):
            bits_N[n] = np.uint16(np.uint32(wide_N[n] + np.uint32(0x7FFF) + ((wide_N[n] >> 16) & 1)) >> 16)


@kernel(types.void(_READ_U2_2, _array(types.uint32, 2, "C")))
def _widen(bits_TN, wide_TN):  # type: ignore[no-untyped-def]
    for t in range(len(bits_TN)):
        bits_N, wide_N = bits_TN[t], wide_TN[t]
        for n in range(len(bits_N)):
            wide_N[n] = np.uint32(bits_N[n]) << 16


@kernel(types.void(_READ_U2_2, _READ_I4_1, _array(types.uint32, 2, "C")))
def _take_wide(bits_TN, rows_R, wide_RN):  # type: ignore[no-untyped-def]
    for r in range(len(rows_R)):
        bits_N, wide_N = bits_TN[rows_R[r]], wide_RN[r]
        for n in range(len(bits_N)):
            wide_N[n] = np.uint32(bits_N[n]) << 16


@kernel(types.void(_READ_U2_2, _array(types.uint32, 2, "C"), _F4_2))
def _widen_halves(bits_TN, wide_TN, values_TN):  # type: ignore[no-untyped-def]
    """Write the float32 numbers of float16 bits: ``wide_TN`` and ``values_TN`` are one array of two types."""
    for t in range(len(bits_TN)):
        bits_N, wide_N, values_N = bits_TN[t], wide_TN[t], values_TN[t]
        for n in range(len(bits_N)):
            wide_N[n] = (np.uint32(bits_N[n] & 0x8000) << 16) | (np.uint32(bits_N[n] & 0x7FFF) << 13)
        for n in range(len(bits_N)):
            values_N[n] *= np.float32(2.0**112)  # exponents of float32 are counted from there


@subroutine
def _order(score):  # type: ignore[no-untyped-def]
    """A score's bits as an integer that rises with it."""
    return np.int16(score ^ ((score >> 15) & 0x7FFF))


@kernel(types.void(_READ_I2_2, _READ_I4_1, _I8, _I8, _array(_I2, 1, "C"), _I4_1))
def take_best(scores_RC, rows_R, first, last, best_T, cells_T):  # type: ignore[no-untyped-def]
    """Give each token of ``rows_R`` the best of the cells from ``first`` to ``last`` if it beats the one it has."""
    for r in range(len(rows_R)):
        scores_C, highest = scores_RC[r], np.int32(LOWEST << 16)
        for c in range(last - first):  # of equal scores the first
            highest = max(highest, np.int32((np.int32(_order(scores_C[c])) << 16) | np.int32(0xFFFF - c)))
        score, row = np.int16(highest >> 16), rows_R[r]
        if score > best_T[row]:
            best_T[row], cells_T[row] = score, first + 0xFFFF - (highest & 0xFFFF)


@kernel(types.void(_READ_I2_2, _I8, _array(_I4, 2, "C"), _I8_1))
def choose_groups(scores_TG, groups, near_TV, counts_G):  # type: ignore[no-untyped-def]
    """Fill in those of the first ``groups`` that have the highest scores of each token; count the visits of each."""
    visited = near_TV.shape[1]
    scores_G, chosen = np.empty(groups, np.int16), np.empty(groups + 1, np.int32)
    for t in range(len(near_TV)):
        for g in range(groups):
            scores_G[g] = _order(scores_TG[t, g])
        low, high = np.int32(LOWEST), np.int32(-LOWEST)  # the lowest score that fewer than ``visited`` groups exceed
        while low < high:
            middle, above = np.int32((low + high) >> 1), np.int32(0)
            for g in range(groups):
                above += np.int32(scores_G[g] > middle)
            if above < visited:
                high = middle
            else:
                low = np.int32(middle + 1)
        count = 0
        for g in range(groups):
            chosen[count] = g
            count += np.int64(scores_G[g] > low)
        g = 0
        while count < visited:
            if scores_G[g] == low:
                chosen[count] = g
                count += 1
            g += 1
        for v in range(visited):
            near_TV[t, v] = chosen[v]
            counts_G[chosen[v]] += 1


@kernel(types.void(_array(_I4, 2, "C", readonly=True), _I8_1, _I4_1))
def sort_visits(near_TV, places_G, rows):  # type: ignore[no-untyped-def]
    """Write the tokens that visit each group one group behind another, from ``places_G``, which move to their ends."""
    for t in range(len(near_TV)):
        for v in range(near_TV.shape[1]):
            group = near_TV[t, v]
            rows[places_G[group]] = t
            places_G[group] += 1


@kernel(types.void(_READ_U2_2, _READ_I4_1, _F4_2, _I8_1))
def add_up(bits_TN, cells_T, sums_CN, counts_C):  # type: ignore[no-untyped-def]
    """Add each vector to the sum of its cell, and 1 to its count."""
    wide_N = np.empty(bits_TN.shape[1], np.uint32)
    values_N = wide_N.view(np.float32)
    for t in range(len(bits_TN)):
        bits_N, sums_N = bits_TN[t], sums_CN[cells_T[t]]
        for n in range(len(bits_N)):
            wide_N[n] = np.uint32(bits_N[n]) << 16
        for n in range(len(bits_N)):
            sums_N[n] += values_N[n]
        counts_C[cells_T[t]] += 1
