"""Distillation: the student's scores of a query's passages are drawn towards the teacher's. Imports torch.

Tensor names end in their shape: N entries, W ways, Q queries, L languages.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.training.batches import Entry
from pipelines.training.config import TrainConfig
from pipelines.training.losses import DistillationLoss, language_consistency
from pipelines.training.objectives.base import Pass, Sampler, Share
from pipelines.training.objectives.texts import score_cuts


class ByQuery:
    """An objective (see ``pipelines.training.objectives.base.Objective``) whose loss of a batch is a mean over queries,
    or sentence pairs, so that shares and pieces simply add up."""

    def __init__(self, config: TrainConfig, student: TextEncoder, sampler: Sampler):
        self.config, self.student, self.sampler = config, student, sampler

    def share(self, number: int, rank: int, world: int) -> Share:
        """See ``Objective``."""
        return self.sampler.share(number, rank, world)

    def backward(self, share: Share, step: Pass) -> Tensor:
        """See ``Objective``."""
        return backward_by_query(self.loss, self.config.batch, share, step)

    def loss(self, groups: Sequence[Sequence[Entry]], share: Share, precision: Precision = "fp32") -> Tensor:
        """The sum over the queries of ``groups`` of their losses."""
        raise NotImplementedError


class Distil(ByQuery):
    """Reads ``scores``. The loss of a query is the mean over its entries."""

    def __init__(self, loss: DistillationLoss, config: TrainConfig, student: TextEncoder, sampler: Sampler):
        super().__init__(config, student, sampler)
        self._loss = loss

    def loss(self, groups: Sequence[Sequence[Entry]], share: Share, precision: Precision = "fp32") -> Tensor:
        """The sum over queries of the mean loss of a query's entries, which are one of ``groups``."""
        entries = [entry for group in groups for entry in group]
        teacher_NW = torch.tensor([entry.scores.tolist() for entry in entries], device=self.student.device)
        each, total = len(groups[0]), torch.zeros((), device=self.student.device)
        rows = share.queries, share.docs
        for weight, scores_NW in score_cuts(self.student, entries, rows, self._loss.cuts, precision):
            loss = self._loss.per_entry(scores_NW, teacher_NW).sum() / each
            if self.config.consistency:
                scores_QLW = scores_NW.unflatten(0, (len(groups), each)) / self._loss.temperature
                loss = loss + self.config.consistency * language_consistency(scores_QLW).sum()
            total = total + weight * loss
        return total


def backward_by_query(loss_of: Any, batch: int, share: Share, step: Pass) -> Tensor:
    """The backward pass of a loss that is a mean over queries: ``loss_of`` gives the sum over some of them."""
    return backward_pieces(loss_of, batch, share.cut(step.pieces), share, step)


def backward_pieces(
    loss_of: Any, batch: int, pieces: Sequence[Sequence[Sequence[Entry]]], share: Share, step: Pass
) -> Tensor:
    """The same, of a share that is cut into ``pieces``."""
    total: Any = 0.0
    for at, groups in enumerate(pieces):
        loss = loss_of(groups, share, step.precision) / batch
        step.backward([loss], last=at == len(pieces) - 1)
        total = total + loss.detach()
    return torch.as_tensor(total).reshape(1)
