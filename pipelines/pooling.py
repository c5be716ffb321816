"""Pooling: rankings of several languages become one, each document named ``<lang>:<doc_id>``."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from cluster.component import Component
from pipelines.search import pool
from pipelines.tables import RANKINGS


class PoolConfig(Component):
    """The languages of the rankings, in the order in which they are given, and how many documents stay."""

    langs: tuple[str, ...]
    k: int = Field(ge=1)


class PoolRankings:
    """RowWork: aligned RANKINGS, one per language -> the best ``k`` of all, documents named ``<lang>:<doc_id>``."""

    def __init__(self, config: PoolConfig, inputs: Mapping[str, Any]) -> None:
        self._config = config

    def __call__(self, *rankings: pa.Table) -> pa.Table:
        """Pool a part."""
        return RANKINGS.of([self._pooled(rows) for rows in zip(*(t.to_pylist() for t in rankings), strict=True)])

    def _pooled(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        out = {"query_id": rows[0]["query_id"]}
        if reason := next((row["reject"] for row in rows if row["reject"] is not None), None):
            return {**out, "reject": reason}
        of_langs = zip(self._config.langs, rows, strict=True)
        hits = {lang: list(zip(row["doc_ids"], row["scores"], strict=True)) for lang, row in of_langs}
        pooled = pool(hits, self._config.k)
        return {**out, "doc_ids": [name for name, _ in pooled], "scores": [score for _, score in pooled]}
