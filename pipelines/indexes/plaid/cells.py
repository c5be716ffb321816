"""Finding the nearest of many centroids, and learning them, in two levels: the centroids are themselves grouped.

A vector is compared with the centres of the groups, then with the centroids of the ``VISITED`` nearest groups: about
√C·(1 + VISITED) products in the place of C, of which those of a group are one product of matrices, in bfloat16
(``pipelines.indexes.plaid.products``). K-means divides the vectors among the centres first, learns each group's
centroids from its own vectors alone, which takes 2·√C products for a vector, and then moves all of them once, by the
cells that ``Cells`` finds. Measured in docs/index.md: what it saves, and what it costs in recall. Below ``FLAT``
centroids every one is compared, in float32. Importing this module compiles loops.
Legend: C centroids, G groups, T tokens, N dim.
"""

import numpy as np

from pipelines.indexes.files import offsets
from pipelines.indexes.plaid.groups import (
    FLAT,
    POINTS,
    VISITED,
    VISITED_LEARNING,
    count_compared,
    count_groups,
    count_learning,
)
from pipelines.indexes.plaid.products import (
    LOWEST,
    Products,
    add_up,
    choose_groups,
    round_to_bits,
    sort_visits,
    take_best,
    widen,
)
from pipelines.vectors import FloatArray, IntArray

BLOCK = 1 << 15  # vectors compared at a time: those that visit a group fill a product


class Cells:
    """Centroids, prepared for finding the nearest: the one with the largest inner product.

    ``vectors`` is how many are to be assigned, about: many are worth loading torch for.
    """

    def __init__(self, centroids_CN: FloatArray, visited: int = VISITED, vectors: int = 0):
        self.centroids_CN, self.visited = centroids_CN, visited
        self.groups = count_groups(len(centroids_CN)) if len(centroids_CN) >= FLAT else 0
        if self.groups:
            compared = count_compared(len(centroids_CN), visited)
            self._multiply = Products(float(vectors) * compared * centroids_CN.shape[1])
            bits_CN = round_to_bits(centroids_CN)
            centres_GN, groups_C = _cluster(bits_CN, self.groups, 4, 0, self._multiply)
            self._centres = self._multiply.prepare(round_to_bits(centres_GN))
            self._order_C = np.argsort(groups_C, kind="stable").astype(np.int32)
            self._starts_G1 = offsets(np.bincount(groups_C, minlength=self.groups))
            self._members = [
                self._multiply.prepare(some_CN) if len(some_CN) else None
                for some_CN in np.split(bits_CN[self._order_C], self._starts_G1[1:-1])
            ]

    def assign(self, vectors_TN: FloatArray) -> IntArray:
        """The cell of each vector, int32. BLAS or torch thread the products."""
        cells_T = np.empty(len(vectors_TN), np.int32)
        for start in range(0, len(vectors_TN), BLOCK):
            block_TN = vectors_TN[start : start + BLOCK]
            if self.groups:
                cells_T[start : start + BLOCK] = self.assign_bits(round_to_bits(block_TN))
            else:
                scores_TC = block_TN.astype(np.float32, copy=False) @ self.centroids_CN.T
                cells_T[start : start + BLOCK] = scores_TC.argmax(axis=1)
        return cells_T

    def assign_bits(self, block_TN: IntArray) -> IntArray:
        """The same of a block of vectors given by the bits of bfloat16: group after group, all vectors that it is near
        to, each of which keeps the best centroid that it has met."""
        near_TV = np.empty((len(block_TN), min(self.visited, self.groups)), np.int32)
        counts_G = np.zeros(self.groups, np.int64)
        for rows, scores_RG in self._multiply(block_TN, np.arange(len(block_TN), dtype=np.int32), self._centres):
            choose_groups(scores_RG, self.groups, near_TV[rows[0] : rows[-1] + 1], counts_G)
        visitors, starts_G1 = np.empty(near_TV.size, np.int32), offsets(counts_G)
        sort_visits(near_TV, starts_G1[:-1].copy(), visitors)
        cells_T, best_T = np.zeros(len(block_TN), np.int32), np.full(len(block_TN), LOWEST, np.int16)
        for group in np.flatnonzero(counts_G * np.diff(self._starts_G1)):
            visiting = visitors[starts_G1[group] : starts_G1[group + 1]]
            for rows, scores_RC in self._multiply(block_TN, visiting, self._members[group]):
                take_best(scores_RC, rows, *self._starts_G1[group : group + 2], best_T, cells_T)
        return self._order_C[cells_T]


def learn_centroids(vectors_TN: FloatArray, count: int, iterations: int, seed: int) -> FloatArray:
    """K-means of at most ``POINTS`` vectors per centroid; the centroids (C, N) have norm 1 and fit float16."""
    bits_TN = round_to_bits(vectors_TN[: POINTS * count])
    multiply = Products(float(len(bits_TN)) * count_learning(count, iterations) * bits_TN.shape[1])
    if count < FLAT:
        return _cluster(bits_TN, count, iterations, seed, multiply)[0]
    groups = count_groups(count)
    _, groups_T = _cluster(bits_TN, groups, iterations, seed, multiply)
    bits_TN = bits_TN[np.argsort(groups_T, kind="stable")]
    sizes_G = np.bincount(groups_T, minlength=groups)
    starts_G1, counts_G = offsets(sizes_G), _share_out(count, sizes_G)
    centroids_CN = np.concatenate(
        [
            _cluster(bits_TN[starts_G1[g] : starts_G1[g + 1]], counts_G[g], iterations, seed, multiply)[0]
            for g in np.flatnonzero(counts_G)
        ]
    )
    cells = Cells(centroids_CN, VISITED_LEARNING, len(bits_TN))
    blocks = (bits_TN[start : start + BLOCK] for start in range(0, len(bits_TN), BLOCK))
    return _move(centroids_CN, bits_TN, np.concatenate([cells.assign_bits(block_TN) for block_TN in blocks]))


def _cluster(
    bits_TN: IntArray, count: int, iterations: int, seed: int, multiply: Products
) -> tuple[FloatArray, IntArray]:
    """K-means with all products: unit centroids, and the cell of each vector. It begins with ``count`` of the vectors
    and learns from ``4 * POINTS`` per centroid at most."""
    random = np.random.default_rng(seed)
    centroids_CN = widen(bits_TN[np.sort(random.choice(len(bits_TN), count, replace=False))])
    seen_TN = bits_TN[: 4 * POINTS * count]
    for _ in range(iterations):
        centroids_CN = _move(centroids_CN, seen_TN, _nearest(seen_TN, centroids_CN, multiply))
    return centroids_CN, _nearest(bits_TN, centroids_CN, multiply)


def _nearest(bits_TN: IntArray, centroids_CN: FloatArray, multiply: Products) -> IntArray:
    cells_T, best_T = np.zeros(len(bits_TN), np.int32), np.full(len(bits_TN), LOWEST, np.int16)
    every, right = np.arange(len(bits_TN), dtype=np.int32), multiply.prepare(round_to_bits(centroids_CN))
    for rows, scores_RC in multiply(bits_TN, every, right):
        take_best(scores_RC, rows, 0, len(centroids_CN), best_T, cells_T)
    return cells_T


def _move(centroids_CN: FloatArray, bits_TN: IntArray, cells_T: IntArray) -> FloatArray:
    """The direction of the mean of each cell's vectors. A centroid without any takes the place of one of those with
    the most vectors, beside it: the two divide its cell."""
    moved_CN, sizes_C = np.zeros_like(centroids_CN), np.zeros(len(centroids_CN), np.int64)
    add_up(bits_TN, cells_T, moved_CN, sizes_C)
    filled, empty = np.flatnonzero(sizes_C), np.flatnonzero(sizes_C == 0)
    moved_CN = _round(moved_CN)
    largest = filled[np.argsort(-sizes_C[filled], kind="stable")]
    for cell, other in zip(empty, np.resize(largest, len(empty)), strict=True):
        apart = np.where(np.arange(centroids_CN.shape[1]) % 2, 1e-2, -1e-2).astype(np.float32)
        moved_CN[cell], moved_CN[other] = moved_CN[other] * (1 + apart), moved_CN[other] * (1 - apart)
    return _round(moved_CN) if len(empty) else moved_CN


def _share_out(count: int, sizes_G: IntArray) -> IntArray:
    """``count`` centroids for groups of these sizes, in proportion to them, and never more than a group has vectors."""
    exact_G = count * sizes_G / sizes_G.sum()
    counts_G = np.minimum(np.floor(exact_G).astype(np.int64), sizes_G)
    while left := count - counts_G.sum():
        room = np.flatnonzero(counts_G < sizes_G)
        counts_G[room[np.argsort(counts_G[room] - exact_G[room], kind="stable")[:left]]] += 1
    return counts_G


def _round(centroids_CN: FloatArray) -> FloatArray:
    """The unit vectors of these directions, rounded to float16."""
    norms_C = np.linalg.norm(centroids_CN, axis=1, keepdims=True)
    return (centroids_CN / np.maximum(norms_C, 1e-12)).astype(np.float16).astype(np.float32)
