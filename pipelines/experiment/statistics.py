"""Tests of an experiment's claims, and what they decide. All tests are paired by question.

    superior     one-sided t-test of d = a - (1 + margin) b > 0
    equivalent   two one-sided t-tests of |a - b| < bound (TOST; Schuirmann 1987), for all pairs of variants
    different    two-sided t-test of a - b, and TOST where the claim has a bound

The p-values of all comparisons of one test by one measure are a family (claims, pairs, languages), corrected by Holm
(1979) or Bonferroni. A claim *holds* where its corrected p is below 0.05, *fails* where that of the opposite claim is,
and else we *cannot tell*. The opposite of superior is d < 0. That of equivalent is |a - b| > bound, with twice the
smaller p of the two sides. That of different is equivalent, and without a bound there is none.

Beside each stands the p-value of random flips of sign, which assumes no distribution (Smucker, Allan and Carterette
2007), the effect d_z (Cohen 1988, Lakens 2013), the interval of the ratio of the means (Fieller 1954), and what these
questions can show and how many would decide (``power``). A relative margin is a test of the ratio: p < 0.025 exactly
where Fieller's 95 % interval lies above 1 + margin.

Questions are taken as independent; the mean over seeds is taken as it is, so that the intervals do not cover other
seeds: their deviation stands beside them.

Legend: Q questions, S seeds.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cluster.errors import RecipeError
from pipelines.evaluate import OVER_LANGUAGES
from pipelines.experiment.claims import Claim, Correction
from pipelines.experiment.paired import correct, ratio_interval, t_statistic, tost
from pipelines.experiment.power import find_effect, find_questions, power_of_t, power_of_tost
from pipelines.experiment.results import Answer, Scores, Verdict
from pipelines.experiment.scores import Table, check_same_questions, tabulate, values_by_seed
from pipelines.significance import Test as By
from pipelines.significance import interval, is_constant, p_value

ALPHA = 0.05


@dataclass(frozen=True)
class ClaimedPair:
    """Two variants of a claim in one language by one measure: their values by question, means over seeds."""

    claim: Claim
    a: Scores
    b: Scores
    a_Q: np.ndarray
    b_Q: np.ndarray

    @property
    def margin(self) -> float:
        """The share of b by which a must be above it."""
        return self.claim.at_least.get(self.a.measure, 0.0)

    @property
    def tested(self) -> np.ndarray:
        """The differences that are tested [Q]: of superiority beyond the margin."""
        return self.a_Q - (1 + self.margin) * self.b_Q


def judge(claims: Sequence[Claim], scores: Sequence[Scores], correction: Correction = "holm") -> tuple[Verdict, ...]:
    """Test each claim in each of its languages by each of its measures.

    Raises:
        RecipeError: a claim names a variant, measure or language that is not there; the message names the key.
        StepError: two variants were measured on different questions.
    """
    table = tabulate(scores)
    compared = [one for claim in claims for one in _find_comparisons(claim, table)]
    p_values = [_test(one, "t") for one in compared]
    families = [(one.claim.test, one.a.measure) for one in compared]
    corrected = correct(families, [p for p, _ in p_values], correction)
    against = correct(families, [p for _, p in p_values], correction)
    sizes = [
        sum(of == family and p is not None for of, (p, _) in zip(families, p_values, strict=True))
        for family in families
    ]
    return tuple(
        _decide(one, p, (q, r), size)
        for one, (p, _), q, r, size in zip(compared, p_values, corrected, against, sizes, strict=True)
    )


def _find_comparisons(claim: Claim, table: Table) -> Iterator[ClaimedPair]:
    """All pairs of a claim in all its languages and measures."""
    claim.check_variants(list(dict.fromkeys(variant for variant, _, _ in table)))
    known = list(dict.fromkeys(measure for _, measure, _ in table))
    _check_known(f"compare.{claim.name}.measures", claim.measures, known)
    _check_known(f"compare.{claim.name}.at_least", list(claim.at_least), known)
    for x, y in combinations(claim.variants, 2):
        langs = _shared_languages(claim, x, y, table)
        for measure in claim.measures or known:
            for lang in langs:
                if (x, measure, lang) in table and (y, measure, lang) in table:
                    a, b = table[x, measure, lang], table[y, measure, lang]
                    check_same_questions(a, b)
                    yield ClaimedPair(claim, a, b, values_by_seed(a).mean(axis=1), values_by_seed(b).mean(axis=1))


def _check_known(key: str, names: Collection[str], known: Collection[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise RecipeError(f"{key}: expected some of {', '.join(known)}, got {', '.join(map(repr, unknown))}")


def _shared_languages(claim: Claim, x: str, y: str, table: Table) -> list[str]:
    """The languages in which two variants are compared. Pools and means of different languages are not: a larger pool
    is harder, and a mean is of other values."""
    of_x, of_y = ({lang: None for variant, _, lang in table if variant == name} for name in (x, y))
    same = of_x.keys() == of_y.keys()
    shared = [lang for lang in of_x if lang in of_y and (same or lang not in OVER_LANGUAGES)]
    if missing := [lang for lang in claim.languages if lang not in shared]:
        raise RecipeError(
            f"compare.{claim.name}.languages: expected languages in which both {x} and {y} are measured "
            f"({', '.join(shared) or 'none'}; {', '.join(OVER_LANGUAGES)} where their languages are the same), got "
            f"{', '.join(missing)}"
        )
    if not shared:
        raise RecipeError(
            f"compare.{claim.name}: {x} is measured in {', '.join(of_x)} and {y} in {', '.join(of_y)}: they share no "
            "language; set their evaluation languages alike"
        )
    return [lang for lang in shared if lang in claim.languages] if claim.languages else shared


def _test(one: ClaimedPair, by: By) -> tuple[float | None, float | None]:
    """The p-values of the claim and of the opposite claim."""
    tested_Q, claim = one.tested, one.claim
    if claim.test == "superior":
        return p_value(tested_Q, by, "greater"), p_value(tested_Q, by, "less")
    if claim.test == "equivalent":
        return tost(tested_Q, claim.bound or 0.0, by)
    return p_value(tested_Q, by), tost(tested_Q, claim.bound, by)[0] if claim.bound else None


def _decide(one: ClaimedPair, p: float | None, corrected: tuple[float | None, float | None], family: int) -> Verdict:
    """The verdict of a comparison with its p-value, and those of the claim and its opposite corrected."""
    a_Q, b_Q, claim = one.a_Q, one.b_Q, one.claim
    differences, (p_corrected, p_against) = a_Q - b_Q, corrected
    low, high = interval(differences)
    ratio, ratio_low, ratio_high = ratio_interval(a_Q, b_Q)
    answer: Answer = "cannot tell"
    if p_corrected is not None and p_corrected < ALPHA:
        answer = "holds"
    elif p_against is not None and p_against < ALPHA:
        answer = "fails"
    alpha = ALPHA / max(1, family)
    return Verdict(
        claim=claim.name,
        test=claim.test,
        a=one.a.variant,
        b=one.b.variant,
        lang=one.a.lang,
        measure=one.a.measure,
        n=len(differences),
        mean_a=float(a_Q.mean()),
        mean_b=float(b_Q.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        margin=one.margin,
        bound=claim.bound,
        statistic=_find_statistic(one),
        p=p,
        p_corrected=p_corrected,
        p_against=p_against,
        p_permutation=_test(one, "permutation")[0],
        effect=_find_effect_size(differences),
        detectable=_find_detectable(one, alpha),
        n_to_decide=_count_questions(one, alpha) if answer == "cannot tell" else None,
        seed_deviation=_find_seed_deviation(one.a, one.b),
        family=family,
        answer=answer,
    )


def _find_statistic(one: ClaimedPair) -> float | None:
    """Student's t of the test; for equivalence that of the side with the greater p-value."""
    tested_Q, claim = one.tested, one.claim
    if claim.test != "equivalent" or claim.bound is None:
        return t_statistic(tested_Q)
    return t_statistic(tested_Q + claim.bound if tested_Q.mean() < 0 else tested_Q - claim.bound)


def _find_effect_size(differences: np.ndarray) -> float | None:
    if len(differences) < 2 or is_constant(differences):
        return None
    return float(differences.mean() / differences.std(ddof=1))


def _find_detectable(one: ClaimedPair, alpha: float) -> float | None:
    """See ``Verdict.detectable``. None for fewer than two questions; 0 without variance."""
    tested_Q = one.tested
    n, test = len(tested_Q), one.claim.test
    if n < 2 or is_constant(tested_Q):
        return None if n < 2 else 0.0
    if test == "equivalent":
        effect = find_effect(lambda bound: power_of_tost(0, bound, n, alpha))
    else:
        effect = find_effect(lambda effect: power_of_t(effect, n, alpha, 1 if test == "superior" else 2))
    return None if effect is None else effect * float(tested_Q.std(ddof=1))


def _count_questions(one: ClaimedPair, alpha: float) -> int | None:
    """See ``Verdict.n_to_decide``."""
    tested_Q, claim = one.tested, one.claim
    if len(tested_Q) < 2 or is_constant(tested_Q):
        return None
    deviation = float(tested_Q.std(ddof=1))
    effect, bound = abs(float(tested_Q.mean())) / deviation, (claim.bound or 0.0) / deviation
    found = []
    if claim.test != "equivalent" and effect > 0:
        found.append(find_questions(lambda n: power_of_t(effect, n, alpha, 1 if claim.test == "superior" else 2)))
    if claim.test != "superior" and effect < bound:
        found.append(find_questions(lambda n: power_of_tost(effect, bound, n, alpha)))
    if claim.test == "equivalent" and effect > bound:
        found.append(find_questions(lambda n: power_of_t(effect - bound, n, alpha / 2)))
    return min((n for n in found if n is not None), default=None)


def _find_seed_deviation(a: Scores, b: Scores) -> float | None:
    """See ``Verdict.seed_deviation``."""
    if set(a.seeds) != set(b.seeds) or len(a.seeds) < 2:
        return None
    of_a, of_b = (dict(zip(one.seeds, values_by_seed(one).mean(axis=0).tolist(), strict=True)) for one in (a, b))
    return float(np.std([of_a[seed] - of_b[seed] for seed in of_a], ddof=1))
