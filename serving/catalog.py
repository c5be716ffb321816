"""What an application of parts serves, and how its parts refuse calls for anything else.

An encoder and shards are one application, ``babelray-<fingerprint>``. The fingerprint covers the index, the model, the
documents, how they are searched, the limits of a request, and the version of the software: two that differ in any of
these run beside each other under different names, and no answer can be made from both. Every call carries the
fingerprint, and a part that serves another one refuses the call.

An index grows while it is served, so an answer is named by an edition: the fingerprint, and the number of the list of
segments that was searched, ``1f0c5a2b7d9e+3``; the fingerprint alone where nothing was ever added or deleted.

Gateways may serve several applications, each in a slot: several recipes, or a student and an index of words.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.messages import Info
from serving.tracing import TracedReplica

if TYPE_CHECKING:
    from serving.served import Layout

ENCODER, RERANKER = "encoder", "reranker"  # the names of their deployments
LENGTH = 12  # characters of a fingerprint: 2^48 of them


@dataclass(frozen=True)
class Catalog:
    """What the gateway must know of the parts before it asks them anything.

    The example queries in ``info`` are answered by a new edition before users are sent to it.
    """

    edition: str
    info: Info
    has_encoder: bool


class Serving(NamedTuple):
    """The application of some parts, by its name, and of which recipe and system they are."""

    name: str
    recipe: str
    system: str


class Change(NamedTuple):
    """How gateways change. ``during``: the slots while new parts are checked, each with the new application first and
    then the one that answers until then. ``after``: the slots once the check is passed. ``ended``: the applications
    that are then deleted."""

    during: list[list[str]]
    after: list[list[str]]
    ended: list[str]


class ForeignError(Exception):
    """A call was meant for another fingerprint than the part serves."""


class CheckError(Exception):
    """An application did not pass the check that comes before users are sent to it."""


def take_fingerprint(content: Any) -> str:
    """Return the fingerprint of ``content``, which JSON can write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:LENGTH]


def name_parts(server: str, fingerprint: str) -> str:
    """Name the application of the parts that ``server`` sends users to."""
    return f"{server}-{fingerprint}"


def name_edition(fingerprint: str, number: int) -> str:
    """Name what is answered from the list of an index's segments that has this number."""
    return f"{fingerprint}+{number}" if number else fingerprint


def plan_change(before: Sequence[Serving], new: Sequence[Serving]) -> Change:
    """Plan how ``new`` takes the place of what gateways serve.

    Systems of a recipe that ``new`` has are replaced, and others stay; where ``new`` has no recipe that is served, all
    are replaced. Until a new system is checked, its slot goes on with the old system of the same recipe and name, or
    else with a replaced one that no other slot goes on with.
    """
    recipes = {one.recipe for one in new}
    leaving = [old for old in before if old.recipe in recipes] or list(before)
    names = {one.name for one in new}
    place = before.index(leaving[0]) if leaving else 0
    first = [[old.name] for old in before[:place] if old not in leaving]
    last = [[old.name] for old in before[place:] if old not in leaving]
    free = [old for old in leaving if old.name not in names]
    ended = [old.name for old in free]
    former = dict[str, str]()
    for is_same in (lambda one, old: one[1:] == old[1:], lambda one, old: True):
        for one in new:
            found = next((old for old in free if is_same(one, old)), None)
            if one.name not in former and one not in leaving and found:
                former[one.name] = found.name
                free.remove(found)
    during = [[one.name, *([former[one.name]] if one.name in former else [])] for one in new]
    left_over = [[old.name] for old in free]
    return Change([*first, *during, *last, *left_over], [*first, *([one.name] for one in new), *last], ended)


class Part(TracedReplica):
    """A replica that serves one fingerprint: the encoder, shards, or what scores results again; ``name`` is that of its
    deployment.

    One part of each application, its root, has the handles of the ``others``: Serve makes an application of a
    deployment and of those whose handles it is given.
    """

    def __init__(self, layout: "Layout", name: str, others: Sequence[Any] = ()):
        super().__init__()
        self.layout, self.name = layout, name
        self.others = others
        self.catalog: Catalog | None = None

    def read_number(self, edition: str) -> int:
        """The number of the list of segments that an edition means. Raises ForeignError for a call that is meant for
        another fingerprint."""
        fingerprint, _, number = edition.partition("+")
        if fingerprint != self.layout.fingerprint:
            raise ForeignError(
                f"this part serves {self.layout.fingerprint} and was asked for {fingerprint}: "
                "a gateway and parts of two applications were mixed"
            )
        return int(number or 0)

    async def describe(self) -> Catalog:
        """Describe the newest edition: the index may have grown."""
        return await asyncio.to_thread(self._describe)

    def _describe(self) -> Catalog:
        if self.catalog is None or self.catalog.edition != self.layout.find_newest():
            self.catalog = self.layout.make_catalog()
        return self.catalog

    async def ping(self, edition: str) -> bool:
        """Return True: the replica runs, and has opened what it serves."""
        self.read_number(edition)
        return True
