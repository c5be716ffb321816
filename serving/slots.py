"""The slots of a gateway: one for each system that it serves.

The configuration lists for each slot the applications of parts that may fill it, best first. A slot changes to the
first of them that passes its check:

    {"serves": [["babelray-1f0c5a2b7d9e", "babelray-93ab04c1de77"], ["babelray-77a0e4f1c002"]]}

Slots change one by one, each by one assignment. An application that cannot be opened is tried again every second;
until it opens, the slot keeps serving the one before. A slot changes in the same way to a new list of its index's
segments, once the parts have opened it beside the old one. The first slot answers requests that name no model. Where
a recipe has a student and an index of words, each has a slot, and a hybrid search asks both.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from serving.catalog import Serving
from serving.messages import SearchAnswer, SearchRequest
from serving.routes import list_models

if TYPE_CHECKING:
    from serving.generation import Generation

RETRY_S = 1.0  # between two tries to open what is to be served
FOLLOW_S = 2.0  # between two looks for a new list of the segments of an index
# The editions that took part in the answer to the current request.
editions_used: ContextVar[list[str]] = ContextVar("editions_used")
Opening = Callable[[str, "Generation | None"], Awaitable["Generation"]]
log = logging.getLogger("ray.serve")


class Slot:
    """One slot: ``wanted`` are the applications that may fill it, best first, and ``current`` is the one that does.
    ``open_parts`` opens the newest edition of an application, by its name and the generation that served before."""

    def __init__(self, open_parts: Opening, on_change: "Callable[[Generation | None], None]"):
        self.open_parts, self.on_change = open_parts, on_change
        self.wanted: list[str] = []
        self.current: Generation | None = None
        self.failures: dict[str, str] = {}
        self.choosing: asyncio.Task[None] | None = None
        self.refreshing: asyncio.Task[None] | None = None

    def change(self, wanted: Sequence[str]) -> None:
        """Begin to serve the first of ``wanted`` that can be opened. Returns at once."""
        self.wanted = list(wanted)
        if self.choosing:
            self.choosing.cancel()
        self.choosing = asyncio.create_task(self._choose())

    def close(self) -> None:
        """Serve nothing more. What has begun is answered."""
        for task in (self.choosing, self.refreshing):
            if task:
                task.cancel()
        before, self.current = self.current, None
        self.on_change(before)

    async def _choose(self) -> None:
        """Serve the first that can be opened, and go on until that is the first of them all."""
        while self.wanted:
            for name in self.wanted:
                if self.current and self.current.name == name:
                    break
                if await self._open(name):
                    break
            if self.current and self.current.name == self.wanted[0]:
                await self._follow(self.current)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, current: "Generation") -> None:
        """Change to every new list of the index that is served, until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                newest = await current.find_newest()
            except Exception as error:  # a part that does not answer now is seen by the health check
                log.warning("%s did not name its newest list: %s", current.name, error)
                continue
            if newest != current.edition and await self._open(current.name):
                current = self.current or current

    async def _open(self, name: str) -> bool:
        """Serve the application ``name`` when it passes its check. Returns whether it did."""
        try:
            generation = await self.open_parts(name, self.current)
            await generation.check_examples()
        except Exception as error:  # whatever it is, the next try may find the application whole
            self.failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            log.warning("%s is not served yet: %s", name, self.failures[name])
            return False
        if self.refreshing:
            self.refreshing.cancel()
        before, self.current = self.current, generation
        self.failures.pop(name, None)
        self.refreshing = asyncio.create_task(generation.refresh())
        self.on_change(before)
        return True


class Report(NamedTuple):
    """What a gateway serves, the requests that it works on by application, and why others could not be opened."""

    serves: tuple[Serving, ...]
    in_flight: dict[str, int]
    failures: dict[str, str]


class Slots:
    """All slots of a gateway, in their order."""

    def __init__(self, open_parts: Opening):
        self.open_parts = open_parts
        self.slots: list[Slot] = []
        self.former: list[Generation] = []  # those that may still be answering

    def change(self, wanted: Sequence[Sequence[str]]) -> None:
        """Give each list of names in ``wanted`` a slot: the one that serves one of these names, else one that no list
        claims, else a new one. Close the slots that are left. Returns at once; slots change in the background."""
        free, chosen = list(self.slots), dict[int, Slot]()
        for at, names in enumerate(wanted):
            if slot := next((slot for slot in free if slot.current and slot.current.name in names), None):
                free.remove(slot)
                chosen[at] = slot
        for at in range(len(wanted)):
            if at not in chosen:
                chosen[at] = free.pop(0) if free else Slot(self.open_parts, self._keep)
        self.slots = [chosen[at] for at in range(len(wanted))]
        for slot, names in zip(self.slots, wanted, strict=True):
            slot.change(names)
        for slot in free:
            slot.close()

    @property
    def current(self) -> "list[Generation]":
        """What is served now, the default first."""
        return [slot.current for slot in self.slots if slot.current]

    @property
    def failures(self) -> dict[str, str]:
        """Why applications could not be opened, by their names."""
        return {name: reason for slot in self.slots for name, reason in slot.failures.items()}

    @property
    def default(self) -> "Generation | None":
        """What answers requests that name no model."""
        return self.slots[0].current if self.slots else None

    def list_models(self) -> "dict[str, Generation]":
        """What is served, by each of the names under which it may be asked for."""
        named: dict[str, Generation] = {}
        for generation in self.current:
            for name in list_models(generation.info):
                named.setdefault(name, generation)
        return named

    def report(self) -> Report:
        """Report what is served, and what is still being answered."""
        self._forget()
        in_flight: dict[str, int] = {}
        for generation in [*self.former, *self.current]:  # some are editions of the same application
            in_flight[generation.name] = in_flight.get(generation.name, 0) + generation.in_flight
        serves = tuple(Serving(one.name, one.info.recipe, one.info.system) for one in self.current)
        return Report(serves, in_flight, self.failures)

    def _forget(self) -> None:
        """Forget those before that have answered all: an index that grows leaves one behind with each list."""
        self.former = [generation for generation in self.former if generation.in_flight]

    def _keep(self, before: "Generation | None") -> None:
        """Remember what served before, and which index of words now stands beside each student."""
        self._forget()
        if before:
            self.former.append(before)
        current = self.current
        for generation in current:
            hybrid = generation.info.hybrid
            words = [
                other
                for other in current
                if hybrid and (other.info.recipe, other.info.system) == (generation.info.recipe, hybrid.system)
            ]
            generation.words = _count_calls(words[0]) if words else None


def _count_calls(generation: "Generation") -> Callable[[SearchRequest], Awaitable[SearchAnswer]]:
    """The answers of a generation to a request that another one answers too: it counts as in flight there."""

    async def answer(request: SearchRequest) -> SearchAnswer:
        editions = editions_used.get([])
        if generation.edition not in editions:
            editions.append(generation.edition)
        generation.in_flight += 1
        try:
            return await generation.answer(request)
        finally:
            generation.in_flight -= 1

    return answer
