"""The recipe small and what is its own: a directory of data, members left out, and the loss on a teacher's vectors."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from artifacts import table_artifact
from cluster.errors import RecipeError, StepError
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.sources import Bitext, Parallel
from pipelines.students import Corpus
from pipelines.tables import DOCS, VECTORS
from pipelines.training.config import TrainingRun
from pipelines.training.data import check_data, find_needs
from pipelines.training.losses import TeacherVectors
from pipelines.training.objectives import build_objective
from pipelines.training.objectives.base import Pass
from pipelines.training.workers import GradientSum, Workers
from toy import NAMES, assert_same_gradient, foreign, gradients_of, make_loop
from toy_pairs import CONFIG, PLAIN

pytestmark = pytest.mark.usefixtures("one_thread")
LOSS = TeacherVectors(temperature=0.2, contrast=0.5, original=0.25)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Cities in two languages, one of them untranslated, and vectors of a teacher that are not unit vectors."""
    root = tmp_path_factory.mktemp("vectors")
    texts = {"en": [f"the city of {name}" for name in NAMES], "ru": [f"{foreign(name)} ж" for name in NAMES[:-1]]}
    docs = {
        lang: table_artifact(
            root / f"docs-{lang}@0",
            DOCS,
            [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": text} for n, text in enumerate(of_lang)],
        )
        for lang, of_lang in texts.items()
    }
    vectors = (3 * np.random.default_rng(0).standard_normal((len(NAMES), 32))).astype(np.float16)
    rows = [{"id": f"d{n}", "tokens": [1], "vectors": row.tobytes()} for n, row in enumerate(vectors)]
    taught = table_artifact(root / "teach-en@0", VECTORS, rows[:5], rows[5:])
    data = {"data": {"main": {"docs": docs, "vectors": {"en": taught}}}}
    return {**data, "vectors": torch.from_numpy(vectors.astype(np.float32)), "texts": texts}


@pytest.fixture(scope="module")
def student(inputs):
    return PLAIN.build(Corpus.open({"main": {"docs": inputs["data"]["main"]["docs"]}}), 0)


def config_of(**changes):
    return CONFIG.model_copy(update={"loss": LOSS, **changes})


def gradient_of(student):
    """The gradient of all parameters; the pooler of BERT has none."""
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in student.model.parameters()]
    )


def test_the_loss_and_its_gradient_are_those_of_torch(inputs, student):
    loss, share, found = gradients_of(make_loop(config_of(), student, inputs))
    entries = [group[0] for group in share.groups]
    texts = [inputs["texts"][e.langs[0]][int(e.doc_ids[0][1:])] for e in entries]
    vectors = student.embed(student.rows(texts, "document"), "document")[0][:, 0]
    ids = sorted({e.query_id for e in entries})
    teacher = inputs["vectors"][[int(i[1:]) for i in ids]]
    own = torch.tensor([ids.index(e.query_id) for e in entries])
    logits = normalize(vectors, dim=-1) @ normalize(teacher, dim=-1).T / LOSS.temperature
    expected = (1 - cosine_similarity(vectors, teacher[own])).mean() + LOSS.contrast * cross_entropy(logits, own)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    expected.backward()
    theirs = gradient_of(student)
    student.model.zero_grad()
    assert_same_gradient(found, theirs, 1e-4)


@pytest.mark.parametrize("pieces", [{"pieces": 1}, {"pieces": 3}, {"piece_tokens": 20}, {"takes_same_passes": True}])
def test_workers_and_pieces_share_the_loss_of_the_whole_batch(inputs, student, pieces):
    whole, _, found = gradients_of(make_loop(config_of(), student, inputs))
    run = TrainingRun(train=config_of())
    objective = build_objective(run, inputs["data"], student)
    student.model.train()
    total, texts = 0.0, []
    for rank in range(3):
        share = objective.share(0, rank, 3)
        texts += [group[0] for group in share.groups]
        step = Pass(
            Workers(), torch.amp.GradScaler("cpu", enabled=False), GradientSum(student.model.parameters(), Workers()),
            **pieces,
        )  # fmt: skip
        total += float(objective.backward(share, step))
    parts = gradient_of(student)
    student.model.zero_grad()
    assert len(texts) == CONFIG.batch
    assert total == pytest.approx(whole, rel=1e-5)
    assert_same_gradient(parts, found, 1e-4)


def test_a_batch_is_cut_where_its_tokens_do_not_fit_into_a_piece(inputs, student, monkeypatch):
    for tokens, is_one_piece in ((8192, True), (20, False)):
        loop = make_loop(config_of(piece_tokens=tokens), student, inputs)
        taken, loss = [], loop.objective.loss

        def note(groups, *rest, taken=taken, loss=loss):
            taken.append(groups)
            return loss(groups, *rest)

        monkeypatch.setattr(loop.objective, "loss", note)
        _, share, _ = gradients_of(loop)
        lengths = [[len(share.docs[e.langs[0], e.doc_ids[0]]["input_ids"]) for e, *_ in groups] for groups in taken]
        assert sum(map(len, lengths)) == len(share.groups)
        assert all(len(piece) * max(piece) <= tokens or len(piece) == 1 for piece in lengths)
        assert (len(lengths) == 1) == is_one_piece


def test_texts_are_read_in_the_original_as_often_as_the_loss_says(inputs, student):
    objective = build_objective(TrainingRun(train=config_of()), inputs["data"], student)
    drawn = Counter()
    for number in range(150):
        for group in objective.share(number, 0, 1).groups:
            untranslated = group[0].doc_ids[0] == f"d{len(NAMES) - 1}"
            drawn[untranslated, group[0].langs[0]] += 1
    assert (True, "ru") not in drawn
    assert drawn[False, "en"] / (drawn[False, "en"] + drawn[False, "ru"]) == pytest.approx(LOSS.original, abs=0.05)


def test_a_student_learns_the_teachers_vectors_in_both_languages(inputs):
    student = PLAIN.build(Corpus.open({"main": {"docs": inputs["data"]["main"]["docs"]}}), 0)
    loop = make_loop(config_of(steps=150, lr=1e-2), student, inputs)
    for number in range(150):
        loop.step(number)
    teacher = normalize(inputs["vectors"], dim=-1).numpy()
    for texts in inputs["texts"].values():
        cosines = np.concatenate(student.encode_docs(texts)) @ teacher.T
        assert (cosines.argmax(1) == np.arange(len(texts))).all()
        assert np.diag(cosines).mean() > 0.8


def test_a_training_takes_documents_and_vectors_and_nothing_else(inputs):
    data = inputs["data"]
    check_data(data, find_needs(LOSS), ["main"])
    with pytest.raises(StepError, match="this loss reads docs, vectors, got docs"):
        check_data({"main": {"docs": data["main"]["docs"]}}, find_needs(LOSS), ["main"])


def test_another_width_is_told(inputs, tmp_path, student):
    rows = [{"id": "d0", "tokens": [1], "vectors": np.ones(8, np.float16).tobytes()}]
    data = {"main": {**inputs["data"]["main"], "vectors": {"en": table_artifact(tmp_path / "v@0", VECTORS, rows)}}}
    with pytest.raises(RecipeError, match="the teacher's vectors have 8 dimensions, the student's 32"):
        build_objective(TrainingRun(train=config_of()), data, student)


LONGER = ("paragraphs", "questions", "sections", "titles")  # members of longer texts than sentences


def test_the_directory_of_data_reaches_every_member(tmp_path):
    recipe = load("small", [f"data={tmp_path}"])
    assert recipe.source == Parallel(path=f"{tmp_path}/xquad")
    sources = [step.config.source for step in plan(recipe).steps if step.name.startswith("docs-")]
    collections = ("xquad", "libreoffice-help", "react/en-fa")
    assert {source.path for source in sources} == {str(tmp_path), *(f"{tmp_path}/{name}" for name in collections)}
    assert {type(source) for source in sources} == {Parallel, Bitext}


def test_a_member_is_left_out(tmp_path):
    whole = plan(load("small", [f"data={tmp_path}"]))
    less = plan(load("small", [f"data={tmp_path}", "mix.of.paragraphs=none"]))
    assert set(whole.training.train.config.shares) == {"bitext", *LONGER}
    assert set(less.training.train.config.shares) == {"bitext", *LONGER} - {"paragraphs"}
    with pytest.raises(RecipeError, match=r"mix.of"):
        load("small", [f"data={tmp_path}", *(f"mix.of.{name}=none" for name in ("bitext", *LONGER))])


def test_no_language_that_transfer_is_measured_with_is_trained():
    recipes = [load(name) for name in ("small", "small-bitext", *(f"small-{name}" for name in LONGER))]
    trained = {lang for recipe in recipes for lang in recipe.languages.docs}
    assert not trained & {"it", "ja", "ko", "pl", "id", "sw"}


def test_the_teacher_must_give_vectors():
    with pytest.raises(RecipeError, match="reads the vectors of a teacher: add"):
        load("sts-small", ["source.path=x", "train.loss.kind=vectors"])
    with pytest.raises(RecipeError, match="set .score. to scorer.kind = dense"):
        plan(load("small-bitext", ["score.scorer.kind=cross_encoder", "score.scorer.model=minilm"]))
