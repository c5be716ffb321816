"""Which sentences of two translations belong together, told by their lengths alone (Gale and Church 1993).

Dynamic programming over beads of 1-1, 1-2, 2-1, 2-2, 1-3 and 3-1 sentences, and sentences without a partner. A bead
costs the squared difference of its two lengths over its variance, in Gale and Church's model, plus what its kind costs.
Two texts of n and m sentences take about n · m · 10 µs.
"""

import math
import re
from collections.abc import Sequence
from itertools import accumulate

VARIANCE = 6.8  # of the length of a translation, per character (Gale and Church, §3.1)
# what a bead costs beyond its lengths: about −log of its probability relative to 1-1 (Gale and Church, table 5)
BEADS = {(1, 1): 0.0, (1, 2): 1.5, (2, 1): 1.5, (2, 2): 3.0, (1, 3): 4.0, (3, 1): 4.0, (1, 0): 6.0, (0, 1): 6.0}
_ends = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")


def sentences(text: str) -> list[str]:
    """The sentences of a text, by their final marks. An abbreviation cuts one in two, which beads of 1-2 mend."""
    return [s for s in _ends.split(text) if s.strip()]


def aligned(one: Sequence[str], other: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of texts that translate each other, each of one to three consecutive sentences."""
    if not one or not other:
        return []
    ends_one, ends_other = ([0, *accumulate(len(s) for s in side)] for side in (one, other))
    ratio = ends_other[-1] / max(1, ends_one[-1])
    cost = {(0, 0): 0.0}
    came: dict[tuple[int, int], tuple[int, int]] = {}
    for i in range(len(one) + 1):
        for j in range(len(other) + 1):
            for (a, b), price in BEADS.items():
                before = cost.get((i - a, j - b), math.inf)
                if before == math.inf:
                    continue
                expected, found = (ends_one[i] - ends_one[i - a]) * ratio, ends_other[j] - ends_other[j - b]
                # −log of a normal density falls by δ²/2, where δ² is the squared difference over the variance
                total = before + price + (expected - found) ** 2 / (VARIANCE * (expected + found) * 2 + 1e-9)
                if total < cost.get((i, j), math.inf):
                    cost[i, j], came[i, j] = total, (a, b)
    return _beads(one, other, came)


def _beads(
    one: Sequence[str], other: Sequence[str], came: dict[tuple[int, int], tuple[int, int]]
) -> list[tuple[str, str]]:
    """Follow the cheapest way back; sentences without a partner are left out."""
    pairs = []
    i, j = len(one), len(other)
    while (i, j) != (0, 0):
        a, b = came[i, j]
        if a and b:
            pairs.append((" ".join(one[i - a : i]), " ".join(other[j - b : j])))
        i, j = i - a, j - b
    return pairs[::-1]
