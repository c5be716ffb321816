"""Collections in SQuAD's layout: rows, splits without leaks, what is wrong in a file, and recipes that are written."""

import json

import pytest

from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from collections_on_disk import rejects, rows, write
from pipelines.layouts import recognise
from pipelines.new import write_recipe
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.sources import Squad
from pipelines.sources.files import AbsentFileError
from pipelines.sources.splits import SPLITS, split_by_hash

TITLES = [f"Article_{i}" for i in range(30)]


def article(title, lang, number):
    def question(i, j):
        return {"id": f"q{number}-{i}-{j}", "question": f"{lang} question {i} {j}?", "answers": []}

    paragraphs = [{"context": f"{lang} text {number} {i}", "qas": [question(i, j) for j in range(2)]} for i in range(3)]
    return {"title": title, "paragraphs": paragraphs}


def squad(root, langs=("en", "de"), change=lambda articles: articles):
    """Thirty articles of three paragraphs with two questions each, as XQuAD's files are named."""
    files = {}
    for lang in langs:
        articles = change([article(title, lang, number) for number, title in enumerate(TITLES)])
        files[f"xquad.{lang}.json"] = json.dumps({"data": articles, "version": "1.1"})
    return write(root, files | {"README.md": "about"})


def test_paragraphs_are_documents_that_answer_their_questions(tmp_path):
    source = Squad(path=squad(tmp_path))
    docs = rows(source.docs("de", "all"))
    assert len(docs) == 90
    assert docs[4] == {"doc_id": "1-1", "lang": "de", "title": "", "text": "de text 1 1"}
    assert [doc["doc_id"] for doc in docs] == [doc["doc_id"] for doc in rows(source.docs("en", "all"))]
    assert rows(source.queries("de", "all"))[9] == {"query_id": "q1-1-1", "lang": "de", "text": "de question 1 1?"}
    assert rows(source.qrels("de", "all"))[9] == {"query_id": "q1-1-1", "doc_id": "1-1", "relevance": 1}
    assert sorted(source.ids("docs")) == sorted(2 * [doc["doc_id"] for doc in docs])
    assert len(list(source.ids("queries"))) == 2 * 180


@pytest.mark.parametrize("fold", [0, 3])
def test_articles_are_in_one_split_and_training_sees_no_paragraph_of_others(tmp_path, fold):
    source = Squad(path=squad(tmp_path), fold=fold)
    asked = {split: {row["query_id"] for row in rows(source.queries("en", split))} for split in SPLITS}
    for split, ids in asked.items():
        numbers = {number for number, title in enumerate(TITLES) if split_by_hash(title, fold) == split}
        assert ids == {f"q{n}-{i}-{j}" for n in numbers for i in range(3) for j in range(2)}
        assert {row["query_id"] for row in rows(source.qrels("en", split))} == ids
    seen = {row["doc_id"].split("-")[0] for row in rows(source.docs("en", "train"))}
    assert seen == {query[1:].split("-")[0] for query in asked["train"]}
    assert len(rows(source.docs("en", "test"))) == 90
    assert len(rows(Squad(path=source.path, fold=fold, strict=False).docs("en", "train"))) == 90


def test_what_is_wrong_is_named(tmp_path):
    def break_some(articles):
        del articles[0]["paragraphs"][1]["context"]
        articles[2]["paragraphs"][0]["qas"][1]["question"] = " "
        return articles

    source = Squad(path=squad(tmp_path / "some", change=break_some))
    assert rejects(source.docs("en", "all")) == [("xquad.en.json:data[0].paragraphs[1]", "malformed line")]
    assert rejects(source.queries("en", "all")) == [("xquad.en.json:data[2].paragraphs[0]", "empty text")]
    with pytest.raises(AbsentFileError, match=r"expected NAME\.fr\.json in .*found there: README\.md, xquad\.de\.json"):
        list(source.docs("fr", "all"))
    with pytest.raises(RecipeError, match=r"no split 'fold7'; expected one of train, dev, test, all"):
        list(source.docs("en", "fold7"))
    for content in (
        "{",
        "[]",
        '{"data": [{"paragraphs": []}]}',
        '{"data": [{"title": 3, "paragraphs": []}]}',
        '{"data": 7}',
    ):
        path = write(tmp_path / "broken", {"en.json": content})
        with pytest.raises(StepError, match=r"en\.json: expected SQuAD's layout"):
            list(Squad(path=path).docs("en", "all"))


def test_a_directory_is_recognised_and_its_recipe_plans(tmp_path, monkeypatch):
    path = squad(tmp_path / "data", langs=("de", "en", "zh"))
    layout = recognise(Place.of(path), "en")
    assert (layout.name, layout.docs, layout.queries) == ("SQuAD", ("en", "de", "zh"), ("en", "de", "zh"))
    monkeypatch.chdir(tmp_path)
    write_recipe("mine", path, "en", force=False)
    assert plan(load("mine.toml")).training is not None


def test_xquad_runs_on_the_files_that_its_authors_publish(tmp_path):
    path = squad(tmp_path, langs=("en", "ar", "de", "es", "hi", "ru", "zh"))
    made = plan(load("xquad", ["source.kind=squad", f"source.path={path}"]))
    assert not made.absent
    assert any("by hash of their group" in note for note in made.notes)
