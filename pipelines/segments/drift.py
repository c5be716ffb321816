"""Drift: how far new vectors lie from the cells of an index's codec, beside the vectors that it was learnt from.

The cells of PLAID and of a faiss IVF are learnt once, from the first documents. Documents about other things, or in
another style, lie farther from them; their residuals are then coarser and more of them are missed. Measured is the mean
cosine of a vector to the centroid of its cell. Cost: assigning at most ``SAMPLE`` vectors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.storage import Place
from pipelines.indexes.plaid.codec import Codec
from pipelines.vectors import FloatArray, stream_vectors

SAMPLE = 1 << 15  # vectors
PARTS = 8
TOO_FAR = 0.25  # drop of the mean cosine from which the codec should be learnt again: docs/index.md has what it costs


def measure_cosine(index: Place, parts: Sequence[str]) -> float | None:
    """The mean cosine of the vectors of some parts of VECTORS to their cells; None where the index has no cells, or
    the parts no vectors."""
    from pipelines.indexes.plaid.cells import Cells

    centroids_CN = _read_centroids(index)
    if centroids_CN is None or not parts:
        return None
    cells, cosines, left = Cells(centroids_CN), list[FloatArray](), SAMPLE
    norms_C = np.linalg.norm(centroids_CN, axis=1)
    chosen = [parts[i] for i in np.unique(np.linspace(0, len(parts) - 1, min(PARTS, len(parts))).astype(int))]
    for rows in stream_vectors(chosen):
        vectors_TN = rows.vectors_TN[: max(1, min(left, SAMPLE // len(chosen)))].astype(np.float32)
        codes_T = cells.assign(vectors_TN)
        products_T = np.einsum("tn,tn->t", vectors_TN, centroids_CN[codes_T])
        cosines.append(products_T / np.maximum(np.linalg.norm(vectors_TN, axis=1) * norms_C[codes_T], 1e-12))
        left -= len(vectors_TN)
        if left <= 0:
            break
    return float(np.concatenate(cosines).mean()) if cosines else None


def _read_centroids(index: Place) -> FloatArray | None:
    codec = index / "codec"
    if (codec / "centroids.npy").exists():
        return Codec.load(codec.fetch()).centroids_CN
    if not (codec / "cells.faiss").exists():
        return None
    import faiss

    cells: Any = faiss.read_index(str((codec / "cells.faiss").fetch()))
    return np.asarray(cells.quantizer.reconstruct_n(0, cells.nlist), np.float32)
