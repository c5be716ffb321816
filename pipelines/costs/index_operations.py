"""What an index computes: how many documents a search scores, and the operations of building PLAID's codec."""

from typing import Any

from cluster.step import Step
from pipelines.indexes.plaid.depth import count_candidates
from pipelines.indexes.plaid.groups import FLAT, POINTS, count_compared, count_learning

GROUPED = 1.4  # times what a product costs among all centroids, where they are in groups: measured on one core
PASSAGES_SAMPLED = 16 * 120**0.5  # times the root of their number: the sample of PLAID-X


def scored_of(kind: str, docs: float, options: Any) -> float:
    """How many documents a search of one language scores for one question."""
    if kind == "plaid":
        return min(docs, float(options.candidates or count_candidates(options.k, 1.0, docs)))
    return 1.0 if kind == "faiss" else docs


def plaid_operations(step: Step, rows: float, tokens: float, centroids: float, dim: float) -> tuple[float, float]:
    """Floating point operations of k-means, which one worker does, and of finding the centroid of each token."""
    index = step.config.index  # type: ignore[attr-defined]
    sampled = min(tokens, tokens / max(1.0, rows) * PASSAGES_SAMPLED * rows**0.5, float(index.sample_tokens))
    points, cells = min(sampled, POINTS * centroids), int(centroids)
    compared = count_compared(cells) * (GROUPED if cells >= FLAT else 1.0)
    learning = count_learning(cells, index.kmeans_iterations) + compared
    return 2 * dim * points * learning, 2 * dim * tokens * compared
