"""Title and text, joined in one way wherever a model reads a document."""

from pathlib import Path

import pytest

from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.encode import _texts
from pipelines.export import write_msmarco_collection
from pipelines.scorers.base import Collection
from pipelines.tables import DOCS
from pipelines.text import join_title
from tests.artifacts import table_artifact


@pytest.mark.parametrize(
    ("title", "text", "joined"),
    [
        ("The whale", "swims.", "The whale swims."),
        (None, "swims.", "swims."),
        ("", " swims. ", "swims."),
        ("Sea", None, "Sea"),
        (None, None, ""),
    ],
)
def test_the_title_goes_before_the_text(title: str | None, text: str | None, joined: str) -> None:
    assert join_title(title, text) == joined


def test_every_reader_of_a_document_joins_them_alike(tmp_path: Path) -> None:
    """What is trained on, encoded, scored and exported is the same text."""
    rows = [
        {"doc_id": "a", "lang": "en", "title": "The whale", "text": "swims in the sea. "},
        {"doc_id": "b", "lang": "en", "title": None, "text": "  A red fox."},
        {"doc_id": "c", "lang": "en", "title": "", "text": "No title"},
    ]
    docs = table_artifact(tmp_path / "docs@0", DOCS, rows)
    expected = ["The whale swims in the sea.", "A red fox.", "No title"]
    assert _texts(docs.read()) == expected
    assert Docstore.open(docs).texts("abc") == expected
    assert [text for part in Collection(docs, "en", "en").texts() for text in part] == expected
    write_msmarco_collection(docs.tables(), Place.of(tmp_path / "collection.tsv"))
    lines = (tmp_path / "collection.tsv").read_text("utf-8").splitlines()
    assert [line.partition("\t")[2] for line in lines] == expected
