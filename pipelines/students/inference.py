"""Batches of texts through a model, without gradients. Imports torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from pipelines.precision import Precision, autocast

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def map_batches(
    compute: Callable[[Batch], Result],
    batches: Sequence[Batch],
    device_type: str,
    precision: Precision,
    *,
    is_thread_safe: bool = True,
) -> list[Result]:
    """Compute each batch, in order, in inference mode and under the autocast of ``precision``.

    On a CPU several batches are computed at once, and torch's threads are divided among them: threads that share a
    batch wait for each other in every layer. On two cores beside other work that gave 1.6 times as many tokens a
    second (``tests/benchmarks/bench_threads.py``). Without ``is_thread_safe`` only the calling thread computes.
    """
    threads = torch.get_num_threads()
    at_once = min(threads, len(batches) // 2) if device_type == "cpu" and is_thread_safe else 1
    numbers = iter(range(len(batches)))  # from which every thread takes the next
    results: dict[int, Result] = {}

    def compute_some() -> None:
        with torch.inference_mode(), autocast(device_type, precision):  # once: autocast keeps the weights that it casts
            for number in numbers:
                results[number] = compute(batches[number])

    if at_once < 2:
        compute_some()
    else:
        try:
            # a number of threads is that of the thread that sets it, and of those that begin later
            with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)) as pool:
                for future in [pool.submit(compute_some) for _ in range(at_once)]:
                    future.result()
        finally:
            torch.set_num_threads(threads)
    return [results[number] for number in range(len(batches))]
