"""The compiled loops of PLAID's search: see ``pipelines.indexes.plaid.search`` for what each is for.

Importing this module compiles them (or loads what an earlier process compiled). Those that read passages walk all
shards of a group in one call. Legend: Q query tokens, L query tokens padded to a multiple of ``LANES`` with tokens of
zeros, C cells, K probes, P passages, S shards, T tokens, W bytes of a residual, N dim.
"""

from typing import NamedTuple

import numpy as np
from numba import carray, types

from pipelines.indexes.compiled import at, kernel, subroutine
from pipelines.vectors import FloatArray, IntArray

LANES = 16  # query tokens that are compared at a time
DOT = 1 << 17  # multiplications in one product: BLAS takes one thread for so few
CODES, RESIDUALS, LIST_STARTS, LISTS = range(4)  # columns of ``Shards.places_SA``
F32 = np.float32
LOWEST = F32(-3e38)


class Shards(NamedTuple):
    """Where the arrays of the shards lie in memory, for kernels.

    Attributes:
        places_SA: addresses: of codes, residuals, and the starts and bytes of the inverted lists.
        firsts_S1: the first passage of each shard, and the number of all.
        starts_P1: the first token of each passage, and the number of all.
        code_bytes: 2 or 4.
        residual_bytes: of a token.
    """

    places_SA: IntArray
    firsts_S1: IntArray
    starts_P1: IntArray
    code_bytes: int
    residual_bytes: int


class CodecTables(NamedTuple):
    """What kernels decode with: centroids, and for each of the 256 bytes of a residual the weights of its components.

    Two float32 weights are kept in one float64, which is copied and never computed with.
    """

    centroids_CN: FloatArray
    weights_BH: FloatArray


_array = types.Array
_I8, _F4 = types.int64, types.float32
_SHARDS = types.NamedTuple((_array(_I8, 2, "C"), _array(_I8, 1, "C"), _array(_I8, 1, "C"), _I8, _I8), Shards)
_F4_1, _F4_2, _I8_2 = _array(_F4, 1, "C"), _array(_F4, 2, "C"), _array(_I8, 2, "C")
_I4_1 = _array(types.int32, 1, "C")
_READ_2 = _array(_F4, 2, "C", readonly=True)
_CODEC = types.NamedTuple((_F4_2, _array(types.float64, 2, "C")), CodecTables)
_READ_I4, _READ_F4 = _array(types.int32, 1, "C", readonly=True), _array(_F4, 1, "C", readonly=True)


@subroutine
def _replace_lowest(scores_K, cells_K, size, score, cell):  # type: ignore[no-untyped-def]
    """Put an entry in the place of the lowest, the first of a heap of ``size`` entries."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and scores_K[child + 1] < scores_K[child]:
            child += 1
        if score <= scores_K[child]:
            break
        scores_K[place], cells_K[place] = scores_K[child], cells_K[child]
        place = child
    scores_K[place], cells_K[place] = score, cell


@kernel(types.void(_F4_2, _array(types.boolean, 1, "C"), _I8_2, _F4_2))
def find_cells(scores_CL, is_filled_C, cells_QK, scores_QK):  # type: ignore[no-untyped-def]
    """Fill in, for each query token, the filled cells of the highest scores, best first.

    ``scores_QK`` comes filled with −inf; a cell is −1 where there are fewer than K.
    """
    tokens, probes = cells_QK.shape
    lowest_L = np.full(scores_CL.shape[1], F32(np.inf))  # of the tokens of zeros
    lowest_L[:tokens] = -np.inf
    for cell in range(len(scores_CL)):
        if is_filled_C[cell]:
            scores_L, better = scores_CL[cell], 0
            for q in range(len(lowest_L)):
                better |= scores_L[q] > lowest_L[q]
            if better:
                for q in range(tokens):
                    if scores_L[q] > lowest_L[q]:
                        _replace_lowest(scores_QK[q], cells_QK[q], probes, scores_L[q], cell)
                        lowest_L[q] = scores_QK[q, 0]
    for q in range(tokens):
        for size in range(probes - 1, 0, -1):  # a heap with the lowest first becomes an array with the lowest last
            score, cell = scores_QK[q, size], cells_QK[q, size]
            scores_QK[q, size], cells_QK[q, size] = scores_QK[q, 0], cells_QK[q, 0]
            _replace_lowest(scores_QK[q], cells_QK[q], size, score, cell)


@kernel(_I8(_I8_2, _F4_2, _SHARDS, _F4_1, _I4_1, _I4_1))
def score_lists(cells_QK, gains_QK, shards, scores_P, seen_P, found):  # type: ignore[no-untyped-def]
    """Add to each passage's score the gain of the best probed cell of each query token; list the passages in ``found``.

    Returns how many were found. ``scores_P`` and ``seen_P`` come all zero. Cells are in descending order, so the first
    that holds a passage is its best.
    """
    count = 0
    tokens, probes = cells_QK.shape
    for q in range(tokens):
        for k in range(probes):
            cell = cells_QK[q, k]
            if cell < 0:
                break
            for shard in range(len(shards.places_SA)):
                bounds = carray(at(shards.places_SA[shard, LIST_STARTS] + 8 * cell), (2,), np.int64)
                length = bounds[1] - bounds[0]
                packed = carray(at(shards.places_SA[shard, LISTS] + bounds[0]), (length,), np.uint8)
                passage, i = shards.firsts_S1[shard] - 1, 0
                while i < length:  # see pipelines.indexes.plaid.lists
                    gap, shift = np.int64(packed[i] & 127), 7
                    while packed[i] >= 128:
                        i += 1
                        gap |= np.int64(packed[i] & 127) << shift
                        shift += 7
                    i += 1
                    passage += gap + 1
                    if seen_P[passage] != q + 1:
                        if seen_P[passage] == 0:
                            found[count] = passage
                            count += 1
                        seen_P[passage] = q + 1
                        scores_P[passage] += gains_QK[q, k]
    return count


@subroutine
def _find_shard(passage, shards):  # type: ignore[no-untyped-def]
    low, high = 0, len(shards.firsts_S1) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if shards.firsts_S1[middle] <= passage:
            low = middle
        else:
            high = middle
    return low


@subroutine
def _read_codes(shards, shard, first, codes):  # type: ignore[no-untyped-def]
    """Copy the codes from token ``first`` of a shard."""
    place = shards.places_SA[shard, CODES] + shards.code_bytes * first
    if shards.code_bytes == 2:
        narrow = carray(at(place), (len(codes),), np.uint16)
        for t in range(len(codes)):
            codes[t] = narrow[t]
    else:
        wide = carray(at(place), (len(codes),), np.int32)
        for t in range(len(codes)):
            codes[t] = wide[t]


@subroutine
def _take_higher(best_L, scores_TL, rows):  # type: ignore[no-untyped-def]
    """Raise each of ``best_L`` to the highest of these rows of scores."""
    for row in rows:
        scores_L = scores_TL[row]
        for q in range(len(best_L)):
            best_L[q] = max(best_L[q], scores_L[q])


@kernel(types.void(_I4_1, _SHARDS, _F4_2, _I8, _F4_1))
def score_cells(passages, shards, scores_CL, tokens, scores_P):  # type: ignore[no-untyped-def]
    """Score passages by MaxSim of the query's ``tokens`` with centroids in the place of document tokens."""
    best_L, room = np.empty(scores_CL.shape[1], F32), np.empty(256, np.int32)
    for i in range(len(passages)):
        shard = _find_shard(passages[i], shards)
        first = shards.starts_P1[passages[i]]
        length = shards.starts_P1[passages[i] + 1] - first
        if length > len(room):
            room = np.empty(2 * length, np.int32)
        codes = room[:length]
        _read_codes(shards, shard, first - shards.starts_P1[shards.firsts_S1[shard]], codes)
        best_L[:] = LOWEST
        t = 0
        while t + 4 <= length:
            a, b, c, d = scores_CL[codes[t]], scores_CL[codes[t + 1]], scores_CL[codes[t + 2]], scores_CL[codes[t + 3]]
            for q in range(len(best_L)):
                best_L[q] = max(best_L[q], max(max(a[q], b[q]), max(c[q], d[q])))
            t += 4
        _take_higher(best_L, scores_CL, codes[t:])
        scores_P[i] = best_L[:tokens].sum()


@subroutine
def _decode(shards, shard, first, codec, vectors_TN):  # type: ignore[no-untyped-def]
    """Write the unit vectors that the tokens from ``first`` of a shard stand for."""
    width, words = shards.residual_bytes, codec.weights_BH.shape[1]
    codes, half_H = np.empty(len(vectors_TN), np.int32), np.empty(width * words, np.float64)
    residual_N = half_H.view(np.float32)
    _read_codes(shards, shard, first, codes)
    for t in range(len(codes)):
        residual = carray(at(shards.places_SA[shard, RESIDUALS] + width * (first + t)), (width,), np.uint8)
        for w in range(width):
            for h in range(words):
                half_H[w * words + h] = codec.weights_BH[residual[w], h]
        vector_N, centroid_N, square = vectors_TN[t], codec.centroids_CN[codes[t]], F32(0)
        for n in range(len(vector_N)):
            value = residual_N[n] + centroid_N[n]
            vector_N[n] = value
            square += value * value
        scale = F32(1) / max(np.sqrt(square), F32(1e-12))
        for n in range(len(vector_N)):
            vector_N[n] *= scale


@kernel(types.void(_I4_1, _SHARDS, _CODEC, _F4_2, _I8, _F4_1))
def score_decoded(passages, shards, codec, query_NL, tokens, scores_P):  # type: ignore[no-untyped-def]
    """Score passages by MaxSim with the decoded vectors, ``DOT`` multiplications at a time.

    The score of a passage depends on nothing but its codes and the query: equal passages have equal scores, whatever
    shards they stand in.
    """
    dim, lanes = query_NL.shape
    rows = max(1, DOT // (dim * lanes))
    vectors_TN, scores_TL = np.empty((rows, dim), F32), np.empty((rows, lanes), F32)
    best_L, every = np.empty(lanes, F32), np.arange(rows, dtype=np.int32)
    for i in range(len(passages)):
        shard = _find_shard(passages[i], shards)
        shift = shards.starts_P1[shards.firsts_S1[shard]]
        first, last = shards.starts_P1[passages[i]] - shift, shards.starts_P1[passages[i] + 1] - shift
        best_L[:] = LOWEST
        while first < last:
            count = min(rows, last - first)
            _decode(shards, shard, first, codec, vectors_TN[:count])
            np.dot(vectors_TN[:count], query_NL, scores_TL[:count])
            _take_higher(best_L, scores_TL, every[:count])
            first += count
        scores_P[i] = best_L[:tokens].sum()


@kernel(types.void(_READ_2, _READ_I4, _READ_2, _READ_F4, _array(types.uint8, 2, "C")))
def compress(vectors_TN, codes_T, centroids_CN, cutoffs, residuals_TW):  # type: ignore[no-untyped-def]
    """Write the packed buckets of what is left of each vector without its centroid.

    A bucket is how many cut-offs lie below the component. See ``pipelines.indexes.plaid.codec.pack`` for the order.
    """
    count = len(cutoffs)
    bits = 1 if count == 1 else 2 if count == 3 else 4
    parts, turned = 8 // bits, np.zeros(count + 1, np.int64)  # of each bucket its bits, the lowest first
    for bucket in range(count + 1):
        for bit in range(bits):
            turned[bucket] |= ((bucket >> bit) & 1) << (bits - 1 - bit)
    left_N, buckets_N = np.empty(vectors_TN.shape[1], F32), np.empty(vectors_TN.shape[1], np.int32)
    for t in range(len(codes_T)):
        vector_N, centroid_N = vectors_TN[t], centroids_CN[codes_T[t]]
        for n in range(len(left_N)):
            left_N[n] = vector_N[n] - centroid_N[n]
            buckets_N[n] = 0
        for i in range(count):
            cutoff = cutoffs[i]
            for n in range(len(left_N)):
                buckets_N[n] += np.int32(left_N[n] > cutoff)
        for w in range(residuals_TW.shape[1]):
            byte = 0
            for i in range(parts):
                byte = (byte << bits) | turned[buckets_N[w * parts + i]]
            residuals_TW[t, w] = byte
