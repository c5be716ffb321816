"""Text by id, for whoever needs single texts: the trainer, the scorer, the server.

An artifact's good rows are copied once per node into an Arrow file, which is memory-mapped: opening it costs
milliseconds, and the memory in use is the pages that are read. An id is found by binary search in a sorted array of
64-bit hashes, memory-mapped too; ids whose hashes collide are told apart by comparing the ids themselves. An id looked
up alone costs 17 µs, one of fifty 1.7 µs; of these 0.7 are its hash, which is the same for stores of all languages.

Building costs one pass over the artifact, about a second per 500,000 rows, and holds one part and 16 bytes per row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.artifact import Artifact, read_part
from cluster.component import fingerprint
from cluster.errors import TableError
from cluster.nodecache import cached
from cluster.table import good
from pipelines.filters.fields import ARROW, METADATA, FieldType, find_types
from pipelines.ids import hash_ids
from pipelines.text import join_title

ID_COLUMN = {"docs": "doc_id", "queries": "query_id", "rankings": "query_id", "pairs": "pair_id"}
NOT_KEPT = ("reject", "origin")  # columns that no reader of single rows wants
ROWS_PER_BATCH = 65_536


class RowStore:
    """The good rows of a DOCS, QUERIES, RANKINGS or PAIRS artifact, by id or by position. Read-only, safe to share.

    Positions count from 0 in the order of the artifact. ``name`` is the artifact's, for messages.
    """

    def __init__(self, directory: Path, id_column: str, name: str):
        self.name = name
        self.id_column = id_column
        reader = pa.ipc.open_file(pa.memory_map(str(directory / "rows.arrow")))
        self.schema: pa.Schema = reader.schema
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._ids = [batch.column(id_column) for batch in self._batches]
        self._ends = np.cumsum([len(b) for b in self._batches], dtype=np.int64)
        self._hashes = np.load(directory / "hashes.npy", mmap_mode="r")
        self._order = np.load(directory / "order.npy", mmap_mode="r")

    @classmethod
    def open(cls, artifact: Artifact, parts: Sequence[int] | None = None) -> Self:
        """Open the rows of ``artifact``, or of some of its parts (their numbers), copying them first where this node
        has no copy yet. Processes that open the same artifact at once wait for the one that copies.

        Raises:
            TableError: the artifact is no table with ids, or an id occurs twice.
            StepError: the artifact is not complete.
        """
        table = artifact.manifest.table
        if table not in ID_COLUMN:
            raise TableError(f"{artifact.name}: expected a table of {', '.join(ID_COLUMN)}, got {table}")
        chosen = list(range(len(artifact.parts))) if parts is None else sorted(set(parts))
        column = ID_COLUMN[table]
        # `created`: an artifact that was deleted and made again may differ (a sampled translation)
        key = fingerprint([artifact.place.uri, artifact.manifest.created, chosen])
        directory = cached("rows", key, lambda draft: _write(artifact, chosen, column, draft))
        return cls(directory, column, artifact.name)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __contains__(self, row_id: object) -> bool:
        return isinstance(row_id, str) and bool(self.positions([row_id])[0] >= 0)

    @property
    def ids(self) -> Iterator[str]:
        """All ids, in the order of the artifact."""
        for column in self._ids:
            yield from column.to_pylist()

    def position(self, row_id: str) -> int:
        """The position of the row with this id. Raises TableError, naming the id, where there is none."""
        return int(self._all_positions([row_id])[0])

    def positions(self, row_ids: Sequence[str], hashed: np.ndarray | None = None) -> np.ndarray:
        """The positions of these ids, int64; -1 for an id that is not there. ``hashed`` is ``hash_ids`` of them, given
        where the same ids are looked up in several stores."""
        wanted = hash_ids(row_ids) if hashed is None else hashed
        found = np.full(len(row_ids), -1, np.int64)
        at = np.searchsorted(self._hashes, wanted)
        left = np.arange(len(row_ids))  # the ids to look for: each is compared with all that have its hash
        while len(left := left[at[left] < len(self._hashes)]):
            left = left[self._hashes[at[left]] == wanted[left]]
            candidates = self._order[at[left]]
            their_ids = self.ids_at(candidates)
            same = np.array([row_ids[i] == row_id for i, row_id in zip(left, their_ids, strict=True)], bool)
            found[left[same]] = candidates[same]
            left = left[~same]
            at[left] += 1
        return found

    def _all_positions(self, row_ids: Sequence[str]) -> np.ndarray:
        """As ``positions``, of ids that must be there."""
        found = self.positions(row_ids)
        if (found < 0).any():
            raise TableError(
                f"no id {row_ids[int((found < 0).argmax())]!r} among the {len(self):,} good rows of {self.name}: "
                "it was rejected there, or the two tables come from different collections"
            )
        return found

    def row(self, row_id: str) -> dict[str, Any]:
        """The row with this id, without ``reject``."""
        return self.row_at(self.position(row_id))

    def row_at(self, position: int) -> dict[str, Any]:
        """The row at this position."""
        batch, offset = self._locate(position)
        return {name: batch.column(name)[offset].as_py() for name in batch.schema.names}

    def id_at(self, position: int) -> str:
        """The id at this position."""
        return self.ids_at(np.array([position]))[0]

    def ids_at(self, positions: np.ndarray) -> list[str]:
        """The ids at these positions, int [N]. Raises IndexError for one that is none."""
        self._check(positions)
        numbers = np.searchsorted(self._ends, positions, side="right")
        offsets = positions - self._ends[numbers]  # from the end of the record batch
        return [self._ids[n][offset].as_py() for n, offset in zip(numbers.tolist(), offsets.tolist(), strict=True)]

    def read_field(self, name: str, row_ids: pa.Array, kind: FieldType) -> pa.Array:
        """A field of the metadata of the rows with these ids, in their order; null where there is none."""
        if name not in find_types(self.schema):
            return pa.nulls(len(row_ids), ARROW[kind])
        own = pa.chunked_array([ids.cast(row_ids.type) for ids in self._ids], row_ids.type)
        kept = [pc.struct_field(batch.column(METADATA), name).cast(ARROW[kind]) for batch in self._batches]
        values = pa.chunked_array(kept, ARROW[kind])
        return values.combine_chunks().take(pc.index_in(row_ids, value_set=own.combine_chunks()))

    def _check(self, positions: np.ndarray) -> None:
        if len(wrong := positions[(positions < 0) | (positions >= len(self))]):
            raise IndexError(f"position {wrong[0]} of {len(self)} rows in {self.name}")

    def _locate(self, position: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} rows in {self.name}")
        number = int(np.searchsorted(self._ends, position, side="right"))
        batch = self._batches[number]
        return batch, position - int(self._ends[number]) + len(batch)


class Docstore(RowStore):
    """The texts of a DOCS or QUERIES artifact by id."""

    text_column: ClassVar[str] = "text"

    def text(self, row_id: str) -> str:
        """The text as models read it: title and text of a document (``pipelines.text.join_title``)."""
        return self.text_at(self.position(row_id))

    def texts(self, row_ids: Iterable[str]) -> list[str]:
        """The texts of these ids, in their order."""
        return [self.text_at(position) for position in self._all_positions(list(row_ids)).tolist()]

    def text_at(self, position: int) -> str:
        """The text at this position."""
        batch, offset = self._locate(position)
        text = str(batch.column(self.text_column)[offset].as_py())
        title = batch.column("title")[offset].as_py() if "title" in batch.schema.names else None
        return join_title(title, text)


class JoinedDocstore(Docstore):
    """Several docstores as one, in the order given. Ids are ``<name>:<id>``, so that two of them may share ids."""

    def __init__(self, stores: Mapping[str, Docstore]):
        self.name = " + ".join(store.name for store in stores.values())
        self._stores = dict(stores)
        self._starts = np.cumsum([0, *(len(store) for store in stores.values())])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def ids(self) -> Iterator[str]:
        """All ids, store by store."""
        for name, store in self._stores.items():
            for row_id in store.ids:
                yield f"{name}:{row_id}"

    def positions(self, row_ids: Sequence[str], hashed: np.ndarray | None = None) -> np.ndarray:
        """See ``RowStore.positions``; ``hashed`` is not used."""
        found = np.full(len(row_ids), -1, np.int64)
        parts = [row_id.partition(":") for row_id in row_ids]
        for start, (name, store) in zip(self._starts.tolist(), self._stores.items(), strict=False):
            at = np.array([i for i, part in enumerate(parts) if part[0] == name], np.int64)
            inside = store.positions([parts[i][2] for i in at.tolist()])
            found[at] = np.where(inside < 0, -1, inside + start)
        return found

    def row_at(self, position: int) -> dict[str, Any]:
        """The row at this position, its id as in its own store."""
        _, store, inside = self._find(position)
        return store.row_at(inside)

    def ids_at(self, positions: np.ndarray) -> list[str]:
        """See ``RowStore.ids_at``."""
        self._check(positions)
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        ids = np.empty(len(positions), object)
        for number, (name, store) in enumerate(self._stores.items()):
            here = numbers == number
            ids[here] = [f"{name}:{row_id}" for row_id in store.ids_at(positions[here] - self._starts[number])]
        return list(ids)

    def text_at(self, position: int) -> str:
        """The text at this position."""
        _, store, inside = self._find(position)
        return store.text_at(inside)

    def _find(self, position: int) -> tuple[str, Docstore, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} rows in {self.name}")
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        name = list(self._stores)[number]
        return name, self._stores[name], position - int(self._starts[number])


def _write(artifact: Artifact, parts: list[int], id_column: str, directory: Path) -> None:
    directory.mkdir()
    hashed: list[np.ndarray] = []
    writer = None
    with pa.OSFile(str(directory / "rows.arrow"), "wb") as file:
        for number in parts:
            rows = good(read_part(artifact.parts[number]))
            rows = rows.drop_columns([c for c in NOT_KEPT if c in rows.column_names]).combine_chunks()
            writer = writer or pa.ipc.new_file(file, rows.schema)
            writer.write_table(rows, max_chunksize=ROWS_PER_BATCH)
            hashed.append(hash_ids(rows[id_column].to_pylist()))
        writer = writer or pa.ipc.new_file(file, pa.schema([(id_column, pa.string())]))
        writer.close()
    joined = np.concatenate(hashed) if hashed else np.zeros(0, np.uint64)
    order = np.argsort(joined, kind="stable")
    np.save(directory / "hashes.npy", joined[order])
    np.save(directory / "order.npy", order.astype(np.int64))
    _refuse_duplicates(RowStore(directory, id_column, artifact.name))


def _refuse_duplicates(store: RowStore) -> None:
    same = np.flatnonzero(store._hashes[1:] == store._hashes[:-1])
    for at in same:
        one, other = (store.id_at(int(store._order[at + k])) for k in (0, 1))
        if one == other:
            raise TableError(f"{store.name}: the id {one!r} occurs twice; ids must be unique in a table")
