"""Finding the nearest of many centroids, and learning them, in two levels: the centroids are themselves grouped.

A vector is compared with the centres of the groups, then with the centroids of the ``VISITED`` nearest groups: about
√C·(1 + VISITED) products in the place of C. Measured in docs/index.md: what it saves, and what it costs in recall.
Below ``FLAT`` centroids every one is compared. Legend: C centroids, T tokens, N dim.
"""

from typing import Any

import numpy as np

from pipelines.vectors import FloatArray, IntArray

FLAT = 1024
VISITED = 16  # groups of centroids that a vector is compared with
POINTS = 48  # vectors per centroid that k-means sees at most


class Cells:
    """Centroids, prepared for finding the nearest: the one with the largest inner product."""

    def __init__(self, centroids_CN: FloatArray):
        import faiss

        count, dim = centroids_CN.shape
        self._index = _make_index(count, dim, faiss.METRIC_INNER_PRODUCT)
        self._index.train(centroids_CN)
        self._index.add(centroids_CN)

    def assign(self, vectors_TN: FloatArray) -> IntArray:
        """The cell of each vector, int32. faiss threads the search."""
        _, nearest = self._index.search(np.ascontiguousarray(vectors_TN, np.float32), 1)
        return nearest[:, 0].astype(np.int32)


def learn_centroids(vectors_TN: FloatArray, count: int, iterations: int, seed: int) -> FloatArray:
    """K-means of at most ``POINTS`` vectors per centroid; the centroids (C, N) have norm 1 and fit float16."""
    import faiss

    dim = vectors_TN.shape[1]
    clustering = faiss.Clustering(dim, count)
    clustering.niter, clustering.seed = iterations, seed + 1
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, POINTS
    clustering.update_index = True  # the groups follow the centroids
    index = _make_index(count, dim, faiss.METRIC_L2)
    if getattr(faiss, "get_num_gpus", lambda: 0)() > 0:
        index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(dim))
    clustering.train(np.ascontiguousarray(vectors_TN, np.float32), index)
    centroids_CN = faiss.vector_float_to_array(clustering.centroids).reshape(count, dim)
    norms_C = np.linalg.norm(centroids_CN, axis=1, keepdims=True)
    return (centroids_CN / np.maximum(norms_C, 1e-12)).astype(np.float16).astype(np.float32)


def count_compared(count: int) -> int:
    """With how many centres and centroids a vector is compared, of ``count`` centroids."""
    if count < FLAT:
        return count
    groups = _count_groups(count)
    return groups + VISITED * count // groups


def _count_groups(count: int) -> int:
    return 1 << (count.bit_length() // 2)


def _make_index(count: int, dim: int, metric: int) -> Any:
    """An index for ``count`` vectors: flat, or in about √count groups."""
    import faiss

    if count < FLAT:
        return faiss.IndexFlat(dim, metric)
    index = faiss.IndexIVFFlat(faiss.IndexFlat(dim, metric), dim, _count_groups(count), metric)
    index.cp.niter, index.cp.min_points_per_centroid = 4, 1
    index.nprobe = VISITED
    return index
