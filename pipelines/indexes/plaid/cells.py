"""Finding the nearest of many centroids, and learning them, in two levels: the centroids are themselves grouped.

A vector is compared with the centres of the groups, then with the centroids of the ``VISITED`` nearest groups: about
√C·(1 + VISITED) products in the place of C, of which BLAS does those of a group at once. K-means divides the vectors
among the centres first, learns each group's centroids from its own vectors alone, which takes 2·√C products for a
vector, and then moves all of them once, by the cells that ``Cells`` finds. Measured in docs/index.md: what it saves,
and what it costs in recall. Below ``FLAT`` centroids every one is compared.
Legend: C centroids, G groups, T tokens, N dim.
"""

import numpy as np

from pipelines.indexes.files import offsets
from pipelines.vectors import FloatArray, IntArray

FLAT = 1024
VISITED = 12  # groups of centroids that a vector is compared with
VISITED_LEARNING = 4  # the same, in the last round of k-means
POINTS = 48  # vectors per centroid that k-means sees at most
BLOCK = 1 << 15  # vectors compared at a time: those that visit a group fill a product


class Cells:
    """Centroids, prepared for finding the nearest: the one with the largest inner product."""

    def __init__(self, centroids_CN: FloatArray, visited: int = VISITED):
        self.centroids_CN, self.visited = centroids_CN, visited
        self.centres_GN = centroids_CN[:0]
        if len(centroids_CN) >= FLAT:
            self.centres_GN, groups_C = _cluster(centroids_CN, _count_groups(len(centroids_CN)), 4, seed=0)
            self._order_C = np.argsort(groups_C, kind="stable").astype(np.int32)
            self._starts_G1 = offsets(np.bincount(groups_C, minlength=len(self.centres_GN)))
            self._sorted_CN = np.ascontiguousarray(centroids_CN[self._order_C])

    def assign(self, vectors_TN: FloatArray) -> IntArray:
        """The cell of each vector, int32. BLAS threads the products."""
        cells_T = np.empty(len(vectors_TN), np.int32)
        for start in range(0, len(vectors_TN), BLOCK):
            block_TN = np.ascontiguousarray(vectors_TN[start : start + BLOCK], np.float32)
            assign = self._visit if len(self.centres_GN) else self._compare_all
            cells_T[start : start + BLOCK] = assign(block_TN)
        return cells_T

    def _compare_all(self, block_TN: FloatArray) -> IntArray:
        return (block_TN @ self.centroids_CN.T).argmax(axis=1)

    def _visit(self, block_TN: FloatArray) -> IntArray:
        """Group after group, all vectors that it is near to: each keeps the best centroid that it has met."""
        scores_TG = block_TN @ self.centres_GN.T
        visited = min(self.visited, len(self.centres_GN))
        near = np.argpartition(scores_TG, -visited, axis=1)[:, -visited:].astype(np.uint16).ravel()
        visitors = np.argsort(near, kind="stable") // visited
        starts = offsets(np.bincount(near, minlength=len(self.centres_GN)))
        cells_T, best_T = np.zeros(len(block_TN), np.int32), np.full(len(block_TN), -np.inf, np.float32)
        for group in range(len(self.centres_GN)):
            rows = visitors[starts[group] : starts[group + 1]]
            first, last = self._starts_G1[group : group + 2]
            if not len(rows) or first == last:
                continue
            scores = block_TN[rows] @ self._sorted_CN[first:last].T
            own = scores.argmax(axis=1)
            best = scores[np.arange(len(rows)), own]
            better = best > best_T[rows]
            rows = rows[better]
            best_T[rows], cells_T[rows] = best[better], first + own[better]
        return self._order_C[cells_T]


def learn_centroids(vectors_TN: FloatArray, count: int, iterations: int, seed: int) -> FloatArray:
    """K-means of at most ``POINTS`` vectors per centroid; the centroids (C, N) have norm 1 and fit float16."""
    some_TN = np.ascontiguousarray(vectors_TN[: POINTS * count], np.float32)
    if count < FLAT:
        return _cluster(some_TN, count, iterations, seed)[0]
    groups = _count_groups(count)
    _, groups_T = _cluster(some_TN, groups, iterations, seed)
    order_T = np.argsort(groups_T, kind="stable")
    sizes_G = np.bincount(groups_T, minlength=groups)
    starts_G1, counts_G = offsets(sizes_G), _share_out(count, sizes_G)
    centroids_CN = np.concatenate(
        [
            _cluster(some_TN[order_T[starts_G1[g] : starts_G1[g + 1]]], counts_G[g], iterations, seed)[0]
            for g in np.flatnonzero(counts_G)
        ]
    )
    return _round(_move(centroids_CN, some_TN, Cells(centroids_CN, VISITED_LEARNING).assign(some_TN)))


def _cluster(vectors_TN: FloatArray, count: int, iterations: int, seed: int) -> tuple[FloatArray, IntArray]:
    """K-means with all products: unit centroids, and the cell of each vector. It begins with ``count`` of the vectors
    and learns from ``4 * POINTS`` per centroid at most."""
    random = np.random.default_rng(seed)
    centroids_CN = vectors_TN[np.sort(random.choice(len(vectors_TN), count, replace=False))]
    seen_TN = vectors_TN[: 4 * POINTS * count]
    for _ in range(iterations):
        centroids_CN = _round(_move(centroids_CN, seen_TN, _nearest(seen_TN, centroids_CN)))
    return centroids_CN, _nearest(vectors_TN, centroids_CN)


def _nearest(vectors_TN: FloatArray, centroids_CN: FloatArray) -> IntArray:
    blocks = (vectors_TN[start : start + BLOCK] for start in range(0, len(vectors_TN), BLOCK))
    return np.concatenate([(block_TN @ centroids_CN.T).argmax(axis=1) for block_TN in blocks])


def _move(centroids_CN: FloatArray, vectors_TN: FloatArray, cells_T: IntArray) -> FloatArray:
    """The mean of each cell's vectors. A centroid without any takes the place of one of those with the most vectors,
    beside it: the two divide its cell."""
    order_T = np.argsort(cells_T, kind="stable")
    sizes_C = np.bincount(cells_T, minlength=len(centroids_CN))
    filled, empty = np.flatnonzero(sizes_C), np.flatnonzero(sizes_C == 0)
    moved_CN = np.empty_like(centroids_CN)
    moved_CN[filled] = np.add.reduceat(vectors_TN[order_T], offsets(sizes_C[filled])[:-1]) / sizes_C[filled, None]
    largest = filled[np.argsort(-sizes_C[filled], kind="stable")]
    for cell, other in zip(empty, np.resize(largest, len(empty)), strict=True):
        apart = np.where(np.arange(centroids_CN.shape[1]) % 2, 1e-2, -1e-2).astype(np.float32)
        moved_CN[cell], moved_CN[other] = moved_CN[other] * (1 + apart), moved_CN[other] * (1 - apart)
    return moved_CN


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


def count_compared(count: int) -> int:
    """With how many centres and centroids a vector is compared, of ``count`` centroids."""
    if count < FLAT:
        return count
    groups = _count_groups(count)
    return groups + VISITED * count // groups


def count_learning(count: int, iterations: int) -> int:
    """With how many centres and centroids k-means compares a vector before the last time, which finds its cell."""
    if count < FLAT:
        return iterations * count
    groups = _count_groups(count)
    return iterations * (groups + count // groups)


def _count_groups(count: int) -> int:
    return 1 << (count.bit_length() // 2)
