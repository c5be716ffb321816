"""Language fairness: shares and PEER of hand-made rankings, and of pools in random order."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from pipelines.fairness import measure_fairness, peer


def test_shares_by_hand():
    """q1: of the first four documents three are English, of the three relevant ones one. q2: half and half, twice."""
    found = {"q1": ["en:a", "en:b", "de:x", "en:c", "de:y"], "q2": ["de:x", "en:a"], "q3": []}
    qrels = {
        "q1": {"en:a": 1, "de:x": 2, "de:y": 1, "fr:n": 0},
        "q2": {"en:a": 1, "de:x": 1},
        "q3": {"en:a": 1},  # nothing was found: left out
        "q4": {"en:a": 0},  # nothing is relevant
    }
    measured = measure_fairness(found, qrels, 4)
    assert (measured["k"], measured["queries"]) == (4, 2)
    english, german, french = (measured["languages"][lang] for lang in ("en", "de", "fr"))
    assert english["found"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert english["relevant"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert english["ratio"] == pytest.approx((5 / 4) / (5 / 6))
    assert german["ratio"] == pytest.approx((1 / 4 + 1 / 2) / (2 / 3 + 1 / 2))
    assert french == {"relevant": 0.0, "found": 0.0, "ratio": None, "low": None, "high": None}
    alone = measure_fairness({"q": ["de:x"]}, {"q": {"de:x": 1}}, 4)["languages"]["de"]
    assert alone == {"relevant": 1.0, "found": 1.0, "ratio": 1.0, "low": None, "high": None}


LANGS = ("ar", "de", "en")


def pools(queries, weights, seed, each=10, relevant=4):
    """Rankings of ``each`` documents of every language, of which ``relevant`` are relevant, in an order drawn at
    random: a document is drawn before others in proportion to the weight of its language."""
    random = np.random.default_rng(seed)
    names = [f"{lang}:{n}" for lang in LANGS for n in range(each)]
    keys = random.gumbel(size=(queries, len(names))) + np.log(np.repeat(weights, each))
    found = {f"q{q}": [names[n] for n in order] for q, order in enumerate(np.argsort(-keys, axis=1))}
    judged = {f"{lang}:{n}": 1 for lang in LANGS for n in range(relevant)}
    return found, dict.fromkeys(found, judged)


@pytest.mark.parametrize("seed", range(4))
def test_a_pool_in_random_order_has_the_ratio_one_within_its_interval(seed):
    measured = measure_fairness(*pools(400, (1, 1, 1), seed), 20)
    assert sum(of["found"] for of in measured["languages"].values()) == pytest.approx(1)
    for of in measured["languages"].values():
        assert of["low"] <= 1 <= of["high"]
        assert of["high"] - of["low"] < 0.1
    assert measured["peer"] == pytest.approx(0.5, abs=0.06)
    assert measured["peer_queries"] == 400


def test_the_interval_covers_one_in_about_95_of_100_pools():
    inside = Counter()
    for seed in range(200):
        for lang, of in measure_fairness(*pools(50, (1, 1, 1), seed, relevant=1), 10)["languages"].items():
            inside[lang] += of["low"] <= 1 <= of["high"]
    assert all(0.89 <= count / 200 <= 0.99 for count in inside.values())


def test_a_language_that_is_preferred_is_seen_by_both_views():
    measured = measure_fairness(*pools(200, (1, 1, 6), 0), 10)
    english, german = measured["languages"]["en"], measured["languages"]["de"]
    assert english["low"] > 1.5
    assert german["high"] < 0.8
    assert measured["peer"] < 0.3


def kruskal_by_hand(groups):
    """H of ranks with mean ranks of ties, by its definition as a sum of squares, and the tail of χ²."""
    values = [value for group in groups for value in group]
    rank = {v: np.mean([i + 1 for i, w in enumerate(sorted(values)) if w == v]) for v in values}
    mean = (len(values) + 1) / 2
    between = sum(len(g) * (np.mean([rank[v] for v in g]) - mean) ** 2 for g in groups)
    total = sum((rank[v] - mean) ** 2 for v in values)
    return chi2.sf((len(values) - 1) * between / total, len(groups) - 1)


def test_peer_is_the_test_of_the_ranks_of_each_level():
    """Level 1: English at 0 and 3, German at 1 and twice not found. Level 2: English at 2, German at 4 and 5."""
    found = ["en:a", "de:a", "en:x", "en:b", "de:x", "de:y", "fr:z"]
    judged = {"en:a": 1, "en:b": 1, "de:a": 1, "de:b": 1, "de:c": 1, "en:x": 2, "de:x": 2, "de:y": 2, "fr:z": 0}
    first, second = kruskal_by_hand([[0, 3], [1, 7, 7]]), kruskal_by_hand([[2], [4, 5]])
    assert peer(found, judged) == pytest.approx((first + second) / 2)
    apart = ["en:a", "en:b", "en:c", "de:a", "de:b", "de:c"]
    assert peer(apart, dict.fromkeys(apart, 1)) == pytest.approx(chi2.sf(27 / 7, 1))  # H = 12/42 · (36 + 225)/3 − 21
    assert math.isclose(peer(apart[::-1], dict.fromkeys(apart, 1)), peer(apart, dict.fromkeys(apart, 1)))


def test_peer_is_one_where_there_is_nothing_to_compare_and_none_where_every_order_gives_the_same():
    assert peer(["en:a", "de:x"], {"en:a": 1, "en:b": 1}) == 1.0  # one language has relevant documents
    assert peer(["en:q"], {"en:a": 1, "en:b": 1, "de:a": 1}) == 1.0  # none was found
    assert peer(["en:a", "de:a"], {"en:a": 1, "de:a": 1}) is None  # one of each
    assert peer(["en:q"], {"en:a": 1, "de:a": 1}) is None  # and none of them found
    one_each = {f"q{q}": {"en:a": 1, "de:a": 1} for q in range(5)}
    measured = measure_fairness(dict.fromkeys(one_each, ["en:a", "de:a"]), one_each, 20)
    assert (measured["peer"], measured["peer_queries"]) == (None, 0)
