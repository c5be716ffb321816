"""The meta-learners: MAML (Finn et al. 2017) and MAML-Align (arXiv 2309.08185), as gradients of one meta-task.

A task has sets S0, Q0, Q1 …; ``SetLoss`` gives the loss of a set under given weights. With φ = adapt(θ, S0), which is
``inner_steps`` steps of gradient descent with ``inner_lr``, and θ' = adapt(θ, Q0) where the student adapts, else θ:

    finetune     the mean over S0, Q0, Q1 of loss(θ, ·)
    maml         the mean over Q0, Q1 of loss(φ, ·)
    maml_align   (loss(φ, Q0) + loss(θ', Q1)) / 2 + λ · KD

and the loss of a batch is the mean over its tasks of all but the KD of losses, which is of the batch:

    kd_target = loss         (Σ loss(φ, Q0) − Σ loss(θ', Q0))², sums over the batch's tasks; gradients flow into both
    kd_target = logits       KL(teacher ‖ student) on Q0; the teacher, φ, is held fixed
    kd_target = embeddings   the mean squared difference of the vectors on Q0; the teacher, φ, is held fixed

Since the square is of sums over all workers' tasks, a task gives two gradients: ``gradient``, of what is added up, and
``difference_gradient``, of loss(φ, Q0) − loss(θ', Q0). So one task is in memory at a time, whatever the batch. With
``order`` 1 the gradient with respect to φ is taken for that with respect to θ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipelines.training.meta.config import Meta

Weights = Mapping[str, Tensor]
Gradient = Sequence[Tensor]


class SetLoss(Protocol):
    """The loss of a set of examples under given weights, and how far a student is from a teacher on it. Weights are
    tensors by parameter name, and may have a graph of their own."""

    def loss(self, weights: Weights, examples: Any) -> Tensor:
        """The mean loss of the examples, a scalar."""

    def distil(self, teacher: Weights, student: Weights, examples: Any) -> Tensor:
        """How far the student's logits or embeddings are from the teacher's, which are held fixed, a scalar."""


@dataclass(frozen=True)
class Outcome:
    """What one task gives to the outer step: its loss and the gradient of it, and, for the KD of losses, loss(φ, Q0) −
    loss(θ', Q0) and the gradient of that. No tensor has a graph."""

    loss: Tensor
    gradient: Gradient
    difference: Tensor | None = None
    difference_gradient: Gradient = ()


def learn(meta: Meta, learned: SetLoss, weights: Weights, sets: Sequence[Any]) -> Outcome:
    """The outcome of one task. ``weights`` are leaves that require gradients; ``sets`` begin with the support set."""
    if meta.algorithm == "finetune":
        return _average([learned.loss(weights, examples) for examples in sets], weights)
    teacher = adapt(meta, learned, weights, sets[0])
    at = weights if meta.order == 2 else teacher  # what gradients are taken with respect to
    if meta.algorithm == "maml":
        return _average([learned.loss(teacher, examples) for examples in sets[1:]], at)
    return _align(meta, learned, weights, sets, (teacher, at))


def adapt(meta: Meta, learned: SetLoss, weights: Weights, support: Any) -> Weights:
    """The weights after the inner steps; of order 2 with the graph that leads to them, of order 1 new leaves."""
    second = meta.order == 2
    for _ in range(meta.inner_steps):
        gradient = differentiate(learned.loss(weights, support), weights, graph=second)
        moved = {
            name: torch.add(value if second else value.detach(), slope, alpha=-meta.inner_lr)
            for (name, value), slope in zip(weights.items(), gradient, strict=True)
        }
        weights = moved if second else {name: value.requires_grad_() for name, value in moved.items()}
    return weights


def _align(
    meta: Meta, learned: SetLoss, weights: Weights, sets: Sequence[Any], taught: tuple[Weights, Weights]
) -> Outcome:
    """The outcome of MAML-Align; ``taught`` are φ and what gradients of its losses are taken with respect to."""
    _, first, second = sets
    teacher, at_teacher = taught
    student = adapt(meta, learned, weights, first) if meta.student_adapts else weights
    at_student = weights if meta.order == 2 else student
    shares_graph = meta.student_adapts and meta.order == 2
    of_first = learned.loss(teacher, first)
    by_teacher = differentiate(of_first, at_teacher)
    if meta.kd_target != "loss":
        kd = learned.distil(teacher, student, first)
        of_second = learned.loss(student, second)
        loss = (of_first.detach() + of_second) / 2 + meta.kd_weight * kd
        by_student = differentiate(loss, at_student)
        return Outcome(loss.detach(), [t / 2 + s for t, s in zip(by_teacher, by_student, strict=True)])
    of_first_by_student = learned.loss(student, first)
    against = differentiate(of_first_by_student, at_student, keep=shares_graph)
    of_second = learned.loss(student, second)
    by_student = differentiate(of_second, at_student)
    return Outcome(
        ((of_first + of_second) / 2).detach(),
        [(t + s) / 2 for t, s in zip(by_teacher, by_student, strict=True)],
        (of_first - of_first_by_student).detach(),
        [t - s for t, s in zip(by_teacher, against, strict=True)],
    )


def _average(losses: Sequence[Tensor], at: Weights) -> Outcome:
    """The mean of losses, with its gradient with respect to the weights ``at``."""
    loss = torch.stack(list(losses)).mean()
    return Outcome(loss.detach(), differentiate(loss, at))


def differentiate(loss: Tensor, weights: Weights, *, graph: bool = False, keep: bool = False) -> list[Tensor]:
    """The gradient of a loss with respect to weights, zeros where the loss does not depend on them. ``graph`` lets it
    be differentiated again; ``keep`` keeps the graph of the loss for another gradient. A gradient of word vectors is
    sparse, and stays so unless it is differentiated: a set reads a few hundred rows of tens of thousands."""
    found = torch.autograd.grad(
        loss, list(weights.values()), retain_graph=keep or graph, create_graph=graph, allow_unused=True
    )
    return [
        torch.zeros_like(weight) if slope is None else slope.to_dense() if graph and slope.is_sparse else slope
        for slope, weight in zip(found, weights.values(), strict=True)
    ]
