"""The compiled loops of PLAID's search: see ``pipelines.indexes.plaid.search`` for what each is for.

Importing this module compiles them (or loads what an earlier process compiled). Those that read passages walk all shards
of a group in one call. Legend: Q query tokens, L query tokens padded to a multiple of ``LANES`` with tokens of zeros, C
cells, K probes, P passages, D tokens of a passage that are looked at closely, S shards, T tokens, B 256·(bytes of a
residual), N dim.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import carray, types

from pipelines.indexes.compiled import at, kernel, part
from pipelines.vectors import IntArray

LANES = 16  # query tokens that are compared at a time
DEEP = 8  # D: tokens of a passage that are looked at closely for each query token
CODES, RESIDUALS, LIST_STARTS, LISTS = range(4)  # columns of ``Shards.places_SA``
F32 = np.float32


class Shards(NamedTuple):
    """Where the arrays of the shards lie in memory, for kernels.

    Attributes:
        places_SA: addresses: of codes, residuals, and the starts and passages of the inverted lists.
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


class Near(NamedTuple):
    """The tokens of passages that may be the best for a query token: addresses of their residuals (0: none), and the
    scores of their cells. (Q, P, D)
    """

    rows_QPD: IntArray
    scores_QPD: Any


_array = types.Array
_I8, _F4 = types.int64, types.float32
_SHARDS = types.NamedTuple((_array(_I8, 2, "C"), _array(_I8, 1, "C"), _array(_I8, 1, "C"), _I8, _I8), Shards)
_NEAR = types.NamedTuple((_array(_I8, 3, "C"), _array(_F4, 3, "C")), Near)
_F4_1, _F4_2, _I8_2 = _array(_F4, 1, "C"), _array(_F4, 2, "C"), _array(_I8, 2, "C")
_I4_1, _I8_1 = _array(types.int32, 1, "C"), _array(_I8, 1, "C")
_READ_2 = _array(_F4, 2, "C", readonly=True)


@part
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

    Returns how many were found. ``scores_P`` and ``seen_P`` come all zero and are left so: the scores of ``found`` move
    to its own places. Cells are in descending order, so the first that holds a passage is its best.
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
                passages = carray(at(shards.places_SA[shard, LISTS] + 4 * bounds[0]), (length,), np.int32)
                for i in range(length):
                    passage = shards.firsts_S1[shard] + passages[i]
                    if seen_P[passage] != q + 1:
                        if seen_P[passage] == 0:
                            found[count] = passage
                            count += 1
                        seen_P[passage] = q + 1
                        scores_P[passage] += gains_QK[q, k]
    return count


@part
def _find_shard(passage, shards):  # type: ignore[no-untyped-def]
    low, high = 0, len(shards.firsts_S1) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if shards.firsts_S1[middle] <= passage:
            low = middle
        else:
            high = middle
    return low


@part
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


@part
def _find_best(scores_CL, codes, best_L):  # type: ignore[no-untyped-def]
    """The highest score of these cells for each query token."""
    best_L[:] = F32(-3e38)
    t = 0
    while t + 4 <= len(codes):
        a, b, c, d = scores_CL[codes[t]], scores_CL[codes[t + 1]], scores_CL[codes[t + 2]], scores_CL[codes[t + 3]]
        for q in range(len(best_L)):
            best_L[q] = max(best_L[q], max(max(a[q], b[q]), max(c[q], d[q])))
        t += 4
    while t < len(codes):
        a = scores_CL[codes[t]]
        for q in range(len(best_L)):
            best_L[q] = max(best_L[q], a[q])
        t += 1


@kernel(types.void(_I4_1, _SHARDS, _F4_2, _F4_1, _NEAR, _F4_1))
def score_cells(passages, shards, scores_CL, margins_Q, near, scores_P):  # type: ignore[no-untyped-def]
    """Score passages by MaxSim with centroids in the place of tokens; find the tokens that may really be the best.

    Those are, for each query token, the first D whose cells score at most ``margins_Q`` less than the best cell. With
    D = 0 none are looked for. ``near.rows_QPD`` comes all zero.
    """
    tokens, _, most = near.rows_QPD.shape
    best_L, least_L = np.empty(scores_CL.shape[1], F32), np.full(scores_CL.shape[1], F32(3e38))
    room, counts_Q = np.empty(256, np.int32), np.zeros(tokens, np.int64)
    for i in range(len(passages)):
        passage = passages[i]
        shard = _find_shard(passage, shards)
        first, length = shards.starts_P1[passage], shards.starts_P1[passage + 1] - shards.starts_P1[passage]
        first -= shards.starts_P1[shards.firsts_S1[shard]]
        if length > len(room):
            room = np.empty(2 * length, np.int32)
        codes = room[:length]
        _read_codes(shards, shard, first, codes)
        _find_best(scores_CL, codes, best_L)
        scores_P[i] = 0
        for q in range(tokens):
            scores_P[i] += best_L[q]
            least_L[q] = best_L[q] - margins_Q[q]
            counts_Q[q] = 0
        for t in range(length if most else 0):
            scores_L, is_near = scores_CL[codes[t]], 0
            for q in range(len(least_L)):
                is_near |= scores_L[q] >= least_L[q]
            if is_near:
                row = shards.places_SA[shard, RESIDUALS] + shards.residual_bytes * (first + t)
                for q in range(tokens):
                    if scores_L[q] >= least_L[q] and counts_Q[q] < most:
                        near.rows_QPD[q, i, counts_Q[q]], near.scores_QPD[q, i, counts_Q[q]] = row, scores_L[q]
                        counts_Q[q] += 1


@kernel(types.void(_NEAR, _READ_2, _F4_1))
def score_near(near, tables_QB, scores_P):  # type: ignore[no-untyped-def]
    """Score passages by MaxSim over their near tokens, without decoding them.

    A token's score is that of its cell plus, for each byte of its residual, an entry of the query token's table:
    ``tables_QB`` holds 256 for each byte. One query token at a time, so that its table stays in the first cache.
    """
    tokens, passages, most = near.rows_QPD.shape
    width = tables_QB.shape[1] >> 8
    scores_P[:] = 0
    for q in range(tokens):
        table = tables_QB[q]
        for i in range(passages):
            best = F32(-3e38)
            for d in range(most):
                if near.rows_QPD[q, i, d] == 0:
                    break
                residual = carray(at(near.rows_QPD[q, i, d]), (width,), np.uint8)
                score = near.scores_QPD[q, i, d]
                for w in range(width):
                    score += table[(w << 8) + residual[w]]
                best = max(best, score)
            scores_P[i] += best


@kernel(types.void(_I4_1, _SHARDS, _READ_2, _array(types.float64, 2, "C", readonly=True), _F4_2))
def decode(passages, shards, centroids_CN, weights, vectors_TN):  # type: ignore[no-untyped-def]
    """Write the unit vectors that the tokens of ``passages`` stand for, one after another.

    ``weights`` holds for each of the 256 bytes the weights of its components, two float32 in one float64: they are
    copied, not computed with.
    """
    words, width, dim = weights.shape[1], shards.residual_bytes, centroids_CN.shape[1]
    at_token = 0
    one = np.empty(1, np.int32)
    pairs_N = np.empty(dim // 2, np.float64)
    residual_N = pairs_N.view(np.float32)
    for passage in passages:
        shard = _find_shard(passage, shards)
        shift = shards.starts_P1[shards.firsts_S1[shard]]
        for token in range(shards.starts_P1[passage] - shift, shards.starts_P1[passage + 1] - shift):
            _read_codes(shards, shard, token, one)
            residual = carray(at(shards.places_SA[shard, RESIDUALS] + width * token), (width,), np.uint8)
            for w in range(width):
                for i in range(words):
                    pairs_N[w * words + i] = weights[residual[w], i]
            vector_N, centroid_N, square = vectors_TN[at_token], centroids_CN[one[0]], F32(0)
            for n in range(dim):
                value = residual_N[n] + centroid_N[n]
                vector_N[n] = value
                square += value * value
            scale = F32(1) / max(np.sqrt(square), F32(1e-12))
            for n in range(dim):
                vector_N[n] *= scale
            at_token += 1


@kernel(types.void(_F4_2, _I8_1, _F4_1))
def add_best(scores_TL, starts_P1, scores_P):  # type: ignore[no-untyped-def]
    """MaxSim from the scores of the tokens of passages that start at ``starts_P1``."""
    best_L = np.empty(scores_TL.shape[1], F32)
    for i in range(len(scores_P)):
        best_L[:] = F32(-3e38)
        for t in range(starts_P1[i], starts_P1[i + 1]):
            scores_L = scores_TL[t]
            for q in range(len(best_L)):
                best_L[q] = max(best_L[q], scores_L[q])
        scores_P[i] = best_L.sum()


@kernel(types.void(_READ_2, _array(types.int32, 1, "C", readonly=True), _READ_2, _array(_F4, 1, "C", readonly=True), _array(types.uint8, 2, "C")))
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
    left_N = np.empty(vectors_TN.shape[1], np.int64)
    for t in range(len(codes_T)):
        vector_N, centroid_N = vectors_TN[t], centroids_CN[codes_T[t]]
        for n in range(len(left_N)):
            value, bucket = vector_N[n] - centroid_N[n], 0
            for i in range(count):
                bucket += value > cutoffs[i]
            left_N[n] = bucket
        for w in range(residuals_TW.shape[1]):
            byte = 0
            for i in range(parts):
                byte = (byte << bits) | turned[left_N[w * parts + i]]
            residuals_TW[t, w] = byte
