"""Exports read back by the tools that define their formats."""

import json

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import TableError
from cluster.storage import Place
from pipelines import export
from pipelines.sources import MsMarco
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS

RANKED = [
    {"query_id": "q1", "doc_ids": ["d2", "d1"], "scores": [1.5, 0.1]},
    {"query_id": "7", "doc_ids": ["30", "03"], "scores": [2.0, -1e-10]},
    {"query_id": "none", "doc_ids": [], "scores": []},
    {"query_id": "bad", "doc_ids": ["x"], "scores": [1.0], "reject": "too long"},
]
JUDGED = [
    {"query_id": "q1", "doc_id": "d1", "relevance": 1},
    {"query_id": "q1", "doc_id": "d2", "relevance": 0},
    {"query_id": "7", "doc_id": "30", "relevance": 3},
]


def lines(tmp_path, exporter, table, rows, **options):
    file = tmp_path / "out.txt"
    count = exporter([table.of(rows[:1]), table.of(rows[1:])], Place.of(file), **options)
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") == count
    return text.splitlines()


def test_trec_run_to_the_field(tmp_path):
    assert lines(tmp_path, export.write_trec_run, RANKINGS, RANKED, tag="mtd") == [
        "q1 Q0 d2 1 1.5 mtd",
        "q1 Q0 d1 2 0.1 mtd",
        "7 Q0 30 1 2.0 mtd",
        "7 Q0 03 2 -1e-10 mtd",
    ]


def test_trec_qrels_to_the_field(tmp_path):
    assert lines(tmp_path, export.write_trec_qrels, QRELS, JUDGED) == ["q1 0 d1 1", "q1 0 d2 0", "7 0 30 3"]


def test_run_and_qrels_are_read_by_ir_measures(tmp_path):
    run, qrels = Place.of(tmp_path / "run"), Place.of(tmp_path / "qrels")
    export.write_trec_run([RANKINGS.of(RANKED)], run)
    export.write_trec_qrels([QRELS.of(JUDGED)], qrels)
    read = list(ir_measures.read_trec_run(str(run.path)))
    assert [(r.query_id, r.doc_id, np.float32(r.score)) for r in read] == [
        ("q1", "d2", np.float32(1.5)),
        ("q1", "d1", np.float32(0.1)),
        ("7", "30", np.float32(2.0)),
        ("7", "03", np.float32(-1e-10)),
    ]
    measured = ir_measures.calc_aggregate(
        [ir_measures.RR @ 10], list(ir_measures.read_trec_qrels(str(qrels.path))), read
    )
    assert measured[ir_measures.RR @ 10] == pytest.approx((1 / 2 + 1) / 2)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_scores_of_a_run_are_the_same_float32_when_read_again(tmp_path_factory, scores):
    scores = sorted(scores, reverse=True)
    file = Place.of(tmp_path_factory.mktemp("run") / "run")
    row = {"query_id": "q", "doc_ids": [f"d{i}" for i in range(len(scores))], "scores": scores}
    export.write_trec_run([RANKINGS.of([row])], file)
    again = [np.float32(line.split()[4]) for line in file.path.read_text().splitlines()]
    assert again == [np.float32(score) for score in scores]


def test_colbert_examples_to_the_field(tmp_path):
    out = [json.loads(line) for line in lines(tmp_path, export.write_colbert_examples, RANKINGS, RANKED)]
    assert out == [["q1", ["d2", 1.5], ["d1", 0.1]], [7, [30, 2.0], ["03", -1e-10]]]


def test_msmarco_files_are_read_by_the_source(tmp_path):
    docs = [
        {"doc_id": "0", "lang": "en", "title": "", "text": "plain"},
        {"doc_id": "1", "lang": "en", "title": "T", "text": "tab\there\r\nand there\u2028 not"},
    ]
    assert export.write_msmarco_collection([DOCS.of(docs)], Place.of(tmp_path / "collection.tsv")) == 2
    asked = [{"query_id": "q1", "lang": "en", "text": "what\tis it?"}]
    export.write_msmarco_queries([QUERIES.of(asked)], Place.of(tmp_path / "queries.dev.tsv"))
    export.write_msmarco_qrels([QRELS.of(JUDGED)], Place.of(tmp_path / "qrels.dev.tsv"))
    source = MsMarco(path=str(tmp_path))
    assert [e.row["text"] for e in source.docs("en", "dev")] == ["plain", "T tab here and there\u2028 not"]
    assert [e.row["text"] for e in source.queries("en", "dev")] == ["what is it?"]
    assert [e.row for e in source.qrels("en", "dev")] == JUDGED
    assert (tmp_path / "qrels.dev.tsv").read_text().splitlines()[0] == "q1\t0\td1\t1"


def test_msmarco_run_to_the_field(tmp_path):
    assert lines(tmp_path, export.write_msmarco_run, RANKINGS, RANKED) == [
        "q1\td2\t1",
        "q1\td1\t2",
        "7\t30\t1",
        "7\t03\t2",
    ]


@pytest.mark.parametrize("wrong", ["two words", "tab\there", "", "line\nbreak", "nbsp\u00a0id"])
def test_an_id_that_would_shift_the_fields_is_refused_and_nothing_is_written(tmp_path, wrong):
    row = {"query_id": "q", "doc_ids": [wrong], "scores": [1.0]}
    with pytest.raises(TableError, match="map such ids to others first"):
        export.write_trec_run([RANKINGS.of([row])], Place.of(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(TableError):
        export.write_trec_run([RANKINGS.of(RANKED)], Place.of(tmp_path / "run"), tag=wrong)
