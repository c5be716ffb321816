"""Sets of ids in 8 bytes each, to find repeated ids in a stream and ids that a known set lacks.

An id is kept as the first 8 bytes of its BLAKE2b digest, in a few sorted runs of uint64 whose lengths at least double
from the last to the first, so that looking up costs O(log² n) per id and each id is merged O(log n) times. 10 million
ids take 80 MB (twice that for a moment, while runs are merged).

Two different ids of n have the same hash with probability n² / 2^65: 3e-6 for 10 million. The later one is then taken
for a duplicate of the first, and the manifest counts it as a reject.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt


class IdSet:
    """A growing set of ids."""

    def __init__(self) -> None:
        self._runs: list[npt.NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Add a batch. Returns a mask over ``ids``: True at the first occurrence of an id that the set did not have."""
        hashes = hash_ids(ids)
        unique, first = np.unique(hashes, return_index=True)
        fresh = ~self._contains(unique)
        new = np.zeros(len(hashes), dtype=bool)
        new[first[fresh]] = True
        self._push(unique[fresh])
        return new

    def has(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Returns a mask over ``ids``: True where the id is in the set."""
        return self._contains(hash_ids(ids))

    def _contains(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            found |= run[at] == hashes
        return found

    def _push(self, run: npt.NDArray[np.uint64]) -> None:
        if not len(run):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # two sorted halves: a merge, not a sort
            self._runs.append(merged)


def hash_ids(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each id's BLAKE2b digest, uint64."""
    digests = b"".join(blake2b(i.encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)
