"""Hybrid searches and a second scoring over HTTP, in this process: a student of words, BM25, a small cross-encoder."""

from dataclasses import replace

import numpy as np
import pytest

import checkpoints
import serving_apps
from pipelines.fusion import Fusion, Hybrid, fuse
from pipelines.recipe.tables import Rerank
from pipelines.scorers import CrossEncoderScorer
from pipelines.text import join_title
from serving.backend import UnavailableError
from serving_here import ServerHere

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTION = "What is the currency of Russia and of Iran?"
FIELDS = {"part": "number"}  # of the documents' metadata


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A small one with random weights, whose words are those of the documents."""
    folder = tmp_path_factory.mktemp("cross")
    texts = [text for parts in serving_apps.TEXTS.values() for part in parts for pair in part for text in pair]
    words = sorted({word for text in texts for word in text.lower().replace(".", " ").replace(",", " ").split()})
    checkpoints.cross_encoder(folder, words, layers=1)
    return CrossEncoderScorer(model=str(folder), max_length=64)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return ServerHere(serving_apps.make_words_system(tmp_path_factory.mktemp("words"), FIELDS))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return serving_apps.make_lexical_system(tmp_path_factory.mktemp("lexical"), FIELDS)


@pytest.fixture(scope="module")
def both(student, words):
    """A student beside BM25; searches are fused on request."""
    return ServerHere(replace(student, hybrid=Hybrid()), words=words)


@pytest.fixture(scope="module")
def judged(student, words, cross_encoder):
    """The same, where four results are scored again unless a search says otherwise."""
    served = replace(student, hybrid=Hybrid(), rerank=Rerank(scorer=cross_encoder, candidates=4))
    return ServerHere(served, words=words)


def ask(server, **body):
    answer = server.post("/search", {"query": QUESTION, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refuse(server, status=422, **body):
    answer = server.post("/search", {"query": QUESTION, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def list_hits(answer):
    return [(f"{result['lang']}:{result['doc_id']}", result["score"]) for result in answer["results"]]


def in_any_order_of_ties(hits):
    """Hits with the names of equal scores as sets: languages take turns there."""
    return {round(score, 9): {name for name, of in hits if abs(of - score) < 1e-9} for _, score in hits}


@pytest.mark.parametrize("how", [True, {"kind": "scores"}, {"kind": "ranks", "k": 5, "weights": [1, 3]}])
def test_a_hybrid_answer_is_the_fusion_of_both_answers(both, words, how):
    answer = ask(both, hybrid=how, k=100)
    alone = [list_hits(ask(both, k=100)), list_hits(ask(words, k=100))]
    expected = fuse(alone, Fusion() if how is True else Fusion(**how))
    assert in_any_order_of_ties(list_hits(answer)) == in_any_order_of_ties(expected)
    assert answer["scored_by"] == "fusion"
    assert {"encode", "words", "fusion"} & set(answer["took_ms"]) >= {"words", "fusion"}
    places = [{name: rank for rank, (name, _) in enumerate(hits, 1)} for hits in alone]
    for result in answer["results"]:
        name = f"{result['lang']}:{result['doc_id']}"
        found = {"lexical": places[0].get(name), "bm25": places[1].get(name)}
        assert result["ranks"] == {system: rank for system, rank in found.items() if rank}
        assert result["text"]


def test_what_one_index_alone_finds_is_in_the_answer(both, words):
    """BM25 finds no document without a word of the question; the student ranks all."""
    by_words = {name for name, _ in list_hits(ask(words, k=100))}
    by_student = {name for name, _ in list_hits(ask(both, k=100))}
    fused = {name for name, _ in list_hits(ask(both, hybrid=True, k=100))}
    assert fused == by_words | by_student
    assert by_student - by_words


def test_pages_of_a_hybrid_answer_make_up_the_whole(both):
    whole = list_hits(ask(both, hybrid=True, k=8))
    assert [hit for offset in (0, 3, 6) for hit in list_hits(ask(both, hybrid=True, k=3, offset=offset))][:8] == whole
    assert [result["rank"] for result in ask(both, hybrid=True, k=3, offset=3)["results"]] == [4, 5, 6]


def test_hybrid_answers_are_arranged_as_others(both):
    collapsed = ask(both, hybrid=True, collapse=True, k=10)["results"]
    assert len({result["doc_id"] for result in collapsed}) == len(collapsed)
    assert any(result["translations"] for result in collapsed)
    for result in collapsed:
        scores = [result["score"], *(other["score"] for other in result["translations"])]
        assert scores == sorted(scores, reverse=True)
    few = ask(both, hybrid=True, per_language=1, k=10)["results"]
    assert len({result["lang"] for result in few}) == len(few) == 4
    assert {result["lang"] for result in ask(both, hybrid=True, languages=["fa", "zh"])["results"]} <= {"fa", "zh"}
    all_of_them = list_hits(ask(both, hybrid=True, k=100))
    limit = all_of_them[3][1]
    assert list_hits(ask(both, hybrid=True, k=100, min_score=limit)) == [hit for hit in all_of_them if hit[1] >= limit]


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"ids": ["d1", "d3", "none"]}, {"en:d1", "en:d3", "fa:d1", "ru:d1", "zh:d1"}),
        ({"filter": {"field": "part", "op": "==", "value": 1}}, {"en:d3", "en:d4", "en:d5"}),
        ({"ids": ["d1", "d3"], "filter": {"field": "part", "op": ">=", "value": 1}}, {"en:d3"}),
        ({"ids": []}, set()),
    ],
)
def test_both_systems_and_the_second_scoring_are_limited_to_some_documents(both, judged, words, limits, allowed):
    answer = ask(both, hybrid=True, k=100, **limits)
    alone = [list_hits(ask(server, k=100, **limits)) for server in (both, words)]
    assert in_any_order_of_ties(list_hits(answer)) == in_any_order_of_ties(fuse(alone, Fusion()))
    assert {name for name, _ in list_hits(answer)} == allowed
    again = ask(judged, hybrid=True, rerank=200, k=100, **limits)
    assert (again["scored_by"], {name for name, _ in list_hits(again)}) == ("rerank", allowed)
    assert refuse(both, hybrid=True, filter={"field": "year", "op": "==", "value": 1})["fields"][0]["field"] == "filter"


def test_explained_hybrid_answers_have_matches(both):
    first = ask(both, hybrid=True, explain=True, k=2)["results"][0]
    assert first["matches"]
    assert first["ranks"]


def test_a_batch_may_be_hybrid(both):
    answer = both.post("/search", {"queries": [QUESTION, "euro"], "hybrid": True, "k": 3}).json()
    assert list_hits(answer["answers"][0]) == list_hits(ask(both, hybrid=True, k=3))


def test_the_recipe_says_what_is_done_where_a_search_does_not(student, words, both):
    assert ask(both)["scored_by"] == "search"
    server = ServerHere(replace(student, hybrid=Hybrid(kind="scores", default=True)), words=words)
    assert list_hits(ask(server)) == list_hits(ask(both, hybrid={"kind": "scores"}))
    assert list_hits(ask(server, hybrid=False)) == list_hits(ask(both))
    assert server.send("GET", "/info").json()["hybrid"]["kind"] == "scores"


def test_a_hybrid_search_without_an_index_of_words_names_the_key(words):
    problem = refuse(words, hybrid=True)
    assert problem["fields"][0]["field"] == "hybrid"
    assert "tiny/bm25 has no index of words beside it ([serve] hybrid)" in problem["error"]
    assert ask(words, hybrid=False)["results"]


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"kind": "best"}, "hybrid"),
        ({"weights": [0, 0]}, "hybrid"),
        ({"weights": [1, 1, 1]}, "hybrid.weights"),
        ({"k": 0}, "hybrid"),
        ("yes", "hybrid"),
        (2, "hybrid"),
    ],
)
def test_a_fusion_that_cannot_be_done_is_refused(both, how, field):
    problem = refuse(both, hybrid=how)
    assert all(fault["field"].startswith(field) for fault in problem["fields"]), problem


def test_an_index_of_words_that_is_gone_is_named(student, words):
    """Unless the search allows a partial answer: then it is the student's alone, at half the coverage."""

    async def fail(request):
        raise UnavailableError(["shard-en-000"], [], 0.1)

    server = ServerHere(replace(student, hybrid=Hybrid()), words=words)
    server.backend.words = fail
    assert refuse(server, 503, hybrid=True)["missing"] == ["bm25/shard-en-000"]
    answer = ask(server, hybrid=True, allow_partial=True)
    assert (answer["coverage"], answer["missing"]) == (0.5, ["bm25/shard-en-000"])
    assert [name for name, _ in list_hits(answer)] == [name for name, _ in list_hits(ask(server))]


def test_results_that_are_scored_again_have_the_scores_of_the_scorer(judged, both, cross_encoder):
    answer = ask(judged, k=10)
    first = ask(both, k=4)["results"]
    assert answer["scored_by"] == "rerank"
    assert "rerank" in answer["took_ms"]
    texts = [join_title(result["title"], result["text"]) for result in first]
    pairs = np.array([[0, at] for at in range(4)])
    scores = cross_encoder.build(None).score([QUESTION], texts, pairs).tolist()
    expected = sorted(zip([f"{r['lang']}:{r['doc_id']}" for r in first], scores, strict=True), key=lambda hit: -hit[1])
    assert [name for name, _ in list_hits(answer)] == [name for name, _ in expected]
    assert [score for _, score in list_hits(answer)] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert [name for name, _ in expected] != [f"{r['lang']}:{r['doc_id']}" for r in first]  # it changes the order


def test_a_search_says_how_many_results_are_scored_again(judged, both):
    assert len(ask(judged, rerank=2, k=10)["results"]) == 2
    assert list_hits(ask(judged, rerank=0)) == list_hits(ask(both))
    fused = ask(judged, hybrid=True, rerank=3, k=10)
    assert {name for name, _ in list_hits(fused)} == {name for name, _ in list_hits(ask(both, hybrid=True, k=3))}
    assert all("ranks" in result for result in fused["results"])
    assert judged.send("GET", "/info").json()["rerank"]["candidates"] == 4


def test_a_second_scoring_that_is_not_served_is_refused(both, judged):
    assert "both" not in refuse(both, rerank=3)["error"]
    assert refuse(both, rerank=3)["fields"][0]["field"] == "rerank"
    assert "([serve] rerank)" in refuse(both, rerank=3)["error"]
    assert refuse(judged, rerank=201)["fields"][0]["expected"] == "an integer from 0 to 200; or null"
    assert ask(both, rerank=0)["results"]


def test_a_search_may_name_its_model(both):
    for name in ("tiny", "tiny/lexical"):
        assert list_hits(ask(both, model=name)) == list_hits(ask(both))
    problem = refuse(both, 404, model="other")
    assert problem["fields"][0]["expected"].startswith("one that is served: tiny, tiny/lexical")
    assert refuse(both, model=3)["fields"][0]["field"] == "model"
