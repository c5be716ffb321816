"""The depth of a PLAID index that was chosen by trying: it has the wanted recall, and searches take it."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.storage import Place
from pipelines.index import plan_shards
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.indexes.maxsim import rank
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.depth import Depth, Level
from pipelines.indexes.plaid.tune import QUESTIONS, TOKENS, draw_passages, draw_questions, rank_exactly
from pipelines.plan import STUDENT, plan
from pipelines.recipe import load
from pipelines.search import open_shards
from tests.shards import build, find, make_docs, make_queries, oracle, recall, vectors_artifact


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list, dict]:
    """A directory, its documents, and the inputs of an index: vectors and questions."""
    path = tmp_path_factory.mktemp("tuned")
    docs = make_docs(1200, tokens=6, passages=2)
    asked = [(f"q{i}", [query.astype(np.float16)]) for i, query in enumerate(make_queries(docs, 40, seed=5))]
    vectors = {"en": vectors_artifact(path / "v", docs, 4)}
    return path, docs, {"vectors": vectors, "questions": vectors_artifact(path / "q", asked, 2)}


def read_levels(index: Place) -> list[dict]:
    return json.loads((index / "index.json").read())["levels"]["en"]


def test_the_tried_depth_finds_what_is_wanted_of_the_questions(collection: tuple) -> None:
    path, docs, inputs = collection
    queries = [q.astype(np.float16).astype(np.float32) for q in make_queries(docs, 40, seed=5)]
    exact = build(path / "exact", Exact(), inputs)
    work, recalls = [], []
    for wanted in (0.7, 0.85):
        index = build(path / f"i{wanted}", Plaid(bits=4, recall=wanted), inputs, 300)
        ten, hundred = read_levels(index)
        assert (ten["k"], hundred["k"]) == (10, 100)
        for level in (ten, hundred):
            found, truth = (find(place, queries, k=level["k"]) for place in (index, exact))
            kept = float(np.mean([recall(f, t) for f, t in zip(found, truth, strict=True)]))
            assert kept == pytest.approx(level["recall"], abs=1e-4)
            assert level["recall"] >= wanted
        work.append(ten["decoded"] + ten["candidates"] + ten["probes"])
        recalls.append(ten["recall"])
    assert work[0] < work[1]
    assert recalls[0] < recalls[1]


@pytest.mark.parametrize("probes", [2, 64])
def test_a_trace_finds_what_shallower_searches_find(collection: tuple, probes: int) -> None:
    path, docs, inputs = collection
    group = open_shards(build(path / f"traced-{probes}", Plaid(bits=4), inputs, 300), "en")
    queries = make_queries(docs, 10, seed=7)
    traces = list(group.trace(queries, Level(20, probes, 2400, 2400)))
    for candidates, decoded in ((2400, 2400), (2400, 100), (500, 100), (100, 100), (40, 30)):
        group.levels = (Level(20, probes, candidates, decoded),)
        found = group.search(queries, SearchOptions(k=20))
        assert [rank(group.docs, *trace.find(candidates, decoded), 20) for trace in traces] == found
        assert all(found)


def test_more_than_the_bits_allow_gives_nearly_what_they_allow(collection: tuple) -> None:
    path, _, inputs = collection
    for level in read_levels(build(path / "one", Plaid(bits=1, recall=1.0), inputs)):
        assert level["most"] < 1
        assert level["recall"] > level["most"] - 0.0051


def test_two_builds_choose_the_same(collection: tuple) -> None:
    path, _, inputs = collection
    one, other = (build(path / name, Plaid(recall=0.8), inputs) for name in ("one-build", "other-build"))
    assert read_levels(one) == read_levels(other)


def test_without_questions_passages_are_asked(collection: tuple) -> None:
    path, docs, inputs = collection
    vectors = {"vectors": inputs["vectors"]}
    index = build(path / "alone", Plaid(bits=4, recall=0.8), vectors)
    assert all(level["recall"] >= 0.8 for level in read_levels(index))
    drawn = draw_passages(plan_shards(vectors, "vectors", 300), seed=0)
    assert len(drawn) == QUESTIONS
    every = {token.tobytes() for _, passages in docs for passage in passages for token in passage}
    assert all(token.tobytes() in every for query in drawn for token in query.astype(np.float16))
    assert max(map(len, drawn)) <= TOKENS


def test_questions_of_zeros_are_not_asked(tmp_path: Path) -> None:
    asked = [("a", [np.zeros((3, 16), np.float16)]), ("b", [np.ones((2, 16), np.float16)])]
    parts = [place.uri for place in vectors_artifact(tmp_path / "q", asked).parts]
    (only,) = draw_questions(parts, seed=0)
    np.testing.assert_array_equal(only, np.ones((2, 16)))


def test_the_truth_is_brute_force_over_all_shards(collection: tuple) -> None:
    _, docs, inputs = collection
    queries = make_queries(docs, 3, seed=9)
    ranked = rank_exactly(plan_shards(inputs, "vectors", 300), queries, 20)
    for query, found in zip(queries, ranked, strict=True):
        truth = oracle(query, docs, 20)
        assert [name for name, _ in found] == [name for name, _ in truth]


def test_groups_and_shards_take_the_levels_and_the_user_overrides_them(collection: tuple) -> None:
    path, _, inputs = collection
    index = build(path / "opened", Plaid(bits=4, recall=0.8), inputs, 300)
    (ten, hundred) = [
        Level(*(level[n] for n in ("k", "probes", "candidates", "decoded"))) for level in read_levels(index)
    ]
    for group in (open_shards(index, "en"), open_shards(index, "en", ["en-00001"])):
        assert group.levels == [ten, hundred]

    def depth(**options: int) -> tuple[int, int, int]:
        chosen = Depth.of(SearchOptions(**options), 2000, 1000, 1.0, [ten, hundred])
        return chosen.probes, chosen.candidates, chosen.decoded

    assert depth(k=5) == depth(k=10) == (ten.probes, ten.candidates, ten.decoded)
    assert depth(k=11) == (hundred.probes, hundred.candidates, hundred.decoded)
    assert depth(k=10, probes=3, candidates=70, decoded=50) == (3, 70, 50)
    deep = depth(k=500)
    usual = Depth.of(SearchOptions(k=500), 2000, 1000, 1.0)
    assert deep >= (usual.probes, usual.candidates, usual.decoded)


def test_an_index_without_a_wanted_recall_has_the_usual_depth(collection: tuple) -> None:
    path, _, inputs = collection
    index = build(path / "usual", Plaid(), inputs)
    assert "levels" not in json.loads((index / "index.json").read())
    assert not open_shards(index, "en").levels


def test_a_recipe_measures_recall_by_the_questions_that_chose_its_student(tmp_path: Path) -> None:
    def index_of(*sets: str):
        return plan(load("atlas", [f"root={tmp_path}", *sets])).indexes["atlas", STUDENT]

    plain, tuned = index_of('index={kind="plaid"}'), index_of('index={kind="plaid", recall=0.97}')
    assert set(plain.inputs) == {"vectors"}
    questions = tuned.inputs["questions"]
    assert questions.inputs["rows"].config.split == "dev"
    assert plain.id != tuned.id
