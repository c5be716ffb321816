"""What a meta-learning is planned to read, and what is refused when it is planned."""

from pathlib import Path

import pytest

from cluster.component import fingerprint
from cluster.errors import RecipeError
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.training.config import TrainConfig
from pipelines.training.meta.config import Meta
from test_meta_episodes import LANGS, write_collection

SMALL = """
extends = "maml-align-small"
[languages]
query = ["el", "hi"]
docs = ["el", "hi", "ar", "de"]
[train]
steps = 2
warmup = 0
[train.student]
base = { model = "minilm", recipe = "" }
[train.meta]
tasks = []
mode = "mono_bil_multi"
support = 3
queries = 2
"""


@pytest.fixture
def small(tmp_path: Path):
    """Overrides of the recipe that reads a small written collection."""
    write_collection(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return str(tmp_path / "small.toml"), [f"source.path={tmp_path}"]


def training_of(name, overrides):
    made = plan(load(name, overrides))
    assert made.training
    return made, made.training.train


def test_a_meta_learning_reads_every_language_of_its_tasks_and_no_selection(small):
    name, overrides = small
    made, train = training_of(name, overrides)
    inputs = train.inputs["data"]["main"]
    assert set(inputs) == {"queries", "docs", "qrels"}
    assert set(inputs["queries"]) == {"el", "hi"}
    assert set(inputs["docs"]) == set(inputs["qrels"]) == set(LANGS)
    verbs = {step.name.partition("-")[0] for step in made.steps}
    assert not verbs & {"select", "score", "mine", "nearest", "translate"}
    assert train.config.train.meta.tasks == ("el_el-el_ar-el_ar,el,hi", "hi_hi-hi_de-hi_de,hi,ar")  # of the mode
    assert made.absent == []


def test_what_is_nearest_is_planned_where_it_is_read(small):
    name, overrides = small
    similar, _ = training_of(name, [*overrides, "train.meta.sampling=similar"])
    hard, _ = training_of(name, [*overrides, "train.meta.negatives=hard"])
    names = [{step.name for step in made.steps if step.name.startswith("nearest")} for made in (similar, hard)]
    assert names[0] == {"nearest-questions-el-el", "nearest-questions-hi-hi"}
    of_el = {f"nearest-passages-el-{lang}" for lang in ("el", "ar", "hi")}
    assert names[1] == of_el | {f"nearest-passages-hi-{lang}" for lang in ("hi", "de", "ar")}
    step = next(step for step in hard.steps if step.name == "nearest-passages-el-ar")
    assert step.inputs["student"].name == "start"


def test_settings_of_the_learner_share_the_start_and_change_the_training(small):
    name, overrides = small
    plans = [training_of(name, [*overrides, *more]) for more in ([], ["train.meta.inner_steps=2"])]
    assert plans[0][0].training.start.fingerprint == plans[1][0].training.start.fingerprint
    assert plans[0][1].fingerprint != plans[1][1].fingerprint


def test_a_training_without_episodes_keeps_its_fingerprint():
    assert fingerprint(TrainConfig(student={"kind": "lexical"}, meta=None)) == fingerprint(
        TrainConfig(student={"kind": "lexical"})
    )


NO_DATA = r"train\.meta\.tasks\[0\]: .* names a language without data: "


@pytest.mark.parametrize(
    ("docs", "tasks", "said"),
    [
        (["el", "ar", "hi"], "el_el-el_ar-el_de,el", r"train\.meta\.tasks\[0\]: .* has passages in de"),
        (["el", "ar", "th"], "el_el-el_ar-el_th,el", NO_DATA + r".*candidates\.th|" + NO_DATA + r".*collection\.th"),
        (["el", "ar", "de"], "ru_el-ru_ar-ru_de,el", NO_DATA + r".*queries\.ru"),
        (["el", "hi"], "", r"train\.meta\.mode = mono_bil_multi is about 3 languages or more"),
    ],
)
def test_languages_without_data_are_an_error_when_planned(small, docs, tasks, said):
    name, here = small
    overrides = [f"languages.docs={docs!r}", *([f'train.meta={{tasks=["{tasks}"]}}'] if tasks else [])]
    with pytest.raises(RecipeError, match=said):
        training_of(name, [*here, *overrides])


def test_a_specification_that_does_not_parse_names_its_key(small):
    name, here = small
    with pytest.raises(RecipeError, match=r"train\.meta\.tasks\[1\]: 'el_' in"):
        load(name, [*here, 'train.meta={tasks=["el_el-el_ar-el_de,el", "el_-el_ar-el_ar"]}'])


def test_the_recipe_of_the_paper_has_its_settings():
    recipe = load("maml-align-lareqa", ["source.path=DIR"])
    train = recipe.train
    assert train is not None
    assert (train.steps * train.batch, train.batch, train.lr, train.weight_decay) == (14_000, 4, 5e-5, 0)
    assert (train.student.query_length, train.student.doc_length) == (96, 352)
    assert (train.loss.kind, train.loss.margin, train.loss.distance, train.loss.in_batch) == (
        "triplet", 1.0, "euclidean", False,
    )  # fmt: skip
    assert train.meta == Meta(
        algorithm="maml_align", tasks="el_el-el_ar-el_ar,el,hi | hi_hi-hi_de-hi_de,hi,ar", support=8, queries=4,
        inner_steps=5, inner_lr=1e-3, order=1, kd_weight=0.5, kd_target="loss", student_adapts=False,
    )  # fmt: skip
    assert recipe.measure.measures == ("AP@20", "AP", "nDCG@20")
    assert set(recipe.languages.docs) == {"ar", "de", "el", "hi", "ru", "th", "tr"}
