"""The schedule: which steps may start now, kept up to date as others finish.

Ready steps that are mapped by the same work with the same resources form one *wave*, done by one pool of actors: seven
languages cost one load of the model. Ready sources with the same resources are one wave too, a directory step is a wave
of its own. Cost: each step and each of its inputs is looked at once, so thousands of steps take milliseconds.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from cluster.step import Step

Wave = list[Step]


class Schedule:
    """The missing steps of a run, inputs before what reads them (see ``executor.find_missing``)."""

    def __init__(self, missing: Sequence[Step]):
        ids = {step.id for step in missing}
        self._waits_for: dict[str, int] = {}  # how many inputs of a step are missing
        self._readers: defaultdict[str, list[Step]] = defaultdict(list)
        self._ready: dict[Hashable, Wave] = {}
        self._unfinished = ids
        for step in missing:
            parents = {parent.id for parent in step.parents.values()} & ids
            self._waits_for[step.id] = len(parents)
            for parent in parents:
                self._readers[parent].append(step)
            if not parents:
                self.put_back(step)

    @property
    def is_done(self) -> bool:
        """Whether every step has finished."""
        return not self._unfinished

    @property
    def waves(self) -> list[Wave]:
        """The waves that may start, the one that was ready first in front."""
        return list(self._ready.values())

    def start(self, wave: Wave) -> None:
        """Take a wave away: it is being done."""
        self._ready.pop(key_of_wave(wave[0]))

    def put_back(self, step: Step) -> None:
        """Make a step ready to start (again)."""
        self._ready.setdefault(key_of_wave(step), []).append(step)

    def finish(self, steps: Iterable[Step]) -> None:
        """Count steps as complete: what waited for them alone becomes ready."""
        for step in steps:
            self._unfinished.discard(step.id)
            for reader in self._readers.pop(step.id, ()):
                self._waits_for[reader.id] -= 1
                if not self._waits_for[reader.id]:
                    self.put_back(reader)


def key_of_wave(step: Step) -> Hashable:
    """What the steps of a wave have in common. Sources need no model, so all of them are one wave."""
    if step.table is None:
        return step.id
    return step.work if step.rows else None, step.resources
