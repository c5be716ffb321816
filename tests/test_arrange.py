"""The order of an answer, its quotas, translations and pages, compared with a naive arrangement and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.arrange import Hit, arrange, share_ties
from serving.messages import SearchRequest

RANKINGS = {
    "de": [("a", 3.0), ("b", 2.0), ("c", 2.0), ("d", 2.0)],
    "en": [("a", 3.0), ("c", 2.5), ("b", 2.0), ("x", 2.0)],
    "fa": [("y", 2.0)],
}


def make_request(**fields):
    return SearchRequest(**{"query": "q", "k": 100} | fields)


def name_page(rankings, **fields):
    return [f"{placed.best.lang}:{placed.best.doc_id}" for placed in arrange(rankings, make_request(**fields))]


def test_languages_of_equal_score_take_turns():
    names = name_page(RANKINGS)
    assert set(names[:2]) == {"de:a", "en:a"}
    assert names[2] == "en:c"
    assert set(names[3:6]) == {"de:b", "en:b", "fa:y"}
    assert set(names[6:8]) == {"de:c", "en:x"}
    assert names[8] == "de:d"


def test_the_query_decides_which_language_comes_first():
    tied = {lang: [("a", 1.0)] for lang in ("de", "en", "fa", "ru", "zh", "ar", "es")}
    firsts = [share_ties(tied, f"question {n}")[0].lang for n in range(700)]
    assert all(60 < firsts.count(lang) < 140 for lang in tied)  # 100 are expected, with a deviation of 9
    assert share_ties(tied, "q") == share_ties(dict(reversed(tied.items())), "q")


def test_a_quota_holds_for_each_language():
    assert sorted(name_page(RANKINGS, per_language=1)) == ["de:a", "en:a", "fa:y"]
    assert len(name_page(RANKINGS, per_language=2)) == 5


def test_a_score_below_the_least_is_left_out():
    assert sorted(name_page(RANKINGS, min_score=2.5)) == ["de:a", "en:a", "en:c"]
    assert name_page(RANKINGS, min_score=3.1) == []


def test_a_document_is_found_once_with_the_languages_it_was_found_in():
    placed = arrange(RANKINGS, make_request(collapse=True))
    assert [one.best.doc_id for one in placed][:2] == ["a", "c"]
    assert {one.best.doc_id for one in placed} == {"a", "b", "c", "d", "x", "y"}
    (c,) = (one for one in placed if one.best.doc_id == "c")
    assert (c.best, c.others) == (Hit("en", "c", 2.5), (Hit("de", "c", 2.0),))


scores = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])
languages = st.sampled_from(["de", "en", "fa", "zh"])
rankings = st.dictionaries(languages, st.dictionaries(st.sampled_from("abcdefgh"), scores)).map(
    lambda found: {lang: sorted(docs.items(), key=lambda hit: (-hit[1], hit[0])) for lang, docs in found.items()}
)
requests = st.fixed_dictionaries(
    {
        "k": st.integers(1, 6),
        "offset": st.integers(0, 5),
        "min_score": st.none() | scores,
        "per_language": st.none() | st.integers(1, 4),
        "collapse": st.booleans(),
        "query": st.text(),
    }
)


@given(rankings, requests)
def test_the_first_of_each_language_are_deep_enough(found, fields):
    """What ``arrange`` promises to whoever searches: offset + k documents of each language give the same page."""
    request = make_request(**fields)
    depth = request.offset + request.k
    cut = arrange({lang: ranking[:depth] for lang, ranking in found.items()}, request)
    assert [one.best for one in cut] == [one.best for one in arrange(found, request)]


@given(rankings, requests)
def test_pages_follow_one_another(found, fields):
    request = make_request(**fields)
    whole = arrange(found, request.model_copy(update={"k": 100, "offset": 0}))
    assert arrange(found, request) == whole[request.offset : request.offset + request.k]
    assert [one.best.score for one in whole] == sorted((one.best.score for one in whole), reverse=True)
    if request.collapse:
        assert len({one.best.doc_id for one in whole}) == len(whole)


@pytest.mark.parametrize("collapse", [False, True])
def test_no_ranking_gives_no_result(collapse):
    assert arrange({"en": [], "fa": []}, make_request(collapse=collapse)) == []
