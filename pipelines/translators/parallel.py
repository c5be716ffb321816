"""Translations that exist already, joined by id, as neuMARCO and mMARCO are. Costs one look-up per row."""

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from cluster.artifact import Artifact
from cluster.component import Component


class Parallel(Component):
    """Take the translations from the source itself: the same doc_id in the target language."""

    kind: Literal["parallel"] = "parallel"


class JoinTranslations:
    """RowWork: DOCS of the source language -> DOCS of the target language, the same ids in the same order.

    ``inputs["translations"]`` is the DOCS artifact of the target language. Memory stays flat: its texts are
    memory-mapped. A row that was rejected before keeps its reason; one without a translation is rejected.
    """

    def __init__(self, config: Any, inputs: Mapping[str, Artifact]) -> None:
        from pipelines.docstore import Docstore

        self._lang = config.target_lang
        self._translations = Docstore.open(inputs["translations"])

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Join a part."""
        from pipelines.tables import DOCS

        doc_ids = rows["doc_id"].to_pylist()
        keys = zip(doc_ids, rows["reject"].to_pylist(), self._translations.positions(doc_ids).tolist(), strict=True)
        return DOCS.of([self._joined(doc_id, reject, position) for doc_id, reject, position in keys])

    def _joined(self, doc_id: str, reject: str | None, position: int) -> dict[str, Any]:
        """The row, with the translation at ``position``; -1 where there is none."""
        blank = {"doc_id": doc_id, "lang": self._lang}
        if reject is not None:
            return {**blank, "reject": reject}
        if position < 0:
            return {**blank, "reject": "no translation"}
        row = self._translations.row_at(position)
        return {**blank, "title": row["title"], "text": row["text"]}
