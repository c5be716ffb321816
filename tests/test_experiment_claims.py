"""What an experiment is asked and given: claims and scores that are wrong, seeds, languages, cells."""

import numpy as np
import pytest
from scipy import stats

from cluster.component import fingerprint
from cluster.errors import RecipeError, StepError
from experiments import pair, scores
from pipelines.evaluate import OVER_LANGUAGES
from pipelines.experiment.claims import Axis, Claim
from pipelines.experiment.results import Scores
from pipelines.experiment.scores import summarise
from pipelines.experiment.statistics import judge

SUPERIOR = Claim(name="c", a="a", b="b")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_named(value):
    with pytest.raises(
        StepError, match=r"mtt, AP in de, question fold0/q2: expected finite numbers, got \[(nan|inf)\]"
    ):
        scores("mtt", [0.1, 0.2, value], "AP", "de")


def test_a_question_without_a_seed_is_named():
    with pytest.raises(StepError, match=r"mtt, AP in de, question fold0/q0: expected a value for each of the seeds"):
        scores("mtt", [[0.1], [0.2]], "AP", "de", seeds=("1", "2"))
    with pytest.raises(StepError, match=r"mtt, AP in de: expected values of at least one question"):
        Scores(variant="mtt", measure="AP", lang="de", seeds=("1",), values={})


def test_different_questions_name_both_variants():
    one, other = scores("mtd", [0.1, 0.2, 0.3]), scores("mtt", [0.1, 0.2], prefix="fold1/q")
    claim = Claim(name="c", a="mtd", b="mtt")
    with pytest.raises(StepError, match=r"mtd and mtt were measured on different questions \(3 only in mtd.*fold1/q0"):
        judge([claim], [one, other])


def test_scores_that_are_there_twice():
    with pytest.raises(StepError, match=r"a, nDCG@20 in all: expected one set of scores, got two"):
        judge([SUPERIOR], [scores("a", [0.1, 0.2]), scores("a", [0.1, 0.2], prefix="fold1/q")])


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"a": "mtd"}, r"compare\.c\.a: expected variants of the experiment \(a, b\), got 'mtd'"),
        ({"b": "mtd"}, r"compare\.c\.b: .*got 'mtd'"),
        ({"a": "", "b": "", "of": ("a", "x", "y"), "test": "equivalent", "bound": 0.1}, r"compare\.c\.of: .*'x', 'y'"),
        ({"measures": ("AP",)}, r"compare\.c\.measures: expected some of nDCG@20, got 'AP'"),
        ({"at_least": {"AP": 0.1}}, r"compare\.c\.at_least: expected some of nDCG@20, got 'AP'"),
        ({"languages": ("de",)}, r"compare\.c\.languages: expected languages in which both a and b .*got de"),
    ],
)
def test_a_claim_that_names_nothing_names_its_key(claim, message):
    with pytest.raises(RecipeError, match=message):
        judge([Claim(**{"name": "c", "a": "a", "b": "b"} | claim)], [scores("a", [0.1, 0.2]), scores("b", [0.2, 0.3])])


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({}, r"compare\.c: expected two different variants a and b, got '' and ''"),
        ({"a": "x", "b": "x"}, r"compare\.c: expected two different variants"),
        ({"a": "x", "b": "y", "of": ("x", "y")}, r"compare\.c: expected two different variants"),
        ({"test": "equivalent", "of": ("x",), "bound": 0.1}, r"compare\.c: expected of = \[two or more"),
        ({"test": "equivalent", "of": ("x", "x"), "bound": 0.1}, r"compare\.c: expected of = \[two or more"),
        ({"test": "equivalent", "of": ("x", "y")}, r"compare\.c\.bound: expected a bound"),
        ({"a": "x", "b": "y", "bound": 0.1}, r"compare\.c\.bound: a claim of superiority has no bound"),
        ({"a": "x", "b": "y", "test": "different", "at_least": {"AP": 0.1}}, r"compare\.c\.at_least: expected with"),
        ({"a": "x", "b": "y", "at_least": {"AP": -1.0}}, r"compare\.c\.at_least\.AP: expected a share above -1"),
        ({"a": "x", "b": "y", "at_least": {"AP": float("nan")}}, r"compare\.c\.at_least\.AP"),
    ],
)
def test_a_claim_of_the_wrong_shape_names_its_key(claim, message):
    with pytest.raises(RecipeError, match=message):
        Claim(name="c", **claim)


def test_a_claim_has_a_fingerprint_of_its_content():
    assert fingerprint(SUPERIOR) != fingerprint(SUPERIOR.model_copy(update={"b": "c"}))


def test_seeds_are_averaged_by_question_and_aligned_by_name():
    rng = np.random.default_rng(0)
    a_QS, b_QS = rng.uniform(0.3, 0.7, (40, 3)), rng.uniform(0.3, 0.7, (40, 3))
    one = scores("a", a_QS, seeds=("1", "2", "3"))
    other = scores("b", b_QS[:, [2, 0, 1]], seeds=("3", "1", "2"))
    (verdict,) = judge([SUPERIOR], [one, other])
    assert verdict.p == pytest.approx(stats.ttest_rel(a_QS.mean(1), b_QS.mean(1), alternative="greater").pvalue)
    assert verdict.seed_deviation == pytest.approx((a_QS - b_QS).mean(axis=0).std(ddof=1))
    single = scores("b", b_QS[:, 0])
    assert judge([SUPERIOR], [one, single])[0].seed_deviation is None


def test_the_order_of_questions_does_not_matter():
    a, b = pair(0.05)
    shuffled = scores("b", b).model_copy(update={"values": dict(reversed(scores("b", b).values.items()))})
    assert judge([SUPERIOR], [scores("a", a), shuffled]) == judge([SUPERIOR], [scores("a", a), scores("b", b)])


def test_cells_are_means_with_scipys_intervals():
    values_QS = np.random.default_rng(0).uniform(0, 1, (30, 3))
    cell, alone = summarise([scores("a", values_QS, seeds=("1", "2", "3")), scores("b", [0.25])])
    low, high = stats.ttest_1samp(values_QS.mean(axis=1), 0).confidence_interval(0.95)
    assert (cell.low, cell.high) == (pytest.approx(low), pytest.approx(high))
    assert (cell.mean, cell.questions, cell.seeds) == (pytest.approx(values_QS.mean()), 30, 3)
    assert cell.seed_deviation == pytest.approx(values_QS.mean(axis=0).std(ddof=1))
    assert (alone.mean, alone.low, alone.high, alone.seed_deviation) == (0.25, None, None, None)


def test_pools_of_different_languages_are_not_compared():
    made = [scores(name, pair(0.05)[i], lang=lang) for i, name in enumerate("ab") for lang in ("all", "de", "zh")]
    assert [v.lang for v in judge([SUPERIOR], made)] == ["all", "de", "zh"]
    assert [v.lang for v in judge([SUPERIOR], made[:-1])] == ["de"]
    pool = SUPERIOR.model_copy(update={"languages": ("all",)})
    assert [v.lang for v in judge([pool], made)] == ["all"]
    with pytest.raises(
        RecipeError, match=r"compare\.c\.languages: .*\(de; all, mono, cross where their languages are the"
    ):
        judge([pool], made[:-1])
    with pytest.raises(RecipeError, match=r"compare\.c: a is measured in de and b in zh: they share no language"):
        judge([SUPERIOR], [made[1], made[5]])


@pytest.mark.parametrize("lang", OVER_LANGUAGES)
def test_means_over_different_languages_are_not_compared(lang):
    made = [scores(name, pair(0.05)[i], lang=of) for i, name in enumerate("ab") for of in (lang, "de", "en")]
    assert [v.lang for v in judge([SUPERIOR], made)] == [lang, "de", "en"]
    assert [v.lang for v in judge([SUPERIOR], made[:-1])] == ["de"]


def test_the_axis_of_a_grid():
    assert Axis.of("languages", [["en"], ["en", "de"]]).numbers == (1.0, 2.0)
    assert Axis.of("languages", [["en"], ["en", "de"]]).levels == ("en", "en de")
    assert Axis.of("k", [10, 50, 100.0]).numbers == (10.0, 50.0, 100.0)
    assert Axis.of("teacher", ["strong", "weak"]).numbers is None
    assert Axis.of("lora", [True, False]).numbers is None
    assert Axis.of("alpha", [0, 1]).numbers is None  # 0 has no logarithm
    assert Axis.of("pairs", [["a"], ["b"]]).numbers is None  # lists of one length
    with pytest.raises(RecipeError, match=r"grid\.k\.values: expected at least two different values, got \['1', '1'\]"):
        Axis.of("k", [1, 1])
