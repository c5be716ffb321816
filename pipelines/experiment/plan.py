"""The plan of an experiment: the union of its trials' plans, and one report that reads their evaluations.

A trial is planned as a recipe of its own. Steps are known by fingerprint, so what two trials share (documents,
translations, a teacher's scores) is one step, and only what differs runs. Of each trial only the evaluations of the
variant's system are made: a variant that measures BM25 trains nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.component import fingerprint
from cluster.errors import RecipeError
from cluster.step import Step, find_steps, list_steps
from cluster.storage import Place, redact_secrets
from pipelines import plan as planning
from pipelines.correlate import list_rows
from pipelines.correlation import MEASURES as CORRELATIONS
from pipelines.evaluate import POOL, EvaluateConfig
from pipelines.experiment.config import Experiment, Trial
from pipelines.experiment.report import ReportConfig, TrialKey, write_report
from pipelines.model_hub import remember_answers
from pipelines.plan import STUDENT, Plan
from pipelines.plan.steps import config_of
from pipelines.recipe import Recipe, load
from pipelines.sources import IrDatasets
from pipelines.sources.parallel import Parallel
from pipelines.sources.squad import Squad
from pipelines.toml import format_value


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with the plan of its recipe, and the evaluations that count, by set."""

    trial: Trial
    plan: Plan
    evaluations: Mapping[str, Step]

    @property
    def training(self) -> Step | None:
        """The training of the student that is measured, if it is one."""
        training = self.plan.training
        return training.train if training and self.trial.system == STUDENT else None


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment's trials and its report."""

    experiment: Experiment
    trials: Sequence[PlannedTrial]
    report: Step
    root: Place

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        """The runtime environments of all trials' recipes."""
        return {name: value for one in self.trials for name, value in one.plan.recipe.environments.items()}

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.experiment.name

    @property
    def steps(self) -> list[Step]:
        """Every step once, inputs first."""
        return list_steps([self.report])

    def find_steps(self, name: str) -> list[Step]:
        """The steps of this name, or of this name and fingerprint. Raises RecipeError when there is none."""
        return find_steps(self.steps, name, f"experiment {self.name}")

    @property
    def absent(self) -> list[str]:
        """Which files of the sources and which models are not here."""
        return list(dict.fromkeys(line for one in self.trials for line in one.plan.absent))

    @property
    def notes(self) -> list[str]:
        """What the user should know of the data."""
        return list(dict.fromkeys(line for one in self.trials for line in one.plan.notes))

    def find(self, variant: str) -> list[PlannedTrial]:
        """The trials of a variant. Raises RecipeError where there is none."""
        found = [one for one in self.trials if one.trial.variant == variant]
        if not found:
            known = list(self.experiment.all_variants())
            raise RecipeError(f"no variant {variant!r} in experiment {self.experiment.name}; it has {', '.join(known)}")
        return found


@remember_answers()
def plan_experiment(experiment: Experiment, overrides: Sequence[str] = (), asked_as: str = "") -> ExperimentPlan:
    """Plan every trial, and the report.

    ``overrides`` change the base recipe, below what the experiment and its variants set. ``asked_as`` is the name or
    the path that the user typed, for the command on the page; empty: the experiment's name.

    Raises:
        RecipeError: a trial's recipe does not load or plan, has no such system or evaluation set, a set is measured by
            none of the experiment's measures, or the languages of a comparison are not measured; the message names the
            variant and the key.
    """
    trials = [_plan_trial(experiment, trial, overrides) for trial in experiment.trials()]
    roots = {one.plan.recipe.root for one in trials}
    if len(roots) > 1:
        raise RecipeError(f"experiment {experiment.name}: its trials have several roots, {sorted(roots)}; expected one")
    _check_measures(experiment, trials)
    _check_languages(experiment, trials)
    inputs: dict[str, Any] = {"evaluations": {}, "trainings": {}}
    for number, one in enumerate(trials):
        for name, step in one.evaluations.items():
            inputs["evaluations"].setdefault(name, {})[str(number)] = step
        if one.training:
            inputs["trainings"][str(number)] = one.training
    if not inputs["trainings"]:
        del inputs["trainings"]
    config = ReportConfig(
        name=experiment.name,
        about=experiment.about,
        measures=experiment.measures,
        trials=tuple(TrialKey(variant=t.trial.variant, fold=t.trial.fold, seed=t.trial.seed) for t in trials),
        asked_of=_list_asked(trials),
        grid=experiment.describe_grid() if experiment.grid else None,
        effects=experiment.effects,
        compare=tuple(experiment.compare.values()),
        correction=experiment.correction.method,
        limits=experiment.limits,
        commands=_commands(experiment, overrides, asked_as or experiment.name),
    )
    report = Step(f"report-{experiment.name}", write_report, config, inputs, verb="evaluate")
    return ExperimentPlan(experiment, trials, report, Place.of(roots.pop()))


def _list_asked(trials: Sequence[PlannedTrial]) -> dict[str, str]:
    """The evaluation set of each set whose questions others have too, in another language: what a set is asked in
    several languages for, and sets of one parallel source and split that are asked in different languages."""
    found: dict[str, str] = {}
    for one in trials:
        asked: dict[str, dict[str, str]] = {}  # by collection of questions: the set that each language makes
        for name in one.evaluations:
            if name not in one.plan.collections:
                continue  # sentence pairs
            collection = one.plan.collections[name]
            assert collection.queries is not None  # what has no questions has no evaluation
            config = config_of(collection.queries)
            if name != collection.of:
                found[name] = collection.of
            elif isinstance(config.source, Parallel | Squad):
                asked.setdefault(fingerprint([config.source, config.split]), {}).setdefault(config.lang, name)
        for of_questions in asked.values():
            if len(of_questions) > 1:
                found |= dict.fromkeys(of_questions.values(), min(of_questions.values()))
    return found


def _plan_trial(experiment: Experiment, trial: Trial, overrides: Sequence[str]) -> PlannedTrial:
    where = f"experiment {experiment.name}, variant {trial.variant}"
    try:
        recipe = load(trial.recipe, overrides, trial.values)
        plan = planning.plan(_with_measures(recipe, experiment.measures))
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error
    there = (*plan.collections, *plan.pairs)  # a set that is asked in several languages is one for each
    sets = experiment.sets or there
    for name in sets:
        if name not in there:
            raise RecipeError(f"{where}: sets names {name!r}; recipe {trial.recipe} has {sorted(there)}")
        if (name, trial.system) not in plan.measured:
            known = sorted(system for of, system in plan.measured if of == name)
            raise RecipeError(f"{where}: system = {trial.system!r} is not there; expected one of {known}")
    return PlannedTrial(trial, plan, {name: plan.measured[name, trial.system] for name in sets})


def _check_measures(experiment: Experiment, trials: Sequence[PlannedTrial]) -> None:
    """Raise where a trial's evaluation has none of the measures of the experiment."""
    for one in trials:
        for set_name, step in one.evaluations.items():
            known = _list_measures(step)
            if not set(known) & set(experiment.measures):
                raise RecipeError(
                    f"experiment {experiment.name}, variant {one.trial.variant}: the set {set_name} is measured by "
                    f"{', '.join(known)}, and the experiment asks for measures = {list(experiment.measures)}: name one "
                    "of the set's, or leave the set out with sets"
                )


def _list_measures(step: Step) -> Sequence[str]:
    """The measures of an evaluation."""
    if "pairs" in step.inputs:
        return CORRELATIONS
    assert isinstance(step.config, EvaluateConfig)
    return step.config.measures


def _check_languages(experiment: Experiment, trials: Sequence[PlannedTrial]) -> None:
    """Raise where a comparison names a language in which some trial is not measured."""
    for name, claim in experiment.compare.items():
        for one in trials:
            for set_name, step in one.evaluations.items():
                known = _list_measured(step)
                if unknown := sorted(set(claim.languages) - set(known)):
                    raise RecipeError(
                        f"experiment {experiment.name}: compare.{name}.languages names {unknown[0]!r}, and variant "
                        f"{one.trial.variant} is measured on {set_name} in {', '.join(known)}"
                    )


def _list_measured(step: Step) -> list[str]:
    """The languages in which a step measures, the pool of all, and of sentence pairs the pairs of languages too."""
    if "qrels" in step.inputs:
        return [POOL, *step.inputs["qrels"]]
    langs = list(step.inputs["pairs"])
    return list(list_rows({(left, right): None for left in langs for right in langs}))


def _with_measures(recipe: Recipe, wanted: Sequence[str]) -> Recipe:
    """The recipe with the measures of an experiment beside its own, so that its evaluations are shared where it has
    them all."""
    measures = tuple(dict.fromkeys((*recipe.measure.measures, *wanted)))
    return recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"measures": measures})})


def check_questions(plan: ExperimentPlan) -> None:
    """Raise RecipeError where a trial has no question to be measured with: found now, and not after its training.

    Questions of ir_datasets are not looked at, which would have to be downloaded."""
    seen: set[str] = set()
    for one in plan.trials:
        for name, step in one.evaluations.items():
            if name in one.plan.pairs:
                continue  # a split without pairs ends their ingest
            queries = one.plan.collections[name].queries
            assert queries is not None  # what has no questions has no evaluation
            asked = config_of(queries)
            key = fingerprint([asked.source, asked.lang, asked.split, str(asked.source)])
            if key in seen or isinstance(asked.source, IrDatasets):
                continue
            seen.add(key)
            if not any(entry.row for entry in asked.source.queries(asked.lang, asked.split)):
                values = ", ".join(f"{key} = {value}" for key, value in one.trial.values.items())
                raise RecipeError(
                    f"experiment {plan.experiment.name}, variant {one.trial.variant}: {step.name} has no questions "
                    f"(split {asked.split!r} in {asked.lang}; {values})"
                )


def _commands(experiment: Experiment, overrides: Sequence[str], asked_as: str) -> tuple[str, ...]:
    """The command of the experiment, and that of one trial of each variant, as they can be typed."""
    given = [word for override in overrides for word in ("--set", override)]
    lines = {"": ["babelray", "experiment", asked_as, *given]}
    for trial in experiment.trials():
        sets = [word for key, value in trial.values.items() for word in ("--set", f"{key}={format_value(value)}")]
        verb = ["babelray", "run", trial.recipe]
        lines.setdefault(trial.variant, [*verb, *given, *sets])
    return tuple(redact_secrets(shlex.join(words)) for words in lines.values())
