"""How deep PLAID searches: by k, by how many passages there are, and by what the user sets."""

from dataclasses import dataclass

from pipelines.indexes.base import SearchOptions, share_out

PROBES = ((10, 8), (100, 16), (None, 32))  # up to k: cells per query token
CANDIDATES = ((10, 1024), (100, 4096), (None, 16384))  # up to k: passages scored by their cells


@dataclass(frozen=True)
class Depth:
    """The depth of one search of a group, with nothing left to defaults. Counts are of passages.

    Attributes:
        k: documents returned.
        probes: cells visited for each query token; doubled until ``enough`` passages are found.
        candidates: kept of those found, scored by their cells and closely.
        exact: kept of those, decoded.
        threshold: the cosine to a query token from which a probed cell counts.
        enough: passages that must be found; 0 where the user set the probes.
    """

    k: int
    probes: int
    candidates: int
    exact: int
    threshold: float
    enough: int

    @classmethod
    def of(cls, options: SearchOptions, passages_per_doc: float, share: float) -> "Depth":
        """Resolve defaults by ``k``, and the group's share of the candidates. These are passages: a document counts as
        many as it has."""
        k = options.k
        least = round(k * passages_per_doc)
        budget = options.candidates or round(max(_by_k(CANDIDATES, k), 16 * k) * passages_per_doc)
        return cls(
            k=k,
            probes=options.probes or _by_k(PROBES, k),
            candidates=min(budget, max(share_out(budget, share), least)),
            exact=max(64, 2 * least),
            threshold=-1.0 if options.threshold is None else options.threshold,
            enough=0 if options.probes else least,
        )


def _by_k(steps: tuple[tuple[int | None, int], ...], k: int) -> int:
    return next(value for top, value in steps if top is None or k <= top)
