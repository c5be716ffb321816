"""The searcher: any system in one process, shards opened once, and the examples of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines import searcher as searching
from pipelines.encoder import EncoderConfig, open_encoder
from pipelines.indexes.base import SearchOptions
from pipelines.search import open_shards, pool, search
from pipelines.searcher import ExamplesConfig, Searcher, find_examples
from serving.app import Served
from tests.serving_apps import make_lexical_system, make_words_system
from tests.shards import local_fan_out

QUERIES = ("the currency of Russia", "столица Ирана")


@pytest.fixture(scope="module")
def lexical_system(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_lexical_system(tmp_path_factory.mktemp("lexical"))


@pytest.fixture(scope="module")
def word_system(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_words_system(tmp_path_factory.mktemp("words"))


def test_a_lexical_index_needs_no_encoder(word_system: Served) -> None:
    searcher = Searcher(word_system.index, word_system.docs)
    hits = searcher.search(QUERIES[0], ["en", "fa"], SearchOptions(k=4))
    found = {
        lang: search(open_shards(word_system.index.place, lang), [QUERIES[0]], SearchOptions(k=4))[0]
        for lang in ("en", "fa")
    }
    assert [(f"{hit['lang']}:{hit['doc_id']}", hit["score"]) for hit in hits] == pool(found, 4)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    assert hits[0]["text"] == "The ruble is the currency of Russia."


def test_a_student_encodes_the_query(lexical_system: Served) -> None:
    assert lexical_system.student
    encoder = open_encoder(EncoderConfig(), {"student": lexical_system.student})
    searcher = Searcher(lexical_system.index, lexical_system.docs, encoder)
    (hit,) = searcher.search(QUERIES[0], list(lexical_system.docs), SearchOptions(k=1))
    assert hit["text"] == "The ruble is the currency of Russia."


def test_shards_are_opened_once(word_system: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def count(place: Place, lang: str) -> Any:
        opened.append(lang)
        return open_shards(place, lang)

    monkeypatch.setattr(searching, "open_shards", count)
    searcher = Searcher(word_system.index, word_system.docs)
    for query in QUERIES:
        searcher.search(query, ["en", "ru"], SearchOptions(k=2))
    assert opened == ["en", "ru"]


def test_spread_results_have_each_language_once(word_system: Served) -> None:
    searcher = Searcher(word_system.index, word_system.docs)
    hits = searcher.search_spread("Russia ایران Иран", list(word_system.docs), SearchOptions(k=3))
    assert sorted(hit["lang"] for hit in hits) == ["en", "fa", "ru"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


@pytest.mark.parametrize("name", ["lexical_system", "word_system"])
def test_examples_are_searched_as_the_system_does(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    system: Served = request.getfixturevalue(name)
    config = ExamplesConfig(queries=QUERIES, options=SearchOptions(k=2))
    inputs: dict[str, Any] = {"index": system.index, "docs": system.docs}
    inputs |= {"student": system.student} if system.student else {}
    assert find_examples(config, inputs, Place.of(tmp_path), local_fan_out) == {"queries": 2}
    found = json.loads((tmp_path / "examples.json").read_text())
    encoder = open_encoder(EncoderConfig(), {"student": system.student}) if system.student else None
    searcher = Searcher(system.index, system.docs, encoder)
    assert found == {query: searcher.search_spread(query, list(system.docs), config.options) for query in QUERIES}
    assert len(found[QUERIES[0]]) == 2


def test_an_encoder_that_does_not_fit_the_index_is_refused(word_system: Served, lexical_system: Served) -> None:
    with pytest.raises(RecipeError, match="kind plaid takes the encoder"):
        Searcher(lexical_system.index, lexical_system.docs)
    assert lexical_system.student
    with pytest.raises(RecipeError, match="kind bm25 takes texts"):
        Searcher(
            word_system.index, word_system.docs, open_encoder(EncoderConfig(), {"student": lexical_system.student})
        )


def test_an_artifact_that_is_not_there_is_named(word_system: Served, tmp_path: Path) -> None:
    from cluster.artifact import Artifact

    with pytest.raises(StepError, match="train@0 is not complete"):
        open_encoder(EncoderConfig(), {"student": Artifact(Place.of(tmp_path / "train@0"))})
    with pytest.raises(StepError, match="docs-fr@0 is not complete"):
        Searcher(word_system.index, {"fr": Artifact(Place.of(tmp_path / "docs-fr@0"))})
