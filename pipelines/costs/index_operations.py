"""What an index computes: how many documents a search scores, and the operations of building PLAID's codec."""

from typing import Any

from cluster.step import Step
from pipelines.indexes.plaid.search import DEFAULTS

POINTS_PER_CENTROID = 256  # that faiss' k-means reads at most
PASSAGES_SAMPLED = 16 * 120**0.5  # times the root of their number: the sample of PLAID-X


def scored_of(kind: str, docs: float, options: Any) -> float:
    """How many documents a search of one language scores for one question."""
    if kind == "plaid":
        candidates = next(rest[2] for top, rest in DEFAULTS if top is None or options.k <= top)
        return min(docs, float(options.candidates or max(candidates, 16 * options.k)))
    return 1.0 if kind == "faiss" else docs


def plaid_operations(step: Step, rows: float, tokens: float, centroids: float, dim: float) -> tuple[float, float]:
    """Floating point operations of k-means, which one worker does, and of finding the centroid of each token."""
    index = step.config.index  # type: ignore[attr-defined]
    sampled = min(tokens, tokens / max(1.0, rows) * PASSAGES_SAMPLED * rows**0.5, float(index.sample_tokens))
    points = min(sampled, POINTS_PER_CENTROID * centroids)
    return index.kmeans_iterations * 2 * dim * points * centroids, 2 * dim * tokens * centroids
