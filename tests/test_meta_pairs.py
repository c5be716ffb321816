"""Meta-learning on sentence pairs: what an episode holds, inner loops against copies of the student, refusals."""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cosine_similarity, mse_loss

from cluster.errors import RecipeError, StepError
from pipelines.docstore import RowStore
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.students import load_encoder
from pipelines.training.config import TrainConfig
from pipelines.training.losses import Cosine
from pipelines.training.meta.config import Meta
from pipelines.training.meta.pairs import PairEpisodes
from pipelines.training.objectives.similarity import GoldPairs
from pipelines.training.validate_pairs import PairPool
from test_recipe import sentence_pairs
from toy import assert_same_gradient, gradients_of, make_loop
from toy_pairs import CONFIG, LANGS, PLAIN, SIZES, make_pairs, open_pair_corpus

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = ("en_en-en_de-en_de,en,ru", "ru_ru-ru_en-ru_en,ru,de")
META = Meta(tasks=TASKS, support=3, queries=2, inner_steps=2, inner_lr=0.5, kd_weight=2.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def student(inputs, tmp_path_factory):
    """The directory of an untrained student."""
    directory = tmp_path_factory.mktemp("student")
    PLAIN.build(open_pair_corpus(inputs), 0).save(directory)
    return directory


@pytest.fixture(scope="module")
def rows(inputs):
    """The training pairs by language and id."""
    pairs = inputs["data"]["main"]["pairs"]
    return {lang: {row["pair_id"]: row for row in of.read().to_pylist()} for lang, of in pairs.items()}


def loop_of(student, inputs, **meta):
    config = CONFIG.model_copy(update={"meta": META.model_copy(update=meta), "batch": 4, "lr": 2e-3})
    return make_loop(config, load_encoder(student, "cpu"), inputs)


def episodes_of(inputs, meta=META, seed=1):
    return PairEpisodes(meta, GoldPairs(RowStore.open(inputs["data"]["main"]["pairs"]["en"])), seed)


def test_an_episode_has_pairs_in_the_languages_of_its_specification(inputs, rows):
    episodes, drawn = episodes_of(inputs), Counter()
    for number in range(400):
        episode = episodes.episode(number)
        assert str(episode.spec) == TASKS[number % 2]
        ids = [list(dict.fromkeys(pair.query_id for pair in of)) for of in episode.sets]
        assert [len(of) for of in ids] == [3, 2, 2]
        assert len({pair_id for of in ids for pair_id in of}) == 7  # no pair is in two sets
        for part, of in zip(episode.spec.parts, episode.sets, strict=True):
            assert {pair.query_lang for pair in of} == {part.query}
            assert Counter(pair.query_id for pair in of) == dict.fromkeys({p.query_id for p in of}, len(part.docs))
            assert {pair.langs for pair in of} == {(lang,) for lang in part.docs}
            for pair in of:
                assert pair.doc_ids == (pair.query_id,)
                assert pair.scores[0] == pytest.approx(rows["en"][pair.query_id]["score"] / 5)
        drawn.update(pair_id for of in ids for pair_id in of)
    assert set(drawn) == set(rows["en"])
    assert len(drawn) == SIZES["train"]
    assert all(abs(count - 400 * 7 / 60) < 5 * (400 * 7 / 60) ** 0.5 for count in drawn.values())


def test_an_episode_is_a_function_of_seed_and_number(inputs, student):
    one, again, other = episodes_of(inputs), episodes_of(inputs), episodes_of(inputs, seed=2)
    assert [one.episode(n) for n in range(20)] == [again.episode(n) for n in range(19, -1, -1)][::-1]
    assert not any(one.episode(n) == other.episode(n) for n in range(20))
    objective = loop_of(student, inputs).objective
    whole, parts = objective.share(3, 0, 1), [objective.share(3, rank, 2) for rank in range(2)]
    assert [e for pair in zip(parts[0].episodes, parts[1].episodes, strict=True) for e in pair] == whole.episodes
    assert sum(part.digest() for part in parts) == whole.digest()
    assert whole.questions() == {"en": 2 * (3 + 2 + 6), "ru": 2 * (3 + 2 + 6)}
    assert set(whole.passages()) == set(LANGS)
    assert not whole.positives()


def loss_of(encoder, pairs, rows):
    """The mean squared difference of cosine and gold score, by torch and the student's own encoding of texts."""
    sides = []
    for side, langs in (("left", [p.query_lang for p in pairs]), ("right", [p.langs[0] for p in pairs])):
        texts = [rows[lang][pair.query_id][side] for lang, pair in zip(langs, pairs, strict=True)]
        sides.append(encoder.embed(encoder.rows(texts, "query"), "query")[0][:, 0])
    gold = torch.tensor([rows["en"][pair.query_id]["score"] / 5 for pair in pairs])
    return mse_loss(cosine_similarity(*sides), gold), sides


def adapted(encoder, pairs, rows):
    """A copy of a student after plain gradient descent on a set."""
    copy = deepcopy(encoder)
    descent = torch.optim.SGD(copy.model.parameters(), lr=META.inner_lr)
    for _ in range(META.inner_steps):
        descent.zero_grad()
        loss_of(copy, pairs, rows)[0].backward()
        descent.step()
    return copy


def slope_of(encoder, value):
    """The gradient of a value with respect to the weights of a student."""
    found = torch.autograd.grad(value, list(encoder.model.parameters()), retain_graph=True, allow_unused=True)
    pairs = zip(found, encoder.model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if slope is None else slope).flatten() for slope, p in pairs])


@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("target", ["loss", "logits", "embeddings"])
def test_maml_align_equals_gradient_descent_on_copies(student, inputs, rows, target, adapts):
    """The formulas of the code's form and of the text's, of first order, over a batch of four tasks."""
    loop = loop_of(student, inputs, kd_target=target, student_adapts=adapts)
    value, share, found = gradients_of(loop)
    encoder = loop.student
    encoder.model.eval()
    expected, total = torch.zeros_like(found), 0.0
    apart, slope_apart = 0.0, torch.zeros_like(found)
    for s0, q0, q1 in (episode.sets for episode in share.episodes):
        teacher = adapted(encoder, s0, rows)
        learner = adapted(encoder, q0, rows) if adapts else encoder
        (of_first, taught), (again, learnt) = loss_of(teacher, q0, rows), loss_of(learner, q0, rows)
        of_second, _ = loss_of(learner, q1, rows)
        expected += (slope_of(teacher, of_first) + slope_of(learner, of_second)) / 2 / 4
        total += (of_first + of_second).item() / 2 / 4
        if target == "loss":
            apart += (of_first - again).item()
            slope_apart += slope_of(teacher, of_first) - slope_of(learner, again)
            continue
        if target == "logits":
            kd = mse_loss(cosine_similarity(*learnt), cosine_similarity(*taught).detach())
        else:
            kd = mse_loss(torch.cat(learnt), torch.cat(taught).detach())
        expected += META.kd_weight * slope_of(learner, kd) / 4
        total += META.kd_weight * kd.item() / 4
    assert value == pytest.approx(total + META.kd_weight * apart**2, rel=1e-4)
    assert_same_gradient(found, expected + 2 * META.kd_weight * apart * slope_apart, 1e-3)
    assert META.kd_weight * apart**2 > 1e-3 * total or target != "loss"  # so that the distillation counts


@pytest.mark.parametrize("algorithm", ["finetune", "maml", "maml_align"])
def test_a_student_learns_from_episodes_of_pairs(student, inputs, algorithm):
    loop = loop_of(student, inputs, algorithm=algorithm, kd_weight=0.5, inner_lr=0.1)
    pool = PairPool(inputs["dev"]["pairs"], CONFIG.validation)
    before = pool.evaluate(loop.student, lambda value: [value])
    for number in range(40):
        loop.step(number)
    assert pool.evaluate(loop.student, lambda value: [value]) > before + 0.1


def test_too_few_pairs_are_an_error_that_names_the_task(inputs):
    with pytest.raises(StepError, match=r"train\.meta\.tasks\[0\]: .* needs 64 different pairs .* has 60: lower them"):
        episodes_of(inputs, META.model_copy(update={"support": 60}))


@pytest.mark.parametrize(
    ("loss", "meta"),
    [
        (Cosine(pairs="mono"), META),
        (Cosine(dims=(8,)), META),
        (Cosine(), META.model_copy(update={"sampling": "similar"})),
        (Cosine(), META.model_copy(update={"negatives": "hard"})),
    ],
)
def test_what_pairs_do_not_have_is_refused(loss, meta):
    with pytest.raises(ValidationError, match="meta draws pairs at random, in the languages of its tasks: leave out"):
        TrainConfig(**{**dict(CONFIG), "loss": loss, "meta": meta})


def recipe_of(directory, *sets):
    return load("maml-align-sts", [*sentence_pairs(directory), *sets])


def test_a_recipe_of_episodes_of_pairs_reads_pairs_and_nothing_else(tmp_path):
    made = plan(recipe_of(tmp_path))
    assert {step.name.partition("-")[0] for step in made.steps} == {"pairs", "start", "train", "correlate"}
    assert set(made.training.train.inputs["data"]["main"]) == {"pairs"}
    assert set(made.training.train.inputs["data"]["main"]["pairs"]) == {"en", "es", "de", "fr"}
    of_mode = plan(recipe_of(tmp_path, 'train.meta={mode="mono_bil_multi"}'))
    assert of_mode.training.train.config.train.meta.tasks == made.training.train.config.train.meta.tasks


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ('train.meta={tasks=["ru_en-en_de-en_de,es"]}', r"train\.meta\.tasks\[0\]: .* has sentences in ru, and"),
        ('train.meta={tasks=["en_ru-en_de-en_de,es"]}', r"train\.meta\.tasks\[0\]: .* has sentences in ru, and"),
        ('train.meta={tasks=["en_en-en"]}', r"train\.meta\.tasks\[0\]: 'en' in"),
        ("mix.of.a.recipe=sts-small", r"draws its episodes from the recipe's own source: leave out \[mix\]"),
    ],
)
def test_tasks_that_the_source_cannot_give_are_an_error_when_planned(tmp_path, sets, said):
    with pytest.raises(RecipeError, match=said):
        plan(recipe_of(tmp_path, sets))


def test_a_score_out_of_range_ends_the_ingest_with_file_and_line(tmp_path):
    """Before anything is trained: a training reads only what the ingest has checked."""
    recipe = recipe_of(tmp_path)
    (tmp_path / "de.train.tsv").write_text("one\ttwo\t0.5\nthree\tthree\t5.2\n")
    with pytest.raises(StepError, match=r"^de\.train\.tsv:2: expected a score from 0 to 5, got '5\.2'"):
        list(recipe.source.pairs("de", "train"))


def test_the_recipe_of_the_paper_has_its_settings():
    recipe = load("maml-align-sts", ["source.path=DIR"])
    train = recipe.train
    assert (train.steps * train.batch, train.batch, train.lr, train.weight_decay) == (14_000, 4, 5e-5, 0)
    assert (train.student.query_length, train.loss.kind, recipe.source.folds) == (100, "cosine", 5)
    meta = train.meta
    assert (meta.support, meta.queries, meta.inner_steps, meta.inner_lr) == (8, 4, 5, 1e-3)
    assert (meta.algorithm, meta.order, meta.kd_weight, meta.kd_target, meta.student_adapts) == (
        "maml_align", 1, 0.5, "loss", False,
    )  # fmt: skip
