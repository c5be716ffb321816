"""A ready checkpoint on a directory of documents: no questions, no training; dense and late interaction."""

from pathlib import Path

import pytest

from pipelines import verbs
from pipelines.plan import plan
from pipelines.recipe import load

DOCUMENTS = {
    "rivers.md": "# Rivers\nThe Danube flows through ten countries to the Black Sea.",
    "money.txt": "People in Japan pay in yen, in notes and in coins.",
    "deep/stars.txt": "A white dwarf is what remains of a star like the sun.",
}
QUERIES = {"Which currency is used in Tokyo?": "money.txt", "the end of small stars": "deep/stars.txt"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("per_token", ["false", "true"])
def test_documents_are_indexed_and_found(documents: Path, tmp_path: Path, per_token: str) -> None:
    from rich.console import Console

    sets = [f"source.path={documents}", f"root={tmp_path}", f"student.per_token={per_token}"]
    verbs.run("serve-model", [], sets, Console(quiet=True))
    found = {q: verbs.search("serve-model", q, 3, [], sets).data["results"] for q in QUERIES}
    assert {query: hits[0]["doc_id"] for query, hits in found.items()} == QUERIES
    assert all({hit["doc_id"] for hit in hits} == set(DOCUMENTS) for hits in found.values())
    (index,) = plan(load("serve-model", sets)).indexes.values()
    facts = index.artifact(verbs.load_plan("serve-model", sets)[1]).manifest.facts
    assert (facts["docs"], facts["dim"]) == (3, 384)
