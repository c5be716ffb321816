"""How deep PLAID searches: by k, by how many passages there are, by what was tried, and by what the user sets.

The defaults were chosen by what docs/index.md measures. What a collection above ``USUAL`` needs was not measured. An
index that was built with a wanted ``recall`` has levels of its own, which were tried on it
(``pipelines.indexes.plaid.tune``) and stand in the place of the defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from pipelines.indexes.base import SearchOptions, share_out

# Up to k: cells per query token, passages scored by their cells, passages decoded for each document returned
DEFAULTS = ((10, (8, 1024, 12.8)), (100, (16, 4096, 4.0)), (None, (32, 16384, 2.0)))
FEW = 256  # passages of a limited search that are decoded at once: the scores of all centroids take about as long
USUAL = 1 << 15  # passages; of a larger collection more are scored, by the root of its size


@dataclass(frozen=True)
class Level:
    """What a search for up to ``k`` documents takes by default: see ``Depth`` for the counts, which are of passages."""

    k: int
    probes: int
    candidates: int
    decoded: int


@dataclass(frozen=True)
class Depth:
    """The depth of one search of a group, with nothing left to defaults. Counts are of passages.

    Attributes:
        k: documents returned.
        probes: cells visited for each query token; doubled until ``enough`` passages are found.
        candidates: kept of the passages that were found; they are scored by their cells.
        decoded: kept of those; they are scored by their decoded vectors.
        threshold: the least cosine to a query token with which a cell counts for it.
        enough: passages that must be found; 0 where the user set the probes.
        is_limited: whether the search is limited to some documents of the group.
    """

    k: int
    probes: int
    candidates: int
    decoded: int
    threshold: float
    enough: int
    is_limited: bool = False

    @classmethod
    def of(
        cls,
        options: SearchOptions,
        passages: int,
        docs: int,
        share: float,
        levels: Sequence[Level] = (),
        part: float = 1.0,
    ) -> "Depth":
        """Resolve what the user left open by the index's ``levels``, or by ``k`` and the passages of the language, of
        which the group holds a ``share``.

        Documents are returned and passages are scored: a document counts as the average number of passages.
        ``passages`` and ``docs`` are those that may be found; where they are only a ``part`` of the group's, the best
        k of them stand among the best k / part of all, so as many cells are probed as for so many.
        """
        k, per_doc = options.k, passages / max(1, docs)
        of_lang = passages / (share or 1.0)
        level = choose_level(k, per_doc, of_lang, levels)
        if 0 < part < 1:
            level = replace(level, probes=choose_level(ceil(k / part), per_doc, of_lang / part, levels).probes)
        least = round(k * per_doc)
        budget = options.candidates or level.candidates
        return cls(
            k=k,
            probes=options.probes or level.probes,
            candidates=min(budget, max(share_out(budget, share), least)),
            decoded=options.decoded or level.decoded,
            threshold=-1.0 if options.threshold is None else options.threshold,
            enough=0 if options.probes else least,
            is_limited=part < 1,
        )

    def decodes_all(self, passages: int) -> bool:
        """Whether all of so many passages are scored by their decoded vectors, and no cell by its centroid."""
        return passages <= max(self.decoded, FEW if self.is_limited else 0) and self.scores_all(passages)

    def scores_all(self, passages: int) -> bool:
        """Whether no cell is probed, because so many passages are all candidates. Not in an unlimited search whose
        probes the user set: these are obeyed."""
        return passages <= self.candidates and (self.enough > 0 or self.is_limited)


def choose_level(k: int, per_doc: float, passages: float, levels: Sequence[Level] = ()) -> Level:
    """The lowest of ``levels`` that was tried for so many documents; or else the default for ``k`` documents of
    ``per_doc`` passages in a collection of ``passages``, with no count below that of the highest level that was
    tried."""
    tried = sorted(levels, key=lambda level: level.k)
    if enough := [level for level in tried if level.k >= k]:
        return enough[0]
    probes, _, decoded = _defaults(k)
    highest = tried[-1] if tried else Level(0, 0, 0, 0)
    return Level(
        k,
        max(highest.probes, probes),
        max(highest.candidates, count_candidates(k, per_doc, passages)),
        max(highest.decoded, round(max(64, decoded * k) * per_doc)),
    )


def count_candidates(k: int, passages_per_doc: float, passages: float) -> int:
    """How many passages a search for ``k`` documents scores by their cells, by default."""
    return round(max(_defaults(k)[1], 16 * k) * passages_per_doc * max(1.0, passages / USUAL) ** 0.5)


def _defaults(k: int) -> tuple[int, int, float]:
    return next(values for top, values in DEFAULTS if top is None or k <= top)
