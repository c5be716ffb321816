"""Splits by hash: stable, disjoint, of the promised shares, without leaks, and never in place of real split files."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from cluster.component import fingerprint
from cluster.errors import RecipeError, StepError
from collections_on_disk import rows, write
from pipelines.ingest import IngestConfig, IngestQueries
from pipelines.sources import AtlasSource, Beir, Jsonl, MsMarco, Parallel
from pipelines.sources.splits import describe_splits, split_by_hash

PAGES = [f"page{i}" for i in range(40)]
SPLITS = ("train", "dev", "test")


def collection(root, groups=True, qrels=True):
    """40 pages of two documents and three questions each, in two languages; the third question has no judgement."""
    docs = [(f"{page}#{i}", page) for page in PAGES for i in range(2)]
    questions = [(f"q{i}-{page}", page) for page in PAGES for i in range(3)]
    files = {f"collection.{lang}.tsv": "".join(f"{d}\t{lang} {d}\n" for d, _ in docs) for lang in ("en", "de")}
    files["queries.en.tsv"] = "".join(f"{q}\t{q}?\n" for q, _ in questions)
    if qrels:
        files["qrels.tsv"] = "".join(f"q{i}-{page} 0 {page}#{i} 1\n" for page in PAGES for i in range(2))
    if groups:
        files["groups.tsv"] = "".join(f"{name}\t{page}\n" for name, page in docs + questions)
    return write(root, files)


def expected_split(unit, fold=0):
    """The rule of the documentation, written once more."""
    bucket = int(hashlib.blake2b(unit.encode(), digest_size=8).digest()[::-1].hex(), 16) % 10
    return "test" if bucket == fold else "dev" if bucket == (fold + 1) % 10 else "train"


def ids(entries, key):
    return [row[key] for row in rows(entries)]


def test_shares_are_80_10_10_and_ten_folds_test_each_unit_once():
    units = [f"unit {i}" for i in range(10_000)]
    counts = Counter(split_by_hash(unit) for unit in units)
    assert abs(counts["train"] - 8000) < 200
    assert abs(counts["dev"] - 1000) < 150
    assert abs(counts["test"] - 1000) < 150
    for unit in units[:200]:
        assert [split_by_hash(unit, fold) for fold in range(10)] == [expected_split(unit, fold) for fold in range(10)]
        assert Counter(split_by_hash(unit, fold) for fold in range(10)) == {"train": 8, "dev": 1, "test": 1}


def test_questions_follow_their_group_and_training_reads_its_documents_alone(tmp_path):
    source = Parallel(path=collection(tmp_path))
    for split in SPLITS:
        pages = {page for page in PAGES if expected_split(page) == split}
        asked = ids(source.queries("en", split), "query_id")
        assert asked == [f"q{i}-{page}" for page in PAGES if page in pages for i in range(3)]
        assert {q.partition("-")[2] for q in ids(source.qrels("de", split), "query_id")} == pages
    training = {page for page in PAGES if expected_split(page) == "train"}
    assert {d.partition("#")[0] for d in ids(source.docs("de", "train"), "doc_id")} == training
    assert len(ids(source.docs("de", "test"), "doc_id")) == 80
    assert len(ids(Parallel(path=str(tmp_path), strict=False).docs("de", "train"), "doc_id")) == 80


def test_other_folds_divide_otherwise_and_there_are_ten(tmp_path):
    path = collection(tmp_path)
    tested = [set(ids(Parallel(path=path, fold=fold).queries("en", "test"), "query_id")) for fold in range(10)]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 120
    with pytest.raises(RecipeError, match=r"divided by hash into 10 folds: set source.fold to 0\.\.9, got 10"):
        Parallel(path=path, fold=10).queries("en", "test").__next__()


def test_without_groups_each_question_is_hashed_and_documents_follow_their_judgements(tmp_path):
    source = Parallel(path=collection(tmp_path, groups=False))
    asked = {split: set(ids(source.queries("en", split), "query_id")) for split in SPLITS}
    assert all(expected_split(q) == split for split, found in asked.items() for q in found)
    assert sum(map(len, asked.values())) == 120
    seen = set(ids(source.docs("en", "train"), "doc_id"))
    assert seen == {f"{page}#{i}" for page in PAGES for i in range(2) if expected_split(f"q{i}-{page}") == "train"}
    bare = Parallel(path=collection(tmp_path / "bare", groups=False, qrels=False))
    assert len(ids(bare.docs("en", "train"), "doc_id")) == 80  # nothing says which documents are of other splits


def test_documents_without_a_group_are_training_documents(tmp_path):
    path = Path(collection(tmp_path))
    groups = [line for line in (path / "groups.tsv").read_text().splitlines() if not line.startswith("page")]
    (path / "groups.tsv").write_text("\n".join(groups) + "\n")
    assert len(ids(Parallel(path=str(path)).docs("en", "train"), "doc_id")) == 80


def test_split_files_win(tmp_path):
    path = collection(tmp_path)
    assert describe_splits(Parallel(path=path)) is not None
    write(tmp_path, {"splits/fold0.tsv": "q0-page0\ttest\nq0-page1\ttrain\n"})
    source = Parallel(path=path)
    assert ids(source.queries("en", "test"), "query_id") == ["q0-page0"]
    assert ids(source.docs("en", "train"), "doc_id") == ["page1#0", "page1#1"]
    assert describe_splits(source) is None
    assert IngestConfig.of(source, "en", "test", 10, "queries").splits == ""
    with pytest.raises(RecipeError, match=r"expected splits/fold3\.tsv .*found there: fold0\.tsv"):
        IngestConfig.of(Parallel(path=path, fold=3), "en", "test", 10, "queries").source.files("queries", "en", "test")


def test_the_rule_is_shown_and_stands_in_the_config_and_its_fingerprint(tmp_path):
    source = Parallel(path=collection(tmp_path))
    assert describe_splits(source) == (
        "the parallel collection has no split files: questions are divided by hash of their group, "
        "80 % train, 10 % dev, 10 % test"
    )
    config = IngestConfig.of(source, "en", "train", 10, "queries")
    assert config.splits == "by hash of group"
    assert fingerprint(config) != fingerprint(config.model_copy(update={"splits": ""}))
    assert IngestConfig.of(source, "en", "all", 10, "queries").splits == ""
    shared = IngestConfig.of(source, "en", "test", 10, "docs")
    assert (shared.split, shared.splits) == ("all", "")
    assert IngestConfig.of(source, "en", "train", 10, "docs").splits == "by hash of group"


def test_a_question_that_is_added_moves_no_other(tmp_path):
    before = {s: ids(Parallel(path=collection(tmp_path)).queries("en", s), "query_id") for s in SPLITS}
    with Path(tmp_path, "queries.en.tsv").open("a") as file:
        file.write("new\tnew?\n")
    after = {s: ids(Parallel(path=str(tmp_path)).queries("en", s), "query_id") for s in SPLITS}
    assert {s: [q for q in found if q != "new"] for s, found in after.items()} == before
    assert sum("new" in found for found in after.values()) == 1


def test_an_empty_split_says_why(tmp_path):
    few = {"collection.en.tsv": "d\tx\n", "queries.en.tsv": "q\t?\n", "qrels.tsv": "q 0 d 1\n"}
    config = IngestConfig.of(Parallel(path=write(tmp_path, few)), "en", "test", 10, "queries")
    assert expected_split("q") != "test"
    with pytest.raises(StepError, match="splits are made by hash of query id and may be empty where there are few"):
        list(IngestQueries(config, {})())


QUERIES = [f"q{i}" for i in range(60)]


def beir(root):
    files = {
        "corpus.jsonl": '{"_id": "d", "text": "x"}\n',
        "queries.jsonl": "".join(json.dumps({"_id": q, "text": "?"}) + "\n" for q in QUERIES),
    }
    return Beir(path=write(root, files))


def jsonl(root):
    files = {
        "docs.jsonl": '{"doc_id": "d", "text": "x"}\n',
        "queries.jsonl": "".join(json.dumps({"query_id": q, "text": "?"}) + "\n" for q in QUERIES),
        "qrels.tsv": "".join(f"{q} 0 d 1\n" for q in QUERIES),
    }
    root = Path(write(root, files))
    return Jsonl(
        docs_path=str(root / "docs.jsonl"),
        queries_path=str(root / "queries.jsonl"),
        qrels_path=str(root / "qrels.tsv"),
    )


@pytest.mark.parametrize("build", [beir, jsonl])
def test_json_lines_without_splits_are_divided_by_the_id_of_the_query(tmp_path, build):
    source = build(tmp_path)
    assert "by hash of their query id" in (describe_splits(source) or "")
    for split in SPLITS:
        expected = [q for q in QUERIES if expected_split(q) == split]
        assert ids(source.queries("en", split), "query_id") == expected
        assert ids(source.docs("en", split), "doc_id") == ["d"]
        if build is jsonl:
            assert ids(source.qrels("en", split), "query_id") == expected
    assert ids(source.queries("en", "all"), "query_id") == QUERIES
    with pytest.raises(RecipeError, match="no split 'validation'; it has train, dev, test, all"):
        list(source.queries("en", "validation"))


def test_collections_with_splits_of_their_own_are_not_described(tmp_path):
    assert describe_splits(AtlasSource(territories=5)) is None
    assert describe_splits(MsMarco(path=str(tmp_path))) is None
    assert describe_splits(Parallel(path=str(tmp_path / "absent"))) is None
    judged = beir(tmp_path / "judged")
    write(tmp_path / "judged", {"qrels/test.tsv": "q1\td\t1\n"})
    assert describe_splits(judged) is None
    assert ids(judged.queries("en", "test"), "query_id") == ["q1"]
