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


def test_mined_negatives_are_taken_away_by_name() -> None:
    """The comparison of Retrofitting, negatives mined or not: of a recipe, and of the members of a mixture."""
    alone = {step.name for step in plan(load("retrofit-english", ["mine=none"])).steps}
    assert "select" in alone
    assert not alone & {"mine", "positives", "score"}
    over = 'mix.of.english.over={"source.path" = ["data/beir/msmarco"], "mine" = ["none"]}'
    training = plan(load("retrofit", [over])).training
    assert training is not None
    data = training.train.inputs["data"]
    assert data["english-msmarco-none"]["rankings"].name == "select"
    assert data["synthetic-de-claim"]["rankings"].name == "mine"


def test_a_teacher_says_which_negatives_are_false(tmp_path: Path) -> None:
    sets = [
        *parallel(tmp_path),
        "train.loss.false_negatives.by=teacher",
        "train.loss.false_negatives.relative_margin=0.05",
    ]
    steps = steps_of("xquad-mtt", sets)
    teacher = steps["train"].parents["data.main.scores"]
    assert teacher is steps["score"]
    assert teacher.parents["rankings"] is steps["positives"]
    assert steps["train"].parents["data.main.rankings"] is steps["select"]
    mined = steps_of("xquad-mtt", [*sets, "mine.num_negatives=7"])
    # the teacher is asked once
    assert mined["train"].parents["data.main.scores"].id == mined["mine"].parents["scores"].id
    given = ["score.kind=file", "score.path=scores.jsonl"]
    with pytest.raises(RecipeError, match=r"false_negatives\.by = 'teacher' .*add \[score\] with a scorer"):
        plan(load("xquad-mtt", [*sets, *given]))


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


def test_languages_of_selector_and_teacher_follow_from_those_of_the_recipe(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    named = [f"{table}.{key}=en" for table in ("select", "score") for key in ("query_lang", "doc_lang")]
    assert ids(plan(load("xquad", [*sets, *named]))) == ids(plan(load("xquad", sets)))
    own = [*sets, "languages.original=zh", "languages.query=de"]
    steps = steps_of("xquad", own)
    assert steps["index-select"].parents["docs.zh"].name == "docs-zh"
    assert steps["select"].inputs["rows"].name == "queries-zh"
    assert steps["score"].parents["queries"].name == "queries-zh"
    assert steps["score"].parents["docs"].name == "docs-zh"
    recipe = load("xquad", [*own, "select.query_lang=en", "score.doc_lang=ru"])
    assert (recipe.select.query_lang, recipe.select.doc_lang) == ("en", "zh")
    assert (recipe.score.query_lang, recipe.score.doc_lang) == ("zh", "ru")
    with pytest.raises(RecipeError, match=r"unknown language code 'zho'.*did you mean"):
        load("xquad", [*sets, "select.doc_lang=zho"])


@pytest.mark.parametrize(
    ("name", "own"),
    [("xquad", []), ("xquad-mtt", ["mine.num_negatives=7"]), ("xquad-mtt", [])],
)
def test_a_selection_of_all_languages_says_what_to_set(name: str, own: list[str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"select\.doc_lang = 'all'.*Set select\.doc_lang to one, 'en' say"):
        plan(load(name, [*parallel(tmp_path), *own, "select.doc_lang=all"]))


def test_a_language_model_is_a_member_of_an_ensemble_in_a_step_of_its_own(tmp_path: Path) -> None:
    judge = '{kind="llm", model="some/model"}'
    sets = [*parallel(tmp_path), "score.scorer.kind=ensemble"]
    steps = steps_of("xquad", [*sets, f'score.scorer.of=[{{kind="bm25"}}, {judge}, {judge}]'])
    assert steps["score"].rows == ("scores.0", "scores.1", "scores.2")
    assert steps["score-1"].config.scorer.kind == "llm"
    assert steps["score-1"].parents["rankings"] is steps["select"]
    together = '[systems.judged]\nof = "bm25"\nrerank = { kind = "ensemble", of = [%s] }\n'
    one = together % '{kind="bm25"}, {kind="llm", model="some/model"}'
    steps = steps_of(write(tmp_path, "one", f'extends = "xquad"\n{one}'), parallel(tmp_path))
    assert steps["rerank-judged-zh"].config.scorer.of[1].kind == "llm"
    two = together % '{kind="llm", model="some/model"}, {kind="llm", model="other/model"}'
    with pytest.raises(RecipeError, match=r"systems\.judged: rerank: .*leave one of kind llm"):
        load(write(tmp_path, "two", f'extends = "xquad"\n{two}'), parallel(tmp_path))
