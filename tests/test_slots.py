"""How slots change, and which of several models a request wants. Without Ray."""

import json

import pytest

import serving_apps
from serving.catalog import Serving, plan_change
from serving_here import ServerHere, SeveralHere
from swap_driver import make_system

A = Serving("a", "A", "student")
A_WORDS = Serving("aw", "A", "bm25")
B = Serving("b", "B", "student")


def newer(one):
    return one._replace(name=f"{one.name}2")


@pytest.mark.parametrize(
    ("before", "new", "during", "after", "ended"),
    [
        ([], [A, B], ["a", "b"], ["a", "b"], []),
        ([A], [newer(A)], ["a2 a"], ["a2"], ["a"]),
        ([A, B], [newer(A)], ["a2 a", "b"], ["a2", "b"], ["a"]),
        ([A, B], [newer(B)], ["a", "b2 b"], ["a", "b2"], ["b"]),
        ([A], [B], ["b a"], ["b"], ["a"]),  # none of the recipes is served: all gives way
        ([A, A_WORDS], [B], ["b a", "aw"], ["b"], ["a", "aw"]),
        ([A], [A_WORDS], ["aw a"], ["aw"], ["a"]),  # another system of the same recipe
        ([B, A, A_WORDS], [newer(A), newer(A_WORDS)], ["b", "a2 a", "aw2 aw"], ["b", "a2", "aw2"], ["a", "aw"]),
        ([A, A_WORDS], [newer(A_WORDS), newer(A)], ["aw2 aw", "a2 a"], ["aw2", "a2"], ["a", "aw"]),
        ([A, A_WORDS, B], [newer(A)], ["a2 a", "b", "aw"], ["a2", "b"], ["a", "aw"]),
        ([A], [A, A_WORDS], ["a", "aw"], ["a", "aw"], []),  # what runs is kept, and another stands beside it
        ([A], [A], ["a"], ["a"], []),
        ([A, B], [newer(B), Serving("c", "C", "student")], ["a", "b2 b", "c"], ["a", "b2", "c"], ["b"]),
    ],
)
def test_what_has_the_same_recipe_gives_way_and_goes_on_until_then(before, new, during, after, ended):
    change = plan_change(before, new)
    assert [" ".join(names) for names in change.during] == during
    assert [" ".join(names) for names in change.after] == after
    assert change.ended == ended
    assert {name for names in change.during for name in names} >= {one.name for one in before}  # none ends too early


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two indexes of words: recipe tiny, and recipe other."""
    from dataclasses import replace

    root = tmp_path_factory.mktemp("two")
    other = replace(make_system(root / "other", 1, documents=6), recipe="other")
    return SeveralHere(ServerHere(serving_apps.make_words_system(root / "words")), ServerHere(other))


def search(two, **body):
    return two.send("POST", "/search", json={"query": "currency road", **body})


def test_a_model_is_named_in_the_body_or_in_the_address(two):
    titles = {name: search(two, model=name).json()["results"][0]["title"] for name in ("tiny", "other", "other/bm25-1")}
    assert titles["other"] == titles["other/bm25-1"] == "1"
    assert titles["tiny"] != "1"
    assert search(two).json()["results"] == search(two, model="tiny").json()["results"]
    in_address = two.send("POST", "/search", params={"model": "other"}, json={"query": "currency road"})
    assert in_address.json()["results"] == search(two, model="other").json()["results"]
    assert two.send("GET", "/info", params={"model": "other"}).json()["recipe"] == "other"
    assert two.send("GET", "/info").json()["recipe"] == "tiny"


@pytest.mark.parametrize("name", ["none", "", "OTHER", "tiny/none"])
def test_a_model_that_is_not_served_is_refused_with_those_that_are(two, name):
    for answer in (search(two, model=name), two.send("GET", "/info", params={"model": name})):
        assert answer.status_code == 404
        (fault,) = answer.json()["fields"]
        assert fault["expected"] == "one that is served: tiny, tiny/bm25, other, other/bm25-1"
        assert fault["got"] == json.dumps(name)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"query": "a", "model": ', 422),
        (b'{"query": "a", "model": 3}', 422),
        (b'{"query": "a", "model": null}', 200),
        (b'["model"]', 422),
        (b'{"model": "other", "query": "' + b"x" * 70_000 + b'"}', 413),
        (b'{"query": "the \\"model\\""}', 200),
        (b'{"model": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400),
        (b'\xff\xfe"model"', 400),
        (b"", 422),
    ],
)
def test_a_body_that_names_no_model_is_left_to_the_default(two, content, status):
    answer = two.send("POST", "/search", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert status == 200 or set(answer.json()) == {"error", "fields", "missing"}
