"""The main effects of a grid of variants: what each axis does to a measure, the other axes held equal.

Per question, by least squares over the variants of the grid,

    value = question + sum over axes of slope · log2(number)         the slope is the change per doubling
    value = question + sum over axes of effect of the level          an axis without numbers; the levels' means

Each question has its own intercept (it is a block), and all variants have the same questions, so that an estimate is
the mean over questions of the question's own estimate. The 95 % intervals are percentiles of 10,000 bootstrap samples
of questions (Efron and Tibshirani 1993, ch. 13), the same samples for all axes, so that their contrasts are paired.

That one axis matters more than another means that its slope is greater, or, where one of them has no numbers, that its
span is: the greatest minus the smallest of its levels' means. A span is never negative, and noise widens it.

Interactions are not fitted; ``Fit.explained`` says how much the main effects explain of what differs between variants.

Legend: Q questions, V variants, P coefficients, B bootstrap samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import RecipeError, StepError
from pipelines.evaluate import OVER_LANGUAGES
from pipelines.experiment.claims import Axis, AxisClaim, Grid
from pipelines.experiment.results import Answer, Basis, Contrast, Effect, Fit, Level, Scores
from pipelines.experiment.scores import Table, check_same_questions, tabulate, values_by_seed
from pipelines.significance import LEVEL

SAMPLES = 10_000
SAMPLES_AT_ONCE = 500


@dataclass(frozen=True)
class GridEffects:
    """What the report needs: one effect per axis, one contrast per claim, one fit, in each language and measure."""

    effects: tuple[Effect, ...]
    contrasts: tuple[Contrast, ...]
    fits: tuple[Fit, ...]


@dataclass(frozen=True)
class AxisEstimate:
    """What is estimated of an axis, by question and in bootstrap samples: its slope (None without numbers), [Q] and
    [B], and the means of its levels, [Q, levels] and [B, levels]."""

    slope_Q: np.ndarray | None
    levels_QL: np.ndarray
    slope_B: np.ndarray | None
    levels_BL: np.ndarray

    @property
    def slope(self) -> tuple[float, np.ndarray] | None:
        """The slope and its samples."""
        if self.slope_Q is None or self.slope_B is None:
            return None
        return float(self.slope_Q.mean()), self.slope_B

    @property
    def span(self) -> tuple[float, np.ndarray]:
        """The greatest minus the smallest of the levels' means, and its samples."""
        return float(np.ptp(self.levels_QL.mean(axis=0))), np.ptp(self.levels_BL, axis=1)


def fit_grid(grid: Grid, scores: Sequence[Scores], claims: Sequence[AxisClaim] = ()) -> GridEffects:
    """Fit the main effects of a grid in each language and measure that all its variants have; over several languages
    (``evaluate.OVER_LANGUAGES``) only where all variants are measured in the same ones.

    Raises:
        RecipeError: a claim names no axis, a variant's level is not one of its axis, or the variants do not tell the
            axes apart.
        StepError: a variant of the grid has no scores, they share no language, or one has other questions than the
            first.
    """
    _check_grid(grid, claims)
    effects: list[Effect] = []
    contrasts: list[Contrast] = []
    fits: list[Fit] = []
    for lang, measure, values_QV in _find_values(grid, tabulate(scores)):
        found = _estimate(grid, values_QV)
        effects += [_describe(axis, found[axis.name], lang, measure) for axis in grid.axes]
        contrasts += [_contrast(claim, found, lang, measure) for claim in claims]
        fits.append(Fit(lang=lang, measure=measure, explained=_find_explained(grid, values_QV)))
    return GridEffects(tuple(effects), tuple(contrasts), tuple(fits))


def _check_grid(grid: Grid, claims: Sequence[AxisClaim]) -> None:
    names = [axis.name for axis in grid.axes]
    for claim in claims:
        for key, name in (("larger", claim.larger), ("than", claim.than)):
            if name not in names:
                raise RecipeError(f"effects.{key}: expected an axis of the grid ({', '.join(names)}), got {name!r}")
    for point in grid.points:
        for axis in grid.axes:
            if point.levels.get(axis.name) not in axis.levels:
                raise RecipeError(
                    f"grid.{axis.name}: {point.variant} has the level {point.levels.get(axis.name)!r}, expected one "
                    f"of {list(axis.levels)}"
                )
    design_VP = np.column_stack([np.ones(len(grid.points)), *(_code_levels(axis, grid) for axis in grid.axes)])
    if np.linalg.matrix_rank(design_VP) < design_VP.shape[1]:
        raise RecipeError(
            f"grid: its {len(grid.points)} variants do not tell the axes {', '.join(names)} apart: expected every "
            "level of each axis, combined with different levels of the others"
        )


def _find_values(grid: Grid, table: Table) -> Iterator[tuple[str, str, np.ndarray]]:
    """Language, measure, and the values [Q, V] of the grid's variants, means over seeds."""
    names = [point.variant for point in grid.points]
    first = [(measure, lang) for variant, measure, lang in table if variant == names[0]]
    langs = {name: {lang for variant, _, lang in table if variant == name} for name in names}
    for name in names:
        if not langs[name]:
            by = " in ".join(first[0]) if first else "any measure"
            raise StepError(
                f"grid: expected scores of the variant {name} by {by}, got none: evaluate it like the others"
            )
    same = all(of == langs[names[0]] for of in langs.values())
    shared = [
        (measure, lang)
        for measure, lang in first
        if all((name, measure, lang) in table for name in names) and (same or lang not in OVER_LANGUAGES)
    ]
    if not shared:
        measured = "; ".join(f"{name} in {', '.join(sorted(of))}" for name, of in langs.items())
        raise StepError(
            f"grid: expected variants that share a language and a measure, got {measured}: set their evaluation "
            "languages alike"
        )
    for measure, lang in shared:
        of = [table[name, measure, lang] for name in names]
        for other in of[1:]:
            check_same_questions(of[0], other)
        questions = sorted(of[0].values)
        yield lang, measure, np.column_stack([values_by_seed(one, questions).mean(axis=1) for one in of])


def _code_levels(axis: Axis, grid: Grid) -> np.ndarray:
    """Columns that are 1 where a variant has a level, the first level being left out [V, levels - 1]."""
    place = [axis.levels.index(point.levels[axis.name]) for point in grid.points]
    return np.eye(len(axis.levels))[place][:, 1:]


def _code_number(axis: Axis, grid: Grid) -> np.ndarray:
    """The logarithm to base 2 of each variant's number on the axis [V, 1]."""
    assert axis.numbers
    return np.log2([axis.numbers[axis.levels.index(point.levels[axis.name])] for point in grid.points])[:, None]


def _estimate(grid: Grid, values_QV: np.ndarray) -> dict[str, AxisEstimate]:
    """The estimates of all axes by name."""
    slopes = {axis.name: _find_slopes(axis, grid, values_QV) for axis in grid.axes if axis.numbers}
    levels = {axis.name: _find_levels(axis, grid, values_QV) for axis in grid.axes}
    parts = [*(slope_Q[:, None] for slope_Q in slopes.values()), *levels.values()]
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    parts_B = np.split(_resample(np.column_stack(parts)), ends, axis=1)
    slopes_B = {name: part_B[:, 0] for name, part_B in zip(slopes, parts_B[: len(slopes)], strict=True)}
    return {
        name: AxisEstimate(slopes.get(name), levels[name], slopes_B.get(name), levels_BL)
        for name, levels_BL in zip(levels, parts_B[len(slopes) :], strict=True)
    }


def _find_slopes(axis: Axis, grid: Grid, values_QV: np.ndarray) -> np.ndarray:
    """The slope of an axis for each question [Q]."""
    others = [_code_number(of, grid) if of.numbers else _code_levels(of, grid) for of in grid.axes if of is not axis]
    return _solve([_code_number(axis, grid), *others], values_QV)[:, 1]


def _find_levels(axis: Axis, grid: Grid, values_QV: np.ndarray) -> np.ndarray:
    """The mean over all variants, were this axis at each of its levels, for each question [Q, levels]."""
    mine_VL, others = _code_levels(axis, grid), [_code_levels(of, grid) for of in grid.axes if of is not axis]
    effects_QL = _solve([mine_VL, *others], values_QV)[:, 1 : 1 + mine_VL.shape[1]]
    base_Q1 = values_QV.mean(axis=1, keepdims=True) - effects_QL @ mine_VL.mean(axis=0)[:, None]
    return np.column_stack([base_Q1, base_Q1 + effects_QL])


def _solve(columns: Sequence[np.ndarray], values_QV: np.ndarray) -> np.ndarray:
    """Least squares of each question's values on an intercept and these columns [Q, P]."""
    design_VP = np.column_stack([np.ones(values_QV.shape[1]), *columns])
    return np.asarray(values_QV @ np.linalg.pinv(design_VP).T)


def _resample(values_QP: np.ndarray) -> np.ndarray:
    """Means over bootstrap samples of the questions [B, P]; equal numbers of questions have the same samples."""
    random, n, means = np.random.default_rng(0), len(values_QP), []
    for _ in range(SAMPLES // SAMPLES_AT_ONCE):
        drawn = random.integers(0, n, (SAMPLES_AT_ONCE, n)) + n * np.arange(SAMPLES_AT_ONCE)[:, None]
        counts_BQ = np.bincount(drawn.ravel(), minlength=SAMPLES_AT_ONCE * n).reshape(SAMPLES_AT_ONCE, n)
        means.append(counts_BQ @ values_QP / n)
    return np.concatenate(means)


def _describe(axis: Axis, found: AxisEstimate, lang: str, measure: str) -> Effect:
    slope, low, high = (found.slope[0], *_percentiles(found.slope[1])) if found.slope else (None, None, None)
    span, span_B = found.span
    span_low, span_high = _percentiles(span_B)
    levels = []
    for mean, samples_B, level in zip(found.levels_QL.mean(axis=0), found.levels_BL.T, axis.levels, strict=True):
        level_low, level_high = _percentiles(samples_B)
        levels.append(Level(level=level, mean=float(mean), low=level_low, high=level_high))
    return Effect(
        axis=axis.name,
        lang=lang,
        measure=measure,
        questions=len(found.levels_QL),
        slope=slope,
        low=low,
        high=high,
        span=span,
        span_low=span_low,
        span_high=span_high,
        levels=tuple(levels),
    )


def _contrast(claim: AxisClaim, found: dict[str, AxisEstimate], lang: str, measure: str) -> Contrast:
    slopes, spans = ([getattr(found[name], of) for name in (claim.larger, claim.than)] for of in ("slope", "span"))
    basis: Basis = "span" if None in slopes else "slope"
    (one, one_B), (other, other_B) = slopes if basis == "slope" else spans
    low, high = _percentiles(one_B - other_B)
    answer: Answer = "holds" if low > 0 else "fails" if high < 0 else "cannot tell"
    return Contrast(
        claim=claim.claim,
        larger=claim.larger,
        than=claim.than,
        lang=lang,
        measure=measure,
        basis=basis,
        difference=one - other,
        low=low,
        high=high,
        answer=answer,
    )


def _find_explained(grid: Grid, values_QV: np.ndarray) -> float | None:
    """The share of the variance between the variants' means that main effects of the levels explain."""
    means_V = values_QV.mean(axis=0)
    total = float(((means_V - means_V.mean()) ** 2).sum())
    if total == 0:
        return None
    design_VP = np.column_stack([np.ones(len(means_V)), *(_code_levels(axis, grid) for axis in grid.axes)])
    rest_V = means_V - design_VP @ (np.linalg.pinv(design_VP) @ means_V)
    return 1 - float((rest_V**2).sum()) / total


def _percentiles(samples_B: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(samples_B, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
