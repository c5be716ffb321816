"""The files of a shard: arrays that grow on disk, doc ids, and inverted lists made by counting.

Everything is written in streams and read memory-mapped, so building and opening a shard take memory for one part and
for a few numbers per document, however large the shard. Letters: D docs, P passages, T tokens, N dim.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.artifact import read_part
from cluster.errors import TableError
from cluster.storage import Place
from cluster.table import good
from pipelines.indexes.base import FloatArray, IntArray


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
    """Open a ``.npy`` file memory-mapped and read-only. (An empty one cannot be mapped and is read.)"""
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:
        return np.load(path)


@dataclass(frozen=True)
class VectorRows:
    """Some rows of a VECTORS table: doc ids, passages per doc (D), tokens per passage (P), vectors (T, N) float16."""

    ids: pa.Array
    passages_D: IntArray
    tokens_P: IntArray
    vectors_TN: FloatArray

    @property
    def matrices(self) -> list[FloatArray]:
        """One float32 matrix per row: what a query is to a shard."""
        tokens_D = np.add.reduceat(self.tokens_P, offsets(self.passages_D)[:-1])
        return np.split(self.vectors_TN.astype(np.float32), np.cumsum(tokens_D)[:-1])


def read_vectors(rows: pa.Table) -> Iterator[VectorRows]:
    """The good rows of a VECTORS table, without copying the vectors: one piece per chunk of the table."""
    for batch in good(rows).to_batches():
        if not batch.num_rows:
            continue
        blobs = batch["vectors"].cast(pa.large_binary())
        ends = np.frombuffer(blobs.buffers()[1], np.int64)[blobs.offset : blobs.offset + len(blobs) + 1]
        tokens = batch["tokens"].flatten().to_numpy(zero_copy_only=False)
        values = np.frombuffer(blobs.buffers()[2], np.float16)[ends[0] // 2 : ends[-1] // 2]
        if len(values) % tokens.sum():
            raise TableError(f"{len(values)} vector components are not {tokens.sum()} rows of one width")
        yield VectorRows(
            batch["id"].cast(pa.large_string()),
            pc.list_value_length(batch["tokens"]).to_numpy(zero_copy_only=False).astype(np.int64),
            tokens,
            values.reshape(int(tokens.sum()), -1),
        )


def stream_vectors(parts: Iterable[str]) -> Iterator[VectorRows]:
    """The vectors of a shard's parts, one part in memory at a time."""
    for part in parts:
        yield from read_vectors(read_part(Place(part)))


class Docs:
    """The documents of a shard: ids, and where each one's passages and tokens start.

    ``ids`` is an Arrow array; ``passage_starts_D1`` and ``token_starts_P1`` have one entry more than there are docs and
    passages. Takes 8 bytes per passage and the ids themselves in memory.
    """

    def __init__(self, directory: Path):
        with pa.memory_map(str(directory / "docs.arrow")) as file:
            table = pa.ipc.open_file(file).read_all()
        self.ids: pa.Array = table["doc_id"].combine_chunks()
        self.passage_starts_D1 = offsets(table["passages"].to_numpy())
        self.token_starts_P1 = offsets(load_npy(directory / "tokens.npy"))

    def __len__(self) -> int:
        return len(self.ids)

    def of_passages(self, passages: IntArray) -> IntArray:
        """The document of each passage."""
        return np.searchsorted(self.passage_starts_D1, passages, side="right") - 1

    def tokens_of(self, docs: IntArray) -> IntArray:
        """How many tokens some documents have."""
        starts = self.token_starts_P1[self.passage_starts_D1]
        return starts[docs + 1] - starts[docs]


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
    """Where each of some consecutive groups starts, and the end: [0, c0, c0 + c1, …]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """The integers of many ranges, one range after another."""
    before = offsets(lengths)
    return np.repeat(starts - before[:-1], lengths) + np.arange(before[-1])


class Inversion:
    """Turns a stream of (key, values) into lists by key, on disk: two passes, memory for one number per key.

    The caller has counted the keys in the first pass. In the second, ``add`` places each entry behind those of its key
    that came before.
    """

    def __init__(self, counts_K: IntArray, columns: dict[Path, str]):
        self.starts_K1 = offsets(counts_K)
        self._cursor_K = self.starts_K1[:-1].copy()
        total = int(self.starts_K1[-1])
        self._files = [_new_npy(path, dtype, total) for path, dtype in columns.items()]

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
            raise RuntimeError("an inverted list got other entries than were counted: a bug in the two passes")
        for file in self._files:
            if isinstance(file, np.memmap):
                file.flush()


def _new_npy(path: Path, dtype: str, rows: int) -> np.ndarray:
    if not rows:  # an empty file cannot be mapped
        np.save(path, np.zeros(0, dtype))
        return np.zeros(0, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(rows,))
