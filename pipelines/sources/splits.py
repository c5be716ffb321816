"""Splits by hash, for collections whose own files do not divide their questions.

A question goes to a split by the hash of its group (an article, a page, a manual) where the collection names groups,
and by the hash of its id where it does not: 80 % of the groups to train, 10 % to dev, 10 % to test. The hash falls on
one of ten buckets. Fold 0 tests on bucket 0, develops on bucket 1 and trains on the other eight; fold f does so from
bucket f, so that ten folds test on every question once.

A question that is added later moves no other question. The shares are those of many groups: among twenty groups a
split may be empty.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Literal, Protocol, runtime_checkable

from cluster.storage import Place
from pipelines.sources.base import Entry

BUCKETS = 10
SPLITS = ("train", "dev", "test")

HashedBy = Literal["", "group", "query id"]


@runtime_checkable
class HashSplitSource(Protocol):
    """A source that may divide its questions by hash."""

    def hashed_by(self) -> HashedBy:
        """What decides the split of a question by its hash, or "" where files of the collection decide."""


def split_by_hash(unit: str, fold: int = 0) -> str:
    """The split ("train", "dev" or "test") of a group or of a query id."""
    bucket = int.from_bytes(blake2b(unit.encode(), digest_size=8).digest(), "little") % BUCKETS
    return {0: "test", 1: "dev"}.get((bucket - fold) % BUCKETS, "train")


def keep_split(entries: Iterable[Entry], split: str) -> Iterator[Entry]:
    """The entries whose ``query_id`` the hash puts into ``split``, and all rejects; with "all", every entry."""
    for entry in entries:
        if split == "all" or not entry.row or split_by_hash(entry.row["query_id"]) == split:
            yield entry


def find_split_rule(source: Any, split: str) -> str:
    """The rule that makes ``split``, for a manifest: "by hash of group", or "" where the collection's files decide."""
    unit = source.hashed_by() if isinstance(source, HashSplitSource) and split in SPLITS else ""
    return f"by hash of {unit}" if unit else ""


def describe_splits(source: Any) -> str | None:
    """Say that splits are made by hash, for the screen; None where the collection has its own, or is absent.

    Raises:
        StorageError: the collection cannot be listed.
    """
    path = getattr(source, "path", None)
    is_absent = path is not None and not Place.of(path).exists()
    unit = source.hashed_by() if isinstance(source, HashSplitSource) and not is_absent else ""
    if not unit:
        return None
    return (
        f"the {source.kind} collection has no split files: questions are divided by hash of their {unit}, "
        "80 % train, 10 % dev, 10 % test"
    )
