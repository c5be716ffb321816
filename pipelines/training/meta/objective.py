"""The objective of meta-learning: episodes, and the outer gradient of a batch of them, for the loop. Imports torch.

The student's weights enter the inner loop as tensors by name (``torch.func.functional_call``): all that are trained,
which with ``train.adapter`` are the factors of LoRA. The optimiser, the schedule, clipping and checkpoints are those
of the loop. Dropout is off, so that the weights after the inner steps depend on the episode alone, on however many
workers. Gradients of order 2 go through attention twice: it is computed by torch's plain ("math") kernel, since the
fused ones cannot be differentiated twice.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import kl_div

from pipelines.docstore import RowStore
from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Entry
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.data import open_docs, open_queries
from pipelines.training.losses import ContrastiveLoss
from pipelines.training.meta.episodes import Answers, Episode, Episodes, RetrievalEpisodes
from pipelines.training.meta.learners import Outcome, Weights, learn
from pipelines.training.objectives.base import Pass
from pipelines.training.objectives.contrast import maxsim_all
from pipelines.training.objectives.texts import Distinct, TokenRows, embed, maxsim, take

MAIN = "main"  # the only data set


@dataclass(frozen=True)
class EpisodeShare:
    """The episodes that one worker computes of a batch, with their texts tokenised, by (language, id)."""

    number: int
    episodes: Sequence[Episode]
    queries: Mapping[tuple[str, str], Row]
    docs: Mapping[tuple[str, str], Row]
    data: str = MAIN
    skipped: int = 0

    @property
    def entries(self) -> list[Entry]:
        """The triplets of all sets."""
        return [entry for episode in self.episodes for triplets in episode.sets for entry in triplets]

    def questions(self) -> Counter[str]:
        """Triplets by the language in which their question is asked."""
        return Counter(entry.query_lang for entry in self.entries)

    def passages(self) -> Counter[str]:
        """Passages by language."""
        return Counter(lang for entry in self.entries for lang in entry.langs)

    def positives(self) -> Counter[str]:
        """Relevant passages by language."""
        return Counter(entry.langs[0] for entry in self.entries)

    def digest(self) -> int:
        """A number that names the episodes; see ``Share.digest``."""
        total = 0
        for episode in self.episodes:
            triplets = [[(e.query_id, e.doc_ids, e.langs) for e in part] for part in episode.sets]
            text = repr((self.number, str(episode.spec), triplets))
            total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        return total


class EpisodeSampler:
    """Shares of batches of episodes; see ``pipelines.training.objectives.base.Sampling``."""

    def __init__(self, episodes: Episodes, batch: int, texts: TokenRows, langs: Sequence[str]):
        self._episodes, self._batch, self._texts = episodes, batch, texts
        self.langs, self.sizes = {MAIN: tuple(langs)}, {MAIN: episodes.size}

    def share(self, number: int, rank: int, world: int) -> EpisodeShare:
        """The episodes of batch ``number`` that worker ``rank`` of ``world`` computes."""
        numbers = range(number * self._batch + rank, (number + 1) * self._batch, world)
        share = EpisodeShare(number, [self._episodes.episode(at) for at in numbers], {}, {})
        queries = list(dict.fromkeys((entry.query_lang, entry.query_id) for entry in share.entries))
        docs = list(dict.fromkeys(key for e in share.entries for key in zip(e.langs, e.doc_ids, strict=True)))
        rows = self._texts.of_queries(queries), self._texts.of_docs(docs)
        return EpisodeShare(number, share.episodes, *rows)


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
    """What is learnt of sets of triplets; see ``learners.Learned``. Tensor names: N triplets, U questions, V passages
    of a set."""

    def __init__(self, student: TextEncoder, loss: ContrastiveLoss, share: EpisodeShare, temperature: float):
        self._embedding, self._loss, self._share = Embedding(student), loss, share
        self._device, self._temperature = student.device, temperature
        self.precision: Precision = "fp32"

    def embed(self, weights: Weights, triplets: Sequence[Entry]) -> tuple[Distinct, tuple[Tensor, ...]]:
        """The distinct texts of some triplets, and their vectors and masks under these weights."""
        texts = Distinct.of(triplets, self._device)
        rows = [self._share.queries[key] for key in texts.queries], [self._share.docs[key] for key in texts.docs]
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return texts, functional_call(self._embedding, named, (rows, self.precision))

    def loss(self, weights: Weights, examples: Sequence[Entry]) -> Tensor:
        """See ``Learned``."""
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


class MetaObjective:
    """Reads labels; see ``pipelines.training.objectives.base.Objective``."""

    def __init__(self, config: TrainConfig, student: TextEncoder, sampler: EpisodeSampler):
        assert config.meta is not None
        assert isinstance(config.loss, ContrastiveLoss)
        self.meta, self._loss, self._batch = config.meta, config.loss, config.batch
        self.student, self.sampler = student, sampler

    def share(self, number: int, rank: int, world: int) -> EpisodeShare:
        """See ``Objective``."""
        return self.sampler.share(number, rank, world)

    def backward(self, share: EpisodeShare, step: Pass) -> Tensor:
        """See ``Objective``. The mean over the batch's tasks, and λ times the square of what the losses of all workers'
        tasks differ, whose gradient is 2 λ · difference · gradient of the difference."""
        trained = {name: weight for name, weight in self.student.model.named_parameters() if weight.requires_grad}
        leaves = {name: weight.detach().requires_grad_() for name, weight in trained.items()}
        total = _Total(list(trained.values()))
        with self._without_dropout(), _kernel(self.meta.order):
            for episode in share.episodes:
                total.add(learn(self.meta, self._learned(share, step.precision), leaves, episode.sets), self._batch)
        return total.finish(step, self.meta.kd_weight)

    def _learned(self, share: EpisodeShare, precision: Precision) -> Triplets:
        kind = AlignedVectors if self.meta.kd_target == "embeddings" else Triplets
        learned = kind(self.student, self._loss, share, self.meta.kd_temperature)
        learned.precision = precision
        return learned

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        self.student.model.eval()
        yield
        self.student.model.train()


class _Total:
    """The sums over this worker's tasks."""

    def __init__(self, trained: Sequence[nn.Parameter]):
        self._trained = trained
        self._loss = torch.zeros(1, device=trained[0].device)
        self._difference = torch.zeros_like(self._loss)
        self._gradient, self._apart = ([torch.zeros_like(weight) for weight in trained] for _ in range(2))

    def add(self, task: Outcome, batch: int) -> None:
        """Add a task of a batch of so many."""
        self._loss += task.loss / batch
        torch._foreach_add_(self._gradient, list(task.gradient), alpha=1 / batch)
        if task.difference is not None:
            self._difference += task.difference
            torch._foreach_add_(self._apart, list(task.apart))

    def finish(self, step: Pass, kd_weight: float) -> Tensor:
        """Add this worker's part of the gradient to the parameters', and return its part of the loss [1]."""
        workers = step.workers
        workers.sum(self._difference)  # of all workers, before it is squared
        torch._foreach_add_(self._gradient, self._apart, alpha=float(2 * kd_weight * self._difference))
        for weight, gradient in zip(self._trained, self._gradient, strict=True):
            weight.grad = gradient
        return self._loss + (kd_weight * self._difference.square() if workers.rank == 0 else 0)


@contextmanager
def _kernel(order: int) -> Iterator[None]:
    if order == 1:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def open_meta(run: TrainingRun, data: Mapping[str, Mapping[str, Any]], student: TextEncoder) -> MetaObjective:
    """Open the data set of a meta-learning, which ``check_data`` has seen.

    Raises:
        StepError: there are fewer questions than an episode needs; the message names the task.
    """
    config, meta, artifacts = run.train, run.train.meta, data[MAIN]
    assert meta is not None
    queries, docs = open_queries(artifacts["queries"]), open_docs(artifacts["docs"])
    nearest = {
        role: {pair: RowStore.open(artifact) for pair, artifact in artifacts[role].items()}
        for role in ("questions", "passages")
        if role in artifacts
    }
    episodes = RetrievalEpisodes(meta, queries, docs, Answers(artifacts["qrels"], docs), nearest, config.seed)
    sampler = EpisodeSampler(episodes, config.batch, TokenRows(student, queries, docs), sorted(docs))
    return MetaObjective(config, student, sampler)
