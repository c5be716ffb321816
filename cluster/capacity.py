"""Capacity: how much of the cluster the running waves take, so that others start beside them where there is room.

Amounts are counted over the whole cluster; on which node an actor finds its place is Ray's to decide.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.component import Resources


@dataclass(eq=False)
class Grant:
    """What a wave may take: so many actors of these resources. ``least`` is what it cannot do without.

    Two grants of the same amounts are two grants: each is compared by identity.
    """

    resources: Resources
    least: int
    actors: int


class Capacity:
    """Grants room to waves. ``total`` gives what the cluster holds of each of Ray's resources; it may grow, so
    ``refresh`` asks again.

    Where steps will want GPUs, ``cpus_per_gpu`` CPUs for each GPU are kept from those that want none: else an index
    would be built on all CPUs while the translator's GPUs wait.
    """

    def __init__(self, total: Callable[[], Mapping[str, float]], cpus_per_gpu: float = 0.0):
        self._total, self._cpus_per_gpu = total, cpus_per_gpu
        self._have = dict(total())
        self._grants: list[Grant] = []
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Look again at what the cluster holds."""
        self._have = dict(self._total())

    def take(self, resources: Resources, least: int, most: int) -> Grant | None:
        """Grant between ``least`` and ``most`` actors, as many as there is room for; None where ``least`` do not fit.

        A wave that would run alone always gets its least: Ray makes it wait for nodes, or says that they cannot come.
        """
        with self._lock:
            fits = self._room(resources, most)
            if fits < least and self._grants:
                return None
            grant = Grant(resources, least, max(least, fits))
            self._grants.append(grant)
            return grant

    def grow(self, grant: Grant, most: int) -> int:
        """Grant more, as far as there is room; returns how many actors the wave may have now."""
        with self._lock:
            more = max(0, most - grant.actors)
            grant.actors += self._room(grant.resources, more)
            return grant.actors

    def shrink(self, grant: Grant, actors: int) -> None:
        """Give back what is not needed."""
        with self._lock:
            grant.actors = max(grant.least, min(grant.actors, actors))

    def give_back(self, grant: Grant) -> None:
        """Give all back."""
        with self._lock:
            self._grants.remove(grant)

    def _room(self, resources: Resources, most: int) -> int:
        """How many more actors fit beside what is granted, up to ``most``."""
        free = dict(self._have)
        for grant in self._grants:
            for name, amount in amounts(grant.resources).items():
                free[name] = free.get(name, 0.0) - amount * grant.actors
        if not resources.gpus:
            free["CPU"] = free.get("CPU", 0.0) - self._cpus_per_gpu * free.get("GPU", 0.0)
        fits = [int((free.get(name, 0.0) + 1e-6) // amount) for name, amount in amounts(resources).items()]
        return max(0, min([most, *fits]))


def amounts(resources: Resources) -> dict[str, float]:
    """What one actor takes, by the names of Ray's resources."""
    takes = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0) * 2**30}
    return {name: amount for name, amount in takes.items() if amount}
