"""Fewer vectors for a passage: hierarchical token pooling (Clavié, Chaffin and Adams 2024, arXiv 2409.14683).

The token vectors of a passage are clustered by Ward's method (scipy), into a ``factor``-th as many clusters; a cluster
is kept as the mean of its vectors, at norm 1. What it saves and what it costs is measured in docs/index.md; time and
memory grow with the square of the tokens of a passage.
"""

import numpy as np

from pipelines.vectors import FloatArray


def pool_vectors(vectors_TN: FloatArray, factor: int) -> FloatArray:
    """At most ⌈T / factor⌉ unit vectors for the T of a passage, float32, in the order of their first tokens; a mean of
    zeros stays zero."""
    wanted = -(-len(vectors_TN) // factor)
    vectors_TN = np.asarray(vectors_TN, np.float32)
    if wanted in (0, len(vectors_TN)):
        return vectors_TN
    if wanted == 1:
        clusters_T = np.zeros(len(vectors_TN), np.int64)
    else:
        from scipy.cluster.hierarchy import fcluster, linkage

        clusters_T = fcluster(linkage(vectors_TN, "ward"), wanted, "maxclust") - 1
    _, first, clusters_T = np.unique(clusters_T, return_index=True, return_inverse=True)
    sums_CN = np.zeros((len(first), vectors_TN.shape[1]), np.float32)
    np.add.at(sums_CN, clusters_T, vectors_TN)
    sums_CN = sums_CN[np.argsort(first)]
    return sums_CN / np.maximum(np.linalg.norm(sums_CN, axis=1, keepdims=True), 1e-12)
