"""All objectives on two workers and in pieces; see test_contrast.py for what the contrastive one computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import spawn

from pipelines.students import Lexical, load_encoder
from pipelines.students.encoder import TextEncoder
from pipelines.training import workers
from pipelines.training.losses import FalseNegatives, InfoNce, KullbackLeibler, Triplet
from pipelines.training.workers import GradientSum, Workers
from toy import CONFIG, STUDENT, assert_same_gradient, gradients_of, labelled, make_inputs, make_loop, open_corpus

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
IN_BATCH = {"batch": 6, "ways": 3, "pool": 7}
RUNS = {  # what each of two workers computes, and a single one
    "distil": {"loss": KullbackLeibler(temperature=0.5)},
    "round robin": {"mixing": "round_robin_entries", "ways": 2, "consistency": 0.5},
    "labels": {"loss": InfoNce(in_batch=False), **IN_BATCH},
    "in batch": {"loss": InfoNce(temperature=0.3), **IN_BATCH},
    "in batch, round robin": {"loss": InfoNce(), **IN_BATCH, "mixing": "round_robin_entries"},
    "in batch, four pieces": {"loss": InfoNce(temperature=0.3), **IN_BATCH, "batch": 8, "accumulation": 4},
    "in batch, small pieces": {"loss": InfoNce(temperature=0.3), **IN_BATCH, "piece_tokens": 30},
    "cut": {"loss": InfoNce(temperature=0.3, dims=(16, 4), dim_weights=(1, 3)), **IN_BATCH, "piece_tokens": 30},
    "left out": {"loss": InfoNce(false_negatives=FalseNegatives(relative_margin=0.1)), **IN_BATCH, "piece_tokens": 30},
    "triplet": {"loss": Triplet(margin=0.7), **IN_BATCH, "piece_tokens": 30},
    "triplet of its own": {"loss": Triplet(margin=0.7, in_batch=False), **IN_BATCH},
    "distil, cut": {"loss": KullbackLeibler(temperature=0.5, dims=(16, 4))},
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
            parameter += sign * 3e-4 * slope / slope.norm()
        losses.append(gradients_of(loop)[0])
        with torch.no_grad():
            parameter -= sign * 3e-4 * slope / slope.norm()
    assert (losses[0] - losses[1]) / 6e-4 == pytest.approx(float(slope.norm()), rel=0.02)


@pytest.mark.parametrize(
    "changes", [{}, {"loss": KullbackLeibler(dims=(16, 4)), "mixing": "round_robin_entries", "ways": 2}]
)
def test_a_lookup_gives_what_a_student_gives_whose_texts_are_embedded_once(inputs, corpus, monkeypatch, changes):
    student = Lexical(words=None, dim=32, ngram_rows=1024).build(corpus, 0)
    found = []
    for is_lookup in (True, False):
        monkeypatch.setattr(TextEncoder, "is_lookup", is_lookup)
        found.append(gradients_of(make_loop(CONFIG.model_copy(update=changes), student, inputs))[::2])
        student.model.zero_grad()
    monkeypatch.undo()
    assert student.is_lookup
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert_same_gradient(found[0][1], found[1][1], 1e-6)
    assert found[0][1].abs().sum() > 0


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
    for name in (name for name, changes in RUNS.items() if {"accumulation", "piece_tokens"} & changes.keys()):
        whole = CONFIG.model_copy(update={**RUNS[name], "accumulation": 1, "piece_tokens": 8192})
        student = load_encoder(tmp_path / "student", "cpu")
        loss, _, found = gradients_of(make_loop(whole, student, labels))
        assert one[name][0] == pytest.approx(loss, rel=1e-6), name
        assert_same_gradient(one[name][1], found, 1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": InfoNce(in_batch=False), "ways": 2},
        {"loss": InfoNce(temperature=0.5)},
        {"loss": Triplet(margin=2.0)},
        {"loss": InfoNce(temperature=0.5, dims=(16, 8)), "piece_tokens": 100},
    ],
)
def test_a_student_learns_from_labels(corpus, labels, changes):
    student = STUDENT.build(corpus, 0)
    loop = make_loop(CONFIG.model_copy(update={"pool": 7, "ways": 4, **changes}), student, labels)
    losses = [loop.step(number)[0] for number in range(80)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    drawn = loop.take_drawn()
    assert drawn.batches == {"main": 80}
    assert sum(drawn.positives["main"].values()) == 80 * 8
    assert set(drawn.positives["main"]) == {"en", "xx"}
