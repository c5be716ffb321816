"""The workers of a training and what they exchange. Knows torch.distributed, and nothing of Ray.

Gradients are summed in buckets of 32 MB. While the last backward pass of a step runs, a bucket is sent as soon as its
gradients are complete, so that on accelerators the exchange costs little beside the computation. Buckets are sent in
the same order by every worker; a parameter that one of them did not use counts as zero.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import Parameter
from torch.nn.functional import pad

BUCKET = 8 << 20  # numbers that are summed over the workers at once: 32 MB


class Workers:
    """The workers of a training, as one of them sees the others."""

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the workers."""
        if self.world > 1:
            distributed.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """The values of all workers, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def join(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """The tensors [N, T, …] of all workers joined along N, their other dimensions padded with zeros to the largest,
        and the slice of N that is this worker's. No gradient flows."""
        tensor = tensor.detach()
        if self.world == 1:
            return tensor, slice(0, len(tensor))
        shapes = self.gather(tuple(tensor.shape))
        largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        missing = [size - own for size, own in zip(largest, tensor.shape, strict=True)]
        padded = pad(tensor, [n for size in reversed(missing) for n in (0, size)]).contiguous()
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        lengths = [shape[0] for shape in shapes]
        start = sum(lengths[: self.rank])
        joined = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
        return joined, slice(start, start + lengths[self.rank])


class GradientSum:
    """Sums the gradients of parameters over the workers. Afterwards every parameter has a gradient: zeros where no
    worker used it."""

    def __init__(self, parameters: Iterable[Parameter], workers: Workers):
        self._world = workers.world
        self._buckets: list[list[Parameter]] = [[]]
        for parameter in reversed([p for p in parameters if p.requires_grad]):  # backward reaches the last ones first
            if sum(p.numel() for p in self._buckets[-1]) >= BUCKET:
                self._buckets.append([])
            self._buckets[-1].append(parameter)
        self._armed, self._next = False, 0
        self._missing: list[set[int]] = []
        self._sent: list[tuple[Tensor, Any]] = []
        if self._world > 1:
            for number, bucket in enumerate(self._buckets):
                for parameter in bucket:
                    parameter.register_post_accumulate_grad_hook(partial(self._count, number))

    def arm(self) -> None:
        """From here on each gradient that arrives is final: the last backward pass of the step begins."""
        self._missing = [{id(parameter) for parameter in bucket} for bucket in self._buckets]
        self._armed = True

    def finish(self) -> None:
        """Send what was not sent, wait, and put the sums in place."""
        for bucket in self._buckets:
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        while self._world > 1 and self._next < len(self._buckets):
            self._send()
        for bucket, (joined, work) in zip(self._buckets, self._sent, strict=False):
            work.wait()
            for parameter, total in zip(bucket, joined.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = total.view_as(parameter)
        self._armed, self._next, self._sent = False, 0, []

    def _count(self, bucket: int, parameter: Tensor) -> None:
        if not self._armed:
            return
        self._missing[bucket].discard(id(parameter))
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._send()

    def _send(self) -> None:
        gradients = [p.grad.flatten() for p in self._buckets[self._next] if p.grad is not None]
        joined = torch.cat(gradients)
        self._sent.append((joined, distributed.all_reduce(joined, async_op=True)))
        self._next += 1
