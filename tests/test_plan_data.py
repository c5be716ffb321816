"""Plans of training data: stages and gates, written questions, mined negatives, ensembles, score files."""

import json
from pathlib import Path

import pytest

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.plan import plan
from pipelines.recipe import load
from test_plan import ids, names, write
from test_recipe import parallel

STAGES = """
extends = "xquad"
[[translate]]
kind = "parallel"
[[translate]]
kind = "nmt"
model = "some/model"
resources = { cpus = 2 }
[gates]
length = 5
"""


def steps_of(name: str, overrides: list[str]) -> dict[str, Step]:
    return {step.name: step for step in plan(load(name, overrides)).steps}


def test_stages_translate_what_all_before_them_left_rejected(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    steps = steps_of(write(tmp_path, "staged", STAGES), sets)
    first, gate, second, last = (steps[n] for n in ("translate-zh", "gate-zh", "translate-zh-2", "gate-zh-2"))
    assert gate.rows == ("docs", "translation")
    assert gate.parents["translation"] is first
    assert second.rows == ("docs", "before")
    assert second.parents["before"] is gate
    assert second.parents["docs"] is first.parents["docs"]
    assert second.resources.cpus == 2
    assert [step.max_rejects for step in (first, gate, second)] == [1.0, 1.0, 1.0]
    assert last.max_rejects == load("xquad", sets).run.max_rejects
    assert steps["train"].parents["data.main.docs.zh"] is last
    plain = steps_of("xquad", sets)
    assert first.id == plain["translate-zh"].id, "what comes later changes no translation"


def test_another_threshold_translates_nothing_again(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    loose, strict = (plan(load("xquad", [*sets, f"gates.length={n}"])) for n in (5, 3))
    again = {step_id.partition("@")[0] for step_id in ids(strict) - ids(loose)}
    assert "gate-zh" in again
    assert not {name for name in again if name.startswith("translate")}


def test_translations_of_the_source_are_the_first_stage(tmp_path: Path) -> None:
    recipe = write(
        tmp_path, "late", 'extends = "xquad"\ntranslate = [{kind = "nmt", model = "some/model"}, {kind = "parallel"}]\n'
    )
    with pytest.raises(RecipeError, match="make it the first of the stages"):
        load(recipe, parallel(tmp_path))


def test_written_questions_are_kept_where_the_selector_finds_their_passages(tmp_path: Path) -> None:
    written = ["synthesis.kind=templates", "synthesis.most=100", "mine.num_negatives=7"]
    steps = steps_of("xquad-mtt", [*parallel(tmp_path), *written])
    assert steps["keep-en"].parents["found"] is steps["found-en"]
    assert steps["keep-en"].parents["queries"] is steps["synth-en"]
    assert steps["cap-en"].parents["queries"] is steps["keep-en"]
    train = steps["train"].parents
    assert train["data.main.queries"] is steps["cap-en"]
    assert train["data.main.rankings"] is steps["mine"]
    assert not [path for path in train if path.startswith("data.main.qrels")]


def test_negatives_are_mined_by_the_margin_of_a_teacher_that_scores_the_positives(tmp_path: Path) -> None:
    sets = [*parallel(tmp_path), "mine.num_negatives=7"]
    steps = steps_of("xquad-mtt", sets)
    assert steps["mine"].rows == ("rankings", "scores")
    assert steps["mine"].parents["rankings"] is steps["select"]
    assert steps["mine"].parents["scores"].parents["rankings"] is steps["positives"]
    assert "qrels.en" in steps["mine"].parents
    bare = steps_of("xquad-mtt", [*sets, "mine.relative_margin=none"])
    assert bare["mine"].rows == ("rankings",)
    assert "score" not in bare
    with pytest.raises(RecipeError, match=r"mine\.num_negatives = 1"):
        load("xquad-mtt", [*sets, "mine.num_negatives=1"])


def test_an_ensemble_has_a_step_for_each_teacher(tmp_path: Path) -> None:
    members = 'score.scorer.of=[{kind="bm25"}, {kind="dense", model="minilm"}]'
    steps = steps_of("xquad", [*parallel(tmp_path), "score.scorer.kind=ensemble", members])
    assert steps["score"].rows == ("scores.0", "scores.1")
    assert steps["score-0"].parents["rankings"] is steps["score-1"].parents["rankings"] is steps["select"]


def test_published_scores_need_no_selection_and_no_teacher(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    file = tmp_path / "scores.jsonl"
    overrides = [*sets, f'score={{kind="file", path="{file}"}}']
    absent = plan(load("xquad", overrides))
    assert any("no such file" in line for line in absent.absent)
    file.write_text(json.dumps(["q0", ["d0", 1.5], ["d1", 0.5]]) + "\n", "utf-8")
    made = plan(load("xquad", overrides))
    assert not made.absent
    assert "score" in names(made)
    assert not {"select", "index-select"} & names(made)
