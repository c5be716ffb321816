"""Meta-learning on sentence pairs: episodes of pairs, and what is learnt of them in an inner loop. Imports torch.

An episode has ``support`` pairs and ``queries`` others in each query set, all different and drawn from all training
pairs. A specification (see ``specs``) says their languages: of the set ``el_ar,el`` the left sentence is Greek, and
each pair counts twice, with its right sentence in Arabic and in Greek.

Tensor names end in their shape: N pairs, D dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity, mse_loss

from cluster.errors import StepError
from pipelines.students.encoder import TextEncoder
from pipelines.training.batches import EPISODE_STREAM, Entry, Passages, stream
from pipelines.training.losses import Cosine
from pipelines.training.meta.config import Meta
from pipelines.training.meta.episodes import Episode
from pipelines.training.meta.learners import Weights
from pipelines.training.meta.specs import Part
from pipelines.training.meta.triplets import Tokenised
from pipelines.training.objectives.similarity import embed_pairs, make_entry


class PairEpisodes:
    """Episodes of sentence pairs with gold scores; see ``episodes.Episodes``.

    Raises:
        StepError: there are fewer pairs than an episode needs; the message names the task.
    """

    def __init__(self, meta: Meta, pairs: Passages, seed: int):
        self.meta, self.specs, self.seed = meta, meta.specs, seed
        self.name, self.size, self._pairs = pairs.name, len(pairs), pairs
        for position, spec in enumerate(self.specs):
            if self.size < (needed := meta.support + meta.queries * len(spec.queries)):
                raise StepError(
                    f"train.meta.tasks[{position}]: an episode of {spec} needs {needed} different pairs (support = "
                    f"{meta.support}, queries = {meta.queries}), and {self.name} has {self.size}: lower them, or add "
                    "pairs"
                )

    def episode(self, number: int) -> Episode:
        """See ``Episodes``."""
        random = stream(self.seed, EPISODE_STREAM, number)
        spec = self.specs[number % len(self.specs)]
        counts = [self.meta.support, *[self.meta.queries] * len(spec.queries)]
        drawn = random.choice(self.size, sum(counts), replace=False)
        rows = np.split(drawn, np.cumsum(counts)[:-1])
        return Episode(spec, tuple(self._list_pairs(of, part) for of, part in zip(rows, spec.parts, strict=True)))

    def _list_pairs(self, rows: np.ndarray, part: Part) -> tuple[Entry, ...]:
        pairs = [self._pairs.candidates(row, 1) for row in rows.tolist()]
        return tuple(make_entry(pair, (part.query, lang)) for pair in pairs for lang in part.docs)


class EmbeddedPairs(nn.Module):
    """The vectors of the sentences of tokenised pairs under the weights of the moment, as one module, so that
    ``functional_call`` can put other weights in their place."""

    def __init__(self, student: TextEncoder, texts: Tokenised):
        super().__init__()
        self.model: nn.Module = student.model
        self._student, self._texts = student, texts

    def forward(self, pairs: Sequence[Entry]) -> tuple[Tensor, Tensor]:
        """Those of the left and of the right sentences, [N, D] each."""
        return embed_pairs(self._student, pairs, (self._texts.queries, self._texts.docs), self._texts.precision)


class Pairs:
    """What is learnt of sets of sentence pairs; see ``learners.SetLoss``."""

    def __init__(self, student: TextEncoder, loss: Cosine, texts: Tokenised, meta: Meta):
        self._embedding, self._loss, self._meta = EmbeddedPairs(student, texts), loss, meta

    def embed(self, weights: Weights, examples: Sequence[Entry]) -> tuple[Tensor, Tensor]:
        """The vectors of the left and of the right sentences under these weights, [N, D] each."""
        left_ND, right_ND = functional_call(
            self._embedding, {f"model.{name}": weight for name, weight in weights.items()}, (examples,)
        )
        return left_ND, right_ND

    def loss(self, weights: Weights, examples: Sequence[Entry]) -> Tensor:
        """See ``SetLoss``: the mean squared difference of cosine and gold score."""
        cosine_N = cosine_similarity(*self.embed(weights, examples))
        gold_N = torch.tensor([float(entry.scores[0]) for entry in examples], device=cosine_N.device)
        return self._loss.per_entry(cosine_N, gold_N).mean()

    def distil(self, teacher: Weights, student: Weights, examples: Sequence[Entry]) -> Tensor:
        """The mean squared difference of cosines (``kd_target = logits``), or of the components of the vectors."""
        with torch.no_grad():
            taught = self.embed(teacher, examples)
        learnt = self.embed(student, examples)
        if self._meta.kd_target == "logits":
            return mse_loss(cosine_similarity(*learnt), cosine_similarity(*taught))
        return mse_loss(torch.cat(learnt), torch.cat(taught))
