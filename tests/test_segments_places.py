"""Segments where they are kept and read: an object store, the searcher, the parts of a server, pruning."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from artifacts import directory_artifact
from cluster.storage import Place
from pipelines.encoder import open_encoder
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.plaid import Plaid
from pipelines.search import merge, search
from pipelines.searcher import Searcher
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.lists import live_place, newest_list
from pipelines.segments.snapshot import Snapshot
from pipelines.segments.verbs import prune_segments
from serving.app import Served, application, describe
from serving.messages import Limits, SearchRequest
from serving.opened import OpenShards
from serving.served import Layout
from serving_apps import make_lexical_system, make_words_system
from tests.growing import as_docs, encode_rows, encode_text, make_growing, make_texts, rank, read_texts, write_parts
from tests.shards import build, docs_artifact, vectors_artifact


def test_an_index_in_an_object_store(tmp_path: Path, s3_root: str) -> None:
    here = make_growing(tmp_path, Exact(), {"en": make_texts(20)})
    index = Place.of(s3_root) / f"runs-{tmp_path.name}" / "index@0"
    index.put(here.index.path)
    there = GrowingIndex(index, here.docs, here.open_encoders, here.vectors)
    for growing in (here, there):
        growing.add(write_parts(tmp_path, {"n0": "w1 w2 w3", "d3": "w4 w5"}))
        growing.delete(["d1", "n9"])
        assert newest_list(growing.index).number == 2
    query = encode_text("w1 w5").astype(np.float32)
    for _ in range(2):
        found = [rank(growing.snapshot(), [query], SearchOptions(k=30)) for growing in (here, there)]
        assert found[0] == found[1]
        assert read_texts(there.snapshot()) == read_texts(here.snapshot())
        for growing in (here, there):
            growing.compact()
    assert live_place(index).uri.startswith(f"{index.redacted}.live?")
    assert [place.name for place in (live_place(index) / "lists").list()] == [f"{n:08d}.json" for n in (1, 2, 3)]


@pytest.mark.parametrize("structure", ["flat", "ivf", "hnsw"])
def test_faiss_finds_what_an_index_built_at_once_finds(structure: str, tmp_path: Path) -> None:
    texts = {name: text.split()[0] + name for name, text in make_texts(120).items()}  # one vector each
    base = dict(list(texts.items())[:70])
    index = Faiss(structure=structure, cells=6)
    growing = make_growing(tmp_path, index, {"en": base})
    growing.add(write_parts(tmp_path, dict(list(texts.items())[70:])))
    dead = list(texts)[20:40] + list(texts)[80:90]
    growing.delete(dead)
    queries = [encode_text(f"w{i}").astype(np.float32) for i in range(0, 100, 10)]
    kept = {name: text for name, text in texts.items() if name not in dead}
    truth = [
        sorted(
            ((n, float(query[0] @ encode_text(t)[0].astype(np.float32))) for n, t in kept.items()), key=lambda h: -h[1]
        )
        for query in queries
    ]
    for _ in range(2):
        for k in (5, 200):
            found = rank(growing.snapshot(), queries, SearchOptions(k=k, probes=100, candidates=500))
            for one, other in zip(found, truth, strict=True):
                np.testing.assert_allclose([s for _, s in one], [s for _, s in other[:k]], rtol=1e-5, atol=1e-6)
                assert {n for n, _ in one} <= set(kept)
        growing.compact()


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_lexical_system(tmp_path_factory.mktemp("lexical"))


def test_a_searcher_reads_the_newest_list(lexical: Served, tmp_path: Path) -> None:
    from pipelines.encode import Encode, EncodeConfig

    assert lexical.student
    assert lexical.encoder
    inputs = {"student": lexical.student}
    encode = Encode(EncodeConfig(role="docs", passage_length=40, passage_stride=20), inputs)
    growing = GrowingIndex(lexical.index.place, lexical.docs, lambda: {"en": encode, "fa": encode})
    growing.add(write_parts(tmp_path, {"d2": "The peso is the currency of Chile.", "new": "The lek of Albania."}))
    growing.delete(["d1"], ["fa"])
    encoder = open_encoder(lexical.encoder, inputs)
    searcher = Searcher(lexical.index, lexical.docs, encoder, Snapshot.newest(lexical.index.place, lexical.docs))
    hits = {
        (hit["lang"], hit["doc_id"]): hit["text"] for hit in searcher.search("lek Albania", ["en"], SearchOptions(k=3))
    }
    assert hits["en", "new"] == "The lek of Albania."
    hits = searcher.search("currency of Chile Russia", list(lexical.docs), SearchOptions(k=100))
    found = {(hit["lang"], hit["doc_id"]): hit["text"] for hit in hits}
    assert found["en", "d2"] == "The peso is the currency of Chile."
    assert ("fa", "d1") not in found
    assert ("en", "d1") in found
    before = Searcher(lexical.index, lexical.docs, encoder)  # a step's: the artifact alone
    assert "new" not in {hit["doc_id"] for hit in before.search("lek Albania", ["en"], SearchOptions(k=100))}


@pytest.mark.parametrize("kind", ["words", "vectors"])
def test_the_parts_of_a_server_find_what_the_whole_finds(kind: str, tmp_path: Path) -> None:
    served = make_words_system(tmp_path)
    growing = GrowingIndex(served.index.place, served.docs)
    if kind == "vectors":
        growing = make_growing(tmp_path / "v", Exact(), {"en": make_texts(30), "fa": make_texts(9, 1)}, shard_rows=12)
        served = Served("tiny", "exact", directory_artifact(growing.index.path), growing.docs)
    before = describe(served, Limits())
    for i in range(3):
        growing.add(write_parts(tmp_path, {f"n{i}": f"w{i} the currency of nowhere", "d0": f"w{i} moved"}))
    served = Served(served.recipe, served.system, served.index, served.docs)
    about = describe(served, Limits())
    added = [shard for shard in about.shards if shard not in before.shards]
    assert [(shard.name, shard.docs) for shard in added] == [("shard-en-added", 6)]
    assert about.documents == before.documents + 3
    query = "currency w1 moved" if kind == "words" else encode_text("w1 moved").astype(np.float32)
    options = SearchOptions(k=8)
    for most_bytes in (0, 1e9):  # each shard by itself, all in one
        layout = Layout.plan(served, Limits(), most_bytes, with_encoder=False)
        groups = [OpenShards(layout, group) for group in layout.groups]
        request = SearchRequest(query="w1", k=8, languages=["en"])
        found = [asyncio.run(group.search(3, query, request, with_texts=True)) for group in groups]
        rankings = [one.rankings["en"] for one in found if one.rankings]
        assert len(rankings) == (3 if most_bytes == 0 else 1) + (kind == "vectors") * (most_bytes == 0)
        assert merge(rankings, 8) == rank(served.snapshot, [query], options)[0]
        for one in found:
            for (lang, name), (_, text) in one.texts.items():
                assert text == served.snapshot.open_docs(lang).row(name)["text"]
    application(served)  # binds without a running Ray
    growing.compact()
    served = Served(served.recipe, served.system, served.index, served.docs)
    assert {s.name for s in describe(served, Limits()).shards} <= {s.name for s in before.shards}
    after = [asyncio.run(group.search(4, query, request, with_texts=True)) for group in groups]
    assert [dict(one.rankings) for one in after] == [dict(one.rankings) for one in found]
    assert asyncio.run(groups[0].search(3, query, request, with_texts=True)) == found[0]  # the list before stays open


def test_a_list_that_is_open_is_found_while_another_is_being_opened(tmp_path: Path) -> None:
    served = make_words_system(tmp_path)
    layout = Layout.plan(served, Limits(), 1e9, with_encoder=False)
    (shards,) = (OpenShards(layout, group) for group in layout.groups)
    with shards.opening, ThreadPoolExecutor(1) as pool:  # as while another list is opened
        assert pool.submit(shards.open, 0).result(timeout=30) is shards.lists[0]


def test_pruning_removes_what_was_added_to_indexes_that_go(tmp_path: Path) -> None:
    texts = make_texts(6)
    root = Place.of(tmp_path)
    for name in ("index@000000000001", "index@000000000002"):
        docs = {"en": docs_artifact(tmp_path / f"docs-{name}", texts, "en")}
        index = build(
            tmp_path / name, Exact(), {"vectors": {"en": vectors_artifact(tmp_path / f"v-{name}", as_docs(texts))}}
        )
        growing = GrowingIndex(index, docs, lambda: {"en": encode_rows})
        growing.add(write_parts(tmp_path, {"n": "w1"}))
    left = live_place(root / "index@000000000001") / "segments" / "00000001-dead"
    (left / "shards" / "x").write(b"leftover of a killed writer")
    planned = prune_segments(root, {"index@000000000001"}, is_dry=True)
    assert left.exists()
    assert live_place(root / "index@000000000002").exists()
    assert prune_segments(root, {"index@000000000001"}, is_dry=False) == planned
    assert [name for name, _ in planned] == ["index@000000000002.live"]
    assert planned[0][1] > 0
    assert not left.exists()
    assert not live_place(root / "index@000000000002").exists()
    assert newest_list(root / "index@000000000001").number == 1


def test_terms_that_the_statistics_lack_are_found(tmp_path: Path) -> None:
    growing = make_growing(tmp_path, Bm25(), {"en": make_texts(20)})
    growing.add(write_parts(tmp_path, {"n": "zubr zubr w1"}))
    (found,) = search(growing.snapshot().open("en"), ["zubr"], SearchOptions(k=3))
    assert [name for name, _ in found] == ["n"]
    assert np.isfinite(found[0][1])
    assert found[0][1] > 0


def test_an_index_that_forgot_everything_finds_nothing_and_learns_again(tmp_path: Path) -> None:
    for index in (Exact(), Bm25(), Plaid(centroids=32)):
        root = tmp_path / index.kind
        growing = make_growing(root, index, {"en": make_texts(20), "de": make_texts(5)})
        growing.delete(list(make_texts(20)), ["en"])
        query = "w1" if index.kind == "bm25" else encode_text("w1").astype(np.float32)
        for _ in range(2):
            assert rank(growing.snapshot(), [query], SearchOptions(k=3)) == [[]]
            assert growing.snapshot().state.count() == {"de": 5, "en": 0}
            growing.compact()
        growing.add(write_parts(root, {"n": "w1 w2"}))
        assert [name for name, _ in rank(growing.snapshot(), [query], SearchOptions(k=3))[0]] == ["n"]
