"""Receipts: one small JSON file per finished unit of a step, written after the unit's files.

A unit is one part of a table or one shard of an index. A unit with a receipt is never done again: this is the whole of
resume, and it holds for a killed driver, worker or node alike, on a disk or in an object store, since each file appears
whole or not at all and a unit done twice (by an orphan of a killed run) writes the same bytes under the same names.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.artifact import Part, Rejected
from cluster.storage import Place

RECEIPTS = "receipts"
EXAMPLES = 5  # rejected records shown per reason
READERS = 16  # receipts are read in parallel: in an object store each read is a round trip


class Receipt(BaseModel):
    """What one unit wrote."""

    model_config = ConfigDict(frozen=True)
    unit: int
    parts: tuple[Part, ...] = ()
    rejects: dict[str, Rejected] = {}
    seconds: float = 0.0
    facts: dict[str, Any] = {}

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
        found = pool.map(lambda place: Receipt.model_validate_json(place.read()), receipts.list())
        return {receipt.unit: receipt for receipt in found}


def tally(rejects: Iterable[tuple[str, str]]) -> dict[str, Rejected]:
    """Count (reason, example) pairs by reason and keep the first examples of each."""
    counts: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for reason, example in rejects:
        counts[reason] = counts.get(reason, 0) + 1
        if len(examples.setdefault(reason, [])) < EXAMPLES:
            examples[reason].append(example)
    return {reason: Rejected(count=n, examples=tuple(examples[reason])) for reason, n in counts.items()}


def merge_rejects(receipts: Iterable[Receipt]) -> dict[str, Rejected]:
    """The sum of the rejects of several units."""
    merged: dict[str, Rejected] = {}
    for receipt in receipts:
        for reason, new in receipt.rejects.items():
            old = merged.get(reason, Rejected(count=0))
            merged[reason] = Rejected(count=old.count + new.count, examples=(*old.examples, *new.examples)[:EXAMPLES])
    return merged


def write_receipt(receipts: Place, receipt: Receipt) -> None:
    """Write a receipt: the unit is done from here on."""
    receipt_place(receipts, receipt.unit).write(json.dumps(receipt.model_dump(mode="json")).encode())
