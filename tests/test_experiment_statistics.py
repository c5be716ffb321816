"""Tests of claims: scipy and statsmodels as oracles, simulations with known truth, and the verdicts that follow."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from experiments import apart, pair, scores
from pipelines.experiment.claims import Claim
from pipelines.experiment.paired import correct, ratio_interval, tost
from pipelines.experiment.power import find_effect, find_questions, power_of_t, power_of_tost
from pipelines.experiment.statistics import judge
from pipelines.significance import p_value

SUPERIOR = Claim(name="c", a="a", b="b")
EQUIVALENT = Claim(name="c", test="equivalent", of=("a", "b"), bound=0.05)
DIFFERENT = Claim(name="c", test="different", a="a", b="b")
BOUNDED = Claim(name="c", test="different", a="a", b="b", bound=0.05)


def judge_pair(claim, a, b):
    (verdict,) = judge([claim], [scores("a", a), scores("b", b)])
    return verdict


@pytest.mark.parametrize("seed", range(4))
def test_superior_and_different_are_scipys(seed):
    a, b = pair(0.03, seed=seed)
    verdict = judge_pair(SUPERIOR, a, b)
    oracle = stats.ttest_rel(a, b, alternative="greater")
    assert (verdict.p, verdict.statistic) == (pytest.approx(oracle.pvalue), pytest.approx(oracle.statistic))
    assert verdict.p_against == pytest.approx(stats.ttest_rel(a, b, alternative="less").pvalue)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == (pytest.approx(low), pytest.approx(high))
    assert verdict.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert (verdict.mean_a, verdict.mean_b, verdict.n) == (pytest.approx(a.mean()), pytest.approx(b.mean()), 50)
    assert judge_pair(DIFFERENT, a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    for claim in (SUPERIOR, EQUIVALENT, DIFFERENT):
        other = judge_pair(claim, a, b)
        assert other.p_permutation == pytest.approx(other.p, abs=0.02)


@pytest.mark.parametrize("difference", [0.0, 0.04, -0.07])
def test_equivalent_is_statsmodels(difference):
    a, b = pair(difference)
    verdict = judge_pair(EQUIVALENT, a, b)
    p, (above, _, _), (below, _, _) = ttost_paired(a, b, -0.05, 0.05)
    assert verdict.p == pytest.approx(p)
    assert verdict.statistic == pytest.approx(above if abs(above) < abs(below) else below)


def test_a_margin_is_tested_as_a_difference():
    a, b = pair(0.1)
    claim = Claim(name="c", a="a", b="b", at_least={"nDCG@20": 0.1})
    verdict = judge_pair(claim, a, b)
    assert verdict.p == pytest.approx(stats.ttest_rel(a, 1.1 * b, alternative="greater").pvalue)
    assert (verdict.margin, verdict.difference) == (0.1, pytest.approx((a - b).mean()))
    other = scores("a", a, "AP"), scores("b", b, "AP")
    (of_ap,) = judge([claim.model_copy(update={"at_least": {}})], other)
    assert of_ap.margin == 0.0


@pytest.mark.parametrize("method", ["holm", "bonferroni"])
def test_corrections_are_statsmodels(method):
    p_values = np.random.default_rng(0).uniform(0, 0.2, 12).tolist()
    families = ["x"] * 7 + ["y"] * 5
    expected = [*multipletests(p_values[:7], method=method)[1], *multipletests(p_values[7:], method=method)[1]]
    assert correct(families, p_values, method) == pytest.approx(expected)
    assert correct(["x"] * 3, [0.01, None, 0.02], method)[1] is None
    assert correct(["x"] * 3, [0.01, None, 0.02], method)[0] == pytest.approx(0.02)


def test_a_family_is_the_comparisons_of_one_test_in_one_measure():
    made = []
    for i, (measure, lang) in enumerate([("AP", "de"), ("AP", "zh"), ("R@100", "de"), ("R@100", "zh")]):
        for j, name in enumerate("abc"):
            made.append(scores(name, pair(0.03 * j, seed=i)[0], measure, lang))
    claims = [
        Claim(name="one", a="b", b="a"),
        Claim(name="two", a="c", b="a"),
        EQUIVALENT.model_copy(update={"name": "e"}),
    ]
    verdicts = judge(claims, made)
    for measure in ("AP", "R@100"):
        superior = [v for v in verdicts if v.measure == measure and v.test == "superior"]
        assert [(v.claim, v.lang) for v in superior] == [("one", "de"), ("one", "zh"), ("two", "de"), ("two", "zh")]
        assert {v.family for v in superior} == {4}
        expected = multipletests([v.p for v in superior], method="holm")[1]
        assert [v.p_corrected for v in superior] == pytest.approx(list(expected))
        opposite = multipletests([1 - v.p for v in superior], method="holm")[1]
        assert [v.p_against for v in superior] == pytest.approx(list(opposite))
        equivalent = [v for v in verdicts if v.measure == measure and v.test == "equivalent"]
        assert [v.family for v in equivalent] == [2, 2]


@pytest.mark.parametrize(("n", "effect"), [(2, 0.05), (2, 3.0), (5, 0.4), (5, 1.5), (41, 0.0), (41, 0.4), (1190, 0.05)])
def test_power_of_the_t_test_is_statsmodels(n, effect):
    for sides, alternative in ((1, "larger"), (2, "two-sided")):
        expected = TTestPower().power(effect, n, 0.01, alternative=alternative)
        assert power_of_t(effect, n, 0.01, sides) == pytest.approx(expected, abs=1e-6)


def test_detectable_effects_and_numbers_of_questions_are_statsmodels():
    expected = TTestPower().solve_power(None, 113, 0.05, 0.8, alternative="larger")
    assert find_effect(lambda effect: power_of_t(effect, 113, 0.05)) == pytest.approx(expected, rel=1e-4)
    expected = TTestPower().solve_power(0.2, None, 0.05, 0.8, alternative="larger")
    assert find_questions(lambda n: power_of_t(0.2, n, 0.05)) == math.ceil(expected)
    assert find_questions(lambda n: power_of_t(10.0, n, 0.05)) == 2
    assert find_questions(lambda n: power_of_t(1e-5, n, 0.05)) is None


def test_verdicts_have_the_power_of_their_family():
    a, b = apart(0.01, n=100)
    made = [scores(name, values, lang=lang) for lang in ("de", "zh") for name, values in (("a", a), ("b", b))]
    verdict, _ = judge([SUPERIOR], made)
    assert verdict.detectable == pytest.approx(0.1 * find_effect(lambda e: power_of_t(e, 100, 0.025)))
    assert verdict.n_to_decide == find_questions(lambda n: power_of_t(0.1, n, 0.025))
    bound, _ = judge([EQUIVALENT], made)
    assert power_of_tost(0, bound.detectable / 0.1, 100, 0.025) == pytest.approx(0.8)


def test_the_error_of_superiority_and_of_equivalence_is_five_percent():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (4000, 30))
    superior = np.mean([p_value(d, "t", "greater") < 0.05 for d in noise])
    equivalent = np.mean([tost(d + 0.05, 0.05)[0] < 0.05 for d in noise])
    refuted = np.mean([tost(d + 0.05, 0.05)[1] < 0.05 for d in noise])
    assert superior == pytest.approx(0.05, abs=0.01)
    assert equivalent == pytest.approx(0.05, abs=0.01)
    assert refuted == pytest.approx(0.025, abs=0.008)  # twice the smaller p: the far side never counts


def test_power_is_as_computed():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (4000, 40))
    found = np.mean([p_value(d + 0.35, "t", "greater") < 0.05 for d in noise])
    assert found == pytest.approx(power_of_t(0.35, 40, 0.05), abs=0.02)
    for effect, bound in ((0.0, 0.5), (0.2, 0.6)):
        found = np.mean([tost(d + effect, bound)[0] < 0.05 for d in noise])
        assert found == pytest.approx(power_of_tost(effect, bound, 40, 0.05), abs=0.02)


def test_a_family_of_true_nulls_is_rejected_in_five_percent_of_experiments():
    rng = np.random.default_rng(2)
    p_values = stats.ttest_1samp(rng.normal(0, 1, (2000, 8, 25)), 0, axis=2, alternative="greater").pvalue
    rejected = [min(correct(["x"] * 8, row.tolist(), "holm")) < 0.05 for row in p_values]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_fiellers_limits_are_the_ratios_that_the_t_test_just_does_not_reject(seed):
    a, b = pair(0.05, n=20, seed=seed)
    ratio, low, high = ratio_interval(a, b)
    assert ratio == pytest.approx(a.mean() / b.mean())
    for limit, alternative in ((low, "greater"), (high, "less")):
        assert stats.ttest_rel(a, limit * b, alternative=alternative).pvalue == pytest.approx(0.025)


@pytest.mark.parametrize("seed", range(6))
def test_a_margin_is_passed_where_fiellers_interval_lies_above_it(seed):
    a, b = pair(0.05, n=20, seed=seed)
    _, low, _ = ratio_interval(a, b)
    for margin, is_passed in ((low - 1 - 1e-6, True), (low - 1 + 1e-6, False)):
        verdict = judge_pair(Claim(name="c", a="a", b="b", at_least={"nDCG@20": margin}), a, b)
        assert (verdict.p < 0.025) is is_passed
        assert (verdict.ratio_low > 1 + margin) is is_passed


def test_fiellers_interval_covers_the_ratio():
    rng, covered = np.random.default_rng(3), []
    for _ in range(3000):
        b = rng.normal(0.4, 0.25, 25)
        _, low, high = ratio_interval(1.2 * b + rng.normal(0, 0.15, 25), b)
        covered.append(low < 1.2 < high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_a_ratio_that_has_no_interval():
    assert ratio_interval(np.array([0.5, 0.6]), np.zeros(2)) == (None, None, None)
    noisy = np.array([0.9, -0.8, 0.3, -0.2])
    assert ratio_interval(np.ones(4), noisy) == (pytest.approx(20.0), None, None)
    assert ratio_interval(np.array([0.6]), np.array([0.5])) == (pytest.approx(1.2), None, None)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [2, 7, 60])
def test_flips_of_sign_are_scipys(n, alternative):
    """Up to 13 differences all flips are counted: the same p. Beyond, both draw."""
    differences = np.random.default_rng(n).normal(0.04, 0.2, n).round(2)
    oracle = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, alternative=alternative, rng=1
    )
    exact = {"abs": 1e-9} if n < 14 else {"abs": 0.02}
    assert p_value(differences, "permutation", alternative) == pytest.approx(oracle.pvalue, **exact)


def test_one_sided_p_values_without_variance():
    same, above = np.zeros(5), np.full(5, 0.1)
    assert [p_value(same, "t", side) for side in ("greater", "less")] == [1.0, 1.0]
    assert [p_value(above, "t", side) for side in ("greater", "less")] == [0.0, 1.0]
    assert [p_value(-above, "t", side) for side in ("greater", "less")] == [1.0, 0.0]


ANSWERS = [
    (SUPERIOR, 0.05, "holds"),
    (SUPERIOR, -0.05, "fails"),
    (SUPERIOR, 0.005, "cannot tell"),
    (EQUIVALENT, 0.0, "holds"),
    (EQUIVALENT, -0.15, "fails"),
    (EQUIVALENT, 0.04, "cannot tell"),
    (DIFFERENT, -0.05, "holds"),
    (DIFFERENT, 0.01, "cannot tell"),
    (BOUNDED, 0.028, "cannot tell"),
    (BOUNDED, 0.0, "fails"),
    (BOUNDED, 0.1, "holds"),
]


@pytest.mark.parametrize(("claim", "difference", "answer"), ANSWERS)
def test_verdicts(claim, difference, answer):
    verdict = judge_pair(claim, *apart(difference))
    assert verdict.answer == answer
    if answer == "cannot tell":
        assert verdict.n_to_decide > verdict.n
    else:
        assert verdict.n_to_decide is None


@pytest.mark.parametrize(("difference", "alone"), [(0.028, "holds"), (-0.028, "fails")])
def test_verdicts_are_those_of_corrected_p_values(difference, alone):
    """p is 0.027 in each of three languages: enough for one comparison, too much for a family of three."""
    a, b = apart(difference)
    made = [scores(name, values, lang=lang) for lang in ("de", "es", "zh") for name, values in (("a", a), ("b", b))]
    assert judge_pair(SUPERIOR, a, b).answer == alone
    for method in ("holm", "bonferroni"):
        assert [v.answer for v in judge([SUPERIOR], made, method)] == ["cannot tell"] * 3


@pytest.mark.parametrize(("claim", "difference"), [(SUPERIOR, 0.0), (EQUIVALENT, 0.05), (DIFFERENT, 0.0)])
def test_no_number_of_questions_decides_at_the_boundary(claim, difference):
    a, b = apart(difference, n=16)
    b = b.round(3)
    a = b + difference + 0.125 * np.array([1, -1] * 8)
    verdict = judge_pair(claim, a, b)
    assert (verdict.answer, verdict.n_to_decide) == ("cannot tell", None)


@pytest.mark.parametrize("claim", [SUPERIOR, EQUIVALENT, DIFFERENT])
def test_a_single_question_decides_nothing(claim):
    verdict = judge_pair(claim, [0.9], [0.1])
    assert (verdict.answer, verdict.n, verdict.family) == ("cannot tell", 1, 0)
    for name in ("p", "p_corrected", "p_permutation", "low", "effect", "detectable", "statistic", "ratio_low"):
        assert getattr(verdict, name) is None


def test_equal_variants():
    same = pair(0)[1]
    assert judge_pair(SUPERIOR, same, same).answer == "cannot tell"
    assert judge_pair(EQUIVALENT, same, same).answer == "holds"
    assert judge_pair(DIFFERENT, same, same).answer == "cannot tell"
