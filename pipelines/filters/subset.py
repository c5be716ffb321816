"""Subsets: what a search is limited to, and which documents of an index these are.

A ``Selector`` belongs to an opened group of shards. Looking up ids reads a table of their hashes, 16 bytes for each
document, which the first look-up makes; a predicate reads the columns of its fields, of which the first predicate makes
a copy in the order of the index. Later, ids cost a bisection each, and a predicate a pass over its columns (measured
in docs/index.md). What was selected last is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import pyarrow as pa

from pipelines.docstore import RowStore
from pipelines.filters.fields import ARROW, FieldType, find_types
from pipelines.filters.predicates import Predicate, check, find_rows, is_utf8, list_fields
from pipelines.ids import hash_ids
from pipelines.indexes.files import Docs, ranges
from pipelines.vectors import IntArray

KEPT = 8  # selections


@dataclass(frozen=True)
class Subset:
    """What a search is limited to: documents with these ids, those that a predicate holds for, or those of both."""

    ids: tuple[str, ...] | None = None
    predicate: Predicate | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is limited."""
        return self.ids is None and self.predicate is None


class Selector:
    """Finds the documents of a group of shards that belong to a subset. Threads may share it.

    ``stores`` has for each shard the rows of its documents, and may have more, None where the shard has no document.
    """

    def __init__(self, docs: Docs, stores: Sequence[RowStore | None]):
        self.docs, self.stores = docs, stores
        self._lock = Lock()
        self._columns: dict[str, pa.Array] = {}
        self._kept: dict[Subset, IntArray] = {}

    @cached_property
    def types(self) -> dict[str, FieldType]:
        """The fields that documents have, and their types."""
        stores = [store for store in self.stores if store is not None]
        return {name: kind for store in stores for name, kind in find_types(store.schema).items()}

    def select(self, subset: Subset | None) -> IntArray | None:
        """The ascending numbers of the documents of a subset, without those that are hidden; None for all.

        Raises RecipeError where the predicate does not fit the fields that there are.
        """
        if subset is None or subset.is_all:
            return None
        with self._lock:
            found = self._kept.pop(subset, None)
            if found is None:
                found = self._select(subset)
            self._kept[subset] = found  # the last to be dropped
            for old in list(self._kept)[:-KEPT]:
                del self._kept[old]
        return found

    def _select(self, subset: Subset) -> IntArray:
        docs: IntArray | None = None
        if subset.ids is not None:
            docs = self._find_ids(subset.ids)
        if subset.predicate is not None:
            check(subset.predicate, self.types)
            holds = self._find_rows(subset.predicate)
            docs = np.flatnonzero(holds) if docs is None else docs[holds[docs]]
        assert docs is not None
        return docs if self.docs.is_hidden_D is None else docs[~self.docs.is_hidden_D[docs]]

    @cached_property
    def _by_hash(self) -> tuple[np.ndarray, IntArray]:
        """The hashes of all ids, ascending, and the document of each."""
        hashed = [hash_ids(ids.to_pylist()) for ids in self.docs.ids(np.arange(len(self.docs)))]
        joined = np.concatenate([np.zeros(0, np.uint64), *hashed])
        order = np.argsort(joined, kind="stable")
        return joined[order], order

    def _find_ids(self, ids: Sequence[str]) -> IntArray:
        """The documents with these ids, of each shard that has one; other ids are passed over."""
        hashes, order = self._by_hash
        known = set(filter(is_utf8, ids))
        wanted = np.unique(hash_ids(list(known)))
        firsts = np.searchsorted(hashes, wanted)
        docs = np.sort(order[ranges(firsts, np.searchsorted(hashes, wanted, side="right") - firsts)])
        return docs[np.array([name in known for name in self.docs.names(docs)], bool)]

    def _find_rows(self, predicate: Predicate) -> np.ndarray:
        columns = {name: self._column(name) for name in list_fields(predicate)}
        return find_rows(predicate, columns, len(self.docs))

    def _column(self, name: str) -> pa.Array:
        """A field of all documents, in the order of the index."""
        if name not in self._columns:
            kind = self.types[name]
            sizes = np.diff(self.docs.docs_S1).tolist()
            stores = [store for store, size in zip(self.stores, sizes, strict=True) if store is not None and size]
            ids = self.docs.ids(np.arange(len(self.docs)))  # of the shards that have documents
            parts = [store.read_field(name, own, kind) for store, own in zip(stores, ids, strict=True)]
            self._columns[name] = pa.chunked_array(parts, ARROW[kind]).combine_chunks()
        return self._columns[name]
