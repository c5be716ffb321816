"""Batches through a model on several threads: the order, the bits and the threads of torch stay as they were."""

import threading

import numpy as np
import pytest
import torch

from pipelines.batching import put_back
from pipelines.students import load_encoder
from pipelines.students.inference import map_batches

TEXTS = [f"{'the river and the king ' * (n % 7 + 1)}{n}" for n in range(300)]


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_batches_share_the_threads_and_keep_their_order():
    seen, meet = (
        set(),
        threading.Barrier(3),
    )  # three batches are computed at the same time, or the test ends in an error

    def compute(batch):
        if batch < 3:
            meet.wait(timeout=60)
        seen.add((threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return 10 * batch

    assert map_batches(compute, range(7), "cpu", "fp32") == [10 * n for n in range(7)]
    assert {(threads, mode) for _, threads, mode in seen} == {(1, True)}
    assert torch.get_num_threads() == 4
    seen.clear()
    assert map_batches(compute, range(7, 12), "cpu", "fp32", is_thread_safe=False) == [10 * n for n in range(7, 12)]
    assert seen == {(threading.get_ident(), 4, True)}


@pytest.mark.usefixtures("four_threads")
def test_few_batches_have_several_threads_each():
    seen = []
    map_batches(lambda _: seen.append(torch.get_num_threads()), range(4), "cpu", "fp32")
    assert seen == [2] * 4
    seen.clear()
    map_batches(lambda _: seen.append(torch.get_num_threads()), range(1), "cpu", "fp32")
    assert seen == [4]


@pytest.mark.usefixtures("four_threads")
def test_an_error_is_raised_as_itself_and_leaves_the_threads():
    def fail(batch):
        raise ValueError(f"batch {batch}")

    with pytest.raises(ValueError, match="batch"):
        map_batches(fail, range(5), "cpu", "fp32")
    assert torch.get_num_threads() == 4


def test_an_encoder_gives_the_same_vectors_on_one_thread_and_on_three():
    encoder = load_encoder("minilm", device="cpu")
    encoder.batch_tokens = 256
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(np.concatenate(encoder.encode_docs(TEXTS)))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_numbers_are_put_back_in_the_order_of_the_texts():
    batches = [np.array([4, 1]), np.array([0]), np.array([3, 2])]
    found = put_back(batches, [np.array([4.0, 1.0]), np.array([0.0]), np.array([3.0, 2.0])])
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert found.dtype == np.float32
    assert put_back([], []).tolist() == []
