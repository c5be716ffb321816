"""Encoding: DOCS or QUERIES become VECTORS, a row for a row.

A document is cut into passages of ``passage_length`` tokens, one starting every ``passage_stride`` (180 and 90 in the
papers); its title goes before its text. Vectors are kept as float16: two bytes per component, and scores that differ by
less than 0.001. Memory holds one part's vectors as float16, and as float32 those of a thousand documents. Cost: that of
the encoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from cluster.artifact import Artifact
from pipelines.encoder import EncoderConfig, open_encoder
from pipelines.tables import VECTORS
from pipelines.text import join_title
from pipelines.token_pooling import pool_vectors

Vectors = np.ndarray[Any, Any]


class EncodeConfig(EncoderConfig):
    """How to encode: an encoder, and what it is given.

    Attributes:
        role: what the input rows are.
        passage_length: tokens per passage of a document; None encodes its beginning alone, as far as the model reads.
        passage_stride: tokens from the start of a passage to the start of the next; given with ``passage_length``.
        pool: a passage of documents keeps one vector for so many tokens (see ``pipelines.token_pooling``).
    """

    role: Literal["docs", "queries"]
    passage_length: int | None = Field(None, ge=1)
    passage_stride: int | None = Field(None, ge=1)
    pool: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _passages_are_whole(self) -> "EncodeConfig":
        length, stride = self.passage_length, self.passage_stride
        if self.role == "queries" and (length or stride):
            raise ValueError("queries are not cut into passages: leave passage_length and passage_stride out")
        if self.role == "queries" and self.pool > 1:
            raise ValueError("the vectors of queries are not pooled: leave pool out")
        if (length is None) != (stride is None):
            raise ValueError(f"give passage_length and passage_stride or neither, got {length} and {stride}")
        if length and stride and stride > length:
            raise ValueError(
                f"passage_stride {stride} is more than passage_length {length}: text between passages would be lost"
            )
        return self


class Encode:
    """Maps DOCS or QUERIES to VECTORS (a RowWork). Input: ``student``, unless the config names a model."""

    def __init__(self, config: EncodeConfig, inputs: Mapping[str, Artifact]):
        self.config = config
        self.encoder = open_encoder(config, inputs)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Encode one part. Rejected rows stay rejected."""
        rejects = rows["reject"].to_pylist()
        encoded = self._encode([text for text, why in zip(_texts(rows), rejects, strict=True) if why is None])
        made = [_row(next(encoded), self.config.pool) if why is None else {"reject": why} for why in rejects]
        columns = {name: [row.get(name) for row in made] for name in ("tokens", "vectors", "reject")}
        arrays = [pa.array(values, VECTORS.schema.field(name).type) for name, values in columns.items()]
        return pa.table([rows[0].cast(pa.string()), *arrays], schema=VECTORS.schema)

    def _encode(self, texts: Sequence[str]) -> Iterator[list[Vectors]]:
        """The vectors of each text's passages."""
        if self.config.role == "queries":
            return ([vectors] for vectors in self.encoder.encode_queries(texts))
        if self.config.passage_length and self.config.passage_stride:
            return self.encoder.encode_passages(texts, self.config.passage_length, self.config.passage_stride)
        return ([vectors] for vectors in self.encoder.encode_docs(texts))


def _texts(rows: pa.Table) -> list[str]:
    texts: list[str] = rows["text"].to_pylist()  # None in rejected rows
    if "title" not in rows.column_names:
        return texts
    return [join_title(title, text) for title, text in zip(rows["title"].to_pylist(), texts, strict=True)]


def _row(matrices: Sequence[Vectors], pool: int) -> dict[str, Any]:
    """The columns of one row but its id, from the vectors of its passages, ``pool`` tokens to a vector."""
    halves = [matrix.astype(np.float16) for matrix in matrices]
    if any(not len(half) for half in halves):
        return {"reject": "the encoder made no vector"}
    if any(not np.isfinite(half).all() for half in halves):
        return {"reject": "the encoder made vectors that float16 cannot hold"}
    if pool > 1:
        halves = [pool_vectors(half, pool).astype(np.float16) for half in halves]
    return {"tokens": [len(half) for half in halves], "vectors": b"".join(half.tobytes() for half in halves)}
