"""``new``: every layout is recognised, what is missing is said, and the recipe that is written loads and runs."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.errors import RecipeError
from cluster.storage import Place
from collections_on_disk import rows, write
from pipelines.__main__ import app
from pipelines.layouts import LAYOUTS
from pipelines.new import find_gaps, write_recipe
from pipelines.plan import plan
from pipelines.recipe import Recipe, load
from pipelines.sources import AtlasSource, Beir, Directory, Jsonl, Mmarco, MsMarco, Parallel
from pipelines.survey import example_queries, survey
from pipelines.terminal import QUIET

ROOT = Path(__file__).parents[1]
takes_a_ready_student = pytest.mark.skipif("student" not in Recipe.model_fields, reason="needs recipes with [student]")


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def parallel(languages=("en", "de"), asked=("en",), count=40):
    """A collection of ``count`` documents with a question each, in one file per language."""
    files = {f"collection.{lang}.tsv": "".join(f"d{i}\t{lang} text {i}\n" for i in range(count)) for lang in languages}
    files |= {f"queries.{lang}.tsv": "".join(f"q{i}\t{lang} question {i}?\n" for i in range(count)) for lang in asked}
    return files | {"qrels.tsv": "".join(f"q{i} 0 d{i} 1\n" for i in range(count))}


BEIR = {
    "corpus.jsonl": lines({"_id": "d1", "text": "x"}, {"_id": "d2", "text": "y", "lang": "de"}, {"_id": "d3"}),
    "queries.jsonl.gz": lines({"_id": "q1", "text": "who?"}, {"_id": "q2", "text": "what?"}),
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}
MSMARCO = {
    "collection.tsv": "0\tzero\n1\tone\n",
    "queries.train.tsv": "10\tten?\n11\televen?\n",
    "queries.dev.small.tsv": "20\ttwenty?\n",
    "qrels.train.tsv": "10\t0\t1\t1\n",
    "qrels.dev.small.tsv": "20\t0\t0\t1\n",
}
JSONL = {
    "documents.jsonl": lines({"id": "1", "contents": "x", "title": "T"}, {"id": "2", "contents": "y"}),
    "questions.train.jsonl": lines({"qid": "a", "contents": "a?"}),
    "questions.test.jsonl": lines({"qid": "b", "contents": "b?"}),
    "qrels.train.tsv": "a 0 1 1\n",
    "qrels.test.tsv": "b 0 2 1\n",
}


def look(root, files, lang="en"):
    return survey(Place.of(write(root, files)), lang)


def test_parallel_collection_is_counted_by_language_and_split(tmp_path):
    found = look(tmp_path, parallel(("fr", "en", "de"), ("de", "en")) | {"notes.txt": "x"})
    assert isinstance(found.layout.source, Parallel)
    assert found.docs == {"en": 40, "de": 40, "fr": 40}
    assert found.queries == {"en": 40, "de": 40}
    assert set(found.judgements.values()) == {40}
    assert sum(found.splits.values()) == 40
    assert (found.original, found.translations, found.query_lang) == ("en", ["de", "fr"], "en")
    assert found.is_trainable
    assert find_gaps(found) == [
        "the parallel collection has no split files: questions are divided by hash of their query id, "
        "80 % train, 10 % dev, 10 % test"
    ]


def test_beir_is_recognised_with_its_languages_and_defects(tmp_path):
    found = look(tmp_path, BEIR)
    assert isinstance(found.layout.source, Beir)
    assert found.docs == {"en": 1, "de": 1}
    assert found.splits == {"test": 1}
    assert not found.translations
    assert not found.is_trainable
    assert "its languages share no document ids: they are no translations of each other to train on" in find_gaps(found)
    assert any("1 malformed line" in gap or "2 malformed line" in gap for gap in find_gaps(found))


def test_msmarco_is_recognised_with_and_without_translations(tmp_path):
    found = look(tmp_path / "en", MSMARCO)
    assert isinstance(found.layout.source, MsMarco)
    assert found.splits == {"train.judged": 1, "dev.small": 1}
    assert found.test_split == "dev.small"
    google = "mmarco/data/google"
    german = {f"{google}/collections/german_collection.tsv": "0\tnull\n1\teins\n"}
    german[f"{google}/queries/train/german_queries.train.tsv"] = "10\tzehn?\n"
    found = look(tmp_path / "de", MSMARCO | german)
    assert isinstance(found.layout.source, Mmarco)
    assert found.docs == {"en": 2, "de": 2}
    assert found.is_trainable


def test_json_lines_are_recognised_with_the_names_of_their_fields_and_splits(tmp_path):
    found = look(tmp_path, JSONL)
    source = found.layout.source
    assert isinstance(source, Jsonl)
    assert (source.fields.doc_id, source.fields.query_id, source.fields.text) == ("id", "qid", "contents")
    assert found.splits == {"train": 1, "test": 1}
    assert [row["title"] for row in rows(source.docs("en", "all"))] == ["T", ""]
    by_language = {
        "docs.en.jsonl": lines({"doc_id": "1", "text": "x"}),
        "docs.de.jsonl": lines({"doc_id": "1", "text": "y"}),
    }
    found = look(tmp_path / "two", by_language)
    assert found.docs == {"de": 1, "en": 1}
    assert found.translations == ["de"]
    with pytest.raises(RecipeError, match=r"docs\.jsonl: expected one of the fields doc_id, .*found name"):
        look(tmp_path / "wrong", {"docs.jsonl": lines({"name": "x"})})


def test_a_directory_of_documents_is_recognised_in_one_language_or_in_folders(tmp_path):
    found = look(tmp_path / "one", {"guide/a.md": "# A\nx", "README.md": "about", "b.txt": "y", "c.png": "z"}, "de")
    assert found.layout.source == Directory(path=str(tmp_path / "one"), lang="de")
    assert found.docs == {"de": 3}
    assert "no questions: it can be searched and served, not measured, and trains nothing" in find_gaps(found)
    found = look(tmp_path / "two", {"en/a.md": "# A\nx", "zh/a.md": "# 甲\ny"})
    assert found.layout.source == Directory(path=str(tmp_path / "two"), language_folders=True)
    assert found.docs == {"en": 1, "zh": 1}
    found = look(tmp_path / "not", {"en/a.md": "x", "src/a.md": "y"})
    assert found.layout.source == Directory(path=str(tmp_path / "not"))


def test_nothing_recognised_lists_the_layouts_and_collections_below(tmp_path):
    with pytest.raises(RecipeError) as error:
        look(tmp_path, {"en-de.tsv": "one\teins\n", "README.md": "pairs"})
    assert all(f"{name}: {files}" in str(error.value) for name, files in LAYOUTS.items())
    assert "found there: README.md, en-de.tsv" in str(error.value)
    write(tmp_path / "below", parallel())
    with pytest.raises(
        RecipeError, match=r"but below it: below \(parallel collection\)\. Give one of them as --source"
    ):
        survey(Place.of(tmp_path), "en")


def test_without_judgements_nothing_is_measured(tmp_path):
    files = parallel()
    del files["qrels.tsv"]
    found = look(tmp_path, files)
    assert "no judgements: it can be searched and served, not measured" in find_gaps(found)
    assert not found.is_trainable


def test_missing_translations_are_allowed_as_rejects(tmp_path, monkeypatch):
    files = parallel()
    files["collection.de.tsv"] = "".join(f"d{i}\tText {i}\n" for i in range(36))
    monkeypatch.chdir(tmp_path)
    page = write_recipe("gaps", write(tmp_path / "data", files)).data
    assert "German lacks 10.0% of the documents: they count as rejects" in page["notes"]
    assert load("gaps.toml").run.max_rejects == pytest.approx(0.15)


def test_examples_are_questions_of_the_collection_that_it_is_tested_on(tmp_path):
    source = Parallel(path=write(tmp_path, parallel(count=300)))
    tested = [row["text"] for row in rows(source.queries("en", "test"))]
    examples = example_queries(source, 5)
    assert len(set(examples)) == 5
    assert set(examples) <= set(tested)
    assert examples == example_queries(source, 5)
    assert example_queries(source, 10_000) == tested
    assert example_queries(source, 3, "fr") == []
    assert example_queries(Directory(path=str(tmp_path))) == []
    assert len(example_queries(AtlasSource(territories=5), 2)) == 2


def test_training_recipe_loads_with_the_collection_s_own_splits_and_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = write_recipe("mine", write(tmp_path / "data", parallel(("en", "de", "zh"), count=200)))
    assert written.data["trains"]
    recipe = load("mine.toml")
    assert recipe.source == Parallel(path=str(tmp_path / "data"))
    assert recipe.languages.docs == ("en", "de", "zh")
    assert recipe.evaluate["mine"].split == "test"
    assert recipe.validate_split == "dev"
    assert set(recipe.examples) <= {f"en question {i}?" for i in range(200)}
    text = Path("mine.toml").read_text()
    assert "# the parallel collection has no split files" in text
    assert text.count("#") > 8


def test_a_collection_without_english_is_read_in_its_own_language(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_recipe("mine", write(tmp_path / "data", parallel(("de", "fr"), ("fr",), count=200)))
    recipe = load("mine.toml")
    assert (recipe.languages.original, recipe.languages.query) == ("fr", "fr")
    assert (recipe.select.query_lang, recipe.score.doc_lang, recipe.evaluate["mine"].query_lang) == ("fr", "fr", "fr")


@pytest.mark.parametrize("files", [BEIR, MSMARCO, JSONL, {"a.md": "# A\nx"}, parallel(("en",))])
def test_serving_recipe_is_valid_toml_with_a_ready_student(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    written = write_recipe("mine", write(tmp_path / "data", files))
    assert not written.data["trains"]
    tree = tomllib.loads(Path("mine.toml").read_text())
    assert tree["student"] == {"model": "minilm"}
    assert ("evaluate" in tree) == any(written.data["judgements"].values())
    assert "train" not in tree


@takes_a_ready_student
@pytest.mark.parametrize("files", [BEIR, MSMARCO, JSONL, {"a.md": "# A\nx"}, parallel(("en",))])
def test_serving_recipe_loads(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    write_recipe("mine", write(tmp_path / "data", files))
    recipe = load("mine.toml")
    assert recipe.student.model == "minilm"
    assert plan(recipe).absent == []


def test_fields_of_documents_are_proposed_with_their_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = lines(
        {"_id": "d1", "text": "x", "metadata": {"year": 2020, "tags": ["a"], "url": None}, "mixed": 1},
        {"_id": "d2", "text": "y", "metadata": {"year": 2021.5}, "mixed": "one", "open kind": True, "nested": {"a": 1}},
        {"_id": "d3", "text": "z", "year": None, "lang": "en"},
    )
    done = CliRunner(env=QUIET).invoke(
        app, ["new", "mine", "--source", write(tmp_path / "b", {"corpus.jsonl": corpus})]
    )
    assert "fields of documents: year (number), tags (strings), open kind (boolean)" in done.stdout, done.output
    assert load("mine.toml").source.metadata == {"year": "number", "tags": "strings", "open kind": "boolean"}
    docs = lines({"id": "1", "contents": "x", "title": "T", "section": "a"}, {"id": "2", "contents": "y"})
    written = write_recipe("other", write(tmp_path / "j", {"docs.jsonl": docs}))
    assert written.data["fields"] == {"section": "string"} == load("other.toml").source.metadata
    assert load("mine.toml").evaluate == {}


def test_names_and_files_that_exist_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "data", parallel())
    for name in ("atlas", "a b", "../up", ""):
        with pytest.raises(RecipeError, match="cannot call a recipe"):
            write_recipe(name, data)
    write_recipe("mine", data)
    with pytest.raises(RecipeError, match=r"mine\.toml exists: choose another name, or replace it with --force"):
        write_recipe("mine", data)
    write_recipe("mine", data, force=True)
    with pytest.raises(RecipeError, match="nothing at .*absent: set --source"):
        write_recipe("other", str(tmp_path / "absent"))
    with pytest.raises(RecipeError, match="no document in .* can be read: 1 empty text"):
        write_recipe("other", write(tmp_path / "empty", {"a.txt": " "}))


def test_strings_of_a_collection_are_escaped(tmp_path, monkeypatch):
    files = parallel(count=200)
    files["queries.en.tsv"] = "".join(f'q{i}\t"C:\\new" ﬁ \x7f \u2028 {i}\n' for i in range(200))
    monkeypatch.chdir(tmp_path)
    write_recipe("mine", write(tmp_path / "data", files))
    assert load("mine.toml").examples[0].startswith('"C:\\new" ﬁ \x7f \u2028 ')


def test_the_command_prints_a_table_or_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "data", parallel())
    done = CliRunner(env=QUIET).invoke(app, ["new", "mine", "--source", data])
    assert done.exit_code == 0, done.output
    assert "German (de)" in done.stdout
    assert "babelray run mine.toml" in done.stdout
    done = CliRunner(env=QUIET).invoke(app, ["new", "mine", "--source", data, "--force", "--json"])
    assert json.loads(done.stdout)["documents"] == {"en": 40, "de": 40}
    done = CliRunner(env=QUIET).invoke(app, ["new", "mine", "--source", data])
    assert done.exit_code == 1
    assert "error: mine.toml exists" in done.stderr


def test_collections_of_the_shared_data_get_recipes(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = {"xquad": True, "react/en-zh": True, "libreoffice-help": True, "msmarco-layout": True}
    trained |= {"lareqa": False, "squad-nqg": False}
    for number, (name, trains) in enumerate(trained.items()):
        written = write_recipe(f"c{number}", str(shared_data / name)).data
        assert written["trains"] == trains, name
        if trains:
            recipe = load(f"c{number}.toml")
            assert plan(recipe).absent == []
            assert len(recipe.examples) == 3
            assert len(recipe.languages.docs) == len(written["documents"])
    assert load("c0.toml").languages.docs[0] == "en"
    assert json.loads(json.dumps(written))["splits"].keys() == {"train", "dev", "test"}
    for unknown in ("tatoeba", "topics/hc3", "stsb"):
        with pytest.raises(RecipeError, match="expected one of"):
            write_recipe("x", str(shared_data / unknown))
    with pytest.raises(RecipeError, match=r"en-fa \(parallel collection\), en-ru"):
        write_recipe("x", str(shared_data / "react"))


def babelray(root, *words):
    """What the command prints, in a process of its own as users run it."""
    command = [sys.executable, "-c", "from serving.cli import main; main()", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=550, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_run_of_a_new_recipe_works(tmp_path):
    """A collection of facts about ten countries, written as a user would bring it: no groups, no splits."""
    atlas = AtlasSource(territories=10)
    files = {
        f"collection.{lang}.tsv": "".join(f"{r['doc_id']}\t{r['text']}\n" for r in rows(atlas.docs(lang, "all")))
        for lang in ("en", "fa")
    }
    files["queries.en.tsv"] = "".join(f"{r['query_id']}\t{r['text']}\n" for r in rows(atlas.queries("en", "all")))
    files["qrels.tsv"] = "".join(
        f"{r['query_id']} 0 {r['doc_id']} {r['relevance']}\n" for r in rows(atlas.qrels("en", "all"))
    )
    write(tmp_path / "data", files)

    babelray(tmp_path, "new", "mine", "--source", "data")
    small = ["--set", "train.student.words=", "--set", "train.steps=20", "--set", "validate_split=", "--json"]
    measures = json.loads(babelray(tmp_path, "run", "mine.toml", *small))
    assert set(measures["mine"]["measures"]) == {"all", "en", "fa"}
    assert measures["mine"]["measures"]["fa"]["nDCG@20"] > 0.2
    shown = json.loads(babelray(tmp_path, "show", "mine.toml", "queries-en", *small))
    assert {step["config"]["splits"] for step in shown} == {"by hash of query id"}


@pytest.mark.slow
@takes_a_ready_student
def test_the_first_run_on_a_directory_of_documents_can_be_searched(tmp_path):
    pages = {"hours.md": "# Opening hours\nThe library opens at nine.", "guide/pets.txt": "Dogs are not allowed."}
    write(tmp_path / "docs", pages)
    babelray(tmp_path, "new", "manual", "--source", "docs")
    babelray(tmp_path, "run", "manual.toml")
    found = json.loads(babelray(tmp_path, "search", "manual.toml", "when can I come in", "--json"))["results"]
    assert [result["doc_id"] for result in found] == ["hours.md", "guide/pets.txt"]
    assert found[0]["title"] == "Opening hours"
