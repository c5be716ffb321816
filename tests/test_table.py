"""Contracts of tables are enforced where rows are written."""

from typing import Any

import pyarrow as pa
import pytest

from cluster.errors import TableError
from cluster.table import Table, good
from pipelines.tables import DOCS, RANKINGS, VECTORS


def doc(**over: Any) -> dict[str, Any]:
    return {"doc_id": "d", "lang": "en", "title": "", "text": "words"} | over


def ranking(ids: list[str], scores: list[float]) -> dict[str, Any]:
    return {"query_id": "q", "doc_ids": ids, "scores": scores}


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        (DOCS, doc(text="  "), "no text"),
        (DOCS, doc(text=None), "no text"),
        (DOCS, doc(doc_id=None), "which is its key"),
        (RANKINGS, ranking(["a", "b"], [1.0]), "same length"),
        (RANKINGS, ranking(["a", "b"], [1.0, 2.0]), "fall"),
        (RANKINGS, ranking(["a", "b"], [1.0, float("nan")]), "numbers"),
        (RANKINGS, ranking(["a", "a"], [2.0, 1.0]), "ranked twice"),
        (VECTORS, {"id": "d", "tokens": [3], "vectors": b"12345"}, "not"),
        (VECTORS, {"id": "d", "tokens": [], "vectors": b""}, "not"),
    ],
)
def test_rows_that_break_the_contract_are_refused(table: Table, row: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        table.conform(table.of([row]))


def test_rejected_rows_are_exempt_but_keep_their_key() -> None:
    rows = DOCS.conform(DOCS.of([doc(), doc(doc_id="e", text=None, reject="empty")]))
    assert good(rows)["doc_id"].to_pylist() == ["d"]
    assert rows["doc_id"].to_pylist() == ["d", "e"]


def test_types_are_not_widened_and_columns_are_put_in_order() -> None:
    rows = pa.table({"text": ["t"], "title": [""], "doc_id": ["d"], "lang": ["en"]})
    assert DOCS.conform(rows).column_names == ["doc_id", "lang", "title", "text", "origin", "reject"]
    with pytest.raises(TableError, match="expected string, got int64"):
        DOCS.conform(rows.set_column(2, "doc_id", pa.array([7])))
    with pytest.raises(TableError, match=r"missing \['title'\], extra \['colour'\]"):
        DOCS.conform(rows.drop(["title"]).append_column("colour", pa.array(["red"])))
