"""Meta-learning in the training loop: a real student adapts as a copy of it would, resumes to the bit, and learns the
same on two workers as on one."""

from copy import deepcopy

import pytest
import torch
from pydantic import ValidationError
from torch.multiprocessing import spawn
from torch.nn import TripletMarginLoss

from pipelines.sources.parallel import Parallel
from pipelines.students import Corpus, Dense, LateInteraction, Lexical, load_encoder
from pipelines.students.adapter import Lora
from pipelines.students.scratch import Scratch
from pipelines.training.config import TrainConfig, TrainResources
from pipelines.training.losses import InfoNce, KullbackLeibler, Triplet
from pipelines.training.meta.config import Meta
from pipelines.training.objectives.texts import Distinct, embed
from pipelines.training.records import Drawn
from pipelines.training.workers import Workers
from test_meta_episodes import ALIGN, LANGS, read_tables, write_collection
from toy import assert_same_gradient, gradients_of, make_loop, save_loop

pytestmark = pytest.mark.usefixtures("one_thread")

BASE = Scratch(vocabulary=120, hidden=32, layers=1, heads=2, positions=32, dropout=0.1)
STUDENT = Dense(base=BASE, query_prefix="", doc_prefix="", query_length=16, doc_length=24)
META = Meta(tasks=ALIGN, support=3, queries=2, inner_steps=2, inner_lr=0.1)
TRIPLET = Triplet(margin=1.0, distance="euclidean", in_batch=False)
CONFIG = TrainConfig(
    student=STUDENT, steps=8, batch=4, lr=2e-3, loss=TRIPLET, meta=META, resources=TrainResources(threads=1)
)
RUNS = {
    "finetune": {"algorithm": "finetune"},
    "maml": {"algorithm": "maml"},
    "maml, second order": {"algorithm": "maml", "order": 2},
    "maml_align": {"kd_weight": 5.0},
    "maml_align, as the text": {"kd_weight": 5.0, "student_adapts": True, "order": 2},
    "maml_align, logits": {"kd_target": "logits", "kd_weight": 5.0},
    "maml_align, embeddings": {"kd_target": "embeddings", "kd_weight": 5.0, "student_adapts": True},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("lareqa")
    write_collection(root)
    tables = read_tables(Parallel(path=str(root)), tmp_path_factory.mktemp("tables"))
    return {"data": {"main": tables}}


@pytest.fixture(scope="module")
def student(inputs, tmp_path_factory):
    """The directory of an untrained student."""
    tables = inputs["data"]["main"]
    corpus = Corpus.open({"main": {"queries": tables["queries"]["el"], "docs": tables["docs"]}})
    directory = tmp_path_factory.mktemp("student")
    STUDENT.build(corpus, 0).save(directory)
    return directory


def loop_of(student, inputs, workers=None, **meta):
    config = CONFIG.model_copy(update={"meta": META.model_copy(update=meta)})
    return make_loop(config, load_encoder(student, "cpu"), inputs, workers)


def train(loop, steps):
    return [loop.step(number)[0] for number in steps]


def test_the_student_adapts_as_a_copy_of_it_does(student, inputs):
    """First-order MAML against gradient descent on deep copies of the model, and torch's own triplet loss."""
    loop = loop_of(student, inputs, algorithm="maml")
    loss, share, found = gradients_of(loop)
    loop.student.model.eval()
    expected, losses = torch.zeros_like(found), []

    def loss_of(encoder, triplets):
        texts = Distinct.of(triplets, encoder.device)
        queries, _ = embed(encoder, [share.queries[key] for key in texts.queries], "query", "fp32")
        docs, _ = embed(encoder, [share.docs[key] for key in texts.docs], "document", "fp32")
        ways = [docs[texts.doc_NW[:, way], 0] for way in (0, 1)]
        return TripletMarginLoss(margin=1.0, p=2, eps=0)(queries[texts.query_N, 0], *ways)

    for episode in share.episodes:
        copy = deepcopy(loop.student)
        descent = torch.optim.SGD(copy.model.parameters(), lr=META.inner_lr)
        for _ in range(META.inner_steps):
            descent.zero_grad()
            loss_of(copy, episode.sets[0]).backward()
            descent.step()
        descent.zero_grad()
        of_queries = (loss_of(copy, episode.sets[1]) + loss_of(copy, episode.sets[2])) / 2
        of_queries.backward()
        losses.append(of_queries.item())
        expected += torch.cat([
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in copy.model.parameters()
        ])  # fmt: skip
    assert loss == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert_same_gradient(found, expected / 4, 1e-4)


def slope_along(loop, gradient):
    """The slope of the loss along a gradient, by central differences in float32."""
    parameters, losses = list(loop.student.model.parameters()), []
    start, step = torch.nn.utils.parameters_to_vector(parameters).detach(), 1e-2 / max(1.0, float(gradient.norm()))
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(start + sign * step * gradient / gradient.norm(), parameters)
        losses.append(gradients_of(loop)[0])
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("name", ["maml, second order", "maml_align, as the text"])
def test_second_order_goes_through_attention(student, inputs, name):
    loop = loop_of(student, inputs, **RUNS[name])
    _, _, found = gradients_of(loop)
    assert slope_along(loop, found) == pytest.approx(float(found.norm()), rel=0.02)
    _, _, first = gradients_of(loop_of(student, inputs, **{**RUNS[name], "order": 1}))
    assert float((first - found).norm() / found.norm()) > 0.05  # so that the order counts


@pytest.fixture(scope="module")
def loop_of_words(inputs, tmp_path_factory):
    """A loop of a lexical student, the gradients of whose passes are sparse."""
    words = Lexical(words=None, dim=32, ngram_rows=1024, query_length=16, doc_length=24)
    tables, directory = inputs["data"]["main"], tmp_path_factory.mktemp("words")
    words.build(Corpus.open({"main": {"queries": tables["queries"]["el"], "docs": tables["docs"]}}), 0).save(directory)

    def make(**meta):
        loss = TRIPLET.model_copy(update={"distance": "score"})
        config = CONFIG.model_copy(update={"student": words, "loss": loss, "meta": META.model_copy(update=meta)})
        return make_loop(config, load_encoder(directory, "cpu"), inputs)

    return make


@pytest.mark.parametrize("name", RUNS)
def test_word_vectors_are_learnt_in_every_form(loop_of_words, name):
    losses = train(loop_of_words(**RUNS[name]), [0] * 10)  # the same episodes
    assert losses[-1] < 0.8 * losses[0]


def test_second_order_goes_through_word_vectors(loop_of_words):
    """As above, for a lexical student. Long inner steps move common words."""
    loop = loop_of_words(algorithm="maml", inner_lr=3.0, order=2)
    _, _, found = gradients_of(loop)
    assert slope_along(loop, found) == pytest.approx(float(found.norm()), rel=0.001)
    _, _, first = gradients_of(loop_of_words(algorithm="maml", inner_lr=3.0, order=1))
    assert float((first - found).norm() / found.norm()) > 0.03


@pytest.mark.parametrize("name", ["finetune", "maml", "maml_align", "maml_align, logits"])
def test_training_learns(student, inputs, name):
    loop = loop_of(student, inputs, **{**RUNS[name], "kd_weight": 0.5})
    losses = train(loop, [0] * 10)  # the same episodes
    assert losses[-1] < 0.93 * losses[0]


@pytest.mark.parametrize("name", ["maml_align", "maml_align, as the text"])
def test_a_killed_training_resumes_to_the_bit(student, inputs, tmp_path, name):
    """What a killed process leaves is its last checkpoint; another goes on from it."""
    whole = loop_of(student, inputs, **RUNS[name])
    losses = train(whole, range(3))
    save_loop(whole, tmp_path)
    losses += train(whole, range(3, 6))
    again = loop_of(tmp_path / "model", inputs, **RUNS[name])
    again.restore(tmp_path)
    assert train(again, range(3, 6)) == losses[3:]
    pairs = zip(whole.student.model.parameters(), again.student.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def compute(rank, world, student, inputs, directory):
    """One worker of ``world``: losses, gradients and what was drawn of all ``RUNS``, written by the first."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=world)
    found = {}
    for name, meta in RUNS.items():
        loop = loop_of(student, inputs, Workers(rank, world), **meta)
        loss, share, gradient = gradients_of(loop)
        drawn = Drawn()
        drawn.add(share)
        parts = loop.workers.gather(drawn)
        counts = Drawn.joined(parts)
        found[name] = (loss, gradient, (counts.samples, counts.questions, counts.passages, counts.positives))
    if rank == 0:
        torch.save(found, directory / f"of-{world}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


def test_two_workers_are_one(student, inputs, tmp_path):
    """The distillation of losses is a square of sums over all workers' tasks: they are reduced before it is squared."""
    compute(0, 1, student, inputs, tmp_path)
    spawn(compute, (2, student, inputs, tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"of-{world}.pt", weights_only=False) for world in (1, 2))
    for name in RUNS:
        assert two[name][0] == pytest.approx(one[name][0], rel=1e-5), name
        assert_same_gradient(two[name][1], one[name][1], 1e-5)
        assert two[name][2] == one[name][2], name
    assert one["maml_align"][2][1] == {"main": {"el": 2 * (3 + 2 + 6), "hi": 2 * (3 + 2 + 6)}}
    assert set(one["maml_align"][2][2]["main"]) == set(LANGS)


def test_an_adapter_is_all_that_adapts(student, inputs):
    """With LoRA the factors alone move, in the inner loop and in the outer step."""

    def adapted(inner_lr):
        meta = META.model_copy(update={"inner_lr": inner_lr})
        config = CONFIG.model_copy(update={"adapter": Lora(rank=4, alpha=8), "lr": 1e-2, "meta": meta})
        loop = make_loop(config, load_encoder(student, "cpu"), inputs)
        before = {name: p.detach().clone() for name, p in loop.student.model.named_parameters()}
        losses = train(loop, range(3))
        moved = {name for name, p in loop.student.model.named_parameters() if not torch.equal(p, before[name])}
        assert moved
        assert all(".lora_" in name for name in moved)
        return losses

    assert adapted(10.0)[1:] != pytest.approx(adapted(1e-6)[1:], rel=1e-3)  # the inner steps count


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": KullbackLeibler()}, r"expected loss.kind = triplet or infonce with in_batch = false"),
        ({"loss": InfoNce()}, r"expected loss.kind = triplet or infonce with in_batch = false"),
        ({"loss": InfoNce(in_batch=False, dims=(8,))}, "without dims"),
        ({"precision": "fp16"}, "choose precision = fp32 or bf16"),
        ({"precision": "bf16", "meta": META.model_copy(update={"order": 2})}, "meta.order = 2 differentiates twice"),
        ({"student": LateInteraction(base=BASE, dim=16)}, "loss.distance = euclidean is between two vectors"),
    ],
)
def test_what_an_inner_loop_cannot_do_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        TrainConfig(**{**dict(CONFIG), **changes})
