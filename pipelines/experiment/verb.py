"""The verb *experiment*: make what is missing of an experiment, and show its verdicts."""

from collections.abc import Sequence
from typing import Any

from cluster.artifact import MANIFEST
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.experiment.config import load_experiment, names
from pipelines.experiment.markdown import write_markdown
from pipelines.experiment.plan import ExperimentPlan, check_questions, plan_experiment
from pipelines.experiment.results import ExperimentResult
from pipelines.verbs import Report, make


def experiment(name: str, only: Sequence[str], sets: Sequence[str], console: Any, markdown: str = "") -> Report:
    """Run an experiment, or some of its variants, and show what was found. A finished one is read, not run.
    ``markdown`` is a file to which a page is written too.

    Raises:
        RecipeError: what is wrong in the file of the experiment or of its base, found before anything runs.
    """
    plan = plan_experiment(load_experiment(name), sets, name)
    is_finished = (plan.root / plan.report.id / MANIFEST).exists()
    if plan.absent and not is_finished:
        raise RecipeError("\n".join(plan.absent))
    for note in plan.notes:
        console.print(note, style="dim")
    if only:
        chosen = [trial for variant in only for trial in plan.find(variant)]
        make(plan, [step for trial in chosen for step in trial.evaluations.values()], plan.root, console)
        return _show_steps(plan, only)
    if not is_finished:
        check_questions(plan)
        make(plan, [plan.report], plan.root, console)
    result = _read(plan)
    if markdown:
        Place.of(markdown).write(write_markdown(result).encode())
    return _show(plan, result)


def list_experiments() -> Report:
    """The experiments that come with the package, with what each compares."""
    from rich.table import Table

    found = {name: load_experiment(name) for name in names()}
    table = Table("experiment", "base", "trials", "about")
    rows = []
    for name, one in found.items():
        trials = sum(1 for _ in one.trials())
        table.add_row(name, one.base, str(trials), one.about)
        rows.append({"experiment": name, "base": one.base, "trials": trials, "about": one.about})
    return Report(rows, table)


def _read(plan: ExperimentPlan) -> ExperimentResult:
    return ExperimentResult.model_validate_json((plan.root / plan.report.id / "results.json").read())


def _show(plan: ExperimentPlan, result: ExperimentResult) -> Report:
    from rich.console import Group

    from pipelines.experiment.terminal_page import experiment_page

    page = (plan.root / plan.report.id / "report.html").redacted
    return Report({**result.model_dump(mode="json"), "html": page}, Group(experiment_page(result), f"the page: {page}"))


def _show_steps(plan: ExperimentPlan, variants: Sequence[str]) -> Report:
    """The measures of some variants, trial by trial."""
    from rich.table import Table

    from pipelines.evaluate import POOL, read_measures

    measures = plan.experiment.measures
    table = Table("trial", "set", *measures, title="pooled over languages", title_justify="left")
    rows = []
    for variant in variants:
        for one in plan.find(variant):
            for set_name, step in one.evaluations.items():
                found = read_measures(step.artifact(plan.root))
                table.add_row(one.trial.label, set_name, *(f"{found[POOL][measure]:.3f}" for measure in measures))
                rows.append({"trial": one.trial.label, "set": set_name, "measures": found})
    return Report(rows, table)
