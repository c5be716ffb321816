"""Plans of the verb *calibration*: whose scores are compared, and what the teacher reads of what the student found."""

from pathlib import Path

import pytest

from cluster.errors import RecipeError
from pipelines.plan import plan
from pipelines.plan.calibration import find_searches, plan_calibration
from pipelines.recipe import load
from test_plan import write
from test_recipe import parallel, sentence_pairs


def test_teachers_are_those_of_the_trainings_and_the_members_of_ensembles(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    members = 'score.scorer.of=[{kind="bm25"}, {kind="dense", model="minilm"}]'
    one, several = plan(load("xquad", sets)), plan(load("xquad", [*sets, "score.scorer.kind=ensemble", members]))
    step = plan_calibration({"one": one, "several": several}, {})
    assert set(step.parents) == {"scores.one", "scores.several", "scores.several 0", "scores.several 1"}
    assert one.training is not None
    assert step.parents["scores.one"] is one.training.train.parents["data.main.scores"]
    assert step.parents["scores.several 0"].config.scorer.kind == "bm25"
    config = step.config
    assert (config.ways, config.pool, config.alpha, config.temperature) == (8, 32, 20.0, 2.0)
    assert config.temperatures == (0.025, 0.05, 0.1, 0.2, 0.4)  # around 2 / 20
    with pytest.raises(RecipeError, match=r"recipe labels has no teacher to calibrate: .*train\.loss\.kind"):
        plan_calibration({"labels": plan(load("xquad-mtt", sets))}, {})


def test_of_the_recipes_own_source_the_teacher_reads_its_own_languages(tmp_path: Path) -> None:
    made = plan(load("xquad", [*parallel(tmp_path), "score.query_lang=es"]))
    found = find_searches(made)
    assert list(found) == list(made.collections["xquad"].docs)
    step = plan_calibration({"xquad": made}, found)
    scored = step.parents["dev.zh"]
    assert scored.parents["rankings"] is step.parents["students.zh"] is found["zh"]
    assert (scored.parents["queries"].name, scored.parents["docs"].name) == ("queries-es", "docs-en")
    assert scored.parents["queries"].config.split == "test"
    assert (scored.config.query_lang, scored.config.doc_lang, scored.config.depth) == ("es", "en", 32)


def test_of_another_source_the_teacher_reads_documents_as_they_are(tmp_path: Path) -> None:
    other = f"[evaluate.xquad.source]\nkind = 'parallel'\npath = '{tmp_path}'\n"
    name = write(tmp_path, "other", f'extends = "xquad"\n{other}')
    made = plan(load(name, parallel(tmp_path)))
    scored = plan_calibration({"other": made}, find_searches(made)).parents["dev.zh"]
    assert (scored.parents["queries"].name, scored.parents["docs"].name) == ("queries-en", "docs-zh")
    assert (scored.config.query_lang, scored.config.doc_lang) == ("en", "zh")


def test_sets_of_sentence_pairs_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "texts").mkdir()
    (path,) = sentence_pairs(tmp_path / "pairs")
    student = {"kind": "dense", "base": {"kind": "checkpoint", "model": "minilm"}}
    values = {"train.student": student, "train.lr_groups": {}, "index": {"kind": "exact"}}
    pairs = {"split": "test", "source": {"kind": "sts", "path": path.partition("=")[2]}, "languages": ["de", "zh"]}
    sets = parallel(tmp_path / "texts")
    only = plan(load("xquad", sets, {**values, "evaluate": {"pairs": pairs}}))
    assert find_searches(only) == {}
    both = plan(load("xquad", sets, {**values, "evaluate": {"pairs": pairs, "texts": {"split": "dev"}}}))
    scored = plan_calibration({"both": both}, find_searches(both)).parents["dev.zh"]
    assert (scored.name, scored.parents["docs"].name) == ("score-texts-zh", "docs-en")
    assert scored.parents["queries"].config.split == "dev"


def test_a_score_file_scores_nothing_that_the_student_found(tmp_path: Path) -> None:
    made = plan(load("xquad", [*parallel(tmp_path), 'score={kind="file", path="scores.jsonl"}']))
    assert find_searches(made) == {}
    assert set(plan_calibration({"filed": made}, {}).parents) == {"scores.filed"}
