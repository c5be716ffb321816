"""The exact and faiss indexes, and what all of them promise: the ranking of the whole, however it was cut."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.component import fingerprint
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.index import plan_shards
from pipelines.indexes import open_group
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.files import Inversion, NpyAppender, Stack, load_npy
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards, search
from pipelines.tables import VECTORS
from tests.artifacts import table_artifact
from tests.shards import (
    build,
    docs_artifact,
    find,
    make_docs,
    make_queries,
    oracle,
    recall,
    unit,
    vector_rows,
    vectors_artifact,
)

# ---- all kinds


@pytest.mark.parametrize(
    "index", [Exact(), Faiss(), Faiss(structure="ivf", cells=5), Plaid(bits=4, centroids=32)], ids=lambda i: f"{i.kind}"
)
def test_shards_change_no_score(index: object, tmp_path: Path) -> None:
    dense = index.kind == "faiss"
    docs = make_docs(90, tokens=1 if dense else 12)
    queries = make_queries(docs, 12, tokens=1 if dense else 5)
    rankings = []
    for parts, rows in ((1, 10**6), (9, 20), (7, 1)):
        vectors = vectors_artifact(tmp_path / f"v{parts}", docs, parts)
        place = build(tmp_path / f"i{parts}", index, {"vectors": {"en": vectors}}, rows)
        if index.kind != "exact" and parts > 1:  # the same codec: what the parts' sizes changed is the sample
            first = tmp_path / "i1" / "codec"
            if first.exists():
                build_with_codec(tmp_path / f"c{parts}", place, first, vectors, index, rows)
                place = Place.of(tmp_path / f"c{parts}")
        assert len((place / "shards").list()) == {1: 1, 9: 5, 7: 7}[parts]
        rankings.append(search(open_shards(place, "en"), queries, SearchOptions(k=20, probes=10**6, candidates=10**6)))
    for other in rankings[1:]:
        for whole, cut in zip(rankings[0], other, strict=True):
            assert [n for n, _ in whole] == [n for n, _ in cut]
            np.testing.assert_allclose([s for _, s in whole], [s for _, s in cut], rtol=1e-6)


def build_with_codec(out: Path, index_place: Place, codec: Path, vectors: object, index: object, rows: int) -> None:
    """Build the shards again with the codec of another index."""
    from pipelines.index import BuildShard

    (Place.of(out) / "codec").put(codec)
    plans = plan_shards({"vectors": {"en": vectors}}, "vectors", rows)
    work = BuildShard(index, plans, Place.of(out))
    (Place.of(out) / "index.json").write(json.dumps({"shards": [work(u) for u in range(len(plans))]}).encode())


@pytest.mark.parametrize("index", [Exact(), Plaid(), Faiss(), Faiss(structure="ivf"), Faiss(structure="hnsw")])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_few_documents(index: object, count: int, tmp_path: Path) -> None:
    tokens = 1 if index.kind == "faiss" else 6
    docs = make_docs(count, tokens=tokens)
    place = build(tmp_path / "i", index, {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    query = make_queries(docs, 1, tokens=1)[0]
    (found,) = find(place, [query], k=5, probes=1000)
    assert {n for n, _ in found} == {n for n, _ in oracle(query, docs, 5)}
    assert find(place, [query[:0], query], k=5, probes=1000) == [[], found]


@pytest.mark.parametrize("structure", ["flat", "ivf"])
def test_faiss_shards_rank_as_one_at_any_depth(structure: str, tmp_path: Path) -> None:
    docs = make_docs(300, tokens=1)
    index = Faiss(structure=structure, cells=20)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 15)}}
    whole, cut = (build(tmp_path / f"{rows}", index, vectors, rows) for rows in (10**6, 20))
    assert len((cut / "shards").list()) == 15
    queries = make_queries(docs, 10, tokens=1)
    for options in ({"k": 1}, {"k": 30, "probes": 3}, {"k": 500, "probes": 5}):
        assert_same_rankings(find(cut, queries, **options), find(whole, queries, **options))


def assert_same_rankings(found: list, truth: list) -> None:
    for one, other in zip(found, truth, strict=True):
        assert_same_ranking(one, other)


def test_shards_of_two_languages_are_not_one_group(tmp_path: Path) -> None:
    vectors = {lang: vectors_artifact(tmp_path / lang, make_docs(3)) for lang in ("de", "en")}
    shards = (build(tmp_path / "i", Exact(), {"vectors": vectors}) / "shards").path
    with pytest.raises(ValueError, match=r"one language, got \['de', 'en'\]"):
        open_group(sorted(shards.iterdir()))


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), data=st.data())
def test_a_stack_is_the_concatenation(sizes: list[int], data: st.DataObject) -> None:
    arrays = [np.arange(10 * i, 10 * i + 2 * size).reshape(-1, 2) for i, size in enumerate(sizes)]
    whole, stack = np.concatenate(arrays), Stack(arrays)
    rows = np.array(sorted(data.draw(st.lists(st.integers(0, max(0, len(whole) - 1))) if len(whole) else st.just([]))))
    np.testing.assert_array_equal(stack.take(rows.astype(np.int64)), whole[rows.astype(np.int64)])
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    np.testing.assert_array_equal(stack.slice(start, end), whole[start:end])
    assert stack.shape == whole.shape


def test_a_shard_tells_what_it_is(tmp_path: Path) -> None:
    docs = make_docs(10)
    place = build(tmp_path / "i", Exact(), {"vectors": {"de": vectors_artifact(tmp_path / "v", docs, 2)}}, 5)
    listed = json.loads((place / "index.json").read())
    assert [(s["lang"], s["docs"]) for s in listed["shards"]] == [("de", 5), ("de", 5)]
    assert sum(s["passages"] for s in listed["shards"]) == sum(len(p) for _, p in docs)
    assert open_shards(place, "de", [listed["shards"][0]["name"]]).lang == "de"


def test_a_shard_of_rejected_rows_finds_nothing(tmp_path: Path) -> None:
    docs = make_docs(4, tokens=1)
    rows = [vector_rows(docs), [{"id": "bad", "reject": "no text"}]]
    vectors = table_artifact(tmp_path / "v", VECTORS, *rows)
    for index in (Exact(), Plaid(), Faiss()):
        place = build(tmp_path / index.kind, index, {"vectors": {"en": vectors}}, 1)
        (found,) = find(place, make_queries(docs, 1, tokens=1), k=10, probes=100)
        assert len(found) == 4


def test_nothing_to_index_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="nothing to index"):
        build(tmp_path / "i", Exact(), {"docs": {"en": docs_artifact(tmp_path / "d", {"a": "river"}, "en")}})
    vectors = table_artifact(tmp_path / "v", VECTORS, [{"id": "bad", "reject": "no text"}])
    with pytest.raises(StepError, match="no document to learn"):
        build(tmp_path / "j", Plaid(), {"vectors": {"en": vectors}})


def test_a_language_that_is_not_there(tmp_path: Path) -> None:
    place = build(tmp_path / "i", Exact(), {"vectors": {"de": vectors_artifact(tmp_path / "v", make_docs(3))}})
    with pytest.raises(StepError, match=r"holds \['de'\], not 'fr'"):
        open_shards(place, "fr")


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    docs = make_docs(5, tokens=1)
    vectors = vectors_artifact(tmp_path / "v", docs)
    for index in (Exact(), Plaid(), Faiss()):
        place = build(tmp_path / index.kind, index, {"vectors": {"en": vectors}})
        with pytest.raises(ValueError, match=r"\[tokens, 16\]"):
            find(place, [np.ones((1, 8), np.float32)])


def test_kinds_have_different_fingerprints() -> None:
    configs = [Exact(), Bm25(), Faiss(), Faiss(structure="hnsw"), Plaid(), Plaid(bits=4)]
    assert len({fingerprint(config) for config in configs}) == len(configs)


# ---- exact


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), dim=st.integers(1, 20), k=st.integers(1, 70), seed=st.integers(0, 10**6))
def test_exact_is_brute_force(
    count: int, dim: int, k: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("exact")
    docs = make_docs(count, dim=dim, seed=seed)
    place = build(path / "i", Exact(), {"vectors": {"en": vectors_artifact(path / "v", docs, 1 + seed % 3)}}, 30)
    queries = make_queries(docs, 3, tokens=1 + seed % 9, seed=seed)
    for query, found in zip(queries, find(place, queries, k=k), strict=True):
        assert_same_ranking(found, oracle(query, docs, k))


def assert_same_ranking(found: list[tuple[str, float]], truth: list[tuple[str, float]]) -> None:
    """Equal up to the rounding of float32: neighbours less than that apart may stand the other way round."""
    np.testing.assert_allclose([s for _, s in found], [s for _, s in truth], rtol=1e-6, atol=1e-6)
    firm = [i for i, (_, s) in enumerate(truth) if sum(abs(s - other) < 1e-5 for _, other in truth) == 1]
    assert [found[i][0] for i in firm] == [truth[i][0] for i in firm]


def test_equal_documents_tie_and_stand_by_id(tmp_path: Path) -> None:
    docs = make_docs(40)
    copies = [(f"copy{i:02d}", docs[3][1]) for i in (9, 4, 7, 1)]
    mixed = [copies[0], *docs[:20], copies[1], *docs[20:], copies[2], copies[3]]
    place = build(tmp_path / "i", Exact(), {"vectors": {"en": vectors_artifact(tmp_path / "v", mixed, 4)}}, 11)
    query = docs[3][1][0].astype(np.float32)
    for k in (3, 5, 20):
        (found,) = find(place, [query], k=k)
        assert [n for n, _ in found] == [n for n, _ in oracle(query, mixed, k)]
    assert [n for n, _ in found][:5] == ["copy01", "copy04", "copy07", "copy09", docs[3][0]]


def test_blocks_and_groups_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, k = make_docs(50), 15
    place = build(tmp_path / "i", Exact(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    queries = make_queries(docs, 9)
    whole = find(place, queries, k=k)
    monkeypatch.setattr("pipelines.indexes.exact.TOKENS", 7)
    monkeypatch.setattr("pipelines.indexes.exact.QUERY_TOKENS", 6)
    assert find(place, queries, k=k) == whole


# ---- faiss


def test_faiss_flat_is_exact(tmp_path: Path) -> None:
    docs = make_docs(200, tokens=1, passages=6)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 3)}}
    exact, flat = build(tmp_path / "e", Exact(), vectors), build(tmp_path / "f", Faiss(), vectors, 70)
    queries = make_queries(docs, 20, tokens=1)
    for k in (1, 10, 150, 500):
        for one, other in zip(find(exact, queries, k=k), find(flat, queries, k=k), strict=True):
            assert_same_ranking(other, one)


def test_faiss_flat_keeps_ties_by_id(tmp_path: Path) -> None:
    same = unit(np.ones((1, 8))).astype(np.float16)
    docs = [(f"x{i:03d}", [same] * (1 + i % 3)) for i in reversed(range(300))]
    place = build(tmp_path / "f", Faiss(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    (found,) = find(place, [same.astype(np.float32)], k=7)
    assert [n for n, _ in found] == [f"x{i:03d}" for i in range(7)]


@pytest.mark.parametrize("index", [Faiss(structure="ivf"), Faiss(structure="hnsw")], ids=["ivf", "hnsw"])
def test_approximate_faiss_finds_nearly_all(index: Faiss, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 8)) @ rng.normal(size=(8, 32)) + 0.1 * rng.normal(size=(3000, 32))
    docs = [(f"d{i:04d}", [unit(p[None]).astype(np.float16)]) for i, p in enumerate(points)]  # real vectors lie so
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 4)}}
    exact, place = build(tmp_path / "e", Exact(), vectors), build(tmp_path / "f", index, vectors, 1600)
    queries = make_queries(docs, 40, tokens=1)
    for k in (10, 100):
        found = find(place, queries, k=k)
        assert np.mean([recall(*pair) for pair in zip(found, find(exact, queries, k=k), strict=True)]) >= 0.95
        assert all(len(ranking) == k for ranking in found)


def test_more_probes_find_more(tmp_path: Path) -> None:
    docs = make_docs(1000, dim=32, tokens=1, passages=1)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}}
    place = build(tmp_path / "f", Faiss(structure="ivf", cells=64), vectors)
    queries = make_queries(docs, 30, tokens=1)
    truth = find(build(tmp_path / "e", Exact(), vectors), queries, k=50)
    recalls = []
    for probes in (1, 8, 64):
        found = find(place, queries, k=50, probes=probes)
        recalls.append(np.mean([recall(*pair) for pair in zip(found, truth, strict=True)]))
    assert recalls[0] < recalls[1] < recalls[2] == 1


def test_faiss_refuses_many_vectors(tmp_path: Path) -> None:
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", make_docs(5))}}
    with pytest.raises(StepError, match="one vector per passage"):
        build(tmp_path / "f", Faiss(), vectors)


# ---- files


@settings(max_examples=50, deadline=None)
@given(blocks=st.lists(st.lists(st.integers(0, 9), max_size=20), max_size=6))
def test_inversion_groups_by_key_in_order(blocks: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lists") / "values.npy"
    keys = [k for block in blocks for k in block]
    lists = Inversion(np.bincount(keys, minlength=10) if keys else np.zeros(10, np.int64), {path: "<i8"})
    position = 0
    for block in blocks:
        lists.add(np.array(block, np.int64), np.arange(position, position + len(block)))
        position += len(block)
    lists.close()
    expected = [i for key in range(10) for i, k in enumerate(keys) if k == key]
    assert load_npy(path).tolist() == expected


def test_appended_arrays_are_ordinary_npy_files(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(1003, 5)).astype(np.float16)
    with NpyAppender(tmp_path / "a.npy", "<f2") as file:
        for start in range(0, len(rows), 17):
            file.append(rows[start : start + 17])
        with pytest.raises(ValueError, match="expected rows of shape"):
            file.append(rows[:, :3])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)
    with NpyAppender(tmp_path / "b.npy", "<i4"):
        pass
    assert load_npy(tmp_path / "b.npy").shape == (0,)
