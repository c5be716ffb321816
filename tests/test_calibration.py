"""Calibration against plain loops, closed forms and scipy."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from artifacts import table_artifact
from cluster.component import Component
from cluster.errors import StepError
from cluster.step import Step
from cluster.storage import Place
from local_executor import run_here
from pipelines.calibration import (
    CalibrationConfig,
    calibrate,
    describe_teacher,
    divergence,
    entropies,
    find_temperature,
)
from pipelines.tables import RANKINGS


def softmax(scores, temperature=1.0):
    weights = [math.exp(s / temperature) for s in scores]
    return [w / sum(weights) for w in weights]


def tau_b(one, other):
    """By counting pairs (Kendall 1945)."""
    same = opposite = ties_one = ties_other = 0
    for i, j in combinations(range(len(one)), 2):
        a, b = one[i] - one[j], other[i] - other[j]
        same, opposite = same + (a * b > 0), opposite + (a * b < 0)
        ties_one, ties_other = ties_one + (a == 0), ties_other + (b == 0)
    pairs = len(one) * (len(one) - 1) / 2
    return (same - opposite) / math.sqrt((pairs - ties_one) * (pairs - ties_other))


def rankings(folder, scores, parts=2):
    """A table of ``{query: {doc: score}}``."""
    rows = []
    for query_id, of_query in scores.items():
        ranked = sorted(of_query.items(), key=lambda pair: (-pair[1], pair[0]))
        rows.append({"query_id": query_id, "doc_ids": [d for d, _ in ranked], "scores": [s for _, s in ranked]})
    return table_artifact(folder, RANKINGS, *(rows[n::parts] for n in range(parts)))


def draw_scores(seed, queries=20, docs=12, spread=3.0):
    random = np.random.default_rng(seed)
    return {
        f"q{q}": {f"d{d}": float(np.float32(s)) for d, s in enumerate(random.normal(0, spread, docs))}
        for q in range(queries)
    }


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_entropies_are_those_of_a_plain_loop(temperature):
    scores_QW = np.random.default_rng(0).normal(0, 3, (7, 6))
    expected = [-sum(p * math.log(p) for p in softmax(scores, temperature)) for scores in scores_QW.tolist()]
    assert entropies(scores_QW, temperature) == pytest.approx(expected)
    assert entropies(np.zeros((2, 6)), temperature) == pytest.approx([math.log(6)] * 2)
    assert entropies(np.array([[900.0, -900.0]]), temperature) == pytest.approx([0])


def test_the_temperature_of_half_the_ways():
    scores_QW = np.random.default_rng(1).normal(0, 30, (50, 6))
    temperature = find_temperature(scores_QW, 3.0)
    assert np.exp(entropies(scores_QW, temperature)).mean() == pytest.approx(3.0, abs=1e-6)
    assert find_temperature(scores_QW * 7 + 100, 3.0) == pytest.approx(7 * temperature)  # it scales with the scores
    odds = math.log(3)  # one way at 3/4, one at 1/4
    passages = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert find_temperature(np.array([[2 * odds, 0.0]]), passages) == pytest.approx(2.0)
    assert find_temperature(np.zeros((3, 6)), 3.0) is None
    assert find_temperature(scores_QW, 1.0) is None
    assert find_temperature(np.array([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]), 3.0) is None  # never fewer than the four best


def test_divergence_is_that_of_scipy():
    teacher, student = np.random.default_rng(2).normal(0, 2, (2, 9))
    assert divergence(teacher, student) == pytest.approx(stats.entropy(softmax(teacher), softmax(student)))
    assert divergence(teacher, teacher + 5) == pytest.approx(0, abs=1e-12)


def test_a_teacher_is_described_by_what_a_training_draws(tmp_path):
    scores = {f"q{n}": {f"d{k}": -float(k) for k in range(n)} for n in (3, 4, 10)}
    of = describe_teacher(
        rankings(tmp_path / "score@1", scores), CalibrationConfig(ways=4, pool=4, temperatures=(2.0,))
    )
    assert (of["queries"], of["too_short"]) == (2, 1)
    entropy = -sum(p * math.log(p) for p in softmax([0, -1, -2, -3], 2.0))  # both draw their best four
    assert of["temperatures"]["2"]["entropy"] == pytest.approx(entropy)
    assert of["temperatures"]["2"]["passages"] == pytest.approx(math.exp(entropy))
    histogram = of["temperatures"]["2"]["histogram"]
    assert (sum(histogram), histogram[int(entropy / math.log(4) * 10)]) == (2, 2)
    with pytest.raises(StepError, match=r"no query has 11 scored documents: lower train\.ways, or raise select\.k"):
        describe_teacher(rankings(tmp_path / "score@2", scores), CalibrationConfig(ways=11))


def test_each_query_draws_its_own_ways(tmp_path):
    scores = {f"q{n}": {f"d{k}": -float(k) for k in range(12)} for n in range(200)}
    config = CalibrationConfig(ways=3, pool=10, temperatures=(1.0,))
    of = describe_teacher(rankings(tmp_path / "score@1", scores), config)
    histogram, triples = of["temperatures"]["1"]["histogram"], combinations(range(10), 3)
    mean = np.mean([-sum(p * math.log(p) for p in softmax([-float(k) for k in triple])) for triple in triples])
    assert sum(count > 0 for count in histogram) >= 4
    assert of["temperatures"]["1"]["entropy"] == pytest.approx(mean, abs=0.06)  # of 200 draws of 120


class Given(Component):
    """A table that is there already."""

    name: str


def given(root, name, scores):
    step = Step(name, Given, Given(name=name), table=RANKINGS)
    rankings((root / step.id).path, scores)
    return step


def test_the_step_compares_teachers_and_students(tmp_path):
    root = Place.of(tmp_path)
    one, other, student = draw_scores(0), draw_scores(1), draw_scores(2)
    for query in other.values():
        del query["d0"]  # rejected in the other's language
        query["d1"] = query["d2"]  # a tie
    flat = {query_id: dict.fromkeys(docs, 1.0) for query_id, docs in one.items()}
    inputs = {
        "scores": {name: given(root, f"score-{name}", of) for name, of in (("a", one), ("b", other), ("flat", flat))},
        "students": {"de": given(root, "search-de", student), "zh": given(root, "search-zh", flat)},
        "dev": {"de": given(root, "score-de", one), "zh": given(root, "score-zh", one)},
    }
    config = CalibrationConfig(alpha=2.0, temperature=0.5)
    (made,) = run_here([Step("calibration", calibrate, config, inputs)], root)
    report = json.loads((made.place / "calibration.json").read())
    docs = [f"d{n}" for n in range(1, 12)]
    taus = [tau_b([one[q][d] for d in docs], [other[q][d] for d in docs]) for q in one]
    assert report["tau"]["a and b"]["tau"] == pytest.approx(np.mean(taus))
    assert report["tau"]["a and b"]["queries"] == 20
    assert report["tau"]["a and flat"]["tau"] is None
    kls = [
        stats.entropy(softmax([4 * one[q][d] for d in one[q]]), softmax([2 * student[q][d] for d in one[q]]))
        for q in one
    ]
    assert report["students"]["de"]["kl"] == pytest.approx(np.mean(kls))
    taus = [stats.kendalltau([one[q][d] for d in one[q]], [student[q][d] for d in one[q]]).statistic for q in one]
    assert report["students"]["de"]["tau"] == pytest.approx(np.mean(taus))
    assert report["students"]["zh"] == {"queries": 0, "tau": None, "kl": None}
    halves = made.manifest.facts["half_temperature"]
    assert halves["flat"] is None
    assert 0.25 < halves["a"] < 8
    assert (made.place / "calibration.png").read().startswith(b"\x89PNG")


def test_one_teacher_alone_is_enough(tmp_path):
    config = CalibrationConfig(queries=7)
    facts = calibrate(
        config, {"scores": {"a": rankings(tmp_path / "score@1", draw_scores(0))}}, Place.of(tmp_path), None
    )
    report = json.loads((tmp_path / "calibration.json").read_text())
    assert report["teachers"]["a"]["queries"] == 7
    assert (report["tau"], report["students"]) == ({}, {})
    assert facts["summary"].startswith("half the ways at T = a ")
