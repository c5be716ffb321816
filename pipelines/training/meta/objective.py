"""The objective of meta-learning: episodes, and the outer gradient of a batch of them, for the loop. Imports torch.

The student's weights enter the inner loop by name (see ``triplets``, and ``pairs`` for sentence pairs): all that are
trained, which with ``train.adapter`` are the factors of LoRA. The optimiser, the schedule, clipping and checkpoints are
those of the loop. Dropout is off, so that the weights after the inner steps depend on the episode alone, on however
many workers. Gradients of order 2 go through attention twice: it is computed by torch's plain ("math") kernel, since
the fused ones cannot be differentiated twice.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cluster.artifact import Artifact
from pipelines.docstore import RowStore
from pipelines.pairs import LeftSentences, RightSentences
from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Entry
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.data import open_docs, open_queries
from pipelines.training.losses import ContrastiveLoss, Cosine
from pipelines.training.meta.config import Meta
from pipelines.training.meta.episodes import Answers, Episode, Episodes, RetrievalEpisodes
from pipelines.training.meta.learners import Outcome, SetLoss, learn
from pipelines.training.meta.pairs import PairEpisodes, Pairs
from pipelines.training.meta.triplets import AlignedVectors, Tokenised, Triplets
from pipelines.training.objectives.base import Pass, hash_text
from pipelines.training.objectives.similarity import GoldPairs, PairRows, open_aligned
from pipelines.training.objectives.texts import TokenRows

MAIN = "main"  # the only data set


@dataclass(frozen=True)
class EpisodeShare:
    """The episodes that one worker computes of a batch, with their texts tokenised, by (language, id). Of sentence
    pairs ``queries`` are the left and ``docs`` the right sentences."""

    number: int
    episodes: Sequence[Episode]
    queries: Mapping[tuple[str, str], Row]
    docs: Mapping[tuple[str, str], Row]
    data: str = MAIN
    skipped: int = 0

    @property
    def entries(self) -> list[Entry]:
        """The triplets, or the pairs, of all sets."""
        return [entry for episode in self.episodes for entries in episode.sets for entry in entries]

    def questions(self) -> Counter[str]:
        """Triplets by the language in which their question is asked, pairs by that of their left sentence."""
        return Counter(entry.query_lang for entry in self.entries)

    def passages(self) -> Counter[str]:
        """Passages by language."""
        return Counter(lang for entry in self.entries for lang in entry.langs)

    def positives(self) -> Counter[str]:
        """Relevant passages by language; none where there are pairs."""
        return Counter(entry.langs[0] for entry in self.entries if entry.relevant)

    def digest(self) -> int:
        """A number that names the episodes; see ``Share.digest``."""
        total = 0
        for episode in self.episodes:
            triplets = [[(e.query_id, e.doc_ids, e.langs) for e in part] for part in episode.sets]
            text = repr((self.number, str(episode.spec), triplets))
            total += hash_text(text)
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


class MetaObjective:
    """Reads labels, or sentence pairs; see ``pipelines.training.objectives.base.Objective``."""

    def __init__(self, config: TrainConfig, student: TextEncoder, sampler: EpisodeSampler):
        assert config.meta is not None
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

    def _learned(self, share: EpisodeShare, precision: Precision) -> SetLoss:
        texts = Tokenised(share.queries, share.docs, precision)
        if isinstance(self._loss, Cosine):
            return Pairs(self.student, self._loss, texts, self.meta)
        assert isinstance(self._loss, ContrastiveLoss)
        kind = AlignedVectors if self.meta.kd_target == "embeddings" else Triplets
        return kind(self.student, self._loss, texts, self.meta.kd_temperature)

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
        self._gradient, self._difference_gradient = ([torch.zeros_like(weight) for weight in trained] for _ in range(2))

    def add(self, task: Outcome, batch: int) -> None:
        """Add a task of a batch of so many."""
        self._loss += task.loss / batch
        _add(self._gradient, task.gradient, 1 / batch)
        if task.difference is not None:
            self._difference += task.difference
            _add(self._difference_gradient, task.difference_gradient, 1)

    def finish(self, step: Pass, kd_weight: float) -> Tensor:
        """Add this worker's part of the gradient to the parameters', and return its part of the loss [1]."""
        workers = step.workers
        workers.sum(self._difference)  # of all workers, before it is squared
        torch._foreach_add_(self._gradient, self._difference_gradient, alpha=float(2 * kd_weight * self._difference))
        for weight, gradient in zip(self._trained, self._gradient, strict=True):
            weight.grad = gradient
        return self._loss + (kd_weight * self._difference.square() if workers.rank == 0 else 0)


def _add(totals: Sequence[Tensor], slopes: Sequence[Tensor], factor: float) -> None:
    """Add gradients, some of which may be sparse."""
    for total, slope in zip(totals, slopes, strict=True):
        total.add_(slope, alpha=factor)


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
        StepError: there are fewer questions, or pairs, than an episode needs; the message names the task.
    """
    config, meta, artifacts = run.train, run.train.meta, data[MAIN]
    assert meta is not None
    if isinstance(config.loss, Cosine):
        return _open_pairs(config, meta, artifacts["pairs"], student)
    queries, docs = open_queries(artifacts["queries"]), open_docs(artifacts["docs"])
    nearest = {
        role: {pair: RowStore.open(artifact) for pair, artifact in artifacts[role].items()}
        for role in ("questions", "passages")
        if role in artifacts
    }
    episodes = RetrievalEpisodes(meta, queries, docs, Answers(artifacts["qrels"], docs), nearest, config.seed)
    sampler = EpisodeSampler(episodes, config.batch, TokenRows(student, queries, docs), sorted(docs))
    return MetaObjective(config, student, sampler)


def _open_pairs(config: TrainConfig, meta: Meta, pairs: Mapping[str, Artifact], student: TextEncoder) -> MetaObjective:
    by_lang = sorted(pairs.items())
    left = {lang: LeftSentences.open(artifact) for lang, artifact in by_lang}
    right = {lang: RightSentences.open(artifact) for lang, artifact in by_lang}
    episodes = PairEpisodes(meta, GoldPairs(open_aligned(pairs)), config.seed)
    sampler = EpisodeSampler(episodes, config.batch, PairRows(student, (left, right)), [lang for lang, _ in by_lang])
    return MetaObjective(config, student, sampler)
