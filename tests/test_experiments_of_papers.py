"""The experiments that come with the package compare what they say: equal sizes, and what differs differs alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.experiment.config import Experiment, load_experiment, names
from pipelines.experiment.plan import ExperimentPlan, PlannedTrial, plan_experiment
from pipelines.recipe import find_members, load
from pipelines.toml import format_value
from tests.test_recipe import parallel

MOST_TRIALS = 18  # of an experiment that ends within 45 minutes on two cores, where a trial takes 1 to 3
LONGER = {  # those that may take longer
    "mtd": 35,
    "labels": 30,
    "maml-align": 60,
    "maml-align-parts": 30,
    "maml-align-pairs": 30,
}


def plan_of(name: str, directory: Path) -> ExperimentPlan:
    sets = parallel(directory)
    for fold in range(1, 5):
        (directory / "splits" / f"fold{fold}.tsv").write_text("q0\ttrain\nq1\ttest\nq2\tdev\n")
    return plan_experiment(load_experiment(name), sets)


def train_config(trial: PlannedTrial) -> Any:
    assert trial.training is not None
    return trial.training.config.train


def ids(trial: PlannedTrial) -> Mapping[str, str]:
    return {step.name: step.id for step in trial.plan.steps}


@pytest.mark.parametrize("name", names())
def test_every_experiment_ends_in_a_claim_and_says_its_limits(name: str) -> None:
    one = load_experiment(name)
    assert one.compare or one.effects
    assert one.limits or name == "mtd"
    assert all(claim.claim for claim in one.compare.values())
    assert sum(1 for _ in one.trials()) <= LONGER.get(name, MOST_TRIALS)


def test_damage_reaches_translations_and_no_teacher_s_texts(tmp_path: Path) -> None:
    plan = plan_of("translation-quality", tmp_path)
    whole, *_ = plan.find("replaced = 0.0, teacher = 1 0")
    half, *_ = plan.find("replaced = 0.5, teacher = 1 0")
    weaker, *_ = plan.find("replaced = 0.0, teacher = 0 1")
    differ = {name for name, of in ids(half).items() if ids(whole)[name] != of}
    assert {n for n in differ if n.startswith("translate")} == {
        f"translate-{x}" for x in ("ar", "de", "es", "hi", "ru", "zh")
    }
    assert not {name for name in differ if name.startswith(("docs", "queries", "qrels", "score", "select"))}
    assert {"start", "train"} < differ
    assert {
        name for name, of in ids(weaker).items() if ids(whole)[name] != of and name.startswith(("score", "start"))
    } == {
        "score"  # merged otherwise; both teachers score once
    }


def test_a_teacher_of_another_language_reads_other_texts_and_the_student_the_same(tmp_path: Path) -> None:
    plan = plan_of("teacher-language", tmp_path)
    read = {}
    for variant in plan.experiment.all_variants():
        trial, *_ = plan.find(variant)
        (scores,) = {step.id: step for step in trial.plan.steps if step.name == "score-0"}.values()
        read[variant] = scores.config.query_lang, scores.config.doc_lang
        assert {step.name for step in trial.plan.training.train.inputs["data"]["main"]["docs"].values()} == {
            "docs-en", *(f"translate-{lang}" for lang in ("ar", "de", "es", "hi", "ru", "zh"))
        }  # fmt: skip
    assert read == {
        "english": ("en", "en"),
        "english-to-german": ("en", "de"),
        "german": ("de", "de"),
        "bm25-english": ("en", "en"),
        "bm25-german": ("de", "de"),
    }


def test_negatives_differ_and_nothing_else(tmp_path: Path) -> None:
    plan = plan_of("hard-negatives", tmp_path)
    trials = {variant: plan.find(variant)[0] for variant in plan.experiment.all_variants()}
    configs = {variant: train_config(trial) for variant, trial in trials.items()}
    assert {variant: config.ways for variant, config in configs.items()} == {
        "none": 1,
        "random": 8,
        "mined": 8,
        "filtered": 8,
    }
    assert len({repr(config.model_copy(update={"ways": 8})) for config in configs.values()}) == 1
    assert all(config.loss.in_batch for config in configs.values())
    steps = {variant: {step.name for step in trial.plan.steps} for variant, trial in trials.items()}
    assert {variant for variant, of in steps.items() if "mine" in of} == {"random", "mined", "filtered"}
    assert {variant for variant, of in steps.items() if "score" in of} == {"filtered"}  # which alone asks a teacher


def test_mixtures_of_few_and_of_many_members_have_one_size_and_the_fold_that_is_not_measured(tmp_path: Path) -> None:
    plan = plan_of("task-and-language-diversity", tmp_path)
    assert {train_config(trial).examples for trial in plan.trials} == {120}
    assert len({repr(train_config(trial)) for trial in plan.trials}) == 1
    members = {}
    for trial in plan.trials:
        recipe = trial.plan.recipe
        found = find_members(recipe.mix, recipe)
        members.setdefault(trial.trial.variant, set()).add(len(found))
        assert {member.source.fold for member, _ in found.values()} == {recipe.source.fold} == {int(trial.trial.fold)}
        for member, _ in found.values():
            assert member.languages.query == member.languages.original
            assert member.languages.docs == recipe.languages.docs
    assert sorted(members.values(), key=min) == [{n} for n in (1, 2, 2, 4, 4, 4, 8, 8, 16)]
    asked = plan.report.config.asked_of  # one question in four languages, not four
    assert asked == {f"xquad-{lang}": "xquad" for lang in ("de", "en", "es", "ru")}
    assert all(trial.evaluations.keys() == asked.keys() for trial in plan.trials)


def test_adapters_and_whole_students_see_the_same_batches(tmp_path: Path) -> None:
    plan = plan_of("lora", tmp_path)
    full, lora, less = (train_config(plan.find(variant)[0]) for variant in ("full", "lora-16", "lora-4"))
    assert full.adapter is None
    assert (lora.adapter.rank, less.adapter.rank) == (16, 4)
    assert lora.adapter.alpha / lora.adapter.rank == less.adapter.alpha / less.adapter.rank
    same = {"adapter": None, "lr": full.lr}
    assert lora.model_copy(update=same) == full == less.model_copy(update=same)
    assert plan.find("untrained")[0].training is None


def test_equal_trainings_are_made_apart_and_differ_in_their_workers_alone(tmp_path: Path) -> None:
    plan = plan_of("worker-floor", tmp_path)
    trials = [plan.find(variant)[0] for variant in ("one", "two", "one-again")]
    configs = [train_config(trial) for trial in trials]
    assert [config.resources.workers for config in configs] == [1, 2, 1]
    assert [trial.training.workers for trial in trials] == [1, 2, 1]
    assert len({trial.training.id for trial in trials}) == 3
    same = {"repetition": 0, "resources": configs[0].resources}
    assert len({repr(config.model_copy(update=same)) for config in configs}) == 1
    assert len({ids(trial)["start"] for trial in trials}) == len({ids(trial)["score"] for trial in trials}) == 1


def test_a_key_below_the_over_of_a_member_is_a_whole_key(tmp_path: Path) -> None:
    changes = {
        "mix.of.written": {"recipe": "xquad", "over": {"synthesis.kind": ["templates"]}},
        "mix.of.written.over.languages.original": ["en", "de"],
        "mix.of.written.tied.languages.docs": "languages.original",
    }
    mix = load("xquad", parallel(tmp_path), changes).mix
    assert mix.of["written"].over == {"synthesis.kind": ("templates",), "languages.original": ("en", "de")}
    assert mix.of["written"].tied == {"languages.docs": "languages.original"}
    typed = [*parallel(tmp_path), *(f"{key}={format_value(value)}" for key, value in changes.items())]
    assert load("xquad", typed).mix == mix


def test_a_variant_changes_no_other_though_a_table_is_set_for_all(tmp_path: Path) -> None:
    scorer = {"kind": "dense", "model": "minilm"}
    experiment = Experiment(
        name="x",
        base="xquad",
        set={"score.scorer": scorer},
        variants={"a": {"set": {"score.scorer.query_prompt": "?"}}, "b": {}},
    )
    first, second = plan_experiment(experiment, parallel(tmp_path)).trials
    assert first.plan.recipe.score.scorer.query_prompt == "?"
    assert second.plan.recipe.score.scorer.query_prompt == load("xquad", parallel(tmp_path)).score.scorer.query_prompt
    assert scorer == {"kind": "dense", "model": "minilm"}
