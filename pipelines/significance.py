"""Confidence intervals of measures, and paired tests of whether a difference between systems is more than chance.

The paired two-sided t-test is the default of the field (Smucker, Allan and Carterette 2007 find it and the permutation
test to agree); ``test="permutation"`` flips the signs of the differences at random and assumes no distribution. The
p-values of one measure over languages and systems are one family, corrected by Holm's step-down procedure (Holm 1979).

Cost: milliseconds for the t-test; the permutation test draws 9,999 times the number of queries.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from cluster.errors import RecipeError
from pipelines.evaluate import OVER_LANGUAGES

Test = Literal["t", "permutation"]
Alternative = Literal["two-sided", "greater", "less"]
RESAMPLES = 9_999
DRAWS_AT_ONCE = 256
LEVEL = 0.95
FLAT = 1e-12  # differences that vary by less, relative to their size, are rounding


class Estimate(BaseModel):
    """The mean of one measure of one system in one language, with its 95 % confidence interval over queries.

    The interval is that of the t distribution, None for a single query.
    """

    model_config = ConfigDict(frozen=True)
    lang: str
    measure: str
    queries: int
    mean: float
    low: float | None
    high: float | None


class Comparison(BaseModel):
    """System A against system B by one measure in one language.

    ``difference`` is the mean of A minus B over ``queries`` queries, ``low`` and ``high`` its 95 % confidence interval
    (of the t distribution); ``wins`` counts the queries where A is better. ``p`` is the chance of a difference at least
    this large between equal systems, ``p_holm`` the same corrected for the number of comparisons by this measure. For a
    single query the interval and the p-values are None.
    """

    model_config = ConfigDict(frozen=True)
    lang: str
    measure: str
    queries: int
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    wins: int
    ties: int
    losses: int
    p: float | None
    p_holm: float | None = None


class SystemResult(BaseModel):
    """One of several systems in one language by one measure, and its difference to the first system.

    ``difference`` is None for the first system itself, and for pools of different languages.
    """

    model_config = ConfigDict(frozen=True)
    system: str
    estimate: Estimate
    difference: Comparison | None = None


def intervals(evaluation: Path) -> list[Estimate]:
    """Estimate each measure of an evaluation artifact (its directory) in each language."""
    return [_estimate(*key, np.array(list(values.values()))) for key, values in _values(evaluation).items()]


def compare_systems(evaluations: Mapping[str, Path], test: Test = "t") -> list[SystemResult]:
    """Estimate several systems on one set, and compare each with the first.

    ``evaluations`` are the directories of evaluation artifacts by the system's name. The comparisons of all systems and
    languages by one measure are one family of Holm's correction.

    Raises:
        RecipeError: a system was measured on other queries than the first, or on no language that this has.
    """
    (first, baseline), *others = evaluations.items()
    found = [SystemResult(system=first, estimate=estimate) for estimate in intervals(baseline)]
    compared = [(name, row) for name, evaluation in others for row in compare(evaluation, baseline, test)]
    corrected = correct([row for _, row in compared])
    rows = {(name, row.lang, row.measure): row for (name, _), row in zip(compared, corrected, strict=True)}
    for name, evaluation in others:
        for estimate in intervals(evaluation):
            difference = rows.get((name, estimate.lang, estimate.measure))
            found.append(SystemResult(system=name, estimate=estimate, difference=difference))
    return found


def _estimate(lang: str, measure: str, values: np.ndarray) -> Estimate:
    low, high = interval(values)
    return Estimate(lang=lang, measure=measure, queries=len(values), mean=float(values.mean()), low=low, high=high)


def compare(a: Path, b: Path, test: Test = "t") -> list[Comparison]:
    """Compare two evaluation artifacts (their directories) in every language and measure that both have.

    What is measured over several languages is compared only where both have the same ones: a larger pool is harder,
    whatever the system.

    Raises:
        RecipeError: they share no language and measure, or were measured on different queries.
    """
    of_a, of_b = _values(a), _values(b)
    same = {lang for lang, _ in of_a} == {lang for lang, _ in of_b}
    shared = [key for key in of_a if key in of_b and (same or key[0] not in OVER_LANGUAGES)]
    if not shared:
        raise RecipeError(f"nothing to compare: {a.name} has {sorted(of_a)}, {b.name} has {sorted(of_b)}")
    rows = [_compare_queries(lang, measure, of_a[lang, measure], of_b[lang, measure], test) for lang, measure in shared]
    return correct(rows)


def compare_values(lang: str, measure: str, a: np.ndarray, b: np.ndarray, test: Test = "t") -> Comparison:
    """Compare the values of two systems for the same queries in the same order."""
    differences = a - b
    low, high = interval(differences)
    return Comparison(
        lang=lang,
        measure=measure,
        queries=len(a),
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        p=p_value(differences, test),
    )


def p_value(differences: np.ndarray, test: Test = "t", alternative: Alternative = "two-sided") -> float | None:
    """The p-value that the mean of ``differences`` is 0, against the alternative that it is not, greater, or less.

    Without any variance the t statistic is 0/0 or infinite: equal systems get 1, and a difference that is the same for
    every query gets 0, or 1 where the alternative is the other side. None for fewer than two queries.
    """
    from scipy.special import stdtr

    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    if test == "permutation":
        return _flip_signs(differences, alternative)
    if is_constant(differences):
        return 1.0 if alternative == ("less" if differences[0] > 0 else "greater") else 0.0
    n = len(differences)
    t = float(differences.mean() / differences.std(ddof=1)) * n**0.5
    return float(
        {"greater": stdtr(n - 1, -t), "less": stdtr(n - 1, t), "two-sided": 2 * stdtr(n - 1, -abs(t))}[alternative]
    )


def _flip_signs(differences: np.ndarray, alternative: Alternative) -> float:
    """The share of flips of sign that give a mean at least as far out: of all of them where there are at most
    ``RESAMPLES``, else of so many drawn at random and the one observed. Two-sided: twice the smaller of both sides."""
    n, observed = len(differences), float(differences.sum())
    slack = FLAT * float(np.abs(differences).sum())
    random, is_complete = np.random.default_rng(0), 2**n <= RESAMPLES
    above, below, flips = 0, 0, 2**n if is_complete else RESAMPLES
    for start in range(0, flips, DRAWS_AT_ONCE):
        stop = min(flips, start + DRAWS_AT_ONCE)
        if is_complete:
            bits = np.arange(start, stop)[:, None] >> np.arange(n) & 1
        else:
            bits = random.integers(0, 2, (stop - start, n), dtype=np.int8)
        sums = observed - 2 * (bits @ differences)
        above += int((sums >= observed - slack).sum())
        below += int((sums <= observed + slack).sum())
    greater, less = ((count + (not is_complete)) / (flips + (not is_complete)) for count in (above, below))
    return {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % confidence interval of the mean, by the t distribution; (None, None) for fewer than two values."""
    from scipy import stats

    n = len(values)
    if n < 2:
        return None, None
    mean = float(values.mean())
    error = 0.0 if is_constant(values) else float(values.std(ddof=1) / np.sqrt(n))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return mean - half, mean + half


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order. Where those below α are taken as found, the chance of any false
    alarm in the family is at most α."""
    n = len(p_values)
    adjusted, largest = [0.0] * n, 0.0
    for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (n - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def correct(rows: list[Comparison]) -> list[Comparison]:
    """Set ``p_holm`` of each row: the rows of one measure are one family."""
    families: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.p is not None:
            families.setdefault(row.measure, []).append(i)
    adjusted = list(rows)
    for family in families.values():
        for i, p in zip(family, holm([rows[i].p or 0.0 for i in family]), strict=True):
            adjusted[i] = rows[i].model_copy(update={"p_holm": p})
    return adjusted


def is_constant(values: np.ndarray) -> bool:
    """Whether values differ by no more than rounding."""
    return bool(np.ptp(values) <= FLAT * np.abs(values).max())


def _values(directory: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(language, measure) → query_id → value, from an evaluation's per_query.parquet."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in pq.read_table(directory / "per_query.parquet").to_pylist():
        values.setdefault((row["lang"], row["measure"]), {})[row["query_id"]] = row["value"]
    return values


def _compare_queries(lang: str, measure: str, a: dict[str, float], b: dict[str, float], test: Test) -> Comparison:
    if a.keys() != b.keys():
        only_a, only_b = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
        raise RecipeError(
            f"{measure} in {lang}: the two systems were measured on different queries "
            f"({len(only_a)} only in the first, as {only_a[:3]}; {len(only_b)} only in the second, as {only_b[:3]}): "
            "evaluate both on the same set"
        )
    query_ids = sorted(a)
    return compare_values(lang, measure, np.array([a[q] for q in query_ids]), np.array([b[q] for q in query_ids]), test)
