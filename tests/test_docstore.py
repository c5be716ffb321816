"""Docstore: text by id, against a dictionary."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import table_artifact
from cluster.artifact import Artifact
from cluster.errors import StepError, TableError
from cluster.storage import Place
from pipelines import docstore
from pipelines.docstore import Docstore, RowStore
from pipelines.ids import hash_ids
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS


def make_artifact(root, name, table, parts):
    return table_artifact(root / f"{name}@000000000000", table, *parts)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))


def doc(doc_id, text="text", title="", reject=None):
    return {"doc_id": doc_id, "lang": "en", "title": title, "text": text, "reject": reject}


def test_texts_in_order_with_titles_and_without_rejects(tmp_path):
    parts = [[doc("a", "first"), doc("b", "gone", reject="too long")], [doc("c", "third", title="T")]]
    store = Docstore.open(make_artifact(tmp_path, "docs-en", DOCS, parts))
    assert len(store) == 2
    assert list(store.ids) == ["a", "c"]
    assert store.texts(["c", "a", "c"]) == ["T third", "first", "T third"]
    assert store.row("c") == {"doc_id": "c", "lang": "en", "title": "T", "text": "third"}
    assert "a" in store
    assert "b" not in store
    assert store.positions(["c", "b", "a"]).tolist() == [1, -1, 0]


def test_unknown_id_is_named(tmp_path):
    store = Docstore.open(make_artifact(tmp_path, "docs-en", DOCS, [[doc("a")]]))
    with pytest.raises(TableError, match="'nowhere'.*docs-en"):
        store.text("nowhere")


def test_queries_and_rankings(tmp_path):
    queries = make_artifact(tmp_path, "q", QUERIES, [[{"query_id": "1", "lang": "en", "text": "why?"}]])
    assert Docstore.open(queries).text("1") == "why?"
    rows = [{"query_id": "1", "doc_ids": ["x", "y"], "scores": [2.0, 1.0]}]
    rankings = RowStore.open(make_artifact(tmp_path, "r", RANKINGS, [rows]))
    assert rankings.row_at(0) == rows[0]


def test_some_parts_only(tmp_path):
    artifact = make_artifact(tmp_path, "docs-en", DOCS, [[doc("a")], [doc("b")], [doc("c")]])
    assert list(Docstore.open(artifact, parts=[2, 0]).ids) == ["a", "c"]
    assert list(Docstore.open(artifact).ids) == ["a", "b", "c"]


def test_what_it_refuses(tmp_path):
    with pytest.raises(TableError, match="'a' occurs twice"):
        Docstore.open(make_artifact(tmp_path, "twice", DOCS, [[doc("a")], [doc("a")]]))
    with pytest.raises(TableError, match="expected a table of docs"):
        Docstore.open(make_artifact(tmp_path, "qrels", QRELS, [[]]))
    with pytest.raises(StepError, match="not complete"):
        Docstore.open(Artifact(Place.of(tmp_path / "none@0")))


def test_empty_and_all_rejected(tmp_path):
    assert len(Docstore.open(make_artifact(tmp_path, "e", DOCS, []))) == 0
    store = Docstore.open(make_artifact(tmp_path, "r", DOCS, [[doc("a", reject="x")]]))
    assert len(store) == 0
    assert "a" not in store


def test_colliding_hashes_are_told_apart(tmp_path, monkeypatch):
    # every id of one length collides
    monkeypatch.setattr(docstore, "hash_ids", lambda ids: np.array([len(row_id) for row_id in ids], np.uint64))
    ids = [f"{n:02d}" for n in range(50)] + ["long"]
    store = Docstore.open(make_artifact(tmp_path, "docs", DOCS, [[doc(i, f"text {i}") for i in ids]]))
    assert store.texts(ids) == [f"text {i}" for i in ids]
    assert "zz" not in store
    asked = ["07", "zz", "long", "nine", "longer", "49", "07", "00"]
    assert store.positions(asked).tolist() == [7, -1, 50, -1, -1, 49, 7, 0]
    assert store.positions([]).tolist() == []


@pytest.mark.parametrize("bits", [64, 4])  # 4: sixteen hashes for everything
def test_positions_equal_a_dictionary(tmp_path, monkeypatch, bits):
    monkeypatch.setattr(docstore, "hash_ids", lambda ids: hash_ids(ids) >> np.uint64(64 - bits))
    monkeypatch.setattr(docstore, "ROWS_PER_BATCH", 7)  # so that ids lie in many record batches
    random = np.random.default_rng(0)
    stores = {}
    for lang in ("en", "de"):
        kept = random.permutation(200)[:150].tolist()
        parts = [[doc(f"d{n}") for n in kept[:60]], [doc(f"d{n}") for n in kept[60:]]]
        stores[lang] = Docstore.open(make_artifact(tmp_path, f"docs-{lang}", DOCS, parts)), kept
    asked = [f"d{n}" for n in random.integers(0, 250, 400)]
    hashed = hash_ids(asked) >> np.uint64(64 - bits)
    for store, kept in stores.values():
        oracle = {f"d{n}": at for at, n in enumerate(kept)}
        expected = [oracle.get(i, -1) for i in asked]
        assert -1 in expected
        assert store.positions(asked).tolist() == store.positions(asked, hashed).tolist() == expected


@given(st.lists(st.lists(st.tuples(st.text(max_size=6), st.text("abé中", min_size=1), st.booleans()), max_size=8)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_a_dictionary(tmp_path_factory, parts):
    seen, tables, expected = set(), [], {}
    for part in parts:
        rows = []
        for doc_id, text, rejected in part:
            if doc_id in seen:
                continue
            seen.add(doc_id)
            rows.append(doc(doc_id, text, reject="bad" if rejected else None))
            if not rejected:
                expected[doc_id] = text
        tables.append(rows)
    store = Docstore.open(make_artifact(tmp_path_factory.mktemp("d"), "docs", DOCS, tables))
    assert {i: store.text(i) for i in store.ids} == expected
    assert all(i not in store for i in seen - set(expected))


def test_second_open_reads_the_copy_and_processes_agree(tmp_path):
    artifact = make_artifact(tmp_path, "docs-en", DOCS, [[doc(str(n), f"t{n}") for n in range(1000)]])
    code = (
        "import sys; from cluster.artifact import Artifact; from cluster.storage import Place; "
        "from pipelines.docstore import Docstore; print(Docstore.open(Artifact(Place(sys.argv[1]))).text('777'))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, artifact.place.uri], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [run.communicate()[0].strip() for run in runs] == ["t777"] * 3
    artifact.parts[0].delete()  # what is open now can only be the copy
    assert Docstore.open(artifact).text("5") == "t5"


def test_rows_are_mapped_not_read(tmp_path):
    rows = [doc(str(n), "x" * 20_000) for n in range(2_000)]  # 40 MB of text
    artifact = make_artifact(tmp_path, "docs-en", DOCS, [rows[k : k + 500] for k in range(0, 2_000, 500)])
    Docstore.open(artifact)
    before = pa.total_allocated_bytes()
    store = Docstore.open(artifact)
    assert store.text("1234") == "x" * 20_000
    assert pa.total_allocated_bytes() - before < 1 << 20
