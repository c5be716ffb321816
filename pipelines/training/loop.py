"""The training loop of one worker. Knows torch and torch.distributed, and nothing of Ray.

Step i is a function of the weights before it, the seed and i: its batch is looked up, its learning rate computed, and
the random numbers of dropout are seeded by (seed, i, rank). So a checkpoint needs weights, the optimiser's state and
the step, and on a CPU a training that was killed and resumed ends with the very bits of one that was not.

Each worker computes its share of the queries; gradients are sums over queries divided by the size of the whole batch,
added up over the workers, so that the number of workers changes rounding and nothing else.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn import Parameter

from cluster.errors import RecipeError
from pipelines.precision import on_device
from pipelines.students.encoder import TextEncoder
from pipelines.training.batches import Batches
from pipelines.training.config import TrainConfig
from pipelines.training.distil import Distillation

OVERFLOWS = 24  # in a row; each halves the loss scale, which begins at 65,536: after these it is below 0.01
BUCKET = 8 << 20  # numbers that are added up over the workers at once: 32 MB


class Workers:
    """The workers of a training, as one of them sees the others."""

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the workers."""
        if self.world == 1:
            return
        bucket: list[Tensor] = []
        for at, tensor in enumerate(tensors):
            bucket.append(tensor)
            if sum(t.numel() for t in bucket) >= BUCKET or at == len(tensors) - 1:
                joined = torch.cat([t.flatten() for t in bucket])
                distributed.all_reduce(joined)
                for t, total in zip(bucket, joined.split([t.numel() for t in bucket]), strict=True):
                    t.copy_(total.view_as(t))
                bucket = []

    def gather(self, value: Any) -> list[Any]:
        """The values of all workers, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all workers are here."""
        if self.world > 1:
            distributed.barrier()


class Loop:
    """Takes steps. ``student`` is trained in place."""

    def __init__(
        self, config: TrainConfig, student: TextEncoder, batches: Batches, objective: Distillation, workers: Workers
    ):
        self.config, self.student, self.batches, self.objective, self.workers = (
            config,
            student,
            batches,
            objective,
            workers,
        )
        self.optimizer = make_optimizer(student.model, config)
        half = on_device(config.precision, student.device) == "fp16"
        self.scaler = torch.amp.GradScaler(student.device.type, enabled=half)
        self.overflows = self.overflows_in_a_row = 0  # steps that were not taken

    def step(self, number: int) -> tuple[float, float]:
        """Take step ``number`` (from 0). Returns the mean loss of the whole batch, in nats, and the learning rate.

        In fp16 a step whose gradients overflow is not taken: the loss scale is halved instead, on all workers alike.

        Raises:
            FloatingPointError: the loss is not a number, in fp16 the gradients overflowed too often in a row; the
                weights are as before the step.
        """
        self.student.model.train()
        factor = learning_rate_factor(self.config, number)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        torch.manual_seed(
            int(np.random.SeedSequence([self.config.seed, number, self.workers.rank]).generate_state(1)[0])
        )
        loss = self._backward(number)
        if not (math.isfinite(loss) or self.scaler.is_enabled()):
            raise FloatingPointError(
                f'the loss of step {number + 1} is {loss}: lower train.lr, or set train.precision = "fp32"'
            )
        self._count(number, overflowed=not self._apply())
        return loss, self.config.lr * factor

    def _backward(self, number: int) -> float:
        """Gradients of the mean loss over the whole batch, on every worker; returns that loss."""
        share = self.batches.entries(number, self.workers.rank, self.workers.world)
        size = math.ceil(len(share) / self.config.accumulation)
        total = torch.zeros(1, device=self.student.device)
        for start in range(0, len(share), size):
            loss = self.objective(share[start : start + size], self.config.precision) / self.config.batch
            self.scaler.scale(loss).backward()
            total += loss.detach()
        gradients = [p.grad for p in self.student.model.parameters() if p.grad is not None]
        self.workers.add_up([total, *gradients])
        return float(total)

    def _apply(self) -> bool:
        """Change the weights; False where gradients overflowed and the weights are as they were."""
        scale = self.scaler.get_scale()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.student.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return self.scaler.get_scale() >= scale

    def _count(self, number: int, overflowed: bool) -> None:
        self.overflows += overflowed
        self.overflows_in_a_row = self.overflows_in_a_row + 1 if overflowed else 0
        if self.overflows_in_a_row >= OVERFLOWS:
            raise FloatingPointError(
                f"the gradients of {OVERFLOWS} steps up to {number + 1} overflowed fp16, however small the loss scale: "
                'lower train.lr, or set train.precision = "fp32"'
            )

    def drawn(self) -> tuple[int, Counter[str]]:
        """Queries skipped and passages drawn per language by all workers since the last call."""
        shares = self.workers.gather((self.batches.skipped, self.batches.languages))
        self.batches.skipped, self.batches.languages = 0, Counter()
        return sum(s for s, _ in shares), sum((languages for _, languages in shares), Counter())

    def save(self, directory: Path) -> None:
        """Write the student to ``directory/model`` and the optimiser's state beside it."""
        self.student.save(directory / "model")
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "overflows": (self.overflows, self.overflows_in_a_row),
        }
        torch.save(state, directory / "optimizer.pt")

    def restore(self, directory: Path) -> None:
        """Take up the optimiser's state. The student must have been opened from ``directory/model``."""
        state = torch.load(directory / "optimizer.pt", map_location=self.student.device, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.overflows, self.overflows_in_a_row = state["overflows"]


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (eps 1e-8, as the papers), with a group for each learning rate.

    Raises:
        RecipeError: a name of ``lr_groups`` is in no parameter's name, or two are in the same one.
    """
    groups: dict[str | None, list[Parameter]] = {None: [], **{name: [] for name in config.lr_groups}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            named = [key for key in config.lr_groups if key in name]
            if len(named) > 1:
                raise RecipeError(f"train.lr_groups: {' and '.join(named)} are both in the name of parameter {name}")
            groups[named[0] if named else None].append(parameter)
    if empty := [name for name, members in groups.items() if name is not None and not members]:
        names = sorted({name.rpartition(".")[0] for name, _ in model.named_parameters()})
        raise RecipeError(f"train.lr_groups: no parameter is named {empty[0]!r}; there are {', '.join(names[:12])} …")
    rates = [
        {"params": members, "base_lr": config.lr_groups[name] if name else config.lr}
        for name, members in groups.items()
        if members
    ]
    return torch.optim.AdamW(rates, lr=config.lr, eps=1e-8, weight_decay=config.weight_decay, fused=True)


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """By what the learning rates are multiplied in step ``step`` (from 0)."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    left = (config.steps - step) / max(1, config.steps - config.warmup)
    if config.schedule == "linear":
        return left
    return 0.5 - 0.5 * math.cos(math.pi * left) if config.schedule == "cosine" else 1.0
