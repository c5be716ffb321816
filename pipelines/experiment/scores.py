"""Scores as tables: by variant, measure and language, checked to be complete, and summarised.

Legend: Q questions, S seeds.
"""

from collections.abc import Sequence

import numpy as np

from cluster.errors import StepError
from pipelines.experiment.results import Cell, Scores
from pipelines.significance import interval

Table = dict[tuple[str, str, str], Scores]  # (variant, measure, language)


def summarise(scores: Sequence[Scores]) -> tuple[Cell, ...]:
    """The mean, interval and deviation over seeds of each variant in each language by each measure."""
    return tuple(_summarise_one(one) for one in tabulate(scores).values())


def tabulate(scores: Sequence[Scores]) -> Table:
    """Scores by variant, measure and language.

    Raises:
        StepError: one of them is there twice.
    """
    table: Table = {}
    for one in scores:
        key = (one.variant, one.measure, one.lang)
        if key in table:
            raise StepError(
                f"{one.variant}, {one.measure} in {one.lang}: expected one set of scores, got two: put the questions "
                "of all folds, and the seeds, together"
            )
        table[key] = one
    return table


def values_by_seed(one: Scores, questions: Sequence[str] | None = None) -> np.ndarray:
    """Values of questions (None: all, sorted by id) by seed [Q, S]."""
    return np.array([one.values[question] for question in (questions or sorted(one.values))])


def check_same_questions(a: Scores, b: Scores) -> None:
    """Raise a StepError that names both variants where they were measured on different questions."""
    if a.values.keys() != b.values.keys():
        only_a, only_b = sorted(a.values.keys() - b.values.keys()), sorted(b.values.keys() - a.values.keys())
        raise StepError(
            f"{a.measure} in {a.lang}: {a.variant} and {b.variant} were measured on different questions "
            f"({len(only_a)} only in {a.variant}, as {only_a[:3]}; {len(only_b)} only in {b.variant}, as "
            f"{only_b[:3]}): evaluate both on the same sets and folds"
        )


def _summarise_one(one: Scores) -> Cell:
    values_QS = values_by_seed(one)
    low, high = interval(values_QS.mean(axis=1))
    return Cell(
        variant=one.variant,
        lang=one.lang,
        measure=one.measure,
        questions=len(values_QS),
        seeds=len(one.seeds),
        mean=float(values_QS.mean()),
        low=low,
        high=high,
        seed_deviation=float(values_QS.mean(axis=0).std(ddof=1)) if len(one.seeds) > 1 else None,
    )
