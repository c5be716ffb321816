"""The contrastive objective against sentence-transformers, and all objectives on two workers and in pieces."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.multi_vector_encoder import losses as multi_vector_losses
from sentence_transformers.sentence_transformer import losses as dense_losses
from torch.multiprocessing import spawn

from artifacts import table_artifact
from pipelines.students import Corpus, Dense, load_encoder
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS
from pipelines.training import workers
from pipelines.training.losses import InfoNce, KullbackLeibler
from pipelines.training.objectives.texts import score_entries
from pipelines.training.workers import GradientSum, Workers
from toy import CONFIG, NAMES, STUDENT, labelled, make_inputs, make_loop, open_corpus

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
DENSE = Dense(base=PLAIN.base, query_prefix="", doc_prefix="", doc_length=32, query_length=32)
IN_BATCH = {"batch": 6, "ways": 3, "pool": 7}
RUNS = {  # what each of two workers computes, and a single one
    "distil": {"loss": KullbackLeibler(temperature=0.5)},
    "round robin": {"mixing": "round_robin_entries", "ways": 2, "consistency": 0.5},
    "labels": {"loss": InfoNce(in_batch=False), **IN_BATCH},
    "in batch": {"loss": InfoNce(temperature=0.3), **IN_BATCH},
    "in batch, round robin": {"loss": InfoNce(), **IN_BATCH, "mixing": "round_robin_entries"},
    "in batch, four pieces": {"loss": InfoNce(temperature=0.3), **IN_BATCH, "batch": 8, "accumulation": 4},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("objectives")


@pytest.fixture(scope="module")
def inputs(root):
    return make_inputs(root)


@pytest.fixture(scope="module")
def labels(inputs, root):
    return labelled(inputs, root)


@pytest.fixture(scope="module")
def corpus(inputs):
    return open_corpus(inputs)


@pytest.fixture(scope="module")
def apart(root):
    """Eight questions whose passages no other question has: else the library takes a relevant one for a negative."""
    queries = [{"query_id": f"q{n}", "lang": "en", "text": f"where is {NAMES[n]}"} for n in range(8)]
    texts = [f"{form} {name}" for name in NAMES[:8] for form in ("here lies", "far from", "not the city", "no word of")]
    docs = [{"doc_id": f"p{n}", "lang": "en", "title": "", "text": text} for n, text in enumerate(texts)]
    qrels = [{"query_id": f"q{n}", "doc_id": f"p{4 * n}", "relevance": 1} for n in range(8)]
    rankings = [
        {"query_id": f"q{n}", "doc_ids": [f"p{4 * n + k}" for k in range(4)], "scores": [4.0, 3.0, 2.0, 1.0]}
        for n in range(8)
    ]
    data = {
        "queries": table_artifact(root / "apart-queries@0", QUERIES, queries),
        "docs": {"en": table_artifact(root / "apart-docs@0", DOCS, docs)},
        "qrels": {"en": table_artifact(root / "apart-qrels@0", QRELS, qrels)},
        "rankings": table_artifact(root / "apart-rankings@0", RANKINGS, rankings),
    }
    return {"data": {"main": data}}


def gradients_of(loop, number=0):
    """The loss of a batch, its share, and the gradient of all parameters."""
    loop.student.model.train()
    torch.manual_seed(7)
    share = loop.shares.get(number)
    loss = loop.backward(share)
    found = torch.cat([p.grad.flatten() for p in loop.student.model.parameters()])
    loop.student.model.zero_grad()
    return loss, share, found


def assert_same_gradient(found, expected, rel):
    assert float((found - expected).norm() / expected.norm()) < rel


def oracle_of(student, kind, share, corpus):
    """The library's loss and its gradient, of a share's queries, positives and negatives."""
    entries = [entry for group in share.groups for entry in group]
    columns = [[corpus.queries.text(e.query_id) for e in entries]]
    for way in range(len(entries[0].doc_ids)):
        columns.append([corpus.docs[e.langs[way]].text(e.doc_ids[way]) for e in entries])
    tasks = ["query", *["document"] * (len(columns) - 1)]
    features = [
        student.model.preprocess(texts, prompt=student.model.prompts[task] or None, task=task)
        for texts, task in zip(columns, tasks, strict=True)
    ]
    loss = kind(student.model, scale=4.0)(features, torch.zeros(0))
    loss.backward()
    parameters = list(student.model.parameters())
    found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    student.model.zero_grad()
    return float(loss.detach()), found


@pytest.mark.parametrize(
    ("student", "kind"),
    [
        (DENSE, dense_losses.MultipleNegativesRankingLoss),
        (DENSE, dense_losses.CachedMultipleNegativesRankingLoss),
        (PLAIN, multi_vector_losses.MultiVectorMultipleNegativesRankingLoss),
    ],
    ids=["dense", "dense, cached", "late interaction"],
)
@pytest.mark.parametrize("pieces", [1, 4])
def test_infonce_is_the_library_s_loss_and_gradient(corpus, apart, student, kind, pieces):
    made = student.build(corpus, 0)
    config = {"loss": InfoNce(temperature=0.25), "batch": 8, "ways": 3, "pool": 3, "accumulation": pieces}
    loop = make_loop(CONFIG.model_copy(update=config), made, apart)
    loss, share, found = gradients_of(loop)
    expected_loss, expected = oracle_of(made, kind, share, Corpus.open(apart["data"]))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_same_gradient(found, expected, 1e-5)


def test_infonce_without_in_batch_is_cross_entropy_of_the_first(corpus, labels):
    """The released code's ``--kd_loss None``, the loss of the baseline MTT: two ways, the first one relevant."""
    student = PLAIN.build(corpus, 0)
    loop = make_loop(CONFIG.model_copy(update={"loss": InfoNce(in_batch=False), "ways": 2, "pool": 7}), student, labels)
    loss, share, _ = gradients_of(loop)
    entries = [entry for group in share.groups for entry in group]
    student.model.eval()
    scores = score_entries(student, entries, (share.queries, share.docs)).detach()
    assert scores.shape == (8, 2)
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(8, dtype=torch.long))
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_a_relevant_passage_is_no_negative_in_any_language(corpus, labels):
    """A naive loop over the candidates of the batch, which leaves out what has the id of a relevant passage."""
    student = PLAIN.build(corpus, 0)
    loop = make_loop(CONFIG.model_copy(update={"loss": InfoNce(), "batch": 12, "ways": 4, "pool": 7}), student, labels)
    loss, share, _ = gradients_of(loop)
    entries = [entry for group in share.groups for entry in group]
    every = [(doc, lang) for e in entries for doc, lang in zip(e.doc_ids, e.langs, strict=True)]
    vectors = dict(zip(every, student.encode_docs([corpus.docs[lang].text(doc) for doc, lang in every]), strict=True))
    losses, left_out = [], 0
    for at, entry in enumerate(entries):
        (query,) = student.encode_queries([corpus.queries.text(entry.query_id)])
        kept = [n for n, (doc, _) in enumerate(every) if n == 4 * at or doc not in entry.relevant]
        left_out += sum(
            doc == entry.doc_ids[0] and lang != entry.langs[0] for n, (doc, lang) in enumerate(every) if n not in kept
        )
        scores = np.array([(query @ vectors[every[n]].T).max(1).sum() for n in kept])
        losses.append(np.log(np.exp(scores).sum()) - scores[kept.index(4 * at)])
    assert left_out > 0
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_dropout_is_the_same_in_both_passes(corpus, labels):
    """With dropout the two passes of a piece must see the same masks: else the gradient is that of another loss."""
    student = STUDENT.build(corpus, 0)
    config = {"loss": InfoNce(), "batch": 4, "ways": 3, "pool": 7, "accumulation": 2}
    loop = make_loop(CONFIG.model_copy(update=config), student, labels)
    loss, share, found = gradients_of(loop)
    parameter = next(p for name, p in student.model.named_parameters() if "word_embeddings" in name)
    size = next(n for n, p in enumerate(student.model.parameters()) if p is parameter)
    start = sum(p.numel() for p in list(student.model.parameters())[:size])
    slope = found[start : start + parameter.numel()].view_as(parameter)
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * 1e-2 * slope / slope.norm()
        losses.append(gradients_of(loop)[0])
        with torch.no_grad():
            parameter -= sign * 1e-2 * slope / slope.norm()
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(slope.norm()), rel=0.02)


def compute(rank: int, world: int, directory: Path, teacher: dict, labels: dict) -> None:
    """One worker of ``world``: the losses and gradients of all ``RUNS``, written by the first."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=world)
    found = {}
    for name, changes in RUNS.items():
        config = CONFIG.model_copy(update=changes)
        inputs = teacher if config.loss.reads == "scores" else labels
        student = load_encoder(directory / "student", "cpu")
        loop = make_loop(config, student, inputs, Workers(rank, world))
        found[name] = gradients_of(loop)[::2]
    if rank == 0:
        torch.save(found, directory / f"of-{world}.pt")
    if world > 1:
        _sum_of_what_one_worker_used(rank)
        torch.distributed.destroy_process_group()


def _sum_of_what_one_worker_used(rank: int) -> None:
    """A parameter that one worker did not use, and one that none did, in buckets of one parameter each."""
    used, rare, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    workers.BUCKET = 1
    total = GradientSum([used, rare, unused], Workers(rank, 2))
    for _ in range(2):  # steps
        loss = (3 * used).sum() + ((5 * rare).sum() if rank else 0)
        loss.backward()  # a piece
        total.arm()
        (3 * used).sum().backward()  # the last piece, which does not use `rare`
        total.finish()
        assert used.grad.tolist() == [12, 12]
        assert rare.grad.tolist() == [5, 5]
        assert unused.grad.tolist() == [0, 0]
        for parameter in (used, rare, unused):
            parameter.grad = None


def test_workers_and_pieces_change_rounding_only(inputs, labels, corpus, tmp_path):
    PLAIN.build(corpus, 0).save(tmp_path / "student")
    compute(0, 1, tmp_path, inputs, labels)
    spawn(compute, (2, tmp_path, inputs, labels), nprocs=2)
    one, two = (torch.load(tmp_path / f"of-{world}.pt") for world in (1, 2))
    for name in RUNS:
        assert two[name][0] == pytest.approx(one[name][0], rel=1e-6), name
        assert_same_gradient(two[name][1], one[name][1], 1e-6)
    whole = CONFIG.model_copy(update={**RUNS["in batch, four pieces"], "accumulation": 1})
    student = load_encoder(tmp_path / "student", "cpu")
    loss, _, found = gradients_of(make_loop(whole, student, labels))
    assert one["in batch, four pieces"][0] == pytest.approx(loss, rel=1e-6)
    assert_same_gradient(one["in batch, four pieces"][1], found, 1e-6)


@pytest.mark.parametrize("changes", [{"loss": InfoNce(in_batch=False), "ways": 2}, {"loss": InfoNce(temperature=0.5)}])
def test_a_student_learns_from_labels(corpus, labels, changes):
    student = STUDENT.build(corpus, 0)
    loop = make_loop(CONFIG.model_copy(update={"pool": 7, "ways": 4, **changes}), student, labels)
    losses = [loop.step(number)[0] for number in range(80)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    drawn = loop.take_drawn()
    assert drawn.batches == {"main": 80}
    assert sum(drawn.positives["main"].values()) == 80 * 8
    assert set(drawn.positives["main"]) == {"en", "xx"}
