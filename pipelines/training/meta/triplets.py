"""What is learnt of triplets in an inner loop: their loss, and how they are distilled. Imports torch.

The student's weights enter as tensors by name (``torch.func.functional_call``), so that those of the inner steps can
stand in their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import kl_div

from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Entry
from pipelines.training.losses import ContrastiveLoss
from pipelines.training.meta.learners import Weights
from pipelines.training.objectives.contrast import maxsim_all
from pipelines.training.objectives.texts import Distinct, embed, maxsim, take

Texts = Mapping[tuple[str, str], Row]


@dataclass(frozen=True)
class Tokenised:
    """The texts of a share, tokenised, by (language, id): questions and passages, or the left and the right sentences
    of pairs. ``precision`` is that of the passes through the student."""

    queries: Texts
    docs: Texts
    precision: Precision


class Embedding(nn.Module):
    """The vectors of tokenised questions and passages under the weights of the moment, as one module, so that
    ``functional_call`` can put other weights in their place."""

    def __init__(self, student: TextEncoder):
        super().__init__()
        self.model: nn.Module = student.model
        self._student = student

    def forward(self, rows: tuple[Sequence[Row], Sequence[Row]], precision: Precision) -> tuple[Tensor, ...]:
        """Vectors [U, Q, D] and mask [U, Q] of the questions, vectors [V, T, D] and mask [V, T] of the passages."""
        queries, docs = rows
        return *embed(self._student, queries, "query", precision), *embed(self._student, docs, "document", precision)


class Triplets:
    """What is learnt of sets of triplets; see ``learners.SetLoss``. Tensor names: N triplets, U questions, V passages
    of a set."""

    def __init__(self, student: TextEncoder, loss: ContrastiveLoss, texts: Tokenised, temperature: float):
        self._embedding, self._loss, self._texts = Embedding(student), loss, texts
        self._device, self._temperature = student.device, temperature

    def embed(self, weights: Weights, triplets: Sequence[Entry]) -> tuple[Distinct, tuple[Tensor, ...]]:
        """The distinct texts of some triplets, and their vectors and masks under these weights."""
        texts = Distinct.of(triplets, self._device)
        rows = [self._texts.queries[key] for key in texts.queries], [self._texts.docs[key] for key in texts.docs]
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return texts, functional_call(self._embedding, named, (rows, self._texts.precision))

    def loss(self, weights: Weights, examples: Sequence[Entry]) -> Tensor:
        """See ``SetLoss``."""
        texts, (queries, query_mask, docs, doc_mask) = self.embed(weights, examples)
        of_questions = take(queries, texts.query_N), take(query_mask, texts.query_N)
        scores_NW = maxsim(*of_questions, take(docs, texts.doc_NW), take(doc_mask, texts.doc_NW))
        return self._loss.per_entry(scores_NW, torch.zeros_like(texts.query_N)).mean()

    def distil(self, teacher: Weights, student: Weights, examples: Sequence[Entry]) -> Tensor:
        """The KL divergence of the scores of all passages of the set, the mean over its questions."""
        with torch.no_grad():
            taught_UV = self._score_all(teacher, examples).log_softmax(-1)
        learnt_UV = self._score_all(student, examples).log_softmax(-1)
        return kl_div(learnt_UV, taught_UV, log_target=True, reduction="batchmean")

    def _score_all(self, weights: Weights, examples: Sequence[Entry]) -> Tensor:
        _, (queries, query_mask, docs, doc_mask) = self.embed(weights, examples)
        return maxsim_all(queries, query_mask, docs, doc_mask) / self._temperature


class AlignedVectors(Triplets):
    """Triplets that are distilled by their vectors."""

    def distil(self, teacher: Weights, student: Weights, examples: Sequence[Entry]) -> Tensor:
        """The mean squared difference of the components of all vectors that count."""
        with torch.no_grad():
            _, (queries, query_mask, docs, doc_mask) = self.embed(teacher, examples)
        _, (own_queries, _, own_docs, _) = self.embed(student, examples)
        apart = torch.cat([(own_queries - queries)[query_mask], (own_docs - docs)[doc_mask]])
        return apart.square().mean()
