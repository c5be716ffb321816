"""Batches of texts of similar length, which hold a number of tokens and little padding."""

from collections.abc import Sequence

import numpy as np


def by_length(lengths: Sequence[int], budget: int) -> list[np.ndarray]:
    """Cut 0..n-1, longest first, into batches of at most ``budget`` tokens, padding included.

    ``lengths`` are in tokens. The longest batch comes first, so a budget that is too large for the device fails at
    once, not after hours. A text longer than the budget is a batch alone. Texts of one length keep their order.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    cuts, start = [], 0
    for place, index in enumerate(order.tolist()):
        longest = lengths[order[start]] if place > start else lengths[index]
        if place > start and (place - start + 1) * longest > budget:
            cuts.append(place)
            start = place
    return [batch for batch in np.split(order, cuts) if len(batch)]


def put_back(batches: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    """The values of each batch, a number for each text, in the order of the texts: float32."""
    found = np.empty(sum(map(len, batches)), np.float32)
    for batch, of_batch in zip(batches, values, strict=True):
        found[batch] = of_batch
    return found
