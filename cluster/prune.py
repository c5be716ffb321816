"""Pruning: removing the artifacts that no named recipe needs.

An artifact is needed when a step of one of the recipes has its name, complete or not. One that a living driver makes
now is left alone, whoever needs it.
"""

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress

from cluster.artifact import MANIFEST
from cluster.lease import Holder, Leases
from cluster.receipt import READERS
from cluster.storage import Place


@dataclass(frozen=True)
class Pruned:
    """An artifact that was removed, or would be: its ``step@fingerprint``, its bytes, whether it was complete."""

    place: Place
    size: int
    is_complete: bool

    @property
    def name(self) -> str:
        """``step@fingerprint``."""
        return self.place.name


def prune(root: Place, needed: Collection[str], dry: bool = True) -> list[Pruned]:
    """Remove all artifacts below ``root`` but those whose ``step@fingerprint`` is in ``needed``, and return them, the
    largest first. With ``dry`` nothing is removed.

    Only directories that are named as artifacts are looked at. What a driver makes now is left alone; to learn whether
    a driver of another machine still lives takes the time of a lease.
    """
    leases, needed = Leases(), set(needed)
    unneeded = [place for place in root.list() if is_artifact_name(place.name) and place.name not in needed]
    with ThreadPoolExecutor(READERS) as threads:
        is_idle = list(threads.map(leases.is_free, unneeded))
        if not all(is_idle):
            time.sleep(leases.seconds)
            is_idle = list(threads.map(leases.is_free, unneeded))
        found = list(threads.map(_describe, compress(unneeded, is_idle)))
        if not dry:
            is_removed = list(threads.map(lambda pruned: _remove(pruned, leases), found))
            found = list(compress(found, is_removed))
    leases.close()
    return sorted(found, key=lambda pruned: -pruned.size)


def _remove(pruned: Pruned, leases: Leases) -> bool:
    """Remove an artifact under its lease; False where a driver has just begun to make it. The manifest goes first, so
    that what a kill leaves is not taken for complete."""
    lease = leases.take(pruned.place)
    if isinstance(lease, Holder):
        return False
    (pruned.place / MANIFEST).delete()
    pruned.place.delete()
    leases.drop(lease)
    return True


def is_artifact_name(name: str) -> bool:
    """Whether a name is ``step@`` and 12 hex digits."""
    step, at, digits = name.rpartition("@")
    return bool(step and at) and len(digits) == 12 and not digits.strip("0123456789abcdef")


def _describe(place: Place) -> Pruned:
    return Pruned(place, sum(size for _, size, _ in place.files()), (place / MANIFEST).exists())
