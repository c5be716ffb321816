"""A writer that changes an index at random until it is killed, and says in a journal what it begins and has done."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.segments.growing import GrowingIndex
from tests.growing import make_texts, write_parts

Change = tuple[str, dict[str, str], list[str]]  # verb, texts, ids


def choose(rng: np.random.Generator, there: Mapping[str, str]) -> Change:
    """A change: new and replaced documents, or ids to delete, or nothing but a compaction."""
    verb = str(rng.choice(["add", "add", "delete", "compact"]))
    known = sorted(there)
    some = [known[i] for i in rng.permutation(len(known))[: rng.integers(1, 5)]]
    if verb == "add":
        names = [*some[:2], *(f"n{rng.integers(10**9)}" for _ in range(3))]
        return verb, dict(zip(names, make_texts(len(names), int(rng.integers(10**9))).values(), strict=True)), []
    return verb, {}, some if verb == "delete" else []


def apply(change: Change, there: Mapping[str, str]) -> dict[str, str]:
    """What an index holds after a change."""
    _, texts, ids = change
    return {name: text for name, text in there.items() if name not in ids} | texts


def make(growing: GrowingIndex, change: Change, scratch: Path) -> None:
    verb, texts, ids = change
    if verb == "add":
        growing.add(write_parts(scratch, texts))
    elif verb == "delete":
        growing.delete(ids)
    else:
        growing.compact()


def write_until_killed(growing: GrowingIndex, there: dict[str, str], seed: int, journal: Path) -> None:
    """Change ``growing``, which holds ``there``, without end."""
    tempfile.tempdir = str(journal.parent)
    rng = np.random.default_rng(seed)
    scratch = Path(tempfile.mkdtemp())
    with journal.open("a", buffering=1) as file:
        while True:
            change = choose(rng, there)
            file.write(json.dumps(["begin", change]) + "\n")
            make(growing, change, scratch)
            file.write(json.dumps(["done", None]) + "\n")
            there = apply(change, there)


def read_journal(journal: Path, there: dict[str, str]) -> tuple[list[dict[str, str]], dict[str, str] | None]:
    """What the index held after each change that was done, beginning with ``there``, and after the one that was cut
    short, if there was one."""
    states, begun = [there], None
    for line in journal.read_text().splitlines():
        what, change = parse(line)
        if what == "begin":
            begun = apply(change, states[-1])
        elif begun is not None:
            states.append(begun)
            begun = None
    return states, begun


def parse(line: str) -> tuple[str, Any]:
    what, change = json.loads(line)
    return what, change
