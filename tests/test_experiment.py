"""Experiments: what a file may say, what is planned of it, and what runs: only what differs between variants."""

import json
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cluster.artifact import Artifact
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.__main__ import app
from pipelines.evaluate import PER_QUERY
from pipelines.experiment.claims import Claim
from pipelines.experiment.config import Experiment, load_experiment, names
from pipelines.experiment.plan import check_questions, plan_experiment
from pipelines.experiment.report import ReportConfig, TrialKey, write_report
from pipelines.experiment.results import ExperimentResult
from pipelines.plan import plan as plan_recipe
from pipelines.recipe import load
from pipelines.toml import format_value
from tests.artifacts import directory_artifact
from tests.test_recipe import parallel

SMALL = """
about = "three forms of a small recipe"
base = "atlas"
measures = ["nDCG@20"]

[set]
"source.territories" = 12
"languages.docs" = ["en", "de"]
"train.steps" = 4
"train.warmup" = 1
"train.validation.every" = 2


[seeds]
"train.seed" = [1, 2]

[variants.trained]
[variants.entries]
set = { "train.mixing" = "mix_entries" }
[variants.words]
system = "bm25"

[compare.better]
claim = "the student is above BM25"
a = "trained"
b = "words"
[compare.alike]
test = "equivalent"
of = ["trained", "entries"]
bound = 0.2
languages = ["all"]
"""


def write(directory: Path, text: str = SMALL) -> str:
    path = directory / "small.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", names())
def test_every_experiment_loads(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.about
    assert len({trial.label for trial in experiment.trials()}) == sum(1 for _ in experiment.trials())


@pytest.mark.parametrize("name", [name for name in names() if load_experiment(name).base.startswith("xquad")])
def test_every_experiment_on_parallel_text_is_planned_whole(name: str, tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    for fold in range(1, 5):
        (tmp_path / "splits" / f"fold{fold}.tsv").write_text("q0\ttrain\nq1\ttest\nq2\tdev\n")
    plan = plan_experiment(load_experiment(name), sets)
    assert plan.absent == []
    check_questions(plan)
    evaluations = {step.id for step in plan.steps if step.name.startswith("evaluate-")}
    assert evaluations == {parent.id for path, parent in plan.report.parents.items() if path.startswith("evaluations")}


def test_variants_share_what_does_not_differ(tmp_path: Path) -> None:
    plan = plan_experiment(load_experiment(write(tmp_path)))
    steps: dict[str, set[str]] = {}
    for step in plan.steps:
        steps.setdefault(step.name, set()).add(step.id)
    counts = {name: len(ids) for name, ids in steps.items()}
    assert counts["train"] == 4  # two variants, two seeds; BM25 trains nothing
    assert counts["translate-de"] == counts["select"] == counts["score"] == 1
    assert counts["evaluate-atlas-bm25"] == 1  # which no seed changes
    assert "evaluate-atlas-untrained" not in counts  # no variant is measured by it
    assert len(plan.report.inputs["evaluations"]["atlas"]) == 6


def test_a_trial_is_the_recipe_that_its_command_makes(tmp_path: Path) -> None:
    """The commands on the page lead to the same artifacts."""
    path = write(tmp_path)
    plan = plan_experiment(load_experiment(path), ["run.max_rejects=0.5"])
    own, *commands = plan.report.config.commands
    assert own == "babelray experiment small --set run.max_rejects=0.5"
    for command in commands:
        _, verb, name, *rest = shlex.split(command)
        assert verb == "run"
        made = {step.id for step in plan_recipe(load(name, rest[1::2])).steps}
        assert {s.id for s in plan.steps if s.name == "train"} & made or "train" not in {s.name for s in plan.steps}


def test_an_experiment_of_a_path_is_asked_again_by_that_path(tmp_path: Path) -> None:
    """And the recipe of a variant stands beside the file, whatever the working directory."""
    (tmp_path / "own.toml").write_text('extends = "atlas"\n[train]\nsteps = 3\n')
    path = write(tmp_path, SMALL.replace('system = "bm25"', 'recipe = "own.toml"'))
    sets = ["--set", f"root={tmp_path / 'root'}", "--json"]
    (shown,) = json.loads(CliRunner().invoke(app, ["show", path, "report-small", *sets]).stdout)
    assert shown["config"]["commands"][0].startswith(f"babelray experiment {path} --set root=")
    words, *_ = plan_experiment(load_experiment(path)).find("words")
    assert words.trial.recipe == str(tmp_path / "own.toml")


def test_overrides_change_the_base_below_the_variants(tmp_path: Path) -> None:
    plan = plan_experiment(load_experiment(write(tmp_path)), ["train.mixing=round_robin_entries", "train.ways=2"])
    trained, *_ = plan.find("trained")
    entries, *_ = plan.find("entries")
    assert trained.plan.recipe.train.mixing == "round_robin_entries"
    assert entries.plan.recipe.train.mixing == "mix_entries"
    assert plan.report.id != plan_experiment(load_experiment(write(tmp_path))).report.id


def test_folds_with_several_keys_are_taken_together() -> None:
    experiment = Experiment(
        name="x", base="atlas", folds={"train.seed": [1, 2], "source.territories": [10, 12]}, variants={"a": {}}
    )
    assert [trial.values for trial in experiment.trials()] == [
        {"train.seed": 1, "source.territories": 10},
        {"train.seed": 2, "source.territories": 12},
    ]


def test_folds_whose_first_values_repeat_are_named_by_all_their_values() -> None:
    folds = {"source.fold": [1, 1, 2], "train.seed": [7, 8, 7]}
    experiment = Experiment(name="x", base="atlas", folds=folds, seeds={"train.steps": [1, 2]}, variants={"a": {}})
    found = list(dict.fromkeys((trial.fold, trial.values["train.seed"]) for trial in experiment.trials()))
    assert found == [("1, 7", 7), ("1, 8", 8), ("2, 7", 7)]
    assert {trial.seed for trial in experiment.trials()} == {"1", "2"}


def test_a_variant_that_names_a_seed_is_the_same_trial_for_every_seed() -> None:
    variants = {"trained": {"set": {"train.steps": 2}}, "zero-shot": {"set": {"train.seed": 7}}}
    experiment = Experiment(name="x", base="atlas", seeds={"train.seed": [1, 2]}, variants=variants)
    found = [(trial.variant, trial.seed, trial.values) for trial in experiment.trials()]
    assert found == [
        ("trained", "1", {"train.steps": 2, "train.seed": 1}),
        ("trained", "2", {"train.steps": 2, "train.seed": 2}),
        ("zero-shot", "1", {"train.seed": 7}),
        ("zero-shot", "2", {"train.seed": 7}),
    ]


def test_a_grid_has_a_variant_for_each_element_of_the_product() -> None:
    grid = {
        "languages": {"key": "languages.docs", "values": [["en"], ["en", "de"]]},
        "steps": {"key": "train.steps", "values": [2, 4]},
    }
    experiment = Experiment(name="x", base="atlas", grid=grid, effects={"larger": "steps", "than": "languages"})
    found = {trial.variant: trial.values for trial in experiment.trials()}
    assert found["languages = en de, steps = 4"] == {"languages.docs": ["en", "de"], "train.steps": 4}
    assert len(found) == 4
    assert [axis.numbers for axis in experiment.describe_grid().axes] == [(1.0, 2.0), (2.0, 4.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": {"c": {"a": "trained", "b": "nobody"}}}, r"compare.c.b: .*trained.*'nobody'"),
        ({"compare": {"c": {"a": "trained", "b": "words", "measures": ["AP"]}}}, r"compare.c.measures names AP"),
        ({"compare": {"c": {"a": "trained", "b": "words", "at_least": {"AP": 0.1}}}}, r"compare.c.at_least names AP"),
        (
            {"compare": {"c": {"a": "trained", "b": "words", "tset": "x"}}},
            r"key compare.c.tset; did you mean .*test",
        ),
        ({"folds": {"train.seed": [1], "source.fold": [1, 2]}}, r"\[folds\].*train.seed: 1, source.fold: 2"),
        ({"folds": {"train.seed": [3, 4], "source.fold": [1, 1]}, "seeds": {"x": [5, 5]}}, r"\[seeds\].*got 5 2 times"),
        ({"folds": {"train.seed": []}}, r"\[folds\].*train.seed: 0"),
        ({"variants": {}}, r"variants.*or a grid"),
        ({"grid": {"a": {"key": "train.steps", "values": [1, 2]}}}, r"variants.*or a grid"),
        ({"effects": {"larger": "steps", "than": "x"}}, r"\[effects\] names 'steps', which is no axis"),
        ({"base": ""}, r"base"),
    ],
)
def test_wrong_experiments_name_the_key(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    tree = tomllib.loads(SMALL) | changes
    path = write(tmp_path, "\n".join(f"{key} = {format_value(value)}" for key, value in tree.items()))
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set": {"train.stpes": 3}}, r"variant trained: .*unknown key train.stpes; did you mean steps"),
        ({"sets": ["nowhere"]}, r"sets names 'nowhere'; recipe atlas has \['atlas'\]"),
        (
            {"measures": ["pearson"], "compare": {}},
            r"variant trained: the set atlas is measured by nDCG@20, AP, .*asks for measures = \['pearson'\]",
        ),
        ({"base": "atlsa"}, r"no recipe 'atlsa': did you mean 'atlas'"),
        ({"variants": {"a": {"system": "bm26"}}, "compare": {}}, r"variant a: system = 'bm26' is not there; .*bm25"),
        ({"variants": {"a": {"set": {"root": "here"}}, "b": {}}, "compare": {}}, r"several roots"),
        ({"compare": {"c": {"a": "trained", "b": "words", "languages": ["ja"]}}}, r"compare.c.languages names 'ja'"),
        (
            {"variants": {}, "compare": {}, "grid": {"a": {"key": "train.nothing", "values": [1, 2]}}},
            r"variant a = 1: .*unknown key train.nothing",
        ),
    ],
)
def test_what_the_base_lacks_names_variant_and_key(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    experiment = Experiment.model_validate({"name": "x", **tomllib.loads(SMALL), **changes})
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        plan_experiment(experiment, ["source.territories=12", f"root={tmp_path}"])


def test_status_and_show_know_experiments(tmp_path: Path) -> None:
    path, runner = write(tmp_path), CliRunner()
    sets = ["--set", f"root={tmp_path / 'root'}", "--json"]
    rows = json.loads(runner.invoke(app, ["status", path, *sets]).stdout)
    assert {row["state"] for row in rows} == {"to come"}
    assert sum(row["step"].startswith("train@") for row in rows) == 4
    shown = json.loads(runner.invoke(app, ["show", path, "report-small", *sets]).stdout)
    assert len(shown[0]["config"]["trials"]) == 6
    failed = runner.invoke(app, ["show", path, "translate-xx", *sets])
    assert "no step 'translate-xx' in experiment small" in failed.output


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("q0\ttrain\nq1\ttrain\nq2\tdev\n", r"variant a: .* has no split 'test': fold 1 has dev, train"),
        ("q0\ttrain\nq2\tdev\nq9\ttest\n", r"variant a: evaluate-xquad-student has no questions .*source.fold = 1"),
    ],
)
def test_a_fold_without_questions_is_found_before_anything_runs(split: str, message: str, tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    (tmp_path / "splits" / "fold1.tsv").write_text(split)
    experiment = Experiment(name="x", base="xquad", folds={"source.fold": [0, 1]}, variants={"a": {}})
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        check_questions(plan_experiment(experiment, sets))


def write_evaluation(directory: Path, values: dict[str, dict[str, float]]) -> Artifact:
    """A finished evaluation with these values of nDCG@20 by language and question, and others of AP."""
    rows = [
        {"lang": lang, "query_id": query_id, "measure": measure, "value": value}
        for lang, of_queries in values.items()
        for query_id, value in of_queries.items()
        for measure in ("nDCG@20", "AP")
    ]
    directory.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=PER_QUERY), directory / "per_query.parquet")
    return directory_artifact(directory)


def test_the_report_puts_folds_together_and_takes_the_mean_of_seeds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    keys = [TrialKey(variant=v, fold=f, seed=s) for v in ("good", "bad") for f in ("0", "1") for s in ("1", "2")]
    evaluations: dict[str, Artifact] = {}
    expected: dict[str, list[float]] = {"good": [], "bad": []}
    for number, key in enumerate(keys):
        values = random.uniform(0.5, 0.6, 30) + (0.2 if key.variant == "good" else 0.0)
        expected[key.variant] += values.tolist()
        by_id = {f"q{n}": float(value) for n, value in enumerate(values)}  # the same ids in both folds
        evaluations[str(number)] = write_evaluation(tmp_path / f"evaluate@{number}", {"all": by_id})
    trained = Place.of(tmp_path / "train@0")
    (trained / "losses.tsv").write(b"step\tloss\tlr\tseconds\n1\t0.9\t0.1\t1.0\n2\tnan\t0.1\t1.5\n3\t0.5\t0.1\t2.0\n")
    (trained / "validation.tsv").write(b"step\tnDCG@20\tseconds\n2\t0.6100\t2.0\n")
    training = directory_artifact(Path(trained.path))
    config = ReportConfig(
        name="small",
        measures=("nDCG@20",),
        trials=tuple(keys),
        compare=(Claim(name="better", claim="good is <above> bad", a="good", b="bad"),),
        limits=("made-up values",),
        commands=("babelray experiment small",),
    )
    out = Place.of(tmp_path / "report@0")
    facts = write_report(config, {"evaluations": {"xquad": evaluations}, "trainings": {"0": training}}, out, None)
    assert facts["verdicts"] == {"better": {"holds": 1}}
    result = ExperimentResult.model_validate_json((out / "results.json").read())
    assert {(cell.variant, cell.measure) for cell in result.cells} == {("good", "nDCG@20"), ("bad", "nDCG@20")}
    for cell in result.cells:
        assert (cell.questions, cell.seeds) == (60, 2)
        assert cell.mean == pytest.approx(np.mean(expected[cell.variant]))
    (verdict,) = result.verdicts
    assert verdict.difference == pytest.approx(np.mean(expected["good"]) - np.mean(expected["bad"]))
    curves = {curve.measure: (curve.fold, curve.steps, curve.values) for curve in result.curves}
    assert curves == {"loss": ("0", (1, 3), (0.9, 0.5)), "nDCG@20": ("0", (2,), (0.61,))}
    page = (out / "report.html").read().decode()
    assert "good is &lt;above&gt; bad" in page
    assert "made-up values" in page
    head, first, *_ = (out / "cells.tsv").read().decode().splitlines()
    assert dict(zip(head.split("\t"), first.split("\t"), strict=True))["variant"] == "good"


RUN = """
about = "a student beside BM25"
base = "atlas"
measures = ["nDCG@20"]

[set]
"source.territories" = 12
"languages.docs" = ["en", "de"]
"gates" = "none"
"train.steps" = 4
"train.warmup" = 1
"train.validation.every" = 2

[variants.trained]
[variants.words]
system = "bm25"

[compare.better]
claim = "the student is above BM25"
a = "trained"
b = "words"
"""


@pytest.mark.slow
def test_an_experiment_runs_to_its_verdicts_and_is_then_read(tmp_path: Path) -> None:
    path, runner = write(tmp_path, RUN), CliRunner()
    words = ["experiment", path, "--set", f"root={tmp_path / 'root'}", "--json"]
    (one,) = json.loads(runner.invoke(app, [*words, "--only", "words"]).stdout)
    assert one["trial"] == "words"
    assert not list((tmp_path / "root").glob("train@*"))
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    means = {(cell["variant"], cell["lang"]): cell["mean"] for cell in result["cells"]}
    assert means.keys() == {(variant, lang) for variant in ("trained", "words") for lang in ("en", "de", "all")}
    assert means["words", "all"] == one["measures"]["all"]["nDCG@20"]
    assert {verdict["answer"] for verdict in result["verdicts"]} <= {"holds", "fails", "cannot tell"}
    assert "the student is above BM25" in Path(result["html"]).read_text(encoding="utf-8")
    for artifact in (tmp_path / "root").iterdir():  # a finished experiment reads one manifest
        if not artifact.name.startswith("report-"):
            shutil.rmtree(artifact)
    assert json.loads(runner.invoke(app, words).stdout) == result
