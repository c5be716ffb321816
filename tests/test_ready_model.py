"""A ready checkpoint on a directory of documents: no questions, no training; dense and late interaction."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local_executor import run_here
from pipelines import verbs
from pipelines.__main__ import app
from pipelines.plan import plan
from pipelines.recipe import load

DOCUMENTS = {
    "rivers.md": "# Rivers\nThe Danube flows through ten countries to the Black Sea.",
    "money.txt": "People in Japan pay in yen, in notes and in coins.",
    "deep/stars.txt": "A white dwarf is what remains of a star like the sun.",
}
RECORD = {"doc_id": "euro", "text": "Estonia has paid in euros since 2011.", "year": 2011, "tags": ["money", "EU"]}
QUERIES = {"Which currency is used in Tokyo?": "money.txt", "the end of small stars": "deep/stars.txt"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "records.jsonl").write_text(json.dumps(RECORD), encoding="utf-8")
    return root


def search_some(sets: list[str], *words: str) -> set[str]:
    """The ids that the command line finds."""
    changes = [word for change in sets for word in ("--set", change)]
    done = CliRunner().invoke(app, ["search", "serve-model", "money", *words, *changes, "--json"])
    assert done.exit_code == 0, done.output
    return {hit["doc_id"] for hit in json.loads(done.stdout)["results"]}


@pytest.mark.parametrize("per_token", ["false", "true"])
def test_documents_are_indexed_and_found(documents: Path, tmp_path: Path, per_token: str) -> None:
    from rich.console import Console

    fields = 'source.metadata={year = "number", tags = "strings"}'
    sets = [f"source.path={documents}", f"root={tmp_path}", f"student.per_token={per_token}", fields]
    if per_token == "false":
        verbs.run("serve-model", [], sets, Console(quiet=True))
    else:  # without Ray, which makes no difference to the model
        path, root = verbs.load_plan("serve-model", sets)
        run_here([*path.indexes.values()], root)
    found = {q: verbs.search("serve-model", q, 4, [], sets).data["results"] for q in QUERIES}
    assert {query: hits[0]["doc_id"] for query, hits in found.items()} == QUERIES
    assert all({hit["doc_id"] for hit in hits} == {*DOCUMENTS, "euro"} for hits in found.values())
    assert search_some(sets, "--where", "year > 2000 and tags == 'EU'") == {"euro"}
    assert search_some(sets, "--where", "not year exists") == set(DOCUMENTS)
    (tmp_path / "ids.txt").write_text("euro\nmoney.txt\nnone\n")
    assert search_some(sets, "--ids", f"{tmp_path}/ids.txt") == {"euro", "money.txt"}
    assert search_some(sets, "--ids", f"{tmp_path}/ids.txt", "--where", "not tags exists") == {"money.txt"}
    assert search_some(sets, "--where", "year > 3000") == set()
    (index,) = plan(load("serve-model", sets)).indexes.values()
    facts = index.artifact(verbs.load_plan("serve-model", sets)[1]).manifest.facts
    assert (facts["docs"], facts["dim"]) == (4, 384)
