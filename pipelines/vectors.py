"""VECTORS rows as numpy arrays, without copying the vectors. Letters: D docs, P passages, T tokens, N dim."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.artifact import read_part
from cluster.errors import TableError
from cluster.storage import Place
from cluster.table import good

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class VectorRows:
    """Rows of a VECTORS table: ids, passages per row (D), tokens per passage (P), vectors (T, N) float16."""

    ids: pa.Array
    passages_D: IntArray
    tokens_P: IntArray
    vectors_TN: FloatArray

    @property
    def matrices(self) -> list[FloatArray]:
        """One float32 matrix per row, [tokens, N]: the form of a query."""
        tokens_D = np.add.reduceat(self.tokens_P, np.cumsum(self.passages_D) - self.passages_D)
        return np.split(self.vectors_TN.astype(np.float32), np.cumsum(tokens_D)[:-1])


def read_vectors(rows: pa.Table) -> Iterator[VectorRows]:
    """Yield the good rows of a VECTORS table, one piece per chunk of the table, the vectors not copied.

    Raises TableError when the vectors' bytes are not a whole number of components per token.
    """
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
    """Yield the rows of several parts; memory holds one part."""
    for part in parts:
        yield from read_vectors(read_part(Place(part)))
