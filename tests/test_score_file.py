"""Score files: what is read, what is rejected, and the way back through the export."""

import gzip
import json
import random

import numpy as np
import pytest

from artifacts import table_artifact
from cluster.component import fingerprint
from cluster.errors import StepError, TableError
from cluster.step import Step
from cluster.storage import Place
from cluster.table import good
from collections_on_disk import write
from local_executor import run_here
from pipelines.export import export_scores
from pipelines.ingest import ABSENT, IngestConfig, IngestDocs, IngestQueries
from pipelines.score_file import ReadScores, ScoreFile, ScoreFileConfig
from pipelines.sources import Mmarco
from pipelines.tables import DOCS, QUERIES, RANKINGS
from pipelines.training.data import open_passages


@pytest.fixture
def known(tmp_path):
    """Four queries and six documents."""
    queries = [{"query_id": q, "lang": "en", "text": "?"} for q in ("q1", "7", "q3", "q4")]
    docs = [{"doc_id": d, "lang": "en", "title": "", "text": "."} for d in ("d1", "d2", "30", "03", "é", "d6")]
    return {
        "queries": table_artifact(tmp_path / "queries", QUERIES, queries),
        "docs": table_artifact(tmp_path / "docs", DOCS, docs[:2], docs[2:]),
    }


def read(path, known, rows_per_part=2):
    parts = list(ReadScores(ScoreFileConfig.of(ScoreFile(path=str(path)), rows_per_part), known)())
    rows = [row for table, _ in parts for row in RANKINGS.conform(table).to_pylist()]
    return rows, [(reject.where, reject.reason) for _, rejects in parts for reject in rejects]


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.jsonl.gz", "scores.jsonl.bz2"])
def test_lines_become_rankings_that_fall(tmp_path, known, name):
    text = '["q1",["d1",-3],["é",0.1],["d2",-3.0]]\n[7, [30, 2], [1e2, 9], ["03", 5.5]]\r\n'
    write(tmp_path, {name: text})
    rows, rejects = read(tmp_path / name, known)
    assert [(row["query_id"], row["doc_ids"]) for row in rows] == [("q1", ["é", "d1", "d2"])]
    assert rows[0]["scores"] == [np.float32(0.1), -3.0, -3.0]
    assert rejects == [(f"{name}:2", "malformed line")]  # an id that is no whole number


def test_what_cannot_be_used_is_counted_by_its_reason(tmp_path, known):
    lines = [
        '["q1",["d1",1],["gone",2],["d2",NaN],["d1",3],["d6","4"],["03",1e39],["30",true]]',
        '["who",["d1",1]]',
        '["q1",["d2",1]]',
        '["q3",["gone",1]]',
        '["q4","d1","d2"]',
        '[7,30,3]',
        '["q4"]',
        "{}",
        "",
        '["q4",["d1",1,2]]',
        '["q4",["d1",1]',
    ]  # fmt: skip
    write(tmp_path, {"s.jsonl": "\n".join(lines).encode() + b'\n["\xff",["d1",1]]\n["q4",["d6",-0.5]]\n'})
    rows, rejects = read(tmp_path / "s.jsonl", known)
    assert [(row["query_id"], row["doc_ids"], row["scores"]) for row in rows] == [
        ("q1", ["d1"], [1.0]),
        ("q4", ["d6"], [-0.5]),
    ]
    first = ["unknown doc id", "invalid score", "duplicate id", "invalid score", "invalid score", "invalid score"]
    assert sorted(reason for where, reason in rejects if where == "s.jsonl:1") == sorted(first)
    assert {where: reason for where, reason in rejects if where != "s.jsonl:1"} == {
        "s.jsonl:2": "unknown query id",
        "s.jsonl:3": "duplicate id",
        "s.jsonl:4": "unknown doc id",
        **{f"s.jsonl:{n}": "malformed line" for n in range(5, 12)},
        "s.jsonl:12": "invalid UTF-8",
    }


def test_an_empty_file_is_an_error(tmp_path, known):
    write(tmp_path, {"s.jsonl": ""})
    with pytest.raises(StepError, match=r"score\.path = .* is empty"):
        read(tmp_path / "s.jsonl", known)


def test_a_read_that_is_done_again_gives_the_same_rows(tmp_path, known):
    write(tmp_path, {"s.jsonl": '["q1",["d1",1]]\n[7,["d2",1]]\n["q1",["d2",1]]\n'})
    work = ReadScores(ScoreFileConfig.of(ScoreFile(path=str(tmp_path / "s.jsonl")), 1), known)
    broken = work()
    next(broken)
    broken.close()  # as by an error of the disk
    parts = list(work())
    assert [row["query_id"] for table, _ in parts for row in table.to_pylist()] == ["q1", "7"]
    assert [reject.where for _, rejects in parts for reject in rejects] == ["s.jsonl:3"]


def test_the_content_of_the_file_is_in_the_fingerprint_and_its_place_is_not(tmp_path):
    write(
        tmp_path, {"a/s.jsonl": '["q1",["d1",1]]\n', "b/t.jsonl": '["q1",["d1",1]]\n', "c.jsonl": '["q1",["d1",2]]\n'}
    )
    here, moved, changed = (
        fingerprint(ScoreFileConfig.of(ScoreFile(path=str(tmp_path / name)), 256))
        for name in ("a/s.jsonl", "b/t.jsonl", "c.jsonl")
    )
    assert here == moved != changed
    absent = ScoreFileConfig.of(ScoreFile(path=str(tmp_path / "none.jsonl")), 256)
    assert absent.content.startswith(ABSENT)
    assert "score.path" in absent.content


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.jsonl.gz"])
def test_what_is_exported_is_read_again(tmp_path, known, name):
    rng = random.Random(0)
    ids = ["d1", "d2", "30", "03", "é", "d6"]
    rows = [
        {
            "query_id": q,
            "doc_ids": rng.sample(ids, k),
            "scores": sorted((rng.gauss(0, 9) for _ in range(k)), reverse=True),
        }
        for q, k in (("q1", 6), ("7", 3), ("q4", 1))
    ]
    rejected = {"query_id": "q3", "reject": "no selected document has a text"}
    scores = table_artifact(tmp_path / "score@1", RANKINGS, rows[:1], [*rows[1:], rejected])
    file = Place.of(tmp_path / name)
    assert export_scores(scores, file) == 3
    again, rejects = read(file.path, known, rows_per_part=100)
    assert not rejects
    assert RANKINGS.of(again) == good(scores.read())
    before = file.read()
    export_scores(scores, file)
    assert file.read() == before  # the same table, the same bytes
    with pytest.raises(TableError, match="expected a table of rankings, got queries"):
        export_scores(known["queries"], file)


def test_published_scores_on_the_layout_of_ms_marco(tmp_path, shared_data):
    """The papers' two downloads: the translated collection, and one line of whole numbers per training query."""
    source = Mmarco(path=str(shared_data / "msmarco-layout"))
    asked = [e.row["query_id"] for e in source.queries("en", "train")]
    pids = [e.row["doc_id"] for e in source.docs("zh", "train")]
    rng = random.Random(0)
    file = tmp_path / "mt5xxl-monot5-mmarco-engeng.jsonl.gz"
    published = {}
    with gzip.open(file, "wt") as out:
        for query_id in asked:
            published[query_id] = {pid: round(rng.uniform(-12, 0), 6) for pid in rng.sample(pids, 50)}
            pairs = [[int(pid), score] for pid, score in published[query_id].items()]
            out.write(json.dumps([int(query_id), *pairs]) + "\n")
    steps = {
        "queries": Step(
            "queries", IngestQueries, IngestConfig.of(source, "en", "train", 256, "queries"), table=QUERIES
        ),
        "docs": Step("docs", IngestDocs, IngestConfig.of(source, "zh", "train", 100, "docs"), table=DOCS),
    }
    config = ScoreFileConfig.of(ScoreFile(path=str(file)), 256)
    root = Place.of(tmp_path / "root")
    (made,) = run_here([Step("score", ReadScores, config, steps, table=RANKINGS)], root)
    assert (made.rows, len(made.parts), made.manifest.rejects) == (400, 2, {})
    for row in made.read().to_pylist():
        expected = published[row["query_id"]]
        assert dict(zip(row["doc_ids"], row["scores"], strict=True)) == pytest.approx(expected, abs=1e-6)
        assert row["scores"] == sorted(row["scores"], reverse=True)
    drawn = open_passages({"scores": made}).candidates(0, pool=6)  # what a training reads
    assert drawn.doc_ids == sorted(published[drawn.query_id], key=published[drawn.query_id].get, reverse=True)[:6]
