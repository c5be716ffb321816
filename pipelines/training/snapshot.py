"""A training as it was at one step, in this process's memory: written to files while the training goes on.

Taking it costs a copy of the weights and of the optimiser's state, to be held until the next is taken: 12 bytes for
each parameter that is trained, and 4 for each other. Writing it changes nothing of the training.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pipelines.students.adapter import Adapter
from pipelines.students.encoder import TextEncoder


class Snapshot:
    """Takes copies of a student, and of the adapter that is in it."""

    def __init__(self) -> None:
        self._copy: TextEncoder | None = None
        self._adapter: Adapter | None = None
        self._state: Any = None

    def take(self, student: TextEncoder, adapter: Adapter | None, state: Any) -> None:
        """Copy the student's weights and ``state``, which holds tensors. The one that was taken before is lost."""
        if self._copy is None:
            self._copy = student.with_model(copy_to_memory(student.model))
            self._adapter = adapter.on(self._copy) if adapter else None
        else:
            with torch.no_grad():
                for mine, copied in zip(_tensors(student.model), _tensors(self._copy.model), strict=True):
                    copied.copy_(mine)
        self._state = tree_map(lambda part: _copy_tensor(part) if isinstance(part, Tensor) else part, state)

    def write(self, directory: Path) -> None:
        """Write the student to ``directory/model`` and the state to ``optimizer.pt``. A student with an adapter is
        written merged, and the adapter to ``directory/adapter``."""
        assert self._copy is not None
        if self._adapter:
            self._adapter.save(directory)
        else:
            self._copy.save(directory / "model")
        torch.save(self._state, directory / "optimizer.pt")


def copy_to_memory(model: nn.Module) -> Any:
    """A copy of a model whose tensors are in the processor's memory, whatever device the model is on."""
    memo: dict[int, Any] = {id(p): nn.Parameter(_copy_tensor(p), p.requires_grad) for p in model.parameters()}
    memo |= {id(buffer): _copy_tensor(buffer) for buffer in model.buffers()}
    return deepcopy(model, memo)


def _copy_tensor(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
