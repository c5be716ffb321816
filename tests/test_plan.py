"""Plans: which steps a recipe becomes, and what each reads."""

from pathlib import Path

import pytest

from cluster.errors import RecipeError
from pipelines.plan import Plan, plan
from pipelines.recipe import load
from pipelines.training.config import Prompts
from test_recipe import parallel

SMALL = ["source.territories=12"]
LATE = ['train.student={kind = "late_interaction", base = {kind = "scratch"}}', "train.lr_groups={}"]


def write(directory: Path, name: str, text: str) -> str:
    """A recipe file; returns its path."""
    path = directory / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def names(made: Plan) -> set[str]:
    return {step.name for step in made.steps}


def ids(made: Plan) -> set[str]:
    return {step.id for step in made.steps}


def test_a_loss_on_labels_plans_no_teacher(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    taught, labelled = plan(load("xquad", sets)), plan(load("xquad-mtt", sets))
    assert "score" in names(taught)
    assert "score" not in names(labelled)
    assert labelled.training is not None
    assert set(labelled.training.train.parents) >= {"data.main.qrels.en", "data.main.rankings", "data.main.docs.zh"}
    shared = ids(taught) & ids(labelled)
    assert {"select", "translate-zh"} <= {step_id.partition("@")[0] for step_id in shared}


@pytest.mark.parametrize("kind", ["infonce", "triplet"])
def test_a_loss_on_labels_of_a_source_without_judgements_names_the_key(kind: str, tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    (tmp_path / "qrels.tsv").unlink()
    with pytest.raises(RecipeError, match=r"train\.loss\.kind reads judgements"):
        plan(load("xquad-mtt", [*sets, f"train.loss.kind={kind}"]))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ('{kind="triplet", margin=-1}', r"train\.loss\.margin: .*greater than or equal to 0, got -1"),
        (
            '{kind="infonce", false_negatives={by="me", relative_margin=0.1}}',
            r"train\.loss\.false_negatives\.by: .*'student' or 'teacher', got 'me'",
        ),
        ('{kind="infonce", dims=[100000]}', r"train: loss\.dims = \[100000\]: the student's vectors have"),
    ],
)
def test_a_loss_that_does_not_fit_names_the_key(loss: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load("xquad-mtt", [*parallel(tmp_path), f"train.loss={loss}"])


def test_a_loss_on_scores_without_a_teacher_names_the_table(tmp_path: Path) -> None:
    recipe = write(
        tmp_path,
        "bare",
        """
        source = { kind = "atlas" }
        languages = { docs = ["en"] }
        index = { kind = "exact" }
        [train]
        student = { kind = "lexical" }
        """,
    )
    with pytest.raises(RecipeError, match=r"kl reads the scores of a teacher: add \[score\]"):
        load(recipe)
    with pytest.raises(RecipeError, match=r"trains a student \(\[train\]\) or takes a ready one"):
        load("serve-model", ["train.student.kind=lexical", f"source.path={tmp_path}"])


def test_a_ready_model_is_indexed_without_questions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Rivers run to the sea.", encoding="utf-8")
    made = plan(load("serve-model", [f"source.path={tmp_path}"]))
    assert [step.name for step in made.steps] == ["docs-en", "encode-student-en", "index-student"]
    assert made.training is None
    assert made.systems["student"].model is not None
    assert made.systems["student"].model.content.startswith("sha256:")
    token_by_token = plan(load("serve-model", [f"source.path={tmp_path}", "student.per_token=true"]))
    assert not {step.id for step in token_by_token.steps if step.name != "docs-en"} & ids(made)


def test_the_start_is_shared_and_reads_the_corpus_only_where_the_student_learns_from_it(tmp_path: Path) -> None:
    short, long = (plan(load("atlas", [*SMALL, f"train.steps={n}"])) for n in (50, 60))
    assert short.training
    assert long.training
    assert short.training.start.id == long.training.start.id
    assert short.training.train.id != long.training.train.id
    assert "data.main.docs.de" in short.training.start.parents
    kind = ["train.student.kind=dense", "train.student.base.kind=checkpoint", "train.student.base.model=minilm"]
    ready = plan(load("atlas", [*SMALL, *kind, "train.lr_groups={}", "index.kind=exact"]))
    assert ready.training is not None
    assert not ready.training.start.parents


def test_training_goes_on_from_the_student_of_another_recipe(tmp_path: Path) -> None:
    first = write(tmp_path, "first", 'extends = "atlas"\n[source]\nkind = "atlas"\nterritories = 12\n')
    second = write(tmp_path, "second", f'extends = "{first}"\n[train]\nsteps = 40\nafter = "first.toml"\n')
    made, base = plan(load(second)), plan(load(first))
    assert made.training
    assert base.training
    assert made.training.start.id == base.training.train.id
    assert made.training.first == "best"
    other = write(tmp_path, "other", f'extends = "{second}"\n[train.student]\nkind = "lexical"\ndim = 64\n')
    with pytest.raises(RecipeError, match=r"train\.after = .*Expected the same architecture"):
        plan(load(other))


def test_recipes_stand_beside_the_file_that_names_them_in_whatever_table(tmp_path: Path) -> None:
    first = write(tmp_path, "first", 'extends = "atlas"\n')
    student = '{ kind = "dense", base = { kind = "checkpoint", recipe = "first.toml" } }'
    text = f"""
    extends = "xquad"
    [select]
    index = {{ kind = "exact" }}
    encoder = {{ recipe = "first.toml" }}
    [score]
    scorer = {{ kind = "ensemble", of = [{{ kind = "dense", recipe = "first.toml" }}, {{ kind = "bm25" }}] }}
    [train]
    lr_groups = {{}}
    student = {student}
    """
    recipe = load(write(tmp_path, "second", text), [*parallel(tmp_path), "index.kind=exact"])
    assert recipe.select.encoder.recipe == recipe.score.scorer.of[0].recipe == first  # type: ignore[union-attr]
    assert recipe.train.student.base.recipe == first  # type: ignore[union-attr]
    third = 'extends = "serve-model"\n[student]\nrecipe = "first.toml"\nmodel = ""\n'
    serve = load(write(tmp_path, "third", third), parallel(tmp_path))
    assert serve.student is not None
    assert serve.student.recipe == first


def test_recipes_that_name_each_other_are_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "one", 'extends = "atlas"\n[train]\nafter = "two.toml"\n')
    write(tmp_path, "two", 'extends = "atlas"\n[train]\nafter = "one.toml"\n')
    with pytest.raises(RecipeError, match="circle: one → two → one"):
        plan(load(str(tmp_path / "one.toml")))


MIXED = """
extends = "atlas"
[mix]
temperature = 2.0
[mix.of.facts]
recipe = "atlas"
over = { "languages.docs" = ["de", "fr"], "source.territories" = [12] }
[mix.of.wide]
recipe = "atlas"
over = { "source.territories" = [14] }
share = 3.0
"""


def test_a_mixture_reads_the_data_of_its_members(tmp_path: Path) -> None:
    made = plan(load(write(tmp_path, "mixed", MIXED)))
    assert made.training is not None
    run = made.training.train.config
    assert run.shares == {"facts-de-12": 1.0, "facts-fr-12": 1.0, "wide-14": 3.0}
    assert run.temperature == 2.0
    parents = made.training.train.parents
    assert "data.facts-de-12.docs.de" in parents
    assert "data.facts-de-12.docs.fr" not in parents
    alone = plan(load("atlas", ["source.territories=12", 'languages.docs=["de"]']))
    assert parents["data.facts-de-12.scores"].id in ids(
        alone
    )  # members share their steps with the recipes that they are
    assert "data.wide-14.docs.zh" in made.training.start.parents


def test_a_member_has_prompts_of_its_own(tmp_path: Path) -> None:
    """They are in the fingerprint of the training, and of nothing before it."""
    plain = plan(load(write(tmp_path, "mixed", MIXED)))
    asked = plan(load(write(tmp_path, "asked", MIXED + 'query_prompt = "query: "\n')))
    assert plain.training is not None
    assert asked.training is not None
    assert plain.training.train.config.prompts == {}
    assert asked.training.train.config.prompts == {"wide-14": Prompts(query="query: ")}
    set_by_key = plan(load(write(tmp_path, "mixed", MIXED), ['mix.of.facts.doc_prompt=""']))
    assert set_by_key.training is not None
    assert set_by_key.training.train.config.prompts == dict.fromkeys(
        ("facts-de-12", "facts-fr-12"), Prompts(document="")
    )
    assert len({made.training.train.id for made in (plain, asked, set_by_key) if made.training}) == 3
    assert plain.training.train.parents["data.wide-14.queries"].id == asked.training.train.parents[
        "data.wide-14.queries"
    ].id  # fmt: skip
    assert plain.training.start.id == asked.training.start.id


def test_a_member_that_does_not_load_names_its_key(tmp_path: Path) -> None:
    broken = MIXED.replace('"source.territories" = [14]', '"train.stpes" = [14]')
    with pytest.raises(RecipeError, match=r"mix\.of\.wide\.recipe = 'atlas'(?s:.*)unknown key train\.stpes"):
        plan(load(write(tmp_path, "mixed", broken)))
    loose = MIXED + 'tied = { "languages.query" = "languages.original" }\n'
    with pytest.raises(RecipeError, match=r"mix\.of\.wide\.tied names languages\.original"):
        plan(load(write(tmp_path, "mixed", loose)))


def test_one_line_plans_a_hundred_members_of_twenty_languages_and_five_tasks() -> None:
    langs = ["ar", "bn", "de", "en", "es", "fa", "fi", "fr", "hi", "id"]
    langs += ["it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "zh"]
    tasks = ["question", "keywords", "title", "claim", "instruction"]
    line = f'mix.of.synthetic.over={{"languages.original" = {langs}, "synthesis.task" = {tasks}}}'
    made = plan(load("retrofit", [line, "train.examples=8000"]))
    assert made.training is not None
    run = made.training.train.config
    members = {f"synthetic-{lang}-{task}" for lang in langs for task in tasks}
    assert len(members) == 100
    assert members == {name for name in run.shares if name.startswith("synthetic-")}
    assert members <= set(made.training.train.inputs["data"])
    assert run.train.examples == 8000


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('mix.of.wide.over={"languages.docs" = ["de", "qqq"]}', r"'atlas', languages\.docs = 'qqq': unknown language"),
        ('mix.of.wide.over={"train.after" = ["a/b", "c/b"]}', r"mix\.of\.wide: two members are named 'wide-b'"),
        ("train.examples=2", r"train\.examples = 2 is less than a question for each of the 3 members"),
        ("train.examples=0", r"train\.examples: "),
        ("select.k=9", r'select\.k: .* Set mix\.of\.NAME\.over=\{"select\.k"=\[…\]\}, where NAME is one of '),
    ],
)
def test_what_is_wrong_with_a_mixture_names_its_key(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        plan(load(write(tmp_path, "mixed", MIXED), [override]))


def test_a_bound_on_the_examples_makes_another_training_of_the_same_tables(tmp_path: Path) -> None:
    recipe = write(tmp_path, "mixed", MIXED)
    whole, bounded = plan(load(recipe)), plan(load(recipe, ["train.examples=100"]))
    trainings = [made.training.train for made in (whole, bounded) if made.training]
    assert trainings[0].id != trainings[1].id
    assert [step.id for step in trainings[0].parents.values()] == [step.id for step in trainings[1].parents.values()]


def test_an_adapter_makes_another_training_of_the_same_start() -> None:
    whole, adapted = (plan(load("atlas", [*SMALL, *LATE, *more])) for more in ([], ["train.adapter={}"]))
    trainings = [made.training for made in (whole, adapted) if made.training]
    assert trainings[0].start.id == trainings[1].start.id
    assert trainings[0].train.id != trainings[1].train.id
    with pytest.raises(RecipeError, match=r"train: .*leave out train\.adapter"):
        load("atlas", [*SMALL, "train.adapter={}"])


def test_an_index_that_is_read_encodes_questions_alone(tmp_path: Path) -> None:
    (tmp_path / "index" / "en").mkdir(parents=True)
    (tmp_path / "index" / "en" / "metadata.json").write_text("{}")
    sets = [*SMALL, *LATE, f'index={{kind="fast_plaid", path="{tmp_path / "index"}"}}']
    made = plan(load("atlas", sets))
    assert set(made.find_steps("index-student")[0].inputs) == {"docs"}
    assert {name for name in names(made) if name.startswith("encode-student")} == {"encode-student-queries-en"}
    (before,) = made.find_steps("index-student")
    (tmp_path / "index" / "en" / "metadata.json").write_text("{ }")
    assert plan(load("atlas", sets)).find_steps("index-student")[0].id != before.id
    (tmp_path / "index").rename(tmp_path / "moved")
    assert any("a directory below it for each language" in line for line in plan(load("atlas", sets)).absent)


def test_pooling_makes_other_vectors_of_documents_alone(tmp_path: Path) -> None:
    whole, pooled = (plan(load("atlas", [*SMALL, *LATE, *more])) for more in ([], ["encode.pool=2"]))
    same = {step_id.partition("@")[0] for step_id in ids(whole) & ids(pooled)}
    assert "encode-student-queries-en" in same
    assert not {"encode-student-en", "index-student"} & same
    with pytest.raises(RecipeError, match="a dense student has one vector"):
        load("small-bitext", ["encode.pool=2"])


def test_other_systems_search_beside_the_student(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    sets = parallel(tmp_path / "data")
    text = """
    extends = "xquad"
    [systems.ed]
    recipe = "xquad-ed"
    [systems.minilm]
    index = { kind = "exact" }
    encoder = { model = "minilm" }
    [systems.dt-bm25]
    index = { kind = "bm25" }
    docs_in = "en"
    [systems.reranked]
    of = "bm25"
    rerank = { kind = "dense", model = "minilm" }
    depth = 20
    """
    made = plan(load(write(tmp_path, "beside", text), sets))
    ed = plan(load("xquad-ed", sets))
    assert ed.training is not None
    assert ed.training.train.id in ids(made)
    steps = {step.name: step for step in made.steps}
    assert {"evaluate-xquad-ed", "evaluate-xquad-minilm", "evaluate-xquad-dt-bm25", "evaluate-xquad-reranked"} <= set(
        steps
    )
    assert steps["index-dt-bm25"].parents["docs.zh"].name == "translate-en"
    assert steps["index-dt-bm25"].parents["docs.en"].name == "docs-en"
    assert steps["rerank-reranked-zh"].parents["rankings"].name == "search-bm25-zh"
    assert steps["rerank-reranked-zh"].config.depth == 20
    assert ("xquad", "reranked") not in made.indexes


@pytest.mark.parametrize(
    ("key", "system", "message"),
    [
        ("measure.bm25", 'fuse=["student", "bm25"]', "fuse has bm25: expected systems above it, student, untrained"),
        ("measure.bm25", 'of="bm25", rerank={kind="dense", model="minilm"}', "of = 'bm25': expected a system above"),
        ("measure.untrained", 'fuse=["student", "untrained"]', "fuse has untrained: .* student, bm25"),
    ],
)
def test_a_system_that_is_not_made_cannot_be_named(tmp_path: Path, key: str, system: str, message: str) -> None:
    sets = [*parallel(tmp_path), f"systems.other={{{system}}}"]
    assert "other" in load("xquad", [*sets, f"{key}=true"]).systems
    with pytest.raises(RecipeError, match=message):
        load("xquad", [*sets, f"{key}=false"])


def test_a_selector_may_be_the_student_of_another_recipe(tmp_path: Path) -> None:
    encoder = ["select.index.kind=exact", "select.encoder.recipe=xquad-ed"]
    made = plan(load("xquad", [*parallel(tmp_path), *encoder]))
    ed = plan(load("xquad-ed", parallel(tmp_path)))
    assert ed.training is not None
    encoded = next(step for step in made.steps if step.name == "encode-select-en")
    assert encoded.parents["models.model"].id == ed.training.train.id


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("[systems.bm25]\nindex = { kind = 'bm25' }", "systems.bm25: this name is taken"),
        ("[systems.x]\nindex = { kind = 'exact' }", "add encoder.model"),
        ("[systems.x]\nrerank = { kind = 'bm25' }\nof = 'y'", "expected a system above it"),
        ("[systems.x]\ndocs_in = 'en'", "say what searches"),
        ("[resources]\nencode = { environment = 'vllm' }", r"add a table \[environments.vllm\]"),
    ],
)
def test_a_system_that_cannot_search_names_the_key(keys: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load(write(tmp_path, "wrong", f'extends = "atlas"\n{keys}\n'))


def test_dev_questions_are_in_the_language_of_training() -> None:
    made = plan(load("atlas", [*SMALL, "languages.query=de"]))
    assert made.training is not None
    parents = made.training.train.parents
    assert parents["dev.queries"].config.lang == parents["data.main.queries"].config.lang == "de"
    assert {role for role in parents if role.startswith("dev.qrels.")} == {
        f"dev.qrels.{lang}" for lang in made.recipe.languages.docs
    }
