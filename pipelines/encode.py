"""Encoding: DOCS or QUERIES become VECTORS, a row for a row.

A document is cut into passages of ``passage_length`` tokens, one starting every ``passage_stride`` (180 and 90 in the
papers); its title goes before its text. Vectors are kept as float16: two bytes per component, and scores that differ by
less than 0.001. Memory holds one part's vectors. Cost: that of the encoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.errors import StepError
from pipelines.models import OptionalModel, locate, resolve
from pipelines.tables import VECTORS

Vectors = np.ndarray[Any, Any]


class EncodeConfig(Component):
    """How to encode.

    Attributes:
        role: what the input rows are.
        passage_length: tokens per passage of a document; None encodes its beginning alone, as far as the model reads.
        passage_stride: tokens from the start of a passage to the start of the next.
        checkpoint: which model of the ``student`` artifact: best on the dev set, last, or before training.
        model: a ready encoder instead of a student.
    """

    role: Literal["docs", "queries"]
    passage_length: int | None = Field(180, ge=1)
    passage_stride: int = Field(90, ge=1)
    checkpoint: Literal["best", "last", "start"] = "best"
    model: OptionalModel = None

    @model_validator(mode="after")
    def _stride_within_length(self) -> "EncodeConfig":
        if self.passage_length and self.passage_stride > self.passage_length:
            raise ValueError(
                f"passage_stride {self.passage_stride} is more than passage_length {self.passage_length}: "
                "text between passages would be lost"
            )
        return self


class Encode:
    """Maps DOCS or QUERIES to VECTORS (a RowWork). Input: ``student``, unless the config names a model."""

    def __init__(self, config: EncodeConfig, inputs: Mapping[str, Artifact]):
        from pipelines.students import load_encoder

        if (config.model is None) == ("student" not in inputs):
            raise StepError("encoding takes either a student artifact or encode.model: give one of the two")
        self.config = config = locate(config, inputs)
        model = resolve(config.model) if config.model else (inputs["student"].place / config.checkpoint).fetch()
        self.encoder = load_encoder(model)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Encode one part. Rejected rows stay rejected."""
        texts = _documents(rows) if self.config.role == "docs" else rows["text"].to_pylist()
        rejects = rows["reject"].to_pylist()
        passages = [[] if why else self._passages(text) for text, why in zip(texts, rejects, strict=True)]
        flat = [text for row in passages for text in row]
        encode = self.encoder.encode_docs if self.config.role == "docs" else self.encoder.encode_queries
        vectors = iter(encode(flat) if flat else [])
        encoded = [[next(vectors) for _ in row] for row in passages]
        made = [_row(matrices, why) for matrices, why in zip(encoded, rejects, strict=True)]
        columns = [
            rows[0].cast(pa.string()),
            *(pa.array(values, VECTORS.schema.field(n).type) for n, values in _pivot(made)),
        ]
        return pa.table(columns, schema=VECTORS.schema)

    def _passages(self, text: str) -> list[str]:
        if self.config.role == "queries" or self.config.passage_length is None:
            return [text]
        return self.encoder.windows(text, self.config.passage_length, self.config.passage_stride)


def _documents(rows: pa.Table) -> list[str]:
    """Title and text, with a space between."""
    titles, texts = rows["title"].to_pylist(), rows["text"].to_pylist()
    return [f"{title or ''} {text or ''}".strip() for title, text in zip(titles, texts, strict=True)]


def _row(matrices: Sequence[Vectors], reject: str | None) -> dict[str, Any]:
    """The columns of one row but its id."""
    if reject is not None:
        return {"reject": reject}
    halves = [matrix.astype(np.float16) for matrix in matrices]
    if any(not len(half) for half in halves):
        return {"reject": "the encoder made no vector"}
    if any(not np.isfinite(half).all() for half in halves):
        return {"reject": "the encoder made vectors that float16 cannot hold"}
    return {"tokens": [len(half) for half in halves], "vectors": b"".join(half.tobytes() for half in halves)}


def _pivot(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    return [(name, [row.get(name) for row in rows]) for name in ("tokens", "vectors", "reject")]
