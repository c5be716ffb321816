"""The source ``sts`` and what a recipe with it becomes: pairs by line, errors with file and line, folds, the plan."""

from collections import Counter

import pytest

from cluster.errors import RecipeError, StepError, TableError
from collections_on_disk import rows
from pipelines.experiment.config import load_experiment
from pipelines.experiment.plan import check_questions, plan_experiment
from pipelines.ingest import IngestConfig, IngestPairs
from pipelines.plan import STUDENT, UNTRAINED, plan
from pipelines.recipe import load
from pipelines.sources import Sts
from pipelines.sources.files import AbsentFileError
from pipelines.tables import PAIRS
from test_recipe import parallel
from toy_pairs import LANGS, SIZES, lines, write_pairs


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("sts"))


def recipe_of(directory, *sets, name="sts-small"):
    given = [f"source.path={directory}", f"languages.docs={list(LANGS)}", *sets]
    return load(name, given)


def ingest(directory, lang="de", split="train", rows_per_part=25):
    config = IngestConfig.of(Sts(path=str(directory)), lang, split, rows_per_part, "pairs")
    return list(IngestPairs(config, {})())


def test_a_line_is_a_pair_with_one_id_in_every_language(directory):
    parts = ingest(directory)
    assert [len(table) for table, _ in parts] == [25, 25, 10]
    assert not any(rejected for _, rejected in parts)
    found = [row for table, _ in parts for row in PAIRS.conform(table).to_pylist()]
    expected = [line.split("\t") for line in lines("train", "de")]
    assert [(r["left"], r["right"], r["score"]) for r in found] == [(a, b, float(c)) for a, b, c in expected]
    assert [row["pair_id"] for row in found] == [f"train-{n}" for n in range(1, SIZES["train"] + 1)]
    other = rows(Sts(path=str(directory)).pairs("ru", "train"))
    assert [(r["pair_id"], r["score"]) for r in other] == [(r["pair_id"], r["score"]) for r in found]
    assert len(rows(Sts(path=str(directory)).pairs("en", "all"))) == sum(SIZES.values())


def change(directory, name, at, line):
    """Write another line into a file, or take lines away."""
    kept = (directory / name).read_text("utf-8").splitlines()
    kept[at - 1 :] = [line, *kept[at:]] if line is not None else []
    (directory / name).write_text("\n".join(kept) + "\n", "utf-8")


@pytest.mark.parametrize(
    ("name", "at", "line", "message"),
    [
        ("de.train.tsv", 7, "a\tb\t5.01", r"^de\.train\.tsv:7: expected a score from 0 to 5, got '5\.01'"),
        ("de.train.tsv", 7, "a\tb\t-1", r"^de\.train\.tsv:7: expected a score from 0 to 5, got '-1'"),
        ("de.train.tsv", 7, "a\tb\tnan", r"^de\.train\.tsv:7: expected a score from 0 to 5, got 'nan'"),
        ("de.train.tsv", 7, "a\tb\tgood", r"^de\.train\.tsv:7: expected a score from 0 to 5, got 'good'"),
        ("de.train.tsv", 3, "a\tb", r"^de\.train\.tsv:3: expected sentence1, sentence2 and score .* got 2 columns"),
        ("de.train.tsv", 3, "a\tb\t1\tx", r"^de\.train\.tsv:3: .* got 4 columns"),
        ("de.train.tsv", 3, "a\t \t1", r"^de\.train\.tsv:3: the second sentence is empty"),
        ("ru.train.tsv", 50, None, r"^de\.train\.tsv:50: expected as many lines in every language, and ru\.train\.tsv"),
        ("de.train.tsv", 50, None, r"^ru\.train\.tsv:50: expected as many lines in every language, and de\.train\.tsv"),
        ("ru.train.tsv", 9, "a\tb\t2.5", r"^ru\.train\.tsv:9: the score is 2\.5, that of de\.train\.tsv:9 is"),
    ],
)
def test_a_file_that_is_wrong_ends_the_ingest_with_file_and_line(tmp_path, name, at, line, message):
    change(write_pairs(tmp_path), name, at, line)
    with pytest.raises(StepError, match=message):
        ingest(tmp_path, "ru")


def test_the_table_holds_scores_from_0_to_5_and_two_sentences():
    good = {"pair_id": "a", "lang": "en", "left": "one", "right": "two", "score": 5.0}
    PAIRS.conform(PAIRS.of([good, {"pair_id": "b", "reject": "why"}]))
    for wrong in ({"score": 5.5}, {"score": float("nan")}, {"score": None}, {"right": "  "}, {"left": None}):
        with pytest.raises(TableError, match="table pairs"):
            PAIRS.conform(PAIRS.of([{**good, **wrong}]))


def test_folds_test_on_every_pair_once_and_train_on_no_test_pair(directory):
    every = Counter()
    for fold in range(5):
        source = Sts(path=str(directory), folds=5, fold=fold)
        ids = {split: {row["pair_id"] for row in rows(source.pairs("en", split))} for split in SIZES}
        assert sum(map(len, ids.values())) == len(set().union(*ids.values())) == sum(SIZES.values())
        assert len(ids["train"]) > len(ids["test"]) > 0
        assert ids["test"] == {row["pair_id"] for row in rows(source.pairs("ru", "test"))}
        every.update(ids["test"])
    assert set(every.values()) == {1}
    assert len(every) == sum(SIZES.values())


def test_folds_and_splits_that_are_not_there_are_errors(directory, tmp_path):
    for wrong, message in (({"fold": 1}, "say how many"), ({"folds": 5, "fold": 5}, "0..4"), ({"folds": 2}, "folds")):
        with pytest.raises(ValueError, match=message):
            Sts(path=str(directory), **wrong)
    with pytest.raises(RecipeError, match="no split 'eval'"):
        list(Sts(path=str(directory)).pairs("en", "eval"))
    with pytest.raises(AbsentFileError, match=r"fr\.train\.tsv"):
        list(Sts(path=str(directory)).pairs("fr", "train"))
    with pytest.raises(RecipeError, match="has pairs of sentences and no docs"):
        Sts(path=str(directory)).docs("en", "train")
    absent = plan(recipe_of(tmp_path / "nothing")).absent
    assert any("de.train.tsv" in line for line in absent)


def test_a_recipe_with_pairs_is_ingested_started_trained_and_correlated(directory):
    made = plan(recipe_of(directory))
    names = [step.name for step in made.steps]
    pairs = [f"pairs-{lang}" for lang in LANGS]
    assert sorted(names) == sorted(
        [*pairs, *pairs, *pairs, "start", "train", "correlate-sts-student", "correlate-sts-untrained"]
    )
    assert list(made.correlations) == [("sts", STUDENT), ("sts", UNTRAINED)]
    train = made.training.train
    assert set(train.parents) == {"start"} | {f"{of}.pairs.{lang}" for of in ("data.main", "dev") for lang in LANGS}
    assert {train.parents[f"dev.pairs.{lang}"].config.split for lang in LANGS} == {"dev"}
    assert {step.config.split for step in made.correlations["sts", STUDENT].inputs["pairs"].values()} == {"test"}
    assert not made.absent
    assert not made.examples
    few = plan(recipe_of(directory, "evaluate.sts.languages=['de', 'ru']", "measure.untrained=false"))
    assert list(few.correlations) == [("sts", STUDENT)]
    assert list(few.pairs["sts"]) == ["de", "ru"]
    assert few.training.train.id == train.id


def test_a_mixture_of_pairs_has_members_by_language(directory):
    mixed = ["mix.of.of.recipe=sts-small", "mix.of.of.over={'languages.docs'=['en', 'de']}"]
    train = plan(recipe_of(directory, *mixed)).training.train
    assert {path for path in train.parents if path.startswith("data.")} == {
        "data.of-en.pairs.en",
        "data.of-de.pairs.de",
    }
    with pytest.raises(RecipeError, match=r"mix\.of\.of-x: recipe xquad: train\.loss\.kind = cosine learns from pairs"):
        plan(recipe_of(directory, "mix.of.of.recipe=xquad", "mix.of.of.over={'source.path'=['x']}"))


def test_a_ready_student_is_measured_without_training(directory, tmp_path):
    file = tmp_path / "zero.toml"
    file.write_text(
        f'source = {{ kind = "sts", path = "{directory}" }}\nlanguages = {{ docs = ["en", "de"] }}\n'
        'student = { model = "minilm" }\nevaluate = { sts = { split = "test", query_lang = "each" } }\n'
    )
    made = plan(load(str(file)))
    assert list(made.correlations) == [("sts", STUDENT)]
    assert not made.collections
    assert not made.indexes


def test_pairs_and_documents_are_measured_side_by_side(directory, tmp_path):
    """The check across data: trained on one kind, measured on both."""
    (tmp_path / "parallel").mkdir()
    (collection,) = parallel(tmp_path / "parallel")
    pairs = f"evaluate.sts.source={{kind='sts', path='{directory}'}}"
    sets = [collection, pairs, "evaluate.sts.split=test", "evaluate.sts.languages=['en', 'de']"]
    with pytest.raises(RecipeError, match="train.student.kind = lexical has one for each token"):
        load("xquad", sets)
    both = plan(load("xquad", [*sets, "train.student={kind='dense', base={kind='checkpoint', model='minilm'}}"]))
    assert list(both.collections) == ["xquad"]
    assert list(both.pairs) == ["sts"]
    assert set(both.correlations) == {("sts", STUDENT), ("sts", UNTRAINED)}  # bm25 has no encoder
    other = f"evaluate.xquad.source={{kind='parallel', path='{tmp_path / 'parallel'}'}}"
    both = plan(recipe_of(directory, other, "index.kind=exact"))
    assert set(both.evaluations) == {("xquad", s) for s in ("student", "bm25", "untrained")}
    assert list(both.pairs) == ["sts"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.student={kind='late_interaction', base={kind='checkpoint', model='minilm'}}"],
         'loss.kind = cosine compares one vector .* set train.student.kind = "dense"'),
        (["train.loss.kind=infonce"], 'source.kind = sts has pairs of sentences: set train.loss.kind = "cosine"'),
        (["train.loss.pairs=some"], "train.loss.pairs"),
        (["source={kind='parallel', path='x'}", "index.kind=exact"],
         "loss.kind = cosine learns from pairs of sentences, and source.kind = parallel has none"),
        (["evaluate.other.source={kind='parallel', path='x'}"], "index is missing: the documents"),
        (["source.fold=3"], "say how many with source.folds"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_the_recipe_is_loaded(directory, sets, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of(directory, *sets)


def test_keys_of_documents_mean_nothing_for_pairs(directory):
    for key in ("query_lang=de", "docs_split=test", "topics_in=every"):
        with pytest.raises(RecipeError, match=rf"evaluate\.sts.*{key.partition('=')[0]}"):
            plan(recipe_of(directory, f"evaluate.sts.{key}"))


EXPERIMENT = """
base = "sts-small"
measures = ["pearson"]
[folds]
"source.fold" = [0, 1, 2, 3, 4]
[set]
"source.folds" = 5
"languages.docs" = ["de", "en"]
[variants.mono]
set = { "train.loss.pairs" = "mono" }
[variants.both]
set = { "train.loss.pairs" = "both" }
[variants.zero-shot]
system = "untrained"
[compare.across]
a = "both"
b = "mono"
measures = ["pearson"]
languages = ["LANGUAGE"]
"""


def test_an_experiment_compares_correlations_over_folds(directory, tmp_path):
    (tmp_path / "sts.toml").write_text(EXPERIMENT.replace("LANGUAGE", "cross"))
    made = plan_experiment(load_experiment(str(tmp_path / "sts.toml")), [f"source.path={directory}"])
    assert len(made.trials) == 15
    assert all(step.name.startswith("correlate-sts-") for trial in made.trials for step in trial.evaluations.values())
    check_questions(made)
    tested = {made.trials[0].plan.correlations["sts", UNTRAINED].inputs["pairs"]["de"].config.source.fold}
    assert tested == {0}
    (tmp_path / "sts.toml").write_text(EXPERIMENT.replace("LANGUAGE", "de/fr"))
    with pytest.raises(RecipeError, match=r"names 'de/fr', and variant .* in all, mono, cross, de, de/en, en/de, en$"):
        plan_experiment(load_experiment(str(tmp_path / "sts.toml")), [f"source.path={directory}"])


def test_an_experiment_on_pairs_asks_for_correlations(directory, tmp_path):
    text = EXPERIMENT.partition("[compare")[0].replace('measures = ["pearson"', 'measures = ["nDCG@20"')
    (tmp_path / "sts.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"variant mono: the set sts is measured by pearson, spearman, .*'nDCG@20'"):
        plan_experiment(load_experiment(str(tmp_path / "sts.toml")), [f"source.path={directory}"])


def test_the_shared_benchmark_is_read_as_its_readme_counts_it(shared_data):
    source = Sts(path=str(shared_data / "stsb"))
    for lang in ("en", "zh"):
        assert [len(rows(source.pairs(lang, split))) for split in ("train", "dev", "test")] == [5749, 1500, 1379]
    first = rows(source.pairs("de", "test"))[0]
    assert (first["pair_id"], first["score"]) == ("test-1", 2.5)
    made = plan(load("sts-small", [f"source.path={shared_data / 'stsb'}"]))
    assert not made.absent
