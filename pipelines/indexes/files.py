"""The files of shards: arrays that grow on disk, doc ids, inverted lists; and several shards read as one.

Everything is written in streams and read memory-mapped, so building and opening shards take memory for one part and
for a few numbers per document, however large they are. Letters: S shards, D docs, P passages, T tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.vectors import IntArray, VectorRows


class NpyAppender:
    """A ``.npy`` file that grows along its first axis; the first rows give the width."""

    def __init__(self, path: Path, dtype: str):
        self.dtype, self.rows = np.dtype(dtype), 0
        self.width: tuple[int, ...] = ()
        self._file: IO[bytes] = path.open("w+b")
        self._data_starts = 0

    def append(self, rows: np.ndarray) -> None:
        """Add rows; the type is cast."""
        if not self._data_starts:
            self.width = rows.shape[1:]
            self._data_starts = self._write_header()
        if rows.shape[1:] != self.width:
            raise ValueError(f"expected rows of shape {self.width}, got {rows.shape[1:]}")
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self.rows += len(rows)

    def _write_header(self) -> int:
        """numpy pads headers so that the first axis can grow to 21 digits without moving the data."""
        self._file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.width)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            end = self._write_header()
        if self._data_starts and end != self._data_starts:
            raise RuntimeError("the npy header changed its length: this numpy does not reserve room for growth")


def load_npy(path: Path) -> np.ndarray:
    """Open a ``.npy`` file memory-mapped and read-only. (An empty one cannot be mapped and is read.)

    The mapping is wrapped in a plain array: slicing a ``np.memmap`` costs several times as much.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError:
        return np.load(path)


class Docs:
    """The documents of one or several shards, numbered through: ids, and where passages and tokens start.

    ``passage_starts_D1`` and ``token_starts_P1`` have one entry more than there are docs and passages; ``docs_S1`` and
    ``passages_S1`` say at which document and passage each shard starts, and the end. ``is_hidden_D`` is None, or says
    which documents no search may find. Takes 8 bytes per document and per passage and the ids themselves in memory.
    """

    def __init__(self, directories: Sequence[Path]):
        tables = [_read_docs(directory) for directory in directories]
        tokens = [load_npy(directory / "tokens.npy") for directory in directories]
        self._ids = [table["doc_id"].combine_chunks() for table in tables]
        self.docs_S1 = offsets(np.array([len(ids) for ids in self._ids]))
        self.passages_S1 = offsets(np.array([len(counts) for counts in tokens]))
        self.passage_starts_D1 = offsets(np.concatenate([table["passages"].to_numpy() for table in tables]))
        self.token_starts_P1 = offsets(np.concatenate(tokens))
        self.is_hidden_D: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.docs_S1[-1])

    def hide(self, ids: Sequence[pa.Array]) -> None:
        """Hide the documents with these ids, given shard by shard; ids that a shard lacks are passed over."""
        hidden = [pc.is_in(own, value_set=some.cast(own.type)) for own, some in zip(self._ids, ids, strict=True)]
        is_hidden_D = np.concatenate([mask.to_numpy(zero_copy_only=False) for mask in hidden])
        self.is_hidden_D = is_hidden_D if is_hidden_D.any() else None

    @property
    def count(self) -> int:
        """How many documents are not hidden."""
        return len(self) - (0 if self.is_hidden_D is None else int(np.count_nonzero(self.is_hidden_D)))

    @property
    def living(self) -> IntArray:
        """The numbers of the documents that are not hidden."""
        return np.arange(len(self)) if self.is_hidden_D is None else np.flatnonzero(~self.is_hidden_D)

    def ids(self, docs: IntArray) -> Iterator[pa.Array]:
        """The ids of documents, given by their ascending numbers, shard by shard."""
        for shard, rows in _by_shard(docs, self.docs_S1):
            yield self._ids[shard].take(pa.array(rows))

    def passages_of(self, docs: IntArray) -> IntArray:
        """The passages of ``docs``, given by their ascending numbers."""
        firsts = self.passage_starts_D1[docs]
        return ranges(firsts, self.passage_starts_D1[docs + 1] - firsts)

    def names(self, docs: IntArray) -> list[str]:
        """The ids of documents, given by their numbers."""
        shards = np.searchsorted(self.docs_S1, docs, side="right") - 1
        rows = docs - self.docs_S1[shards]
        return [self._ids[shard][row].as_py() for shard, row in zip(shards.tolist(), rows.tolist(), strict=True)]

    def of_passages(self, passages: IntArray) -> IntArray:
        """The document of each passage."""
        return np.searchsorted(self.passage_starts_D1, passages, side="right") - 1

    def token_blocks(self, docs: IntArray, size: int = 1 << 16) -> Iterator[IntArray]:
        """The tokens of ``docs``, given by their ascending numbers, in blocks of about ``size``, ascending."""
        passages = self.passages_of(docs)
        firsts = self.token_starts_P1[passages]
        lengths = self.token_starts_P1[passages + 1] - firsts
        for first, last in blocks(offsets(lengths), size):
            yield ranges(firsts[first:last], lengths[first:last])

    def count_tokens(self, docs: IntArray) -> IntArray:
        """The number of tokens of each of ``docs``."""
        starts = self.token_starts_P1[self.passage_starts_D1]
        return starts[docs + 1] - starts[docs]


class Stack:
    """Arrays of several shards as one, stacked along the first axis without copying: each stays memory-mapped."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = [array for array in arrays if len(array)] or list(arrays[:1])
        self._firsts = offsets(np.array([len(array) for array in self._arrays]))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that one array would have."""
        return (int(self._firsts[-1]), *self._arrays[0].shape[1:])

    def take(self, rows: IntArray) -> np.ndarray:
        """Copy the rows with these ascending numbers."""
        if len(self._arrays) == 1:
            return self._arrays[0].take(rows, axis=0)  # several times as fast as indexing
        pieces = [self._arrays[shard].take(local, axis=0) for shard, local in _by_shard(rows, self._firsts)]
        return np.concatenate([self._arrays[0][:0], *pieces])

    def slice(self, start: int, end: int) -> np.ndarray:
        """Copy the rows from ``start`` to ``end``."""
        first = int(np.searchsorted(self._firsts, start, side="right")) - 1
        last = int(np.searchsorted(self._firsts, end))
        pieces = [self._arrays[i][max(0, start - self._firsts[i]) : end - self._firsts[i]] for i in range(first, last)]
        return np.concatenate(pieces) if pieces else self._arrays[0][:0]


def _read_docs(directory: Path) -> pa.Table:
    with pa.memory_map(str(directory / "docs.arrow")) as file:
        return pa.ipc.open_file(file).read_all()


def _by_shard(rows: IntArray, firsts: IntArray) -> Iterator[tuple[int, IntArray]]:
    """Ascending row numbers of all shards, as (shard, row numbers within it) for each shard that has some."""
    cuts = np.searchsorted(rows, firsts)
    for shard in np.flatnonzero(np.diff(cuts)).tolist():
        yield shard, rows[cuts[shard] : cuts[shard + 1]] - firsts[shard]


class DocsWriter:
    """Writes what ``Docs`` reads, rows after rows."""

    schema = pa.schema([("doc_id", pa.large_string()), ("passages", pa.int32())])

    def __init__(self, directory: Path):
        self._ids = pa.ipc.new_file(str(directory / "docs.arrow"), self.schema)
        self._tokens = NpyAppender(directory / "tokens.npy", "<i4")
        self.docs = self.tokens = 0

    def append(self, rows: VectorRows) -> None:
        """Add documents."""
        self.append_ids(rows.ids, rows.passages_D)
        self._tokens.append(rows.tokens_P)
        self.tokens += int(rows.tokens_P.sum())

    def append_ids(self, ids: pa.Array, passages_D: IntArray) -> None:
        """Add documents of an index that has no tokens."""
        self._ids.write_batch(pa.record_batch([ids, pa.array(passages_D, pa.int32())], schema=self.schema))
        self.docs += len(ids)

    def copy(self, docs: Docs, kept: IntArray) -> None:
        """Add documents of other shards, given by their ascending numbers."""
        for ids in docs.ids(kept):
            self.append_ids(ids, np.diff(docs.passage_starts_D1)[kept[self.docs : self.docs + len(ids)]])
        passages = docs.passages_of(kept)
        tokens_P = np.diff(docs.token_starts_P1)[passages] if len(docs.token_starts_P1) > 1 else passages[:0]
        self._tokens.append(tokens_P)
        self.tokens += int(tokens_P.sum())

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for shard.json."""
        return {"docs": self.docs, "passages": self._tokens.rows, "tokens": self.tokens}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ids.close()
        self._tokens.__exit__(kind, error, trace)


def offsets(counts: np.ndarray) -> IntArray:
    """Where consecutive groups of these sizes start, and the end: [0, c0, c0 + c1, …]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def blocks(starts: IntArray, size: int) -> Iterator[tuple[int, int]]:
    """Cut consecutive groups into runs ``[first, last)`` of at most ``size`` members, or of one group that has more.

    ``starts`` says where each group starts, and the end (see ``offsets``).
    """
    first, groups = 0, len(starts) - 1
    while first < groups:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + size, side="right")) - 1)
        yield first, last
        first = last


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """The integers of many ranges, one range after another."""
    before = offsets(lengths)
    return np.repeat(starts - before[:-1], lengths) + np.arange(before[-1])


class Inversion:
    """Turns a stream of (key, values) into lists by key, on disk: two passes, memory for one number per key.

    The caller counts the keys in a first pass. In the second, ``add`` places each entry behind the earlier ones of its
    key.
    """

    def __init__(self, counts_K: IntArray, columns: dict[Path, str]):
        self.starts_K1 = offsets(counts_K)
        self._cursor_K = self.starts_K1[:-1].copy()
        total = int(self.starts_K1[-1])
        self._files = [new_npy(path, dtype, total) for path, dtype in columns.items()]

    def add(self, keys: IntArray, *values: np.ndarray) -> None:
        """Place entries; one array of values per column."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        present, first, count = np.unique(keys[order], return_index=True, return_counts=True)
        within = np.arange(len(keys)) - np.repeat(first, count)
        where = np.repeat(self._cursor_K[present], count) + within
        for file, column in zip(self._files, values, strict=True):
            file[where] = column[order]
        self._cursor_K[present] += count

    def close(self) -> None:
        """Flush, and check that the first pass counted what the second placed."""
        if not np.array_equal(self._cursor_K, self.starts_K1[1:]):
            raise RuntimeError("the second pass placed other entries than the first counted: a bug in the caller")
        for file in self._files:
            if isinstance(file, np.memmap):
                file.flush()


def new_npy(path: Path, dtype: str, rows: int) -> np.ndarray:
    """A new ``.npy`` file of one dimension, mapped to be written."""
    if not rows:  # an empty file cannot be mapped
        np.save(path, np.zeros(0, dtype))
        return np.zeros(0, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(rows,))
