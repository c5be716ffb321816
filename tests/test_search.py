"""Merging and pooling rankings, and the search step over an index artifact."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import executor
from cluster.artifact import Artifact, read_part
from cluster.errors import StorageError
from cluster.progress import Progress
from cluster.step import Step
from cluster.storage import Place
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Index
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.plaid import Plaid
from pipelines.search import (
    Search,
    SearchConfig,
    SearchGroup,
    ShardSearchConfig,
    merge,
    open_shards,
    plan_groups,
    pool,
    search,
    search_shards,
)
from pipelines.tables import QUERIES, RANKINGS, VECTORS
from tests.artifacts import directory_artifact, table_artifact
from tests.shards import build, docs_artifact, find, local_fan_out, make_docs, make_queries, oracle, vectors_artifact

hits = st.lists(st.tuples(st.text("abcxyz", min_size=1, max_size=3), st.floats(-2, 2, width=16)), max_size=12)


def by_score(hit: tuple[str, float]) -> tuple[float, str]:
    return -hit[1], hit[0]


@given(rankings=st.lists(hits, max_size=5), k=st.integers(1, 20))
def test_merge_is_the_sorted_union(rankings: list[list[tuple[str, float]]], k: int) -> None:
    ranked = [sorted(ranking, key=by_score) for ranking in rankings]
    assert merge(ranked, k) == sorted((hit for ranking in rankings for hit in ranking), key=by_score)[:k]


@given(rankings=st.lists(hits, min_size=1, max_size=5), k=st.integers(1, 20), cut=st.integers(1, 5))
def test_merge_in_two_steps_is_merge(rankings: list[list[tuple[str, float]]], k: int, cut: int) -> None:
    """A gateway may merge what merging nodes send it, each the best k only."""
    assert merge([merge(rankings[:cut], k), merge(rankings[cut:], k)], k) == merge(rankings, k)


def test_pool_names_the_language() -> None:
    rankings = {"fr": [("1", 0.5), ("2", 0.25)], "de": [("1", 0.5), ("3", 0.75)], "zh": []}
    assert pool(rankings, 3) == [("de:3", 0.75), ("de:1", 0.5), ("fr:1", 0.5)]


def step(place: object, lang: str, k: int) -> Search:
    artifact: Artifact = directory_artifact(place.path)
    return Search(SearchConfig(lang=lang, options=SearchOptions(k=k)), {"index": artifact})


def query_rows(queries: list[np.ndarray]) -> list[dict]:
    return [
        {"id": f"q{i}", "tokens": [len(q)], "vectors": q.astype(np.float16).tobytes()} for i, q in enumerate(queries)
    ]


def test_search_step_over_vectors(tmp_path: Path) -> None:
    docs = make_docs(60)
    place = build(tmp_path / "index@0", Exact(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 4)}}, 20)
    queries = [q.astype(np.float16) for q in make_queries(docs, 5)]
    rows = query_rows(queries)
    rows.insert(2, {"id": "broken", "reject": "no text"})
    out = RANKINGS.conform(step(place, "en", 7)(VECTORS.of(rows)))
    assert out["query_id"].to_pylist() == [row["id"] for row in rows]
    assert out["reject"].to_pylist() == [None, None, "no text", None, None, None]
    assert out["doc_ids"][2].as_py() is None
    for query, row in zip(queries, (r for r in out.to_pylist() if r["reject"] is None), strict=True):
        assert list(zip(row["doc_ids"], row["scores"], strict=True)) == oracle(query, docs, 7)


def test_search_step_over_texts_and_a_query_without_hits(tmp_path: Path) -> None:
    place = build(
        tmp_path / "i@0", Bm25(), {"docs": {"en": docs_artifact(tmp_path / "d", {"a": "red fox", "b": "fox"}, "en")}}
    )
    rows = [
        {"query_id": "1", "lang": "en", "text": "red fox"},
        {"query_id": "2", "lang": "en", "text": "whale"},
        {"query_id": "3", "lang": "en", "text": None, "reject": "not UTF-8"},
    ]
    out = RANKINGS.conform(step(place, "en", 5)(QUERIES.of(rows)))
    assert out["doc_ids"].to_pylist() == [["a", "b"], [], None]
    assert out["scores"][1].as_py() == []


def test_all_languages_are_pooled(tmp_path: Path) -> None:
    docs = {lang: make_docs(20, seed=seed) for seed, lang in enumerate(("en", "de", "zh"))}
    inputs = {"vectors": {lang: vectors_artifact(tmp_path / lang, d, 2) for lang, d in docs.items()}}
    place = build(tmp_path / "i@0", Exact(), inputs, 10)
    query = make_queries(docs["de"], 1)[0].astype(np.float16)
    found = {lang: search(open_shards(place, lang), [query], SearchOptions(k=9))[0] for lang in docs}
    everything = [(f"{lang}:{name}", passages) for lang, d in docs.items() for name, passages in d]
    assert pool(found, 9) == oracle(query, everything, 9)


@pytest.mark.parametrize("index", [Exact(), Plaid()])
def test_query_of_zero_vectors_finds_nothing(tmp_path: Path, index: Exact | Plaid) -> None:
    """Not the first ids, all with score 0."""
    docs = make_docs(20)
    place = build(tmp_path / "i@0", index, {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    zero, some = np.zeros((2, 16), np.float16), make_queries(docs, 1)[0].astype(np.float16)
    out = step(place, "en", 5)(VECTORS.of(query_rows([zero, some])))
    assert [len(ids) for ids in out["doc_ids"].to_pylist()] == [0, 5]


@pytest.mark.parametrize("index", [Exact(), Plaid(), Faiss(), Bm25()], ids=lambda index: index.kind)
def test_index_in_an_object_store_answers_as_on_disk(tmp_path: Path, s3_root: str, index: Index) -> None:
    one = index.kind == "faiss"  # it holds one vector per document
    docs = make_docs(40, tokens=1, passages=1) if one else make_docs(40)
    queries: list = make_queries(docs, 3, tokens=1 if one else 5)
    inputs = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 4)}}
    if index.kind == "bm25":
        texts = {f"d{i}": f"word{i % 7} word{i % 5}" for i in range(40)}
        inputs, queries = {"docs": {"en": docs_artifact(tmp_path / "d", texts, "en", 4)}}, ["word3", "word1 word6"]
    here = build(tmp_path / "i@0", index, inputs, 20)
    there = build(Place.of(s3_root) / f"i-{index.kind}@0", index, inputs, 20)  # type: ignore[arg-type]
    assert find(there, queries, "en", k=5) == find(here, queries, "en", k=5)
    assert len(find(there, queries, "en", k=5)[0]) == 5


def test_a_part_without_good_rows(tmp_path: Path) -> None:
    place = build(tmp_path / "i@0", Plaid(), {"vectors": {"en": vectors_artifact(tmp_path / "v", make_docs(5))}})
    out = RANKINGS.conform(step(place, "en", 5)(VECTORS.of([{"id": "x", "reject": "no text"}])))
    assert out["doc_ids"].to_pylist() == [None]
    assert len(step(place, "en", 5)(VECTORS.of([]))) == 0


def test_searching_texts_needs_a_lexical_index(tmp_path: Path) -> None:
    place = build(tmp_path / "i@0", Bm25(), {"docs": {"en": docs_artifact(tmp_path / "d", {"a": "red fox"}, "en")}})
    with pytest.raises(ValueError, match="takes texts"):
        step(place, "en", 5)(VECTORS.of(query_rows([np.ones((1, 4))])))


def test_groups_of_shards_hold_consecutive_ones_up_to_a_size(tmp_path: Path) -> None:
    sizes = {"de": [5, 5, 5], "en": [4, 4, 4, 20, 1]}
    shards = [
        {"name": f"{lang}-{i:05d}", "lang": lang, "bytes": size * 10**9}
        for lang, of in sizes.items()
        for i, size in enumerate(of)
    ]
    (tmp_path / "index.json").write_text(json.dumps({"shards": shards}))
    found = plan_groups(Place.of(tmp_path), 10)
    assert {lang: [len(names) for names in groups.values()] for lang, groups in found.items()} == {
        "de": [2, 1],
        "en": [2, 1, 1, 1],
    }
    assert [name for groups in found.values() for names in groups.values() for name in names] == [
        shard["name"] for shard in shards
    ]
    assert list(found["en"]) == ["en-00000", "en-00002", "en-00003", "en-00004"]


@pytest.mark.parametrize("index", [Exact(), Plaid(centroids=32), Faiss(), Bm25()], ids=lambda index: index.kind)
def test_rankings_of_groups_merge_to_those_of_one(tmp_path: Path, index: Index) -> None:
    """Group by group, part by part, as where the index is too large for one worker; PLAID at its full depth."""
    inputs = two_languages(tmp_path, index)
    place = build(tmp_path / "i@0", index, inputs, 10)
    rows = query_table(tmp_path / "q@0", index)
    artifact, options = directory_artifact(place.path), SearchOptions(k=9, probes=100)
    one = search_in_steps(tmp_path / "one@0", artifact, rows, ShardSearchConfig(options=options), no_fan_out)
    assert one.manifest.facts == {"groups": {}}
    assert not (one.place / "found").exists()
    many = search_in_steps(tmp_path / "many@0", artifact, rows, ShardSearchConfig(options=options, group_gb=1e-9))
    assert {lang: len(groups) for lang, groups in many.manifest.facts["groups"].items()} == {"de": 2, "en": 4}
    for lang in ("de", "en"):
        config = SearchConfig(lang=lang, options=options)
        direct, merged, alone = (
            Search(config, {"index": artifact} | found) for found in ({"found": one}, {"found": many}, {})
        )
        for part in rows.parts:
            expected = RANKINGS.conform(alone(read_part(part)))
            assert merged(read_part(part)).equals(expected)
            assert direct(read_part(part)).equals(expected)
    assert expected["reject"].to_pylist() == [None, None, "no text"]


def test_what_was_found_before_a_kill_is_not_searched_again(tmp_path: Path) -> None:
    index = Exact()
    artifact = directory_artifact(build(tmp_path / "i@0", index, two_languages(tmp_path, index), 10).path)
    rows, config = query_table(tmp_path / "q@0", index), ShardSearchConfig(group_gb=1e-9)
    out = search_in_steps(tmp_path / "found@0", artifact, rows, config).place
    files = sorted((out / "found" / "en-00001").path.iterdir())
    content = {file: file.read_bytes() for file in files}
    files[0].write_bytes(b"kept as it is")
    files[1].unlink()
    work = SearchGroup(config, artifact.place, {"en-00001": ["en-00001"]}, rows.parts, out)
    work(("en-00001", 0, 2))
    assert files[0].read_bytes() == b"kept as it is"
    assert files[1].read_bytes() == content[files[1]]


def test_found_rankings_of_another_table_are_refused(tmp_path: Path) -> None:
    index = Exact()
    artifact = directory_artifact(build(tmp_path / "i@0", index, two_languages(tmp_path, index), 10).path)
    rows = query_table(tmp_path / "q@0", index)
    found = search_in_steps(tmp_path / "found@0", artifact, rows, ShardSearchConfig(group_gb=1e-9))
    work = Search(SearchConfig(lang="en"), {"index": artifact, "found": found})
    with pytest.raises(StorageError, match="no file"):
        work(VECTORS.of(query_rows([np.ones((1, 16))])))


def two_languages(path: Path, index: Index) -> dict[str, Any]:
    """The inputs of an index: four parts of English, two of German."""
    if index.kind == "bm25":
        texts = {f"d{i}": f"word{i % 7} word{i % 5}" for i in range(40)}
        german = {name: text for name, text in texts.items() if int(name[1:]) < 20}
        return {
            "docs": {
                "en": docs_artifact(path / "en", texts, "en", 4),
                "de": docs_artifact(path / "de", german, "de", 2),
            }
        }
    docs = make_docs(60, tokens=1 if index.kind == "faiss" else 6)
    return {
        "vectors": {
            "en": vectors_artifact(path / "en", docs[:40], 4),
            "de": vectors_artifact(path / "de", docs[40:], 2),
        }
    }


def query_table(path: Path, index: Index) -> Artifact:
    """Two parts of queries, the last of which is rejected."""
    if index.kind == "bm25":
        texts = ["word3", "word1 word6", "absent", "word2"]
        rows = [{"query_id": f"q{i}", "lang": "en", "text": text} for i, text in enumerate(texts)]
        return table_artifact(path, QUERIES, rows[:2], [*rows[2:], {"query_id": "broken", "reject": "no text"}])
    rows = query_rows(make_queries(make_docs(60), 4, tokens=1 if index.kind == "faiss" else 5))
    return table_artifact(path, VECTORS, rows[:2], [*rows[2:], {"id": "broken", "reject": "no text"}])


def search_in_steps(
    path: Path, index: Artifact, rows: Artifact, config: ShardSearchConfig, fan_out: Any = local_fan_out
) -> Artifact:
    facts = search_shards(config, {"rows": rows, "index": index}, Place.of(path), fan_out)
    path.mkdir(exist_ok=True)
    return directory_artifact(path, facts)


def no_fan_out(*arguments: Any) -> list[dict[str, Any]]:
    raise AssertionError("an index of one group per language starts no workers")


def test_batch_search_runs_on_the_cluster(tmp_path: Path) -> None:
    """The steps as a plan wires them, on Ray: the shards' rankings are files, the merged ones a table."""
    root, index, options = Place.of(tmp_path), Bm25(), SearchOptions(k=5)
    indexing = Step("index", build_index, IndexConfig(index=index))
    queries = Step("queries", search_shards, ShardSearchConfig(), table=QUERIES)
    directory_artifact(build(tmp_path / indexing.id, index, two_languages(tmp_path / "in", index), 10).path)
    shutil.copytree(query_table(tmp_path / "in" / "q@0", index).place.path, tmp_path / queries.id)
    inputs = {"rows": queries, "index": indexing}
    found = Step("search-shards", search_shards, ShardSearchConfig(options=options, group_gb=1e-9), inputs)
    inputs = inputs | {"found": found}
    searches = {
        lang: Step(f"search-{lang}", Search, SearchConfig(lang=lang, options=options), inputs, RANKINGS, ("rows",))
        for lang in ("de", "en")
    }
    made = executor.run(list(searches.values()), root, Progress())
    for lang, rankings in zip(searches, made, strict=True):
        shards = open_shards(indexing.artifact(root).place, lang)
        texts = queries.artifact(root).read()["text"].to_pylist()
        hits = [list(zip(row["doc_ids"], row["scores"], strict=True)) for row in rankings.read().to_pylist()]
        assert hits == search(shards, texts, options)
        assert hits[0]
    assert found.artifact(root).manifest.facts["groups"].keys() == {"de", "en"}


def test_rankings_are_within_contract_for_every_chunking(tmp_path: Path) -> None:
    docs = make_docs(30)
    place = build(tmp_path / "i@0", Exact(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    rows = [VECTORS.of([row]) for row in query_rows(make_queries(docs, 4))]
    chunked = pa.concat_tables(rows)
    assert chunked["id"].num_chunks == 4
    work = step(place, "en", 3)
    assert work(chunked).to_pylist() == work(chunked.combine_chunks()).to_pylist()
