"""A student whose weights, gradients and optimiser's state are divided over the workers: torch's FSDP2.

Each block of the base gathers its weights when it is computed and gives them up afterwards; its gradients are summed
where they stay. All of this waits for all workers, so they must take the same number of passes through the student.
They have equal shares of a batch. Of a loss that is taken query by query all queries of a piece go through it together,
and then all passages: ``accumulation`` is what bounds the memory of a pass. Of an in-batch contrast each takes as
many pieces as the one that has most (see ``objectives.pieces``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from pipelines.students.encoder import TextEncoder
from pipelines.training.snapshot import copy_to_memory
from pipelines.training.workers import Workers


class Sharding:
    """Divides the weights of ``student`` over the workers, in place. A copy on each can hold all: in CPU memory."""

    def __init__(self, student: TextEncoder, workers: Workers):
        self._model: Any = student.model
        self._whole = copy_to_memory(self._model)
        self._student, self._device = student, student.device
        mesh = init_device_mesh(student.device.type, (workers.world,))
        blocks = [block for part in self._model.modules() if isinstance(part, nn.ModuleList) for block in part]
        for part in [*reversed(blocks), self._model]:
            divided = fully_shard(part, mesh=mesh)
            divided.set_gradient_divide_factor(1.0)  # the workers' parts are summed …
            divided.set_force_sum_reduction_for_comms(True)  # … in the one way that gloo knows

    @contextmanager
    def gathered(self, on_device: bool) -> Iterator[TextEncoder]:
        """The student with all its weights as they are now: on the device to be measured, which must have room for all
        of them, or in memory to be saved. All workers call it."""
        for mine, whole in zip(self._model.parameters(), self._whole.parameters(), strict=True):
            whole.data.copy_(mine.full_tensor())
        if not on_device:
            yield self._student.with_model(self._whole)
            return
        yield self._student.with_model(self._whole.to(self._device))
        self._whole.cpu()

    def gather_state(self, optimizer: torch.optim.Optimizer, is_kept: bool) -> dict[str, Any]:
        """The state of the optimiser in memory, as it would be without sharding; None in the place of its tensors where
        it is not kept. Tensor by tensor, so that a device holds one whole one at a time. All workers call it."""

        def gather(part: Any) -> Any:
            if isinstance(part, DTensor):
                part = part.full_tensor()
            if not isinstance(part, Tensor):
                return part
            return part.cpu() if is_kept else None

        return dict(tree_map(gather, optimizer.state_dict()))

    def divide_state(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """This worker's part of what ``gather_state`` gave. All workers call it."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        divided = {
            number: {
                name: distribute_tensor(value, like.device_mesh, like.placements)
                if value.shape == like.shape
                else value
                for name, value in state["state"][number].items()
            }
            for number, like in enumerate(parameters)
            if number in state["state"]
        }
        return {**state, "state": divided}
