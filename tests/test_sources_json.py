"""Sources of JSON lines and of the ir_datasets catalogue, against files written here with every defect."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from cluster.errors import RecipeError, StorageError
from collections_on_disk import rejects, rows, write
from pipelines.sources import Beir, IrDatasets, Jsonl


def jsonl(*records):
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)


def test_beir_languages_splits_and_defects(tmp_path):
    corpus = jsonl(
        {"_id": "e1", "title": "T", "text": "one"},
        {"_id": "z1", "title": None, "text": "一", "lang": "zho"},
        {"_id": 7, "text": "seven", "lang": "en"},
        {"_id": "x", "text": ""},
        {"_id": "h", "text": " ", "title": "Headline"},
        {"text": "no id"},
        {"_id": "y", "text": ["a"]},
        {"_id": "t", "text": "x", "title": 3},
        '{"_id": "cut',
        "[1]",
        "[" * 100_000,
        '{"_id": "s", "text": "half a pair \\ud800"}',
        {"_id": True, "text": "x"},
        {"_id": "\ud800", "text": "x"},
    )
    files = {
        "corpus.jsonl.gz": corpus,
        "queries.jsonl": jsonl(
            {"_id": "q1", "text": "1?"}, {"_id": "q2", "text": "2?"}, {"_id": "q3", "text": "三?", "lang": "zh"}
        ),
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\te1\t1\nq3\tz1\t2\n",
        "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq2\t7\t1\n",
    }
    source = Beir(path=write(tmp_path, files))
    english = list(source.docs("en", "test"))
    assert [(r["doc_id"], r["title"], r["text"]) for r in rows(english)] == [
        ("e1", "T", "one"),
        ("7", "", "seven"),
        ("h", "", "Headline"),
    ]
    assert Counter(reason for _, reason in rejects(english)) == {
        "empty text": 1,
        "malformed line": 7,
        "invalid UTF-8": 2,
    }
    assert rejects(english)[0] == ("corpus.jsonl.gz:4", "empty text")
    assert list(source.ids("docs")) == ["e1", "z1", "7", "x", "h", "y", "t", "s"]
    assert rows(source.docs("zh", "test")) == [{"doc_id": "z1", "lang": "zh", "title": "", "text": "一"}]
    assert [row["query_id"] for row in rows(source.queries("en", "test"))] == ["q1"]
    assert [row["query_id"] for row in rows(source.queries("en", "all"))] == ["q1", "q2"]
    assert [tuple(r.values()) for r in rows(source.qrels("en", "test"))] == [("q1", "e1", 1), ("q3", "z1", 2)]
    with pytest.raises(RecipeError, match="it has test, train, all"):
        list(source.docs("en", "dev"))


def test_jsonl_path_that_is_a_directory_says_so(tmp_path):
    source = Jsonl(docs_path=str(tmp_path), queries_path=str(tmp_path), qrels_path=str(tmp_path))
    (file,) = source.files("docs", "en", "all")
    for ask in (file.digest, lambda: list(source.docs("en", "all"))):
        with pytest.raises(StorageError, match=r"(?s)cannot use .*Check the path"):
            ask()


def test_jsonl_with_patterns_and_names_of_its_own(tmp_path):
    files = {
        "docs.de.jsonl": jsonl({"pid": "1", "body": "eins", "title": "E"}, {"pid": "2", "body": "two", "lang": "en"}),
        "q.train.jsonl": jsonl({"id": "a", "body": "?", "lang": "de"}, {"id": "b", "body": "?"}),
        "q.test.jsonl": jsonl({"id": "c", "body": "?"}),
        "r.train.jsonl": jsonl({"query_id": "b", "pid": "1", "relevance": 1}, {"query_id": "b", "pid": "1"}),
        "r.test.jsonl": jsonl({"query_id": "c", "pid": "1", "relevance": 2}),
    }
    root = Path(write(tmp_path, files))
    source = Jsonl(
        docs_path=str(root / "docs.{lang}.jsonl"),
        queries_path=str(root / "q.{split}.jsonl"),
        qrels_path=str(root / "r.{split}.jsonl"),
        splits=("train", "test"),
        fields={"doc_id": "pid", "text": "body"},
    )
    assert rows(source.docs("de", "test")) == [{"doc_id": "1", "lang": "de", "title": "E", "text": "eins"}]
    assert [row["query_id"] for row in rows(source.queries("en", "train"))] == ["b"]
    assert [row["query_id"] for row in rows(source.queries("en", "all"))] == ["b", "c"]
    assert [entry[2] or entry.row["relevance"] for entry in source.qrels("de", "all")] == [1, "invalid relevance", 2]
    with pytest.raises(RecipeError, match="it has train, test, all"):
        source.qrels("de", "dev")
    with pytest.raises(RecipeError, match=r"docs\.fr\.jsonl"):
        list(source.docs("fr", "all"))


def test_jsonl_without_splits_reads_trec_judgements(tmp_path):
    files = {
        "d.jsonl": jsonl({"id": "1", "text": "x"}),
        "q.jsonl": jsonl({"id": "a", "text": "?"}),
        "r.txt": "a 0 1 1\n",
    }
    root = Path(write(tmp_path, files))
    source = Jsonl(docs_path=str(root / "d.jsonl"), queries_path=str(root / "q.jsonl"), qrels_path=str(root / "r.txt"))
    assert rows(source.qrels("en", "all")) == [{"query_id": "a", "doc_id": "1", "relevance": 1}]
    assert list(source.ids("docs")) == ["1"]


def test_ir_datasets_missing_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(RecipeError, match=r"pip install 'babelray\[datasets\]'"):
        list(IrDatasets(id={"en": "vaswani"}).docs("en", "all"))


def test_ir_datasets_reads_a_registered_dataset(tmp_path):
    ir_datasets = pytest.importorskip("ir_datasets")
    from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    root = Path(write(tmp_path, {"d.tsv": "1\teins\n2\t \n", "q.tsv": "a\twas?\n", "r.txt": "a 0 1 2\n"}))
    parts = [
        TsvDocs(LocalDownload(root / "d.tsv"), namespace="own", lang="de"),
        TsvQueries(LocalDownload(root / "q.tsv"), namespace="own", lang="de"),
        TrecQrels(LocalDownload(root / "r.txt"), {1: "good", 2: "better"}),
    ]
    ir_datasets.registry.register("babelray-own/test", ir_datasets.Dataset(*parts))
    ir_datasets.registry.register("babelray-own/bare", ir_datasets.Dataset(parts[0]))
    source = IrDatasets(id={"de": "babelray-own/{split}", "fr": "babelray-nowhere"}, splits=("test",))
    docs = list(source.docs("de", "test"))
    assert rows(docs) == [{"doc_id": "1", "lang": "de", "title": "", "text": "eins"}]
    assert rejects(docs) == [("babelray-own/test/docs:2", "empty text")]
    assert rows(source.queries("de", "all")) == [{"query_id": "a", "lang": "de", "text": "was?"}]
    assert rows(source.qrels("de", "test")) == [{"query_id": "a", "doc_id": "1", "relevance": 2}]
    with pytest.raises(RecipeError, match="has no qrels"):
        list(IrDatasets(id={"de": "babelray-own/bare"}).qrels("de", "all"))
    with pytest.raises(RecipeError, match="no dataset 'babelray-nowhere'"):
        list(source.docs("fr", "all"))
    with pytest.raises(RecipeError, match="it has test, all"):
        list(source.docs("de", "train"))
    with pytest.raises(RecipeError, match="source.id has de, fr"):
        list(source.docs("en", "test"))


def test_ir_datasets_joins_the_fields_of_a_topic(tmp_path):
    ir_datasets = pytest.importorskip("ir_datasets")
    from ir_datasets.formats import TrecQueries, TsvQueries
    from ir_datasets.util import LocalDownload

    topic = (
        "<top>\n<num> Number: 7\n<title> rivers\n<desc> Description:\nWhich rivers {}?\n<narr> Narrative:\nx\n</top>"
    )
    root = Path(write(tmp_path, {"t.txt": topic.format("rise"), "j.txt": topic.format("fall"), "q.tsv": "a\twas?\n"}))
    for name, file in (("train", "t.txt"), ("train/judged", "j.txt")):
        topics = TrecQueries(LocalDownload(root / file), namespace="own", lang="en")
        ir_datasets.registry.register(f"babelray-topics/{name}", ir_datasets.Dataset(topics))
    plain = TsvQueries(LocalDownload(root / "q.tsv"), namespace="own", lang="en")
    ir_datasets.registry.register("babelray-topics/plain", ir_datasets.Dataset(plain))

    def texts(split, **config):
        source = IrDatasets(id={"en": "babelray-topics/{split}"}, splits=("train", "train/judged", "plain"), **config)
        return [row["text"] for row in rows(source.queries("en", split))]

    assert texts("train") == ["rivers"]
    assert texts("train", topics=("title", "description")) == ["rivers Which rivers rise?"]
    assert texts("train/judged", topics=("description",)) == ["Which rivers fall?"]
    assert texts("plain") == ["was?"]
    with pytest.raises(RecipeError, match="have no title, description; they have query_id, text"):
        texts("plain", topics=("title", "description"))


def test_jsonl_topics_are_read_as_people_wrote_them(tmp_path):
    def text(lang, source, title, description="D"):
        return {"lang": lang, "source": source, "topic_title": title, "topic_description": description}

    machine = text("zho", "google-translate", "机器")
    files = {
        "topics.jsonl": jsonl(
            {
                "topic_id": "1",
                "topics": [machine, text("zho", "human translation", "人"), text("eng", "original", "A")],
            },
            {"topic_id": "2", "topics": [text("eng", "human translation", "no"), text("eng", "original", "B", "")]},
            {"topic_id": "3", "topics": [machine]},
            {"topic_id": "4", "topics": "x"},
            {"topics": [text("eng", "original", "no id")]},
        )
    }
    path = str(Path(write(tmp_path, files)) / "topics.jsonl")
    source = Jsonl(docs_path=path, queries_path=path, topics=("title", "description"))
    english = list(source.queries("en", "all"))
    assert [(row["query_id"], row["text"]) for row in rows(english)] == [("1", "A D"), ("2", "B")]
    assert rejects(english) == [("topics.jsonl:5", "malformed line")]
    assert [(row["query_id"], row["text"]) for row in rows(source.queries("zh", "all"))] == [("1", "人 D")]
    assert list(source.ids("queries")) == ["1", "2", "3", "4"]


def test_jsonl_without_questions_says_so(tmp_path):
    path = str(Path(write(tmp_path, {"docs.jsonl": jsonl({"id": "1", "text": "x"})})) / "docs.jsonl")
    source = Jsonl(docs_path=path)
    assert len(rows(source.docs("en", "all"))) == 1
    with pytest.raises(RecipeError, match=r"has no queries: set source\.queries_path"):
        list(source.queries("en", "all"))
