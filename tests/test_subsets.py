"""Searches limited to some documents: the ranking of those alone, for every kind of index."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.indexes import Index
from pipelines.indexes.base import SearchOptions, ShardGroup
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards, search
from tests.shards import Doc, build, docs_artifact, make_docs, make_queries, oracle, recall, vectors_artifact

SHARES = (0.001, 0.01, 0.1, 0.5, 0.9)
SOME = {
    "exact": Exact(),
    "plaid": Plaid(bits=4),
    "flat": Faiss(),
    "ivf": Faiss(structure="ivf", cells=8),
    "hnsw": Faiss(structure="hnsw"),
}


def draw(docs: list[Doc], share: float) -> list[Doc]:
    """At least one document."""
    rng = np.random.default_rng(3)
    chosen = np.sort(rng.permutation(len(docs))[: max(1, round(share * len(docs)))])
    return [docs[i] for i in chosen.tolist()]


def number(group: ShardGroup, docs: list[Doc]) -> np.ndarray:
    names = {name for name, _ in docs}
    return np.array([i for i, name in enumerate(group.docs.names(np.arange(len(group.docs)))) if name in names])


@pytest.mark.parametrize("kind", SOME)
def test_a_subset_is_ranked_as_if_it_were_alone(kind: str, tmp_path: Path) -> None:
    is_dense = isinstance(SOME[kind], Faiss)
    docs = make_docs(400, tokens=1 if is_dense else 12)
    queries = make_queries(docs, 8, tokens=1 if is_dense else 5)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 8)}}
    group = open_shards(build(tmp_path / "i", SOME[kind], vectors, 60), "en")
    for share in SHARES:
        some = draw(docs, share)
        found = search(group, queries, SearchOptions(k=10), number(group, some))
        for ranking, query in zip(found, queries, strict=True):
            truth = oracle(query, some, 10)
            if kind == "plaid":
                assert recall(ranking, truth) >= 0.8
                assert {name for name, _ in ranking} <= {name for name, _ in some}
                assert len(ranking) == len(truth)
            else:
                assert [name for name, _ in ranking] == [name for name, _ in truth]
                np.testing.assert_allclose([s for _, s in ranking], [s for _, s in truth], rtol=1e-5)


def test_words_of_a_subset(tmp_path: Path) -> None:
    """Scores are those of the whole collection: a subset changes no statistics."""
    texts = {f"d{i}": f"word{i % 7} word{i % 5} word{i % 3}" for i in range(100)}
    place = build(tmp_path / "i", Bm25(), {"docs": {"en": docs_artifact(tmp_path / "d", texts, "en", 4)}}, 30)
    group = open_shards(place, "en")
    (everything,) = search(group, ["word3 word4"], SearchOptions(k=100))
    for share in SHARES:
        some = {name for name, _ in draw([(name, []) for name in texts], share)}
        (found,) = search(group, ["word3 word4"], SearchOptions(k=10), number(group, [(name, []) for name in some]))
        assert found == [hit for hit in everything if hit[0] in some][:10]


@pytest.mark.parametrize("index", [*SOME.values(), Bm25()], ids=[*SOME, "bm25"])
def test_a_subset_of_nothing_finds_nothing(index: Index, tmp_path: Path) -> None:
    is_dense = isinstance(index, Faiss)
    docs = make_docs(20, tokens=1 if is_dense else 12)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}}
    texts = {"docs": {"en": docs_artifact(tmp_path / "d", {"a": "red fox"}, "en")}}
    group = open_shards(build(tmp_path / "i", index, texts if isinstance(index, Bm25) else vectors), "en")
    queries = ["fox"] if isinstance(index, Bm25) else make_queries(docs, 2, tokens=1)
    assert search(group, queries, SearchOptions(k=3), np.zeros(0, np.int64)) == [[] for _ in queries]


def test_plaid_finds_the_best_of_a_large_subset(tmp_path: Path) -> None:
    """Of 6,000 documents: subsets above and below what is scored without probing cells."""
    docs = make_docs(6000, tokens=8, passages=1)
    queries = make_queries(docs, 30)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 8)}}
    exact = open_shards(build(tmp_path / "e", Exact(), vectors), "en")
    group = open_shards(build(tmp_path / "i", Plaid(bits=4), vectors, 2000), "en")

    def measure(within: np.ndarray | None) -> float:
        found, truth = (search(of, queries, SearchOptions(k=10), within) for of in (group, exact))
        return float(np.mean([recall(one, other) for one, other in zip(found, truth, strict=True)]))

    whole = measure(None)
    kept = {share: measure(number(exact, draw(docs, share))) for share in SHARES}
    assert min(kept.values()) >= whole - 0.01, (whole, kept)
