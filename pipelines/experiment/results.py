"""What an experiment measured and what follows from it: the data that tests, effects and pages share.

    Scores, Curve              what was measured: a value per question and seed; a curve of a training
    Cell, Verdict, Effect, …   what was found
    ExperimentResult           all that a page shows, and what ``results.json`` holds

What is asked of an experiment, ``Claim`` and ``Grid``, is in ``claims``.

A *variant* is one form of the recipe, a *question* one topic of an evaluation set, under an id that is unique over all
folds ("fold0/q17"). A question's value is the mean over the seeds; all tests and intervals are over questions.

Every number is finite or None. None means: not defined for these data, as an interval of a single question.
"""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from cluster.errors import StepError
from pipelines.experiment.claims import AxisClaim, Claim, Correction, Grid, Record, Test

Answer = Literal["holds", "fails", "cannot tell"]
Basis = Literal["slope", "span"]


class Scores(Record):
    """The values of one variant by one measure in one language ("all" is the pool of all languages).

    ``values`` holds, for each question, one value per seed, in the order of ``seeds``.

    Raises:
        StepError: there is no question, a value is no finite number, or a question lacks the value of a seed; it names
            variant, measure, language and question.
    """

    variant: str
    measure: str
    lang: str
    seeds: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]

    @model_validator(mode="after")
    def _check_values(self) -> "Scores":
        where = f"{self.variant}, {self.measure} in {self.lang}"
        if not self.values or not self.seeds:
            raise StepError(f"{where}: expected values of at least one question and seed, got none: evaluate it first")
        for question, of_seeds in self.values.items():
            if len(of_seeds) != len(self.seeds):
                raise StepError(
                    f"{where}, question {question}: expected a value for each of the seeds {list(self.seeds)}, got "
                    f"{len(of_seeds)}: evaluate every seed on the same questions"
                )
            if not all(map(math.isfinite, of_seeds)):
                raise StepError(
                    f"{where}, question {question}: expected finite numbers, got {list(of_seeds)}: look at the "
                    "evaluation's per_query.parquet, and delete that evaluation to make it again"
                )
        return self


class Curve(Record):
    """A curve of one training: ``measure`` (loss, or nDCG@20 of the validation) after so many ``steps``."""

    variant: str
    fold: str
    seed: str
    measure: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class Cell(Record):
    """One variant in one language by one measure.

    ``mean`` is over ``questions``, ``low`` and ``high`` its 95 % t interval over questions. ``seed_deviation`` is the
    standard deviation over seeds of the mean over questions: None for one seed.
    """

    variant: str
    lang: str
    measure: str
    questions: int
    seeds: int
    mean: float
    low: float | None
    high: float | None
    seed_deviation: float | None


class Verdict(Record):
    """One comparison of a claim: ``a`` against ``b`` in one language by one measure.

    Attributes:
        claim: the claim's name.
        n: questions.
        difference: the mean of a minus b; low, high: its 95 % t interval.
        ratio: mean of a / mean of b; ratio_low, ratio_high: its 95 % interval (Fieller), None where it is unbounded.
        margin: share of b by which a must be above it (superior). bound: of equivalence.
        statistic: Student's t of the test (of the worse side for equivalence).
        p: of the claim, p_corrected the same corrected for the family; p_against: of the opposite claim, corrected.
        p_permutation: of the claim by flips of sign, not corrected.
        effect: d_z, the mean of the differences over their standard deviation.
        detectable: the smallest true difference (superior, different), or bound (equivalent, if there is no
            difference), that n questions show with 80 % power, at the level of significance over the family's size.
        n_to_decide: questions that would decide with 80 % power if the true difference is the one observed; None where
            it is decided, or where no number of questions would do.
        seed_deviation: standard deviation over seeds of the difference, where both have the same seeds, at least two.
        family: the number of comparisons that are corrected together.
    """

    claim: str
    test: Test
    a: str
    b: str
    lang: str
    measure: str
    n: int
    mean_a: float
    mean_b: float
    difference: float
    low: float | None
    high: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    margin: float
    bound: float | None
    statistic: float | None
    p: float | None
    p_corrected: float | None
    p_against: float | None
    p_permutation: float | None
    effect: float | None
    detectable: float | None
    n_to_decide: int | None
    seed_deviation: float | None
    family: int
    answer: Answer


class Level(Record):
    """The mean of a measure at one level of an axis, the other axes held equal, with its 95 % bootstrap interval."""

    level: str
    mean: float
    low: float
    high: float


class Effect(Record):
    """What one axis of a grid does to a measure in one language.

    ``slope`` is the change of the measure per doubling of the axis's number, with its 95 % bootstrap interval over
    questions: None for an axis without numbers. ``span`` is the greatest minus the smallest of the levels' means.
    """

    axis: str
    lang: str
    measure: str
    questions: int
    slope: float | None
    low: float | None
    high: float | None
    span: float
    span_low: float
    span_high: float
    levels: tuple[Level, ...]


class Contrast(Record):
    """Whether one axis matters more than another: the difference of their slopes (``basis`` "slope"), or of their spans
    where one of them has no numbers, with its 95 % bootstrap interval over questions."""

    claim: str
    larger: str
    than: str
    lang: str
    measure: str
    basis: Basis
    difference: float
    low: float
    high: float
    answer: Answer


class Fit(Record):
    """How much of the variation between the variants of a grid the main effects explain: 1 where axes do not interact;
    None where all variants have the same mean."""

    lang: str
    measure: str
    explained: float | None


class ExperimentResult(Record):
    """All that a page shows. ``commands`` reproduce it; ``notes`` are lines about the data and the method."""

    name: str
    about: str = ""
    claims: tuple[Claim, ...] = ()
    correction: Correction = "holm"
    cells: tuple[Cell, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    grid: Grid | None = None
    axis_claims: tuple[AxisClaim, ...] = ()
    effects: tuple[Effect, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    fits: tuple[Fit, ...] = ()
    curves: tuple[Curve, ...] = ()
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def list_contrasts(self, claim: AxisClaim) -> list[Contrast]:
        """What was found of a claim about axes, in each language and measure."""
        return [one for one in self.contrasts if (one.larger, one.than) == (claim.larger, claim.than)]
