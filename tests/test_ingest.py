"""Ingest: every record becomes a row or a counted reject, in parts of one size; ids are told apart as a set would."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts import table_artifact
from cluster.component import fingerprint
from cluster.errors import RecipeError, StepError
from collections_on_disk import write
from pipelines.chunks import chunk
from pipelines.ids import IdSet
from pipelines.ingest import ABSENT, IngestConfig, IngestDocs, IngestQrels, IngestQueries
from pipelines.sources import Beir, MsMarco, Parallel
from pipelines.tables import DOCS, QRELS, QUERIES

WORKS = {"docs": IngestDocs, "queries": IngestQueries, "qrels": IngestQrels}


def ingest(table, source, lang="en", split="all", rows_per_part=3, inputs=None):
    """The tables and the rejects of one ingest."""
    config = IngestConfig.of(source, lang, split, rows_per_part, table)
    parts, rejects = [], []
    for rows, rejected in WORKS[table](config, inputs or {})():
        parts.append(rows)
        rejects += rejected
    return parts, rejects


def artifacts(root, source, lang, split, query_lang="en"):
    """The inputs of qrels: the docs and the queries that the same source gives."""
    made = {}
    for table, contract, code in (("docs", DOCS, lang), ("queries", QUERIES, query_lang)):
        parts, _ = ingest(table, source, code, split)
        made[table] = table_artifact(root / table, contract, *(p.to_pylist() for p in parts))
    return made


ids = st.text("ab\U0001f600é", min_size=1, max_size=3)


@given(st.lists(st.lists(ids, max_size=30), max_size=12))
def test_id_set_finds_the_first_of_each_id_as_a_set_does(stream):
    known, seen = IdSet(), set()
    for batch in stream:
        assert known.has(batch).tolist() == [i in seen for i in batch]
        expected = []
        for i in batch:
            expected.append(i not in seen)
            seen.add(i)
        assert known.add(batch).tolist() == expected
    assert len(known) == len(seen)


def test_id_set_of_many_batches_keeps_every_id():
    draw = random.Random(0)
    known, seen = IdSet(), set()
    for _ in range(300):
        batch = [str(draw.randrange(60_000)) for _ in range(draw.randrange(1, 400))]
        new = known.add(batch)
        assert new.sum() == len(set(batch) - seen)
        seen |= set(batch)
    assert len(known) == len(seen)
    assert known.has(sorted(seen)).all()
    assert not known.has([f"x{i}" for i in range(60_000)]).any()


@given(st.lists(st.integers(), max_size=50), st.integers(1, 20))
def test_chunks_hold_every_item_once(items, size):
    cut = list(chunk(items, size))
    assert [x for batch in cut for x in batch] == items
    assert all(len(batch) == size for batch in cut[:-1])


def test_parts_are_full_and_rejects_come_with_their_lines(tmp_path):
    lines = [f"d{i}\ttext {i}" for i in range(8)]
    lines[3:3] = ["broken", "d1\tagain", "d9\t "]
    source = MsMarco(path=write(tmp_path, {"collection.tsv": "\n".join(lines)}))
    parts, rejects = ingest("docs", source)
    assert [len(part) for part in parts if len(part)] == [3, 3, 2]
    assert [i for part in parts for i in part["doc_id"].to_pylist()] == [f"d{i}" for i in range(8)]
    assert all(part.equals(DOCS.conform(part)) for part in parts)
    assert [(r.where, r.reason, r.text) for r in rejects] == [
        ("collection.tsv:4", "malformed line", "broken"),
        ("collection.tsv:5", "duplicate id", "d1 again"),
        ("collection.tsv:6", "empty text", "d9  "),
    ]


@given(
    st.lists(st.sampled_from(["good", "broken", "again", "empty"]), max_size=40),
    st.integers(1, 7),
)
def test_every_record_is_a_row_or_a_reject(tmp_path_factory, kinds, rows_per_part):
    lines = [
        {"good": f"d{i}\tx", "broken": "x", "again": "d-again\tx", "empty": f"d{i}\t"}[k] for i, k in enumerate(kinds)
    ]
    lines.append("last\tx")
    root = tmp_path_factory.mktemp("docs")
    source = MsMarco(path=write(root, {"collection.tsv": "".join(f"{line}\n" for line in lines)}))
    parts, rejects = ingest("docs", source, rows_per_part=rows_per_part)
    counts = Counter(kinds)
    repeated = max(0, counts["again"] - 1)
    assert Counter(r.reason for r in rejects) == +Counter(
        {"malformed line": counts["broken"], "empty text": counts["empty"], "duplicate id": repeated}
    )
    sizes = [len(part) for part in parts if len(part)]
    assert sum(sizes) == len(lines) - len(rejects)
    assert all(size == rows_per_part for size in sizes[:-1])


def test_a_broken_file_gives_empty_tables_and_all_its_rejects(tmp_path):
    source = MsMarco(path=write(tmp_path, {"collection.tsv": "x\n" * 100}))
    parts, rejects = ingest("docs", source, rows_per_part=10)
    assert len(rejects) == 100
    assert len(parts) == 10
    assert pa.concat_tables(parts).num_rows == 0


def test_a_source_that_gives_nothing_is_an_error(tmp_path):
    files = {"corpus.jsonl": '{"_id": "1", "text": "x"}\n', "queries.jsonl": "", "qrels/test.tsv": ""}
    with pytest.raises(StepError, match="gives no docs in fa for split 'all'"):
        ingest("docs", Beir(path=write(tmp_path, files)), "fa", "test")


FILES = {
    "collection.en.tsv": "a1\tone\nb1\ttwo\nc1\tthree\n",
    "collection.de.tsv": "a1\teins\nb1\tzwei\nc1\tdrei\n",
    "queries.en.tsv": "qa\ta?\nqb\tb?\nqx\tin no split?\nqn\tno judgements?\n",
    "qrels.tsv": "qa 0 a1 1\nqb 0 b1 1\nqx 0 a1 1\nqa 0 c1 2\nghost 0 a1 1\nqa 0 nowhere 1\nqa 0 a1 0\nqa 0 a1\n",
    "groups.tsv": "a1\tA\nb1\tB\nc1\tC\nqa\tA\nqb\tB\nqn\tA\n",
    "splits/fold0.tsv": "qa\ttrain\nqb\ttest\nqn\ttrain\n",
}


def test_qrels_of_a_split_reject_what_is_nowhere_and_pass_over_what_is_elsewhere(tmp_path):
    source = Parallel(path=write(tmp_path, FILES), fold=0)
    inputs = artifacts(tmp_path / "inputs", source, "de", "train", query_lang="en")
    parts, rejects = ingest("qrels", source, "de", "train", inputs=inputs)
    # qb and qx are in other splits; c1 is a document that the strict training collection leaves out
    assert [tuple(row.values())[:3] for part in parts for row in part.to_pylist()] == [("qa", "a1", 1)]
    assert all(part.equals(QRELS.conform(part)) for part in parts)
    assert [(r.where, r.reason, r.text) for r in rejects] == [
        ("qrels.tsv:5", "unknown query id", "ghost a1 1"),
        ("qrels.tsv:6", "unknown doc id", "qa nowhere 1"),
        ("qrels.tsv:7", "duplicate id", "qa a1 0"),
        ("qrels.tsv:8", "invalid relevance", "qa 0 a1"),
    ]


def test_qrels_of_a_multilingual_beir_directory_are_those_of_the_language(tmp_path):
    docs = [("e1", "en"), ("z1", "zh")]
    files = {
        "corpus.jsonl": "".join(json.dumps({"_id": i, "text": i, "lang": lang}) + "\n" for i, lang in docs),
        "queries.jsonl": json.dumps({"_id": "q", "text": "?"}) + "\n",
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\te1\t1\nq\tz1\t1\nq\tgone\t1\n",
    }
    source = Beir(path=write(tmp_path, files))
    for lang, wanted in (("zh", "z1"), ("en", "e1")):
        inputs = artifacts(tmp_path / lang, source, lang, "test")
        parts, rejects = ingest("qrels", source, lang, "test", inputs=inputs)
        assert [part["doc_id"].to_pylist() for part in parts] == [[wanted]]
        assert [(r.reason, r.text) for r in rejects] == [("unknown doc id", "q gone 1")]


def test_config_names_the_content_and_neither_the_path_nor_other_tables(tmp_path):
    first = Parallel(path=write(tmp_path / "a", FILES), fold=0)
    second = Parallel(path=write(tmp_path / "b", {**FILES, "queries.en.tsv": "qa\tother?\n"}), fold=0)
    of = {
        table: [fingerprint(IngestConfig.of(source, "en", "all", 10, table)) for source in (first, second)]
        for table in WORKS
    }
    assert of["docs"][0] == of["docs"][1]
    assert of["queries"][0] != of["queries"][1]
    assert fingerprint(IngestConfig.of(first, "de", "all", 10, "docs")) != of["docs"][0]


def test_documents_that_splits_share_are_ingested_once_and_others_are_not(tmp_path):
    source = Parallel(path=write(tmp_path, FILES), fold=0)
    split = {s: IngestConfig.of(source, "en", s, 10, "docs") for s in ("train", "test", "all")}
    assert split["test"] == split["all"] != split["train"]
    queries = {fingerprint(IngestConfig.of(source, "en", s, 10, "queries")) for s in ("train", "test", "all")}
    assert len(queries) == 3
    with pytest.raises(RecipeError, match="no split 'dev'"):
        IngestConfig.of(source, "en", "dev", 10, "docs")


def test_config_refuses_other_spellings_of_a_language_and_names_missing_files(tmp_path):
    source = Parallel(path=write(tmp_path, FILES))
    with pytest.raises(RecipeError, match="did you mean 'de'"):
        IngestConfig.of(source, "deu", "all", 10, "docs")
    absent = IngestConfig.of(source, "fa", "all", 10, "docs").content
    assert absent.startswith(f"{ABSENT}expected collection.fa.tsv")


def test_importing_ingest_loads_no_model_library():
    code = "import sys, json, pipelines.ingest; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert not {"torch", "transformers", "ray", "ir_datasets", "langcodes"} & set(loaded)


def test_the_ingest_benchmark_runs_and_reports_a_ratio():
    script = Path(__file__).parent / "benchmarks" / "bench_ingest_memory.py"
    run = subprocess.run([sys.executable, script, "--lines", "2000"], capture_output=True, check=True, text=True)
    assert 0.8 < json.loads(run.stdout.splitlines()[-1])["ratio"] < 1.5
