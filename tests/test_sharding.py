"""Weights divided over two workers: the student of one worker, and checkpoints that each reads of the other."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.distributed.tensor import DTensor
from torch.multiprocessing import spawn

from cluster.component import fingerprint
from pipelines.students import load_encoder
from pipelines.training.config import TrainConfig, TrainResources
from pipelines.training.losses import InfoNce, Triplet
from pipelines.training.sharding import Sharding
from pipelines.training.workers import Workers
from toy import CONFIG, STUDENT, labelled, make_inputs, make_loop, open_corpus, save_loop

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0, "layers": 2})})
STEPS = 6
EPSILON = 1e-4


def loop_of(directory: Path, inputs: dict, workers: Workers, first: str, **changes):
    resources = TrainResources(workers=workers.world, shard=workers.world > 1)
    config = CONFIG.model_copy(update={"resources": resources, "weight_decay": 0.1, "lr": 5e-4, **changes})
    loop = make_loop(config, load_encoder(directory / first, "cpu"), inputs, workers)
    for group in loop.optimizer.param_groups:  # with AdamW's 1e-8 a gradient that is all rounding makes a whole step
        group["eps"] = EPSILON
    return loop


def compute(rank: int, world: int, directory: Path, inputs: dict) -> None:
    """Six steps of one worker of ``world``, with a checkpoint after three; then the last three from the checkpoint of
    one worker."""
    torch.set_num_threads(1)
    workers = Workers(rank, world)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=world)
    out = directory / f"of-{world}"
    loop = loop_of(directory, inputs, workers, "start", accumulation=2)
    losses = []
    for number in range(STEPS):
        losses.append(loop.step(number)[0])
        if number == 2:
            save_loop(loop, out / "half" if rank == 0 else None)
    divided = [isinstance(p, DTensor) for p in loop.student.model.parameters()]
    assert all(divided) if world > 1 else not any(divided)
    with loop.whole() as student:
        vectors = student.encode_docs(["the city of oslo lies far"])
        again = loop_of(directory, inputs, workers, "of-1/half/model", accumulation=2)
        again.restore(directory / "of-1" / "half")
    for number in range(3, STEPS):
        again.step(number)
    save_loop(loop, out / "last" if rank == 0 else None)
    save_loop(again, out / "again" if rank == 0 else None)
    if rank == 0:
        torch.save((losses, torch.from_numpy(vectors[0])), out / "found.pt")
    if world > 1:
        held = sum(p.to_local().numel() for p in loop.student.model.parameters())
        whole = sum(p.numel() for p in loop.student.model.parameters())
        assert 0.45 * whole < held < 0.55 * whole
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharding")
    inputs = make_inputs(directory)
    PLAIN.build(open_corpus(inputs), 0).save(directory / "start")
    for world in (1, 2):
        for name in ("half", "last", "again"):
            (directory / f"of-{world}" / name).mkdir(parents=True)
    compute(0, 1, directory, inputs)
    spawn(compute, (2, directory, inputs), nprocs=2)
    return directory


def weights_of(directory):
    return {name: p.detach() for name, p in load_encoder(directory, "cpu").model.named_parameters()}


def assert_same_student(one, other, start, least=2e-3):
    for name in start:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-5, msg=name)
    moved = max(float((one[name] - began).abs().max()) for name, began in start.items())
    assert moved > least


@pytest.mark.slow
def test_two_sharded_workers_end_with_the_student_of_one(directory):
    (losses, vectors), (alone, vectors_alone) = (torch.load(directory / f"of-{n}" / "found.pt") for n in (2, 1))
    assert losses == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(vectors, vectors_alone, rtol=0, atol=1e-5)
    start = weights_of(directory / "start")
    assert_same_student(
        weights_of(directory / "of-2" / "last" / "model"), weights_of(directory / "of-1" / "last" / "model"), start
    )


@pytest.mark.slow  # its fixture starts the workers
def test_checkpoints_have_the_form_of_one_worker(directory):
    one, two = (torch.load(directory / f"of-{n}" / "half" / "optimizer.pt", weights_only=True) for n in (1, 2))
    assert one["optimizer"]["param_groups"] == two["optimizer"]["param_groups"]
    assert one["optimizer"]["state"].keys() == two["optimizer"]["state"].keys()
    for number, state in one["optimizer"]["state"].items():
        for name, values in state.items():
            assert type(two["optimizer"]["state"][number][name]) is torch.Tensor
            torch.testing.assert_close(two["optimizer"]["state"][number][name], values, rtol=0, atol=1e-5)
    start = weights_of(directory / "start")
    assert_same_student(
        weights_of(directory / "of-2" / "again" / "model"), weights_of(directory / "of-1" / "last" / "model"), start
    )


CONTRASTS = {
    "one piece": {},
    "small pieces": {"piece_tokens": 30},  # of which the workers have different numbers
    "accumulated": {"accumulation": 3, "loss": Triplet(margin=0.7)},
}


def contrast(rank: int, world: int, directory: Path, inputs: dict) -> None:
    """Three steps of each in-batch loss on one worker of ``world``, and how many pieces the worker's own texts were."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{directory}/meet-{world}", rank=rank, world_size=world)
    found = {}
    for name, changes in CONTRASTS.items():
        settings = {"loss": InfoNce(temperature=0.3), "ways": 3, "pool": 7, **changes}
        loop = loop_of(directory, inputs, Workers(rank, world), "start", **settings)
        losses = [loop.step(number)[0] for number in range(3)]
        with loop.whole() as student:
            weights = {key: p.detach().clone() for key, p in student.model.named_parameters()}
        found[name] = losses, weights
    if rank == 0:
        torch.save(found, directory / f"contrast-{world}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_sharded_workers_contrast_as_one(tmp_path):
    inputs = labelled(make_inputs(tmp_path), tmp_path)
    PLAIN.build(open_corpus(inputs), 0).save(tmp_path / "start")
    contrast(0, 1, tmp_path, inputs)
    spawn(contrast, (2, tmp_path, inputs), nprocs=2)
    one, two = (torch.load(tmp_path / f"contrast-{world}.pt") for world in (1, 2))
    start = weights_of(tmp_path / "start")
    for name in CONTRASTS:
        assert two[name][0] == pytest.approx(one[name][0], rel=1e-5), name
        assert_same_student(two[name][1], one[name][1], start, least=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resources": {"workers": 3, "shard": True}}, r"workers = 3 and batch = 8: let batch be a multiple"),
        ({"resources": {"workers": (1, 2), "shard": True}}, r"fixed number of workers"),
        ({"precision": "fp16"}, r"leave it out with .*precision = fp16"),
        ({"adapter": {}}, r"leave it out with train.adapter"),
        ({"student": {"kind": "lexical", "words": None}}, r"student.kind = lexical"),
    ],
)
def test_what_cannot_be_sharded_is_an_error(changes, said):
    sharded = {"resources": {"workers": 2, "shard": True}}
    TrainConfig.model_validate({**CONFIG.model_dump(), **sharded})
    with pytest.raises(ValidationError, match=said):
        TrainConfig.model_validate({**CONFIG.model_dump(), **sharded, **changes})


def test_sharding_is_no_part_of_the_fingerprint():
    sharded = CONFIG.model_copy(update={"resources": TrainResources(workers=2, shard=True)})
    assert fingerprint(sharded) == fingerprint(CONFIG)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/alone", rank=0, world_size=1)
    yield Workers()
    torch.distributed.destroy_process_group()


def test_a_checkpoint_needs_no_room_on_the_device(alone, tmp_path):
    """The device that the whole student is moved to is torch's meta device, which holds no values."""
    student = PLAIN.build(open_corpus(make_inputs(tmp_path)), 0)
    before = {name: p.detach().clone() for name, p in student.model.named_parameters()}
    sharding = Sharding(student, alone)
    sharding._device = torch.device("meta")
    with sharding.gathered(on_device=False) as whole:
        assert whole.device.type == "cpu"
        assert all(torch.equal(p, before[name]) for name, p in whole.model.named_parameters())
    with pytest.raises(NotImplementedError), sharding.gathered(on_device=True) as whole:
        assert whole.device.type == "meta"  # from which it does not come back


def test_a_worker_that_keeps_no_checkpoint_keeps_no_state(alone, tmp_path):
    student = PLAIN.build(open_corpus(make_inputs(tmp_path)), 0)
    sharding = Sharding(student, alone)
    optimizer = torch.optim.AdamW(student.model.parameters())
    for parameter in student.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = sharding.gather_state(optimizer, is_kept=True)["state"]
    assert {type(value) for of_one in kept.values() for value in of_one.values()} == {torch.Tensor}
    left = sharding.gather_state(optimizer, is_kept=False)["state"]
    assert {value for of_one in left.values() for value in of_one.values()} == {None}
