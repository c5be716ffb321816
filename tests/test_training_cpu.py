"""Attention and dropout of training on a CPU, against the library's."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import checkpoints
from pipelines.students import LateInteraction
from pipelines.students.base import Corpus
from pipelines.students.checkpoint import Checkpoint
from pipelines.training.cpu import Dropout, drop, speed_up
from toy import STUDENT, make_inputs, open_corpus

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return open_corpus(make_inputs(tmp_path_factory.mktemp("cpu")))


def vectors_and_gradients(student, texts):
    student.model.zero_grad()
    vectors, mask = student.embed(student.rows(texts, "document"), "document")
    (vectors[mask] ** 3).sum().backward()
    return vectors[mask].detach(), torch.cat(
        [p.grad.flatten() for p in student.model.parameters() if p.grad is not None]
    )


@pytest.mark.parametrize("base", ["bert", "xlm-roberta"])
def test_vectors_gradients_and_files_are_those_of_the_library(base, corpus, tmp_path):
    if base == "bert":
        student = STUDENT.build(corpus, 0)
    else:
        checkpoints.xlm_roberta(tmp_path / "xlmr", list(corpus.iterate_texts()))
        bases = Checkpoint(model=str(tmp_path / "xlmr"))
        student = LateInteraction(base=bases, dim=16, query_length=10, doc_length=24).build(corpus, 0)
    student.model.eval()
    texts = ["the city of oslo lies far", "ж", "where is lima", "tell me of cairo and of riga please"]
    before = vectors_and_gradients(student, texts)
    student.save(tmp_path / "before")
    speed_up(student.model)
    after = vectors_and_gradients(student, texts)
    student.save(tmp_path / "after")
    for found, expected in zip(after, before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for file in sorted((tmp_path / "before").rglob("*.json")):
        assert json.loads(file.read_text()) == json.loads(
            (tmp_path / "after" / file.relative_to(tmp_path / "before")).read_text()
        )
    dropouts = [module for module in student.model.modules() if isinstance(module, (nn.Dropout, Dropout))]
    assert dropouts
    assert not any(type(module) is nn.Dropout for module in dropouts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_keeps_the_share_and_the_mean(dtype, probability):
    values = torch.ones(1001, 1003, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    found = drop(values, probability)
    torch.manual_seed(3)
    assert torch.equal(found, drop(values, probability))  # the seed decides
    kept = found != 0
    count = found.numel()
    assert abs(int(kept.sum()) - count * (1 - probability)) < 4 * (count * probability * (1 - probability)) ** 0.5
    assert found[kept].unique().tolist() == [torch.tensor(1 / (1 - probability), dtype=dtype).item()]
    pairs = kept.flatten()[:-1] & kept.flatten()[1:]  # neighbours are independent: they are cut from one draw
    expected = (1 - probability) ** 2
    assert abs(float(pairs.float().mean()) - expected) < 4 * (expected * (1 - expected) / count) ** 0.5 * 2
    found.sum().backward()
    assert torch.equal(values.grad != 0, kept)
    assert Dropout(probability).eval()(values) is values


def test_freed_memory_is_kept_and_then_returned() -> None:
    """In a process of its own, since it changes the allocator: 400 MB are freed, stay with the process, and go."""
    script = """
import psutil, torch
from pipelines.training.cpu import keep_freed_memory, return_freed_memory
keep_freed_memory()
rss = lambda: psutil.Process().memory_info().rss / 1e6
before, tensors = rss(), [torch.ones(25_000_000) for _ in range(4)]
del tensors
kept = rss()
return_freed_memory()
print(kept - before, rss() - before)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept, left = map(float, run.stdout.split())
    assert kept > 390
    assert left < 50
