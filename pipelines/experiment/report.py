"""The step *report*: reads the evaluations of all trials, tests the claims, and writes what was found.

results.json   ``results.ExperimentResult``: means, verdicts, effects, curves
cells.tsv      the means by variant, language and measure, for a spreadsheet
report.html    one page that needs no network
"""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from statistics import fmean
from typing import Annotated, Any

import pyarrow.parquet as pq

from cluster.artifact import Artifact
from cluster.component import NOT_CONTENT, Component
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.experiment.claims import AxisClaim, Claim, Correction, Grid
from pipelines.experiment.results import Cell, Curve, ExperimentResult, Scores

POINTS = 200  # of a loss curve on the page


class TrialKey(Component):
    """Which variant, fold and seed an evaluation is of."""

    variant: str
    fold: str = ""
    seed: str = ""

    def question(self, set_name: str, query_id: str) -> str:
        """The id of a question among those of all sets and folds."""
        return "/".join(filter(None, (set_name, self.fold, query_id)))


class ReportConfig(Component):
    """What is reported. The inputs ``evaluations.SET.N`` and ``trainings.N`` are those of ``trials[N]``.

    ``asked_of`` names the evaluation set of each SET that is one of its languages of questions: a question that is
    asked in several languages is one question, whose value is the mean over these languages."""

    name: str
    about: str = ""
    measures: tuple[str, ...]
    trials: tuple[TrialKey, ...]
    asked_of: dict[str, str] = {}
    compare: tuple[Claim, ...] = ()
    correction: Correction = "holm"
    grid: Grid | None = None
    effects: AxisClaim | None = None
    limits: tuple[str, ...] = ()
    commands: Annotated[tuple[str, ...], NOT_CONTENT] = ()


def write_report(config: ReportConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Write the files above (a DirectoryWork).

    Returns:
        ``{"verdicts": {claim: answers by count}, "summary": …}``.

    Raises:
        StepError: a value is no number, or two variants were measured on different questions.
    """
    from pipelines.experiment.page import write_page

    scores = list(read_scores(config, inputs["evaluations"]))
    result = analyse(config, scores, tuple(read_curves(config, inputs.get("trainings", {}))))
    (out / "results.json").write(result.model_dump_json(indent=1).encode())
    (out / "cells.tsv").write(format_cells(result).encode())
    (out / "report.html").write(write_page(result).encode())
    answers: dict[str, dict[str, int]] = {}
    for verdict in result.verdicts:
        of_claim = answers.setdefault(verdict.claim, {})
        of_claim[verdict.answer] = of_claim.get(verdict.answer, 0) + 1
    return {"verdicts": answers, "summary": f"{len(result.cells)} means, {len(result.verdicts)} comparisons"}


write_report.version = 2  # type: ignore[attr-defined]  # 2: no pools and means of different languages are compared


def read_scores(config: ReportConfig, evaluations: Mapping[str, Mapping[str, Artifact]]) -> Iterator[Scores]:
    """The values of every question by variant, measure and language, those of all sets and folds together.

    Raises:
        StepError: trials asked a question in different languages; it names variant, measure and question.
    """
    seeds = tuple(dict.fromkeys(trial.seed for trial in config.trials))
    sets = {config.asked_of.get(name, name) for name in evaluations}
    found: dict[tuple[str, str, str], dict[str, dict[str, dict[str, float]]]] = {}
    for name, of_set in evaluations.items():
        set_name = config.asked_of.get(name, name)
        for number, artifact in of_set.items():
            trial = config.trials[int(number)]
            for row in pq.read_table(artifact.directory() / "per_query.parquet").to_pylist():
                if row["measure"] not in config.measures:
                    continue
                of_questions = found.setdefault((trial.variant, row["measure"], row["lang"]), {})
                question = trial.question(set_name if len(sets) > 1 else "", row["query_id"])
                of_questions.setdefault(question, {}).setdefault(trial.seed, {})[name] = row["value"]
    _check_asked(found)
    for (variant, measure, lang), of_questions in found.items():
        values = {
            question: tuple(fmean(by_seed[seed].values()) for seed in seeds if seed in by_seed)
            for question, by_seed in of_questions.items()
        }
        yield Scores(variant=variant, measure=measure, lang=lang, seeds=seeds, values=values)


def _check_asked(found: Mapping[tuple[str, str, str], Mapping[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Raise where a question's mean would be over other languages in one trial than in another."""
    first: dict[tuple[str, str, str], Set[str]] = {}
    for (variant, measure, lang), of_questions in found.items():
        for question, by_seed in of_questions.items():
            for seed, by_name in by_seed.items():
                expected = first.setdefault((measure, lang, question), by_name.keys())
                if by_name.keys() != expected:
                    raise StepError(
                        f"{variant}{f', seed {seed}' if seed else ''}, {measure} in {lang}, question {question}: "
                        f"expected to be asked as in the other trials ({', '.join(sorted(expected))}), got "
                        f"{', '.join(sorted(by_name))}: evaluate all variants with the same evaluate.NAME.query_lang"
                    )


def read_curves(config: ReportConfig, trainings: Mapping[str, Artifact]) -> Iterator[Curve]:
    """The loss and the validation of every training, after so many steps."""
    for number, artifact in trainings.items():
        trial = config.trials[int(number)]
        for name in ("losses.tsv", "validation.tsv"):
            header, *lines = (artifact.place / name).read().decode().splitlines()
            points = [(int(step), float(value)) for step, value, *_ in (line.split("\t") for line in lines)]
            points = [(step, value) for step, value in points if math.isfinite(value)]  # fp16 that overflowed: nan
            if points:
                points = points[:: max(1, len(points) // POINTS)]
                yield Curve(
                    variant=trial.variant,
                    fold=trial.fold,
                    seed=trial.seed,
                    measure=header.split("\t")[1],
                    steps=tuple(step for step, _ in points),
                    values=tuple(value for _, value in points),
                )


def analyse(config: ReportConfig, scores: Sequence[Scores], curves: Sequence[Curve]) -> ExperimentResult:
    """The means, the verdicts on the claims, and the effects of the grid."""
    from pipelines.experiment.effects import fit_grid
    from pipelines.experiment.scores import summarise
    from pipelines.experiment.statistics import judge

    axis_claims = (config.effects,) if config.effects else ()
    grid = fit_grid(config.grid, scores, axis_claims) if config.grid else None
    return ExperimentResult(
        name=config.name,
        about=config.about,
        claims=config.compare,
        correction=config.correction,
        cells=summarise(scores),
        verdicts=judge(config.compare, scores, config.correction),
        grid=config.grid,
        axis_claims=axis_claims,
        effects=grid.effects if grid else (),
        contrasts=grid.contrasts if grid else (),
        fits=grid.fits if grid else (),
        curves=tuple(curves),
        commands=config.commands,
        notes=config.limits,
    )


def format_cells(result: ExperimentResult) -> str:
    """The means as tab-separated values, with a head."""
    names = list(Cell.model_fields)
    rows = (["" if (value := getattr(cell, name)) is None else str(value) for name in names] for cell in result.cells)
    return "\n".join("\t".join(row) for row in [names, *rows]) + "\n"
