"""Receipts: one small JSON file per finished unit of a step, written after the unit's files.

A unit is one part of a table or one shard of an index. A unit with a receipt is never done again: this is the whole of
resume, and it holds for a killed driver, worker or node alike, on a disk or in an object store, since each file appears
whole or not at all and a unit done twice (by an orphan of a killed run) writes the same bytes under the same names.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from cluster.artifact import Part, Rejected
from cluster.storage import Place

Item = TypeVar("Item")
RECEIPTS = "receipts"
EXAMPLES = 5  # rejected records shown per reason
READERS = 16  # threads for many small files: in an object store each is a round trip


class Receipt(BaseModel):
    """What one unit wrote."""

    model_config = ConfigDict(frozen=True)
    unit: int
    parts: tuple[Part, ...] = ()
    rejects: dict[str, Rejected] = {}
    seconds: float = 0.0
    facts: dict[str, Any] = {}
    software: dict[str, str] = {}

    @property
    def rows(self) -> int:
        """Rows written, rejected ones included."""
        return sum(part.rows for part in self.parts)

    @property
    def rejected(self) -> int:
        """Records rejected in this unit."""
        return sum(r.count for r in self.rejects.values())


def receipt_place(receipts: Place, unit: int) -> Place:
    """Where the receipt of a unit stands."""
    return receipts / f"{unit:05d}.json"


def read_receipts(receipts: Place) -> dict[int, Receipt]:
    """All receipts below a place, by unit."""
    with ThreadPoolExecutor(READERS) as pool:
        places = [place for place in receipts.list() if place.name.endswith(".json")]
        found = pool.map(lambda place: Receipt.model_validate_json(place.read()), places)
        return {receipt.unit: receipt for receipt in found}


class Tally:
    """Counts rejects by reason and keeps the first examples of each: its size does not grow with a broken file."""

    def __init__(self, rejects: Iterable[tuple[str, str]] = ()):
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.add(rejects)

    def add(self, rejects: Iterable[tuple[str, str]]) -> None:
        """Count (reason, example) pairs."""
        for reason, example in rejects:
            self.counts[reason] += 1
            kept = self.examples.setdefault(reason, [])
            if len(kept) < EXAMPLES:
                kept.append(example)

    def rejects(self) -> dict[str, Rejected]:
        """As a receipt holds them."""
        return {r: Rejected(count=n, examples=tuple(self.examples[r])) for r, n in self.counts.items()}


def merge_rejects(receipts: Iterable[Receipt]) -> dict[str, Rejected]:
    """The sum of the rejects of several units."""
    merged: dict[str, Rejected] = {}
    for receipt in receipts:
        for reason, new in receipt.rejects.items():
            old = merged.get(reason, Rejected(count=0))
            merged[reason] = Rejected(count=old.count + new.count, examples=(*old.examples, *new.examples)[:EXAMPLES])
    return merged


def merge_facts(facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of several units as one: numbers are added, mappings merged, and lists, which hold examples, joined, of
    which a few are kept, evenly spaced. Of anything else the first is kept."""
    values: dict[str, list[Any]] = {}
    for one in facts:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: _merge_values(of_units) for name, of_units in values.items()}


def _merge_values(values: Sequence[Any]) -> Any:
    """One fact of several units, in their order."""
    first = values[0]
    if isinstance(first, Mapping):
        return merge_facts(values)
    if isinstance(first, (list, tuple)):
        return take_spaced([item for value in values for item in value], EXAMPLES)
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return sum(values)
    return first


def take_spaced(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spaced, the first and the last among them: neighbours are often alike."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // max(1, most - 1)] for i in range(most)]


def write_receipt(receipts: Place, receipt: Receipt) -> None:
    """Write a receipt: the unit is done from here on."""
    receipt_place(receipts, receipt.unit).write(json.dumps(receipt.model_dump(mode="json")).encode())
