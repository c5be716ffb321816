"""The recipes of the papers: their published settings, the data that they name, and that each is shown without them."""

from collections import Counter
from pathlib import Path

import ir_datasets
import pytest

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.plan import plan
from pipelines.recipe import load, names
from pipelines.scorers import MonoT5Scorer
from pipelines.verbs import status
from test_plan import write
from test_recipe import parallel

DISTILLED = ("translate-distill", "multilingual-translate-distill")
WITHOUT_PLACE = (
    "maml-align-lareqa",
    "maml-align-sts",
    "serve-model",
    "sts-small",
    "xquad",
    "xquad-ed",
    "xquad-minilm",
    "xquad-mtt",
    "xquad-zero-shot",
)  # of their data


def steps_of(name: str, overrides: list[str] | None = None) -> dict[str, Step]:
    return {step.name: step for step in plan(load(name, overrides or [])).steps}


@pytest.mark.parametrize("name", [name for name in names() if name not in WITHOUT_PLACE])
def test_every_recipe_that_names_its_data_is_shown_without_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = status(name, []).data
    assert {row["state"] for row in rows} == {"to come"}
    assert not list(tmp_path.iterdir())
    if name != "atlas":
        with pytest.raises(RecipeError, match="(no such file|expected .*found)"):
            plan(load(name)).check_data()


@pytest.mark.parametrize("name", DISTILLED)
def test_training_has_the_settings_of_the_papers(name: str) -> None:
    """MTD §4 and the metadata of the released checkpoints."""
    recipe = load(name)
    assert recipe.train is not None
    train, student = recipe.train, recipe.train.student
    assert (train.steps, train.batch, train.ways, train.pool) == (200_000, 64, 6, 50)
    assert (train.lr, train.clip) == (5e-6, 2.0)
    assert (train.schedule, train.warmup, train.weight_decay) == ("none", 0, 0.0)
    assert (train.loss.kind, train.loss.alpha, train.loss.temperature) == ("kl", 1.0, 1.0)
    assert (student.dim, student.query_length, student.doc_length) == (128, 32, 220)
    assert (recipe.passage_length, recipe.passage_stride, recipe.index.bits) == (180, 90, 1)


def test_translate_distill_has_the_teacher_of_the_papers_and_translates_in_two_stages() -> None:
    recipe = load("translate-distill")
    assert recipe.score is not None
    teacher = recipe.score.scorer
    assert isinstance(teacher, MonoT5Scorer)
    assert (teacher.model, teacher.score) == ("unicamp-dl/mt5-13b-mmarco-100k", "log_probability")
    assert (teacher.true_token, teacher.false_token) == ("▁true", "▁")
    assert (recipe.score.query_lang, recipe.score.doc_lang, recipe.select.k) == ("en", "en", 50)
    steps = steps_of("translate-distill")
    assert steps["translate-zh-2"].parents["before"] is steps["gate-zh"]
    assert steps["train"].parents["data.main.docs.zh"] is steps["gate-zh-2"]
    assert steps["translate-zh-2"].resources.gpus == 1


def test_mtd_reads_two_downloads_and_needs_neither_teacher_nor_translator() -> None:
    recipe, steps = load(DISTILLED[1]), steps_of(DISTILLED[1])
    assert recipe.score is not None
    assert Path(recipe.score.path).name == "mt5xxl-monot5-mmarco-engeng.jsonl.gz"
    assert not {name for name in steps if name.startswith(("select", "index-select", "gate", "synth", "mine"))}
    assert set(steps["score"].parents) == {"queries", "docs"}
    assert {lang: steps[f"translate-{lang}"].work.__name__ for lang in ("zh", "fa", "ru")} == dict.fromkeys(
        ("zh", "fa", "ru"), "JoinTranslations"
    )
    for lang in ("zh", "fa", "ru"):  # what is trained on and what is searched is ingested once
        assert steps[f"translate-{lang}"].parents["translations"].id == steps["index-bm25"].parents[f"docs.{lang}"].id
    source = recipe.source
    for lang, pattern in source.id.items():
        for split in source.splits:
            data_set = ir_datasets.load(pattern.replace("{split}", split))
            assert data_set.has_docs(), lang
            assert data_set.has_queries(), lang
            assert data_set.has_qrels(), lang


def test_retrofitting_mixes_judged_english_with_questions_in_the_language_of_the_articles() -> None:
    made = plan(load("retrofit"))
    assert made.training is not None
    shares = made.training.train.config.shares
    assert Counter(name.partition("-")[0] for name in shares) == {"english": 4, "synthetic": 45}
    data = made.training.train.inputs["data"]
    assert set(data["english-msmarco"]["qrels"]) == {"en"}
    member = data["synthetic-fa-claim"]
    assert not member["qrels"]
    assert list(member["docs"]) == ["fa"]
    mined = member["rankings"]
    assert mined.name == "mine"
    selection, teacher = mined.parents["rankings"], mined.parents["scores"]
    assert selection.config.lang == "fa"
    assert (teacher.config.query_lang, teacher.config.doc_lang) == ("fa", "fa")
    assert teacher.parents["docs"].name == "docs-fa"
    assert member["queries"].name == "cap-fa"
    assert not {step.name for step in made.steps if step.name.startswith("translate")}
    assert load("retrofit-base").evaluate["miracl-fa"].query_lang == "fa"


def test_a_score_file_takes_the_place_of_a_teacher_and_the_other_way(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    filed = write(tmp_path, "filed", 'extends = "xquad"\n[score]\nkind = "file"\npath = "scores.jsonl"\n')
    assert load(filed, sets).score.kind == "file"
    again = write(tmp_path, "again", f'extends = "{filed}"\n[score]\nscorer = {{ kind = "bm25" }}\n')
    assert load(again, sets).score.scorer.kind == "bm25"
    changed = load("xquad", [*sets, "score.kind=file", "score.path=scores.jsonl"])
    assert changed.score == load(filed, [*sets, "score.path=scores.jsonl"]).score
    back = load(filed, [*sets, "score.kind=teacher", "score.scorer.kind=bm25", "score.doc_lang=de"])
    assert (back.score.scorer.kind, back.score.query_lang, back.score.doc_lang) == ("bm25", "en", "de")
    kept = write(tmp_path, "kept", 'extends = "xquad"\n[score]\ndoc_lang = "de"\n')
    assert (load(kept, sets).score.scorer.kind, load(kept, sets).score.doc_lang) == ("dense", "de")


def test_gates_are_taken_away_by_name(tmp_path: Path) -> None:
    gated = write(tmp_path, "gated", 'extends = "xquad"\n[gates]\n')
    bare = write(tmp_path, "bare", f'extends = "{gated}"\ngates = "none"\n')
    sets = parallel(tmp_path)
    assert load(gated, sets).gates is not None
    assert load(bare, sets).gates is None
