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
from pipelines.experiment.claims import Axis, AxisClaim, Grid
from pipelines.experiment.results import Answer, Contrast, Effect, Fit, Level, Scores
from pipelines.experiment.scores import Table, check_questions, tabulate, values_by_seed
from pipelines.significance import LEVEL

SAMPLES = 10_000


@dataclass(frozen=True)
class Found:
    """What the report needs: one effect per axis, one contrast per claim, one fit, in each language and measure."""

    effects: tuple[Effect, ...]
    contrasts: tuple[Contrast, ...]
    fits: tuple[Fit, ...]


@dataclass(frozen=True)
class Resampled:
    """An estimate with its bootstrap samples: of the slope of an axis (None without numbers) and of its levels' means
    [levels] and [B, levels]."""

    slope: tuple[float, np.ndarray] | None
    levels: np.ndarray
    levels_B: np.ndarray

    @property
    def span(self) -> tuple[float, np.ndarray]:
        """The greatest minus the smallest of the levels' means."""
        return float(np.ptp(self.levels)), np.ptp(self.levels_B, axis=1)


def fit_grid(grid: Grid, scores: Sequence[Scores], claims: Sequence[AxisClaim] = ()) -> Found:
    """Fit the main effects of a grid in each language and measure that all its variants have.

    Raises:
        RecipeError: a claim names no axis, a variant's level is not one of its axis, or the variants do not tell the
            axes apart.
        StepError: a variant of the grid has no scores, or other questions than the first.
    """
    _check_grid(grid, claims)
    effects: list[Effect] = []
    contrasts: list[Contrast] = []
    fits: list[Fit] = []
    for lang, measure, values_QV in _find_values(grid, tabulate(scores)):
        weights_BQ = _draw_weights(len(values_QV))
        found = {axis.name: _estimate(axis, grid, values_QV, weights_BQ) for axis in grid.axes}
        where = {"lang": lang, "measure": measure}
        effects += [_describe(axis, found[axis.name], len(values_QV), where) for axis in grid.axes]
        contrasts += [_contrast(claim, found, where) for claim in claims]
        fits.append(Fit(**where, explained=_find_explained(grid, values_QV)))
    return Found(tuple(effects), tuple(contrasts), tuple(fits))


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
    for name in names:
        if missing := [key for key in first if (name, *key) not in table] or ([] if first else ["any measure"]):
            raise StepError(f"grid: expected scores of the variant {name} by {missing[0]}, got none: evaluate it alike")
    for measure, lang in first:
        of = [table[name, measure, lang] for name in names]
        for other in of[1:]:
            check_questions(of[0], other)
        questions = sorted(of[0].values)
        yield lang, measure, np.column_stack([values_by_seed(one, questions).mean(axis=1) for one in of])


def _draw_weights(questions: int) -> np.ndarray:
    """How often each question is in each bootstrap sample, over the number of questions [B, Q]: the same samples for
    equal numbers of questions."""
    random = np.random.default_rng(0)
    return random.multinomial(questions, np.full(questions, 1 / questions), SAMPLES).astype(np.float32) / questions


def _code_levels(axis: Axis, grid: Grid) -> np.ndarray:
    """Columns that are 1 where a variant has a level, the first level being left out [V, levels - 1]."""
    place = [axis.levels.index(point.levels[axis.name]) for point in grid.points]
    return np.eye(len(axis.levels))[place][:, 1:]


def _code_number(axis: Axis, grid: Grid) -> np.ndarray:
    """The logarithm to base 2 of each variant's number on the axis [V, 1]."""
    assert axis.numbers
    return np.log2([axis.numbers[axis.levels.index(point.levels[axis.name])] for point in grid.points])[:, None]


def _estimate(axis: Axis, grid: Grid, values_QV: np.ndarray, weights_BQ: np.ndarray) -> Resampled:
    others = [_code_levels(other, grid) for other in grid.axes if other is not axis]
    mine = _code_levels(axis, grid)
    by_question = _solve([mine, *others], values_QV)[:, 1 : 1 + mine.shape[1]]
    # a level's mean: the mean over all variants, with the axis set to the level
    shift_QL = np.column_stack([np.zeros(len(values_QV)), by_question])
    levels_QL = values_QV.mean(axis=1, keepdims=True) + shift_QL - by_question @ mine.mean(axis=0)[:, None]
    slope = None
    if axis.numbers:
        numbers = [_code_number(other, grid) if other.numbers else _code_levels(other, grid) for other in grid.axes]
        column = 1 + sum(part.shape[1] for part in numbers[: grid.axes.index(axis)])
        slope_Q = _solve(numbers, values_QV)[:, column]
        slope = float(slope_Q.mean()), weights_BQ @ slope_Q
    return Resampled(slope, levels_QL.mean(axis=0), weights_BQ @ levels_QL)


def _solve(columns: Sequence[np.ndarray], values_QV: np.ndarray) -> np.ndarray:
    """Least squares of each question's values on an intercept and these columns [Q, P]."""
    design_VP = np.column_stack([np.ones(values_QV.shape[1]), *columns])
    return values_QV @ np.linalg.pinv(design_VP).T


def _describe(axis: Axis, found: Resampled, questions: int, where: dict[str, str]) -> Effect:
    low, high = _percentiles(found.slope[1]) if found.slope else (None, None)
    span, span_B = found.span
    span_low, span_high = _percentiles(span_B)
    levels = []
    for i, level in enumerate(axis.levels):
        level_low, level_high = _percentiles(found.levels_B[:, i])
        levels.append(Level(level=level, mean=float(found.levels[i]), low=level_low, high=level_high))
    return Effect(
        axis=axis.name,
        **where,
        questions=questions,
        slope=found.slope[0] if found.slope else None,
        low=low,
        high=high,
        span=span,
        span_low=span_low,
        span_high=span_high,
        levels=tuple(levels),
    )


def _contrast(claim: AxisClaim, found: dict[str, Resampled], where: dict[str, str]) -> Contrast:
    larger, than = found[claim.larger], found[claim.than]
    has_slopes = larger.slope is not None and than.slope is not None
    one, other = (larger.slope, than.slope) if larger.slope and than.slope else (larger.span, than.span)
    low, high = _percentiles(one[1] - other[1])
    answer: Answer = "holds" if low > 0 else "fails" if high < 0 else "cannot tell"
    return Contrast(
        claim=claim.claim,
        larger=claim.larger,
        than=claim.than,
        **where,
        basis="slope" if has_slopes else "span",
        difference=one[0] - other[0],
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
