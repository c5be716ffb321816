"""Significance: a worked example by hand, scipy as the oracle, degenerate cases, Holm's correction."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cluster.errors import RecipeError
from pipelines.evaluate import PER_QUERY
from pipelines.significance import compare, compare_systems, compare_values, holm, interval, intervals, p_value


def write(directory, values):
    """{(lang, measure): {query: value}} → an evaluation's directory."""
    directory.mkdir()
    rows = [
        {"lang": lang, "query_id": q, "measure": m, "value": v}
        for (lang, m), of in values.items()
        for q, v in of.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=PER_QUERY), directory / "per_query.parquet")
    return directory


def test_by_hand():
    """Differences 1, 2, 3, 4: mean 2.5, s² = 5/3, t = 2.5 / sqrt(5/12) = sqrt(15) with 3 degrees of freedom.

    For 3 degrees of freedom P(|T| > t) = 1 - (2/π)(atan(x) + x / (1 + x²)) with x = t / sqrt(3) = sqrt(5), and the
    table's 97.5 % quantile is 3.1824.
    """
    x = np.sqrt(5.0)
    expected = 1 - 2 / np.pi * (np.arctan(x) + x / (1 + x * x))
    row = compare_values("en", "AP", np.array([2.0, 3.0, 4.0, 5.0]), np.ones(4))
    assert row.p == pytest.approx(expected)
    assert row.p == pytest.approx(0.0305, abs=1e-4)
    assert (row.difference, row.a, row.b, row.queries) == (2.5, 3.5, 1.0, 4)
    assert row.low == pytest.approx(2.5 - 3.1824 * np.sqrt(5 / 12), abs=1e-4)
    assert row.high == pytest.approx(2.5 + 3.1824 * np.sqrt(5 / 12), abs=1e-4)
    assert (row.wins, row.ties, row.losses) == (4, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_t_test_and_its_interval_are_scipys(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(40), rng.random(40)
    oracle = stats.ttest_rel(a, b)
    row = compare_values("en", "AP", a, b)
    assert row.p == pytest.approx(oracle.pvalue)
    low, high = oracle.confidence_interval(0.95)
    assert (row.low, row.high) == (pytest.approx(low), pytest.approx(high))
    assert row.wins + row.ties + row.losses == 40


def test_the_permutation_test_enumerates_all_signs_when_there_are_few():
    differences = np.array([0.3, -0.1, 0.2, 0.4, 0.05])
    means = [np.mean(differences * signs) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean([abs(m) >= differences.mean() - 1e-12 for m in means])
    assert p_value(differences, "permutation") == pytest.approx(expected)


def test_the_permutation_test_agrees_with_the_t_test_and_repeats_itself():
    differences = np.random.default_rng(0).normal(0.05, 0.2, 200)
    p = p_value(differences, "permutation")
    assert p == pytest.approx(p_value(differences), abs=0.01)
    assert p == p_value(differences, "permutation")


@pytest.mark.parametrize("test", ["t", "permutation"])
def test_without_variance(test):
    assert p_value(np.zeros(10), test) == 1.0
    assert interval(np.zeros(10)) == (0.0, 0.0)
    assert p_value(np.array([0.5]), test) is None
    assert interval(np.array([0.5])) == (None, None)


def test_a_difference_that_never_varies_is_no_chance():
    differences = np.array([0.3 - 0.2, 0.4 - 0.3, 0.9 - 0.8, 1.1 - 1.0])  # 0.1, but for rounding
    assert len(set(differences)) > 1
    assert p_value(differences) == 0.0
    assert interval(differences) == (pytest.approx(0.1), pytest.approx(0.1))


def test_holm_by_hand():
    """Holm 1979: the smallest p times n, the next times n - 1, …, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= min(1.0, p * len(p_values)) for p, q in zip(p_values, adjusted, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)


def test_compare_pairs_by_query_and_corrects_over_languages(tmp_path):
    rng = np.random.default_rng(3)
    langs, queries = ("de", "zh", "all"), [f"q{i}" for i in range(30)]
    a = {(lang, "AP"): {q: float(rng.random()) for q in queries} for lang in langs}
    b = {key: {q: max(0.0, v - 0.1 * rng.random()) for q, v in reversed(of.items())} for key, of in a.items()}
    rows = compare(write(tmp_path / "a", a), write(tmp_path / "b", b))
    assert [row.lang for row in rows] == list(langs)
    for row in rows:
        oracle = stats.ttest_rel(*([of[row.lang, "AP"][q] for q in queries] for of in (a, b)))
        assert row.p == pytest.approx(oracle.pvalue)
        assert row.difference > 0
    assert [row.p_holm for row in rows] == pytest.approx(holm([row.p for row in rows]))


def test_two_sets_of_queries_cannot_be_compared(tmp_path):
    a = write(tmp_path / "a", {("de", "AP"): {"q1": 0.5, "q2": 0.5}})
    b = write(tmp_path / "b", {("de", "AP"): {"q1": 0.5, "q3": 0.5}})
    with pytest.raises(RecipeError, match=r"AP in de.*different queries.*q2.*q3"):
        compare(a, b)
    with pytest.raises(RecipeError, match="nothing to compare"):
        compare(a, write(tmp_path / "c", {("fr", "AP"): {"q1": 0.5}}))


def test_pools_of_different_languages_are_not_compared(tmp_path):
    """The larger pool is the harder: the same system in more languages is no worse."""
    query = {"q1": 0.5, "q2": 0.25}
    two = {("de", "AP"): query, ("zh", "AP"): query, ("all", "AP"): query}
    three = {**two, ("fa", "AP"): query, ("all", "AP"): {"q1": 0.25, "q2": 0.125}}
    a, b, c = (write(tmp_path / name, of) for name, of in {"a": two, "b": three, "c": two}.items())
    assert [row.lang for row in compare(a, b)] == ["de", "zh"]
    assert [row.lang for row in compare(a, c)] == ["de", "zh", "all"]


def test_one_query_gives_no_p_value(tmp_path):
    a = write(tmp_path / "a", {("de", "AP"): {"q1": 0.5}})
    b = write(tmp_path / "b", {("de", "AP"): {"q1": 0.25}})
    (row,) = compare(a, b)
    assert (row.difference, row.p, row.p_holm, row.low) == (0.25, None, None, None)


def test_intervals_are_scipys(tmp_path):
    values = {("de", "AP"): rng_values(1), ("all", "AP"): rng_values(2), ("de", "RR@10"): {"q1": 0.5}}
    found = {(e.lang, e.measure): e for e in intervals(write(tmp_path / "a", values))}
    assert found.keys() == values.keys()
    for key in (("de", "AP"), ("all", "AP")):
        array = np.array(list(values[key].values()))
        low, high = stats.ttest_1samp(array, 0).confidence_interval(0.95)
        assert (found[key].low, found[key].high) == (pytest.approx(low), pytest.approx(high))
        assert (found[key].mean, found[key].queries) == (pytest.approx(array.mean()), 30)
    assert (found["de", "RR@10"].low, found["de", "RR@10"].high) == (None, None)


def rng_values(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return {f"q{i}": float(rng.random() + shift) for i in range(30)}


def test_systems_are_compared_with_the_first_and_corrected_together(tmp_path):
    langs = ("de", "zh", "all")
    made = {
        name: {(lang, "AP"): rng_values(10 * i + j, i / 10) for j, lang in enumerate(langs)}
        for i, name in enumerate("abc")
    }
    results = compare_systems({name: write(tmp_path / name, values) for name, values in made.items()})
    assert [(r.system, r.estimate.lang) for r in results] == [(name, lang) for name in "abc" for lang in langs]
    assert all(r.difference is None for r in results[:3])
    p_values = [
        float(stats.ttest_rel(*(list(made[name][lang, "AP"].values()) for name in (other, "a"))).pvalue)
        for other in "bc"
        for lang in langs
    ]
    rising = sorted(p_values)
    adjusted = [max(min(1.0, (6 - i) * q) for i, q in enumerate(rising) if q <= p) for p in p_values]
    assert [r.difference.p for r in results[3:]] == pytest.approx(p_values)
    assert [r.difference.p_holm for r in results[3:]] == pytest.approx(adjusted)
    for result in results[3:]:
        baseline = made["a"][result.estimate.lang, "AP"]
        assert result.difference.difference == pytest.approx(result.estimate.mean - np.mean(list(baseline.values())))


def test_one_system_alone_has_intervals_and_no_comparison(tmp_path):
    (result,) = compare_systems({"a": write(tmp_path / "a", {("de", "AP"): rng_values(0)})})
    assert result.difference is None
    assert result.estimate.low < result.estimate.mean < result.estimate.high
