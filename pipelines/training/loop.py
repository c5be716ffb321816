"""The training loop of one worker. Knows torch and torch.distributed, and nothing of Ray.

Step i is a function of the weights before it, the seed and i: its batch is looked up, its learning rate computed, and
the random numbers of dropout are seeded by (seed, i, rank). So a checkpoint needs weights, the optimiser's state and
the step, and on a CPU a training that was killed and resumed ends with the very bits of one that was not.

The objective leaves this worker's part of the gradient of the whole batch's loss; the parts are summed over the
workers, so that the number of workers changes rounding and nothing else.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import Parameter

from cluster.errors import RecipeError
from pipelines.precision import require_resolved
from pipelines.students.encoder import TextEncoder
from pipelines.training.config import TrainConfig
from pipelines.training.cpu import Dropout
from pipelines.training.objectives.base import Objective, Pass, Samples
from pipelines.training.prefetch import Prefetch
from pipelines.training.records import Drawn
from pipelines.training.snapshot import Snapshot
from pipelines.training.workers import GradientSum, Workers

if TYPE_CHECKING:
    from pipelines.training.sharding import Sharding

OVERFLOWS = 24  # in a row; each halves the loss scale, which begins at 65,536: after these it is below 0.01


class Loop:
    """Takes steps. ``student`` is trained in place; ``shares`` are prepared ahead in a thread, which must be paused
    while the student's tokenizer is used by others."""

    def __init__(self, config: TrainConfig, student: TextEncoder, objective: Objective[Any], workers: Workers):
        self.config, self.student, self.objective, self.workers = config, student, objective, workers
        if config.dropout is not None:
            set_dropout(student.model, config.dropout)
        self.adapter = config.adapter.add_to(student, config.seed) if config.adapter else None
        self.sharding = _divide(student, workers) if config.resources.shard and workers.world > 1 else None
        self.optimizer = make_optimizer(student.model, config)
        self.scaler = torch.amp.GradScaler(student.device.type, enabled=config.precision == "fp16")
        alone = Workers() if self.sharding else workers  # FSDP sums what it divides
        self.sum = GradientSum(student.model.parameters(), alone)
        self.shares: Prefetch[Samples] = Prefetch(self._share, config.steps)
        self.overflows = self.overflows_in_a_row = 0  # steps that were not taken
        self._drawn = Drawn()

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
        share = self.shares.get(number)
        torch.manual_seed(
            int(np.random.SeedSequence([self.config.seed, number, self.workers.rank]).generate_state(1)[0])
        )
        loss = self.backward(share)
        if not (math.isfinite(loss) or self.scaler.is_enabled()):
            raise FloatingPointError(
                f'the loss of step {number + 1} is {loss}: lower train.lr, or set train.precision = "fp32"'
            )
        self._count(number, overflowed=not self._apply())
        self._drawn.add(share)
        return loss, self.config.lr * factor

    def backward(self, share: Samples) -> float:
        """Leave the gradient of the mean loss over the whole batch on every worker; returns that loss."""
        config = self.config
        pieces = config.accumulation, config.piece_tokens
        precision = require_resolved(config.precision)
        step = Pass(self.workers, self.scaler, self.sum, precision, *pieces, self.sharding is not None)
        total = self.objective.backward(share, step)
        self.sum.finish()
        self.workers.sum(total)
        return float(total)

    def _share(self, number: int) -> Samples:
        return self.objective.share(number, self.workers.rank, self.workers.world)

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

    def take_drawn(self) -> Drawn:
        """What all workers drew since the last call."""
        drawn, self._drawn = self._drawn, Drawn()
        return Drawn.joined(self.workers.gather(drawn))

    @contextmanager
    def whole(self, on_device: bool = True) -> Iterator[TextEncoder]:
        """The student with all its weights; where they are divided, on the device or in memory. All workers call it."""
        with self.sharding.gathered(on_device) if self.sharding else nullcontext(self.student) as student:
            yield student

    def take(self, snapshot: Snapshot | None) -> None:
        """Copy the student and the optimiser's state into a snapshot, and what is trained of an adapter.

        All workers call it where weights are divided: one with a snapshot, the others give their parts."""
        if not (snapshot or self.sharding):
            return
        is_kept = snapshot is not None
        optimizer = (
            self.sharding.gather_state(self.optimizer, is_kept) if self.sharding else self.optimizer.state_dict()
        )
        state = {
            "trained": self.adapter.trained if self.adapter else {},
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "overflows": (self.overflows, self.overflows_in_a_row),
        }
        with self.whole(on_device=False) as student:
            if snapshot:
                snapshot.take(student, self.adapter, state)

    def restore(self, directory: Path) -> None:
        """Take up the optimiser's state. The student must have been opened from ``directory/model``; where it has an
        adapter, from where the training began: merged weights are rounded."""
        state = torch.load(directory / "optimizer.pt", map_location="cpu", weights_only=True)
        if self.adapter:
            self.adapter.restore(state["trained"])
        whole = state["optimizer"]
        self.optimizer.load_state_dict(self.sharding.divide_state(whole, self.optimizer) if self.sharding else whole)
        self.scaler.load_state_dict(state["scaler"])
        self.overflows, self.overflows_in_a_row = state["overflows"]


def _divide(student: TextEncoder, workers: Workers) -> "Sharding":
    from pipelines.training.sharding import Sharding  # FSDP takes more than a second to import

    return Sharding(student, workers)


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Set the probability of every dropout of ``model`` while it trains. Its saved configuration stays as it was.

    Raises:
        RecipeError: it has none.
    """
    layers = [module for module in model.modules() if isinstance(module, (torch.nn.Dropout, Dropout))]
    if not layers:
        raise RecipeError("train.dropout: the student has no layer that drops values; leave it out")
    for layer in layers:
        layer.p = probability


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
