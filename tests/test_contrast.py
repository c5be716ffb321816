"""The contrastive objective, and vectors that are cut, against sentence-transformers and plain loops."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import log_softmax, softmax
from sentence_transformers.multi_vector_encoder import losses as multi_vector_losses
from sentence_transformers.sentence_transformer import losses as dense_losses

from artifacts import table_artifact
from cluster.errors import RecipeError, StepError
from pipelines.students import Corpus, Dense
from pipelines.students.checkpoint import Checkpoint
from pipelines.tables import RANKINGS
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.data import check_data, find_needs
from pipelines.training.losses import FalseNegatives, InfoNce, KullbackLeibler, Triplet
from pipelines.training.objectives import build_objective, contrast
from pipelines.training.objectives.base import Pass
from pipelines.training.objectives.pieces import EmbeddedTexts
from toy import (
    CONFIG,
    STUDENT,
    assert_same_gradient,
    gradients_of,
    labelled,
    make_apart,
    make_inputs,
    make_loop,
    open_corpus,
    oracle_of,
    score_entries,
)

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
DENSE = Dense(base=PLAIN.base, query_prefix="", doc_prefix="", doc_length=32, query_length=32)
APART = {"batch": 8, "ways": 3, "pool": 3}
TOGETHER = {"batch": 12, "ways": 4, "pool": 7}  # a batch in which passages are relevant to other queries too
PIECES = pytest.mark.parametrize("tokens", [8192, 30], ids=["whole", "in pieces"])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("contrast")


@pytest.fixture(scope="module")
def inputs(root):
    return make_inputs(root)


@pytest.fixture(scope="module")
def labels(inputs, root):
    return labelled(inputs, root)


@pytest.fixture(scope="module")
def taught(labels, root):
    """The labels, and a teacher's scores: two of a query's other passages are nearly as good as the relevant one. Of
    the last third of the queries the relevant passage has no score."""
    main, rows = labels["data"]["main"], []
    for row in labels["data"]["main"]["rankings"].read().to_pylist():
        scores = [5.0, 4.9, 4.8, 1.0, 0.9, 0.8, 0.7, 0.6]
        skipped = int(row["query_id"].startswith("t2"))
        rows.append({"query_id": row["query_id"], "doc_ids": row["doc_ids"][skipped:], "scores": scores[skipped:]})
    scores = table_artifact(root / "teacher@0", RANKINGS, rows)
    return {**labels, "data": {"main": {**main, "scores": scores}}}


@pytest.fixture(scope="module")
def corpus(inputs):
    return open_corpus(inputs)


@pytest.fixture(scope="module")
def apart(root):
    return make_apart(root)


def loop_of(made, inputs, loss, **changes):
    student = DENSE if made.similarity == "dot" else PLAIN
    return make_loop(CONFIG.model_copy(update={"student": student, "loss": loss, **changes}), made, inputs)


@pytest.mark.parametrize(
    ("student", "kind"),
    [
        (DENSE, dense_losses.MultipleNegativesRankingLoss),
        (DENSE, dense_losses.CachedMultipleNegativesRankingLoss),
        (PLAIN, multi_vector_losses.MultiVectorMultipleNegativesRankingLoss),
    ],
    ids=["dense", "dense, cached", "late interaction"],
)
@PIECES
def test_infonce_is_the_library_s_loss_and_gradient(corpus, apart, student, kind, tokens):
    made = student.build(corpus, 0)
    loss, share, found = gradients_of(loop_of(made, apart, InfoNce(temperature=0.25), **APART, piece_tokens=tokens))
    expected_loss, expected = oracle_of(made, kind(made.model, scale=4.0), share, Corpus.open(apart["data"]))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_same_gradient(found, expected, 1e-5)


def test_without_negatives_of_its_own_a_query_has_those_of_the_batch(corpus, apart):
    """One way, the relevant passage: the library's loss on pairs."""
    made = DENSE.build(corpus, 0)
    loss, share, found = gradients_of(loop_of(made, apart, InfoNce(temperature=0.25), **APART | {"ways": 1}))
    assert {len(entry.doc_ids) for group in share.groups for entry in group} == {1}
    library = dense_losses.MultipleNegativesRankingLoss(made.model, scale=4.0)
    expected_loss, expected = oracle_of(made, library, share, Corpus.open(apart["data"]))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_same_gradient(found, expected, 1e-5)


def test_one_way_needs_the_negatives_of_the_batch():
    assert TrainConfig(student=PLAIN, loss=InfoNce(), ways=1).draw.ways == 1
    for loss in (InfoNce(in_batch=False), KullbackLeibler()):
        with pytest.raises(ValidationError, match=r"ways = 1 .*expected at least 2, or a loss on labels with in_batch"):
            TrainConfig(student=PLAIN, loss=loss, ways=1)


@pytest.mark.parametrize(
    "kind", [dense_losses.MultipleNegativesRankingLoss, dense_losses.CachedMultipleNegativesRankingLoss]
)
@pytest.mark.parametrize("weights", [(), (1.0, 2.0, 5.0)])
@PIECES
def test_vectors_that_are_cut_have_the_library_s_loss_and_gradient(corpus, apart, kind, weights, tokens):
    """The library adds up what is a mean here, so its weights are given as shares."""
    made = DENSE.build(corpus, 0)
    loss = InfoNce(temperature=0.25, dims=(32, 16, 8), dim_weights=weights)
    value, share, found = gradients_of(loop_of(made, apart, loss, **APART, piece_tokens=tokens))
    shares = [weight / sum(weights) for weight in weights] if weights else [1 / 3] * 3
    theirs = dense_losses.MatryoshkaLoss(made.model, kind(made.model, scale=4.0), [32, 16, 8], shares)
    expected_value, expected = oracle_of(made, theirs, share, Corpus.open(apart["data"]))
    assert value == pytest.approx(expected_value, rel=1e-5)
    assert_same_gradient(found, expected, 1e-5)


def test_a_triplet_is_the_library_s_loss_and_gradient(corpus, apart):
    made = DENSE.build(corpus, 0)
    loss, share, found = gradients_of(
        loop_of(made, apart, Triplet(in_batch=False, margin=0.1), batch=8, ways=2, pool=3)
    )
    cosine = dense_losses.TripletDistanceMetric.COSINE
    theirs = dense_losses.TripletLoss(made.model, distance_metric=cosine, triplet_margin=0.1)
    expected_loss, expected = oracle_of(made, theirs, share, Corpus.open(apart["data"]))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert loss > 0
    assert_same_gradient(found, expected, 1e-5)


def test_infonce_without_in_batch_is_cross_entropy_of_the_first(corpus, labels):
    """The released code's ``--kd_loss None``, the loss of the baseline MTT: two ways, the first one relevant."""
    student = PLAIN.build(corpus, 0)
    loss, share, _ = gradients_of(loop_of(student, labels, InfoNce(in_batch=False), ways=2, pool=7))
    entries = [entry for group in share.groups for entry in group]
    student.model.eval()
    scores = score_entries(student, entries, (share.queries, share.docs)).detach()
    assert scores.shape == (8, 2)
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(8, dtype=torch.long))
    assert loss == pytest.approx(float(expected), rel=1e-5)


def naive_mean(student, corpus, share, of_entry, is_left_out, in_batch=True, dim=None):
    """The mean of ``of_entry(score of the positive, scores of the negatives)``, and how many candidates were left out
    by ``is_left_out(entry, id, score, score of the positive)`` and as translations of the positive."""
    entries = [entry for group in share.groups for entry in group]
    ways = len(entries[0].doc_ids)
    every = [key for e in entries for key in zip(e.doc_ids, e.langs, strict=True)]
    docs = student.encode_docs([corpus.docs[lang].text(doc) for doc, lang in every])
    losses, left_out, translations = [], 0, 0
    for at, entry in enumerate(entries):
        (query,) = student.encode_queries([corpus.queries.text(entry.query_id)])
        scores = [(cut(query, dim) @ cut(doc, dim).T).max(1).sum() for doc in docs]
        own, negatives = ways * at, []
        for n in range(len(every)) if in_batch else range(own, own + ways):
            if n == own or every[n][0] in entry.relevant:
                translations += every[n][0] == entry.doc_ids[0] and every[n][1] != entry.langs[0]
            elif is_left_out(entry, every[n][0], scores[n], scores[own]):
                left_out += 1
            else:
                negatives.append(scores[n])
        losses.append(of_entry(scores[own], np.array(negatives)))
    return np.mean(losses), left_out, translations


def cut(vectors, dim):
    return vectors if dim is None else vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)


def infonce_of(positive, negatives):
    return np.logaddexp.reduce(np.append(negatives, positive) / 0.5) - positive / 0.5


def triplet_of(positive, negatives):
    return np.maximum(0, 0.7 - positive + negatives).mean() if len(negatives) else 0.0


def nothing(*_):
    return False


LOSSES = pytest.mark.parametrize(
    ("loss", "of_entry"),
    [(InfoNce(temperature=0.5), infonce_of), (Triplet(margin=0.7), triplet_of)],
    ids=["infonce", "triplet"],
)
WHERE = pytest.mark.parametrize("in_batch", [True, False], ids=["in batch", "own passages"])


@LOSSES
@WHERE
def test_a_relevant_passage_is_no_negative_in_any_language(corpus, labels, loss, of_entry, in_batch):
    student = PLAIN.build(corpus, 0)
    loss = loss.model_copy(update={"in_batch": in_batch})
    found, share, _ = gradients_of(loop_of(student, labels, loss, **TOGETHER))
    expected, _, translations = naive_mean(student, corpus, share, of_entry, nothing, in_batch)
    assert (translations > 0) == in_batch
    assert found == pytest.approx(expected, rel=1e-5)


@LOSSES
@WHERE
@pytest.mark.parametrize(
    ("margin", "is_left_out"),
    [
        ({"relative_margin": 0.05}, lambda score, positive: score > positive - 0.05 * abs(positive)),
        ({"absolute_margin": 0.3}, lambda score, positive: score > positive - 0.3),
    ],
    ids=["relative", "absolute"],
)
def test_the_student_s_scores_leave_out_what_is_as_near(corpus, labels, loss, of_entry, in_batch, margin, is_left_out):
    student = PLAIN.build(corpus, 0)
    loss = loss.model_copy(update={"in_batch": in_batch, "false_negatives": FalseNegatives(**margin)})
    found, share, _ = gradients_of(loop_of(student, labels, loss, **TOGETHER))
    all_of_them = sum(len(e.doc_ids) for group in share.groups for e in group)
    expected, left_out, _ = naive_mean(
        student, corpus, share, of_entry, lambda _, __, s, p: is_left_out(s, p), in_batch
    )
    assert 0 < left_out < all_of_them * (12 if in_batch else 1)
    assert found == pytest.approx(expected, rel=1e-5)


@LOSSES
@WHERE
def test_a_teacher_s_scores_leave_out_what_it_knows(corpus, taught, loss, of_entry, in_batch):
    """Of each query it knows eight passages, and finds two nearly as good as the relevant one."""
    student = PLAIN.build(corpus, 0)
    scored = {row["query_id"]: row for row in taught["data"]["main"]["scores"].read().to_pylist()}
    by_teacher = FalseNegatives(by="teacher", relative_margin=0.05)
    loss = loss.model_copy(update={"in_batch": in_batch, "false_negatives": by_teacher})
    found, share, _ = gradients_of(loop_of(student, taught, loss, **TOGETHER))

    def is_left_out(entry, doc_id, *_):
        row = scored[entry.query_id]
        return not entry.query_id.startswith("t2") and doc_id in row["doc_ids"][1:3]

    expected, left_out, _ = naive_mean(student, corpus, share, of_entry, is_left_out, in_batch)
    assert left_out > 0
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_teacher_that_says_what_is_false_is_an_input(labels, taught):
    by_teacher = InfoNce(false_negatives=FalseNegatives(by="teacher", absolute_margin=1.0))
    for loss, data in ((by_teacher, taught), (InfoNce(), labels), (Triplet(), labels)):
        check_data(data["data"], find_needs(loss), ["main"])
    with pytest.raises(StepError, match="this loss reads docs, qrels, queries, rankings, scores, got docs, qrels"):
        check_data(labels["data"], find_needs(by_teacher), ["main"])


@WHERE
@PIECES
def test_late_interaction_is_cut_too(corpus, labels, in_batch, tokens):
    student = PLAIN.build(corpus, 0)
    loss = InfoNce(temperature=0.5, dims=(16, 4), dim_weights=(1, 3), in_batch=in_batch)
    found, share, _ = gradients_of(loop_of(student, labels, loss, **TOGETHER, piece_tokens=tokens))
    one, other = (naive_mean(student, corpus, share, infonce_of, nothing, in_batch, dim)[0] for dim in (16, 4))
    assert found == pytest.approx(one / 4 + 3 * other / 4, rel=1e-5)


def test_the_gradient_of_cut_token_vectors_is_that_of_a_difference(corpus, labels):
    student = PLAIN.build(corpus, 0)
    loop = loop_of(student, labels, InfoNce(temperature=0.5, dims=(16, 4)), **TOGETHER, piece_tokens=30)
    _, _, found = gradients_of(loop)
    step, losses = 1e-4 * found / found.norm(), []
    for sign in (1, -2):
        place = 0
        with torch.no_grad():
            for parameter in student.model.parameters():
                parameter += sign * step[place : place + parameter.numel()].view_as(parameter)
                place += parameter.numel()
        losses.append(gradients_of(loop)[0])
    assert (losses[0] - losses[1]) / 2e-4 == pytest.approx(float(found.norm()), rel=0.01)


def test_distillation_of_vectors_that_are_cut(corpus, inputs):
    student = DENSE.build(corpus, 0)
    loss = KullbackLeibler(temperature=0.5, dims=(32, 8))
    found, share, _ = gradients_of(loop_of(student, inputs, loss))
    losses = []
    for entry in (entry for group in share.groups for entry in group):
        (query,) = student.encode_queries([corpus.queries.text(entry.query_id)])
        texts = [corpus.docs[lang].text(doc) for doc, lang in zip(entry.doc_ids, entry.langs, strict=True)]
        docs = np.concatenate(student.encode_docs(texts))
        teacher = entry.scores / 0.5
        for dim in (32, 8):
            own = log_softmax(cut(docs, dim) @ cut(query, dim)[0] / 0.5)
            losses.append((softmax(teacher) * (log_softmax(teacher) - own)).sum())
    assert found == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("student", [PLAIN, DENSE], ids=["late interaction", "dense"])
@pytest.mark.parametrize("at_once", [2000, 100], ids=["some queries at once", "some passages at once"])
def test_similarities_in_blocks_change_rounding_only(corpus, labels, student, at_once, monkeypatch):
    made = student.build(corpus, 0)
    loop = loop_of(made, labels, InfoNce(temperature=0.5, dims=(16, 4)), **TOGETHER)
    whole, _, expected = gradients_of(loop)
    most = at_once if student is PLAIN else at_once // 10
    monkeypatch.setitem(contrast.SIMILARITIES_AT_ONCE, "cpu", most)
    in_blocks, _, found = gradients_of(loop)
    assert in_blocks == pytest.approx(whole, rel=1e-5)
    assert_same_gradient(found, expected, 1e-5)


@pytest.mark.parametrize(("tokens", "most"), [(8192, 1.0), (100, 2.0)])
def test_texts_of_a_small_share_are_embedded_once_and_no_text_more_than_twice(corpus, labels, tokens, most):
    student = PLAIN.build(corpus, 0)
    loop = loop_of(student, labels, InfoNce(), **TOGETHER, piece_tokens=tokens)
    sizes = []
    student.model[0].register_forward_hook(lambda _, features, __: sizes.append(features[0]["input_ids"].shape))
    _, share, _ = gradients_of(loop)
    texts = len(share.queries) + len(share.docs)
    rows = sum(rows for rows, _ in sizes)
    assert rows == texts if most == 1 else texts < rows < 2 * texts
    assert all(rows * length <= tokens for rows, length in sizes)


def test_pieces_keep_the_order_of_the_texts(corpus, labels):
    student = PLAIN.build(corpus, 0)
    loop = loop_of(student, labels, InfoNce(), **TOGETHER)
    share = loop.shares.get(0)
    rows = {"document": list(share.docs.values()), "query": list(share.queries.values())}
    student.model.eval()
    embedded = EmbeddedTexts(student, rows, Pass(loop.workers, loop.scaler, loop.sum, piece_tokens=60))
    texts = [corpus.docs[lang].text(doc) for lang, doc in share.docs]
    expected = student.encode_docs(texts)
    for vectors, mask, one in zip(embedded.vectors["document"], embedded.masks["document"], expected, strict=True):
        np.testing.assert_allclose(vectors[mask], one, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"kind": "triplet", "margin": -0.1}, r"(?s)loss\.triplet\.margin.*greater than or equal to 0"),
        ({"kind": "infonce", "dims": [32, 16]}, r"loss\.dims = \[32, 16\]: the student's vectors have 16 dimensions"),
        ({"kind": "kl", "dims": [17]}, r"loss\.dims = \[17\]: the student's vectors have 16 dimensions"),
        ({"kind": "infonce", "dims": [8, 8]}, "dims: each dimension once"),
        ({"kind": "infonce", "dims": [0]}, r"(?s)loss\.infonce\.dims\.0.*greater than 0"),
        ({"kind": "infonce", "dims": [8], "dim_weights": [1, 2]}, r"dim_weights: expected one weight for each of dims"),
        (
            {"kind": "infonce", "false_negatives": {"by": "me", "absolute_margin": 1}},
            r"(?s)false_negatives\.by.*'student'",
        ),
        ({"kind": "infonce", "false_negatives": {"by": "teacher"}}, "give absolute_margin or relative_margin"),
        (
            {"kind": "triplet", "false_negatives": {"relative_margin": -1}},
            r"(?s)relative_margin.*greater than or equal",
        ),
        (
            {"kind": "infonce", "false_negatives": {"relative_margin": 0.1, "absolute_margin": 0.1}},
            "give absolute_margin or relative_margin, one of the two",
        ),
    ],
)
def test_losses_say_what_does_not_fit(loss, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({**CONFIG.model_dump(), "loss": loss})


def test_dimensions_of_a_checkpoint_are_looked_at_when_it_is_open(corpus, apart, tmp_path):
    scratch = TrainConfig(student=DENSE, loss=InfoNce(dims=(32,)))
    with pytest.raises(ValidationError, match="the student's vectors have 32 dimensions"):
        TrainConfig(student=DENSE, loss=InfoNce(dims=(64,)))
    made = DENSE.build(corpus, 0)
    named = DENSE.model_copy(update={"base": Checkpoint(model=str(tmp_path))})
    config = TrainConfig(student=named, loss=InfoNce(dims=(64, 32)))
    with pytest.raises(RecipeError, match=r"train\.loss\.dims = \[64, 32\]: the student's vectors have 32 dimensions"):
        build_objective(TrainingRun(train=config), apart["data"], made)
    build_objective(TrainingRun(train=scratch), apart["data"], made)
