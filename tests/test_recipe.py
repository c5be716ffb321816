"""Recipes: they load, they validate, they fingerprint; every key is in reach of --set, and a wrong one is told."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from cluster.errors import RecipeError
from pipelines.plan import Plan, plan
from pipelines.recipe import load, names
from pipelines.verbs import Report, run, status

SMALL = ["source.territories=12"]
XQUAD = "source.path={}"


def parallel(directory: Path) -> list[str]:
    """A tiny parallel collection, and the override that names it."""
    texts = {"en": "one", "de": "eins", "zh": "一", "ar": "واحد", "es": "uno", "hi": "एक", "ru": "один"}
    for lang, words in texts.items():
        (directory / f"collection.{lang}.tsv").write_text(f"d0\t{words}\nd1\t{words}\n", encoding="utf-8")
        (directory / f"queries.{lang}.tsv").write_text("q0\twhich?\nq1\twhat?\nq2\twho?\n", encoding="utf-8")
    (directory / "qrels.tsv").write_text("q0 0 d0 1\nq1 0 d1 1\nq2 0 d1 1\n")
    (directory / "groups.tsv").write_text("d0\ta\nd1\tb\nq0\ta\nq1\tb\nq2\tb\n")
    (directory / "splits").mkdir(exist_ok=True)
    (directory / "splits" / "fold0.tsv").write_text("q0\ttrain\nq1\ttest\nq2\tdev\n")
    return [f"source.path={directory}"]


def msmarco(directory: Path) -> list[str]:
    """The files of MS MARCO and mMARCO, one line each."""
    lines = {"collection": "0\ttext\n"} | {f"queries.{s}": "0\tq\n" for s in ("train", "dev", "dev.small")}
    lines |= {f"qrels.{split}": "0\t0\t0\t1\n" for split in ("train", "dev", "dev.small")}
    for name, line in lines.items():
        (directory / f"{name}.tsv").write_text(line)
    names_ = ("english", "german", "french", "spanish", "chinese", "russian", "italian")
    for sub in ("collections", "queries/train", "queries/dev"):
        (directory / "mmarco/data/google" / sub).mkdir(parents=True, exist_ok=True)
    for name in names_:
        (directory / f"mmarco/data/google/collections/{name}_collection.tsv").write_text("0\ttext\n")
        for split in ("train", "dev.small", "dev"):
            folder = "train" if split == "train" else "dev"
            (directory / f"mmarco/data/google/queries/{folder}/{name}_queries.{split}.tsv").write_text("0\tq\n")
    return [f"source.path={directory}"]


def sentence_pairs(directory: Path) -> list[str]:
    """Two pairs of sentences in each language and split, and the override that names them."""
    for lang in ("en", "de", "es", "fr", "ru", "zh"):
        for split in ("train", "dev", "test"):
            (directory / f"{lang}.{split}.tsv").write_text("one\ttwo\t0.5\nthree\tthree\t5\n", encoding="utf-8")
    return [f"source.path={directory}"]


def planned(name: str, directory: Path) -> Plan:
    return plan(load(name, sets_of(name, directory)))


def sets_of(name: str, directory: Path) -> list[str]:
    """Small data for a recipe, below ``directory``, and the override that names them."""
    if name == "atlas":
        return SMALL
    if name.startswith(("xquad", "serve-model")):
        return parallel(directory)
    if name.startswith("sts"):
        return sentence_pairs(directory)
    if name.startswith("maml-align"):
        return [f"source.path={directory / 'absent'}"]
    return msmarco(directory) if name.startswith("translate-") else []  # the others are planned without their data


@pytest.mark.parametrize("name", names())
def test_every_recipe_loads_and_plans(name: str, tmp_path: Path) -> None:
    steps = planned(name, tmp_path).steps
    kinds = {step.name.partition("-")[0] for step in steps}
    expected = {"docs", "encode", "index"}
    if "sts" in name:
        expected = {"pairs", "start", "train", "correlate"}
    elif name != "serve-model":
        expected |= {"queries", "qrels", "search", "evaluate"}
    if name not in ("serve-model", "xquad-zero-shot", "sts-small"):
        recipe = load(name, sets_of(name, tmp_path))
        is_selected = not recipe.train.meta and recipe.score.kind != "file" and recipe.train.loss.reads != "vectors"
        expected |= {"start", "train"} | ({"select"} if is_selected else set())
        expected |= {"scores": {"score"}, "vectors": {"teach"}}.get(recipe.train.loss.reads, set())
    if name == "retrofit-synthetic":
        expected |= {"synth", "keep", "cap", "mine"}
    assert expected <= kinds
    assert len({step.id for step in steps}) == len(steps)
    seen: set[str] = set()
    for step in steps:  # inputs come first
        assert {parent.id for parent in step.parents.values()} <= seen
        seen.add(step.id)


def test_two_students_share_translations_and_scores(tmp_path: Path) -> None:
    a, b = plan(load("atlas", SMALL)), plan(load("atlas", [*SMALL, "train.steps=70"]))
    shared = {step.name for step in a.steps} & {step.name for step in b.steps if step.id in {s.id for s in a.steps}}
    assert {"score", "select", "translate-de", "translate-zh", "index-bm25"} <= shared
    assert not {"train", "encode-student-de", "index-student"} & shared


def test_another_language_keeps_every_translation() -> None:
    few = plan(load("atlas", [*SMALL, 'languages.docs=["en", "de"]']))
    more = plan(load("atlas", [*SMALL, 'languages.docs=["en", "de", "ru"]']))
    kept = {s.id for s in few.steps} & {s.id for s in more.steps}
    assert {s.id for s in few.steps if s.name.startswith(("docs", "translate", "select", "score"))} <= kept


def test_resources_change_no_fingerprint_and_the_seed_does() -> None:
    base = {s.id for s in plan(load("atlas", SMALL)).steps}
    fast = {s.id for s in plan(load("atlas", [*SMALL, "resources.encode.gpus=1", "train.resources.workers=2"])).steps}
    other = {s.id for s in plan(load("atlas", [*SMALL, "train.seed=1"])).steps}
    assert fast == base
    assert other != base


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stpes=5", "unknown key train.stpes.*did you mean steps"),
        ("dims=[8]", "unknown key dims; did you mean dim"),
        ("synthesis.task=claim", "synthesis.kind is missing: .*--set synthesis.kind=…$"),
        ("train.steps=many", "train.steps.*integer.*'many'"),
        ("nonsense", "expected --set section.key=value"),
        ("languages.docs=[]", "languages.docs"),
        ('languages.docs=["zho"]', "did you mean"),
        ("index.kind=tree", "index.*plaid"),
        ("name.x=1", "name is a value, not a table"),
        ("select.k=8", r"train.ways = 12 passages cannot be drawn from select.k = 8$"),
        ("select.index.kind=exact", "add select.encoder.model"),
        ("select.encoder.model=minilm", "leave out select.encoder"),
        ("index.kind=faiss", "cannot hold the vectors of a lexical student: choose plaid or exact"),
        ("passage_stride=100", "leaves text out"),
        ("index.bits=3", r"index.bits: Input should be 1, 2 or 4, got 3$"),
        ("train.student.dim=1", r"train.student.dim: .*, got 1$"),
    ],
)
def test_wrong_overrides_are_told(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        load("atlas", [override])


def test_the_key_that_a_message_names_is_the_one_to_set(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as told:
        load("xquad")
    (line,) = str(told.value).splitlines()[1:]
    assert line == "  source.path is missing: add it to the file, or --set source.path=…"
    assert load("xquad", [f"source.path={tmp_path}"]).source.kind == "parallel"


def test_a_default_that_follows_from_a_wrong_key_is_not_told_too() -> None:
    with pytest.raises(RecipeError) as told:
        load("translate-distill", ["source.path=x", "train.mixing=bad"])
    (line,) = str(told.value).splitlines()[1:]
    assert line.startswith("  train.mixing: ")


def test_a_plan_can_be_read_where_the_data_are_not(tmp_path: Path) -> None:
    models = ("translate", "select.encoder", "score.scorer", "train.student.base")
    there = [f"source.path={tmp_path}/msmarco", 'translate={kind="nmt", model="facebook/nllb-200-distilled-1.3B"}']
    there += [f"{model}.revision={'a' * 40}" for model in models]
    before = plan(load("translate-distill", there))
    assert {"translate-zh", "train", "index-student", "evaluate-msmarco-bm25"} <= {step.name for step in before.steps}
    assert any("expected collection.tsv" in absent and "msmarco" in absent for absent in before.absent)
    assert "not here: expected collection.tsv" in _page(status("translate-distill", there))
    with pytest.raises(RecipeError, match=r"expected collection\.tsv"):
        run("translate-distill", [], there, None)
    (tmp_path / "msmarco").mkdir()
    msmarco(tmp_path / "msmarco")
    after = plan(load("translate-distill", there))
    assert after.absent == []
    assert not {s.id for s in before.steps if s.table} & {s.id for s in after.steps}


def _page(shown: Report) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(shown.page)
    return console.export_text()


def test_selector_teacher_and_student_read_languages_of_their_own() -> None:
    own = ["select.doc_lang=de", "score.query_lang=fr", "score.doc_lang=zh", 'languages.docs=["fa", "ru"]']
    made = plan(load("atlas", [*SMALL, *own]))
    steps = {step.name: step for step in made.steps}
    index = steps["index-select"]
    assert set(index.parents) == {"docs.de"}
    assert index.parents["docs.de"].name == "gate-de"
    assert steps["select"].inputs["rows"].name == "queries-en"
    score = steps["score"]
    assert {role: score.inputs[role].name for role in ("queries", "docs")} == {
        "queries": "queries-fr",
        "docs": "gate-zh",
    }
    read = {role: step.name for role, step in made.training.train.parents.items() if not role.startswith("dev.")}
    assert read == {
        "start": "start",
        "data.main.queries": "queries-en",
        "data.main.scores": "score",
        "data.main.docs.fa": "gate-fa",
        "data.main.docs.ru": "gate-ru",
    }


def test_queries_are_translated_where_translations_are_made(tmp_path: Path) -> None:
    own = ["translate.kind=nmt", "translate.model=some/model", "score.query_lang=zh", "score.doc_lang=zh"]
    steps = {step.name: step for step in plan(load("xquad", [*parallel(tmp_path), *own])).steps}
    assert steps["score"].inputs["queries"].name == "translate-queries-zh"
    assert steps["translate-queries-zh"].inputs["queries"].name == "queries-en"
    assert steps["score"].inputs["docs"].name == "translate-zh"
    assert steps["train"].inputs["data"]["main"]["queries"].name == "queries-en"


def test_depth_of_search_changes_neither_selection_nor_student() -> None:
    base, deep = plan(load("atlas", SMALL)), plan(load("atlas", [*SMALL, "search.probes=16"]))
    changed = {s.name.partition("-")[0] for s in base.steps if s.id not in {d.id for d in deep.steps}}
    assert changed == {"search", "evaluate", "examples"}


def test_another_kind_starts_afresh_and_nested_tables_can_be_added(tmp_path: Path) -> None:
    own = ["evaluate.mine.source.kind=parallel", f"evaluate.mine.source.path={tmp_path}"]
    recipe = load("atlas", ["index.kind=exact", *own])
    assert recipe.index.kind == "exact"
    assert set(recipe.evaluate) == {"atlas", "mine"}
    assert recipe.evaluate["mine"].source is not None


def test_an_empty_table_empties_the_one_that_is_extended(tmp_path: Path) -> None:
    assert load("xquad", [f"source.path={tmp_path}"]).train.lr_groups
    assert load("xquad-minilm", [f"source.path={tmp_path}"]).train.lr_groups == {}


def test_missing_recipe_and_circle_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'atlas'"):
        load("atlsa")
    circle = tmp_path / "circle.toml"
    circle.write_text(f'extends = "{circle}"')
    with pytest.raises(RecipeError, match="circle"):
        load(str(circle))


def test_without_evaluation_set_a_plan_trains_and_indexes_nothing() -> None:
    made = plan(load("atlas", [*SMALL]).model_copy(update={"evaluate": {}}))
    assert made.targets == [made.training.train]
    assert not {step.name for step in made.steps if step.name.startswith("evaluate")}
