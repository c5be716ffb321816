"""The verbs add, delete and compact on the command line, on a recipe whose artifacts are laid out without a run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from artifacts import directory_artifact, table_artifact
from cluster.storage import Place
from pipelines import verbs
from pipelines.__main__ import app
from pipelines.docstore import Docstore
from pipelines.encode import Encode
from pipelines.index import build_index
from pipelines.plan import STUDENT
from pipelines.segments.lists import live_place
from pipelines.students import Corpus, Lexical
from pipelines.tables import VECTORS
from pipelines.terminal import QUIET
from tests.shards import docs_artifact, local_fan_out

TEXTS = {
    "en": {"d0": "The ruble is the currency of Russia.", "d1": "Oslo lies in Norway.", "d2": "Tea is drunk hot."},
    "fa": {"d0": "روبل پول روسیه است.", "d1": "اسلو در نروژ است."},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes a small atlas of the recipe, at a root with what its student's and its words' index are made from."""
    root = tmp_path_factory.mktemp("root")
    sets = ["source.territories=12", 'languages.docs=["en", "fa"]', f"root={root}"]
    plan, place = verbs.load_plan("atlas", sets)
    name, collection = next(iter(plan.collections.items()))
    docs = {lang: docs_artifact((place / step.id).path, TEXTS[lang], lang) for lang, step in collection.docs.items()}
    stores = {lang: Docstore.open(artifact) for lang, artifact in docs.items()}
    trained = plan.systems[STUDENT].student
    assert trained
    Lexical(words=None, dim=32, ngram_rows=1024).build(Corpus(stores["en"], stores), seed=1).save(
        (place / trained.id).path / "best"
    )
    directory_artifact((place / trained.id).path)
    for system in (STUDENT, "bm25"):
        step = plan.indexes[name, system]
        inputs: dict[str, Any] = {role: dict[str, Any]() for role in step.inputs if role != "questions"}
        for lang, made in step.inputs.get("vectors", {}).items():
            encode = Encode(made.config, {"student": trained.artifact(place)})
            rows = [VECTORS.conform(encode(table)).to_pylist() for table in docs[lang].tables()]
            inputs["vectors"][lang] = table_artifact((place / made.id).path, VECTORS, *rows)
        build_index(step.config, inputs if "vectors" in inputs else {"docs": docs}, place / step.id, local_fan_out)
        directory_artifact((place / step.id).path)
    return sets


@pytest.fixture
def index(sets: list[str]) -> Iterator[Place]:
    """The student's index, of which nothing has changed."""
    plan, root = verbs.load_plan("atlas", sets)
    index = root / plan.indexes[next(iter(plan.collections)), STUDENT].id
    yield index
    live_place(index).delete()


def cli(sets: list[str], *words: str, code: int = 0) -> Result:
    done = CliRunner(env=QUIET).invoke(app, [*words, *(part for value in sets for part in ("--set", value))])
    assert done.exit_code == code, done.output
    return done


def texts(sets: list[str], query: str) -> list[str]:
    found = json.loads(cli(sets, "search", "atlas", query, "-k", "20", "--json").stdout)["results"]
    return [hit["text"] for hit in found]


def write(path: Path, *rows: dict[str, str]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_add_replace_delete_compact(sets: list[str], index: Place, tmp_path: Path) -> None:
    file = write(
        tmp_path / "more.jsonl",
        {"doc_id": "d1", "text": "Oslo lies in Norway.", "lang": "en"},
        {"doc_id": "d0", "text": "The lek is the currency of Albania.", "lang": "en"},
        {"doc_id": "n", "title": "Coffee", "text": "is drunk hot too.", "lang": "en"},
    )
    assert "1 added, 1 replaced, 1 unchanged" in cli(sets, "add", "atlas", file).stdout
    assert "3 unchanged" in cli(sets, "add", "atlas", file).stdout
    assert texts(sets, "the currency of Albania")[0] == "The lek is the currency of Albania."
    done = json.loads(cli(sets, "delete", "atlas", "d1", "d2", "never", "--json").stdout)
    assert (done["deleted"], done["absent"], done["documents"]) == (3, ["never"], {"en": 2, "fa": 1})
    (tmp_path / "ids.txt").write_text("d0\n")
    done = json.loads(
        cli(sets, "delete", "atlas", "--file", str(tmp_path / "ids.txt"), "--lang", "fa", "--json").stdout
    )
    assert (done["deleted"], done["number"], done["documents"]) == (1, 3, {"en": 2, "fa": 0})
    for _ in range(2):
        assert set(texts(sets, "drunk hot")) == {"The lek is the currency of Albania.", "is drunk hot too."}
        cli(sets, "compact", "atlas")
    assert "nothing was changed" in cli(sets, "compact", "atlas").stdout


def test_an_index_of_words(sets: list[str], index: Place, tmp_path: Path) -> None:
    plan, root = verbs.load_plan("atlas", sets)
    live = live_place(root / plan.indexes[next(iter(plan.collections)), "bm25"].id)
    (tmp_path / "more.tsv").write_text("n\tCoffee is drunk hot.\n", "utf-8")
    done = cli(sets, "add", "atlas", str(tmp_path / "more.tsv"), "--lang", "en", "--system", "bm25", "--json")
    assert json.loads(done.stdout)["documents"] == {"en": 4, "fa": 2}
    assert live.exists()
    assert not live_place(index).exists()
    assert cli(sets, "prune", "atlas", "--json").stdout.strip() == "[]"
    assert live.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "atlas", "more.jsonl"], "expected a file at"),
        (["add", "nothing", "more.jsonl"], "nothing"),
        (["add", "atlas", "more.jsonl", "--system", "mine"], "has the systems student, bm25, untrained, not 'mine'"),
        (["add", "atlas", "more.jsonl", "--lang", "qqq"], "unknown language code 'qqq'"),
        (["delete", "atlas"], "expected the ids of documents"),
        (["delete", "atlas", "d0", "--lang", "fr"], r"no documents in ['fr']; the index has en, fa"),
        (["compact", "atlas", "--system", "untrained"], "is not complete"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(
    words: list[str], said: str, sets: list[str], index: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in cli(sets, *words, code=1).output
    assert not live_place(index).exists()
