"""What an objective is: it owns the batches of a training and their backward pass.

The loop knows steps, the optimiser and checkpoints, and nothing of losses: it asks for a share of a batch, which can be
prepared in another thread, and then for that share's gradient. Imports torch.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Batches, Entry, Passages
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.data import open_docs, open_passages, open_queries
from pipelines.training.mixture import Mixture, Sample, divide_examples
from pipelines.training.objectives.texts import TokenRows
from pipelines.training.workers import GradientSum, Workers


class Samples(Protocol):
    """What one worker computes of a batch, as the loop sees it: what it counts, and by what it names them. ``data``
    names the data set, ``skipped`` counts queries that could not be drawn."""

    @property
    def data(self) -> str: ...

    @property
    def skipped(self) -> int: ...

    def questions(self) -> Counter[str]:
        """Queries by the language in which they are asked."""

    def passages(self) -> Counter[str]:
        """Passages by language."""

    def positives(self) -> Counter[str]:
        """Relevant passages by language; none where there are no labels."""

    def digest(self) -> int:
        """A number that names the samples. Summed over workers and steps it names those of a training, in any order."""


class Sampling(Protocol):
    """Where samples come from: by data set the languages of its passages and how many queries may be drawn."""

    @property
    def langs(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def sizes(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Share:
    """What one worker computes of a batch: the entries of its queries, one list per query, and their texts tokenised.

    ``queries`` and ``docs`` are by (language, id). ``data`` names the data set, ``skipped`` counts queries.
    ``is_asked_in_several`` says that the data set has questions in several languages.
    """

    number: int
    data: str
    groups: Sequence[Sequence[Entry]]
    skipped: int
    queries: Mapping[tuple[str, str], Row]
    docs: Mapping[tuple[str, str], Row]
    is_asked_in_several: bool = False

    def cut(self, pieces: int) -> list[Sequence[Sequence[Entry]]]:
        """The groups in at most ``pieces`` runs of equal length, the last one perhaps shorter."""
        size = max(1, -(-len(self.groups) // pieces))
        return [self.groups[at : at + size] for at in range(0, len(self.groups), size)]

    def questions(self) -> Counter[str]:
        """Queries by the language in which they are asked."""
        return Counter(group[0].query_lang for group in self.groups)

    def passages(self) -> Counter[str]:
        """Passages by language."""
        return Counter(lang for group in self.groups for entry in group for lang in entry.langs)

    def positives(self) -> Counter[str]:
        """Relevant passages by language; none where there are no labels."""
        labelled = (entry for group in self.groups for entry in group if entry.relevant)
        return Counter(entry.langs[0] for entry in labelled)

    def digest(self) -> int:
        """A number that names the samples. Summed over workers and steps it names those of a training, in any order."""
        total = 0
        for group in self.groups:
            for e in group:
                asked_in = (e.query_lang,) if self.is_asked_in_several else ()
                text = "\0".join((str(self.number), self.data, e.query_id, *e.doc_ids, *e.langs, *asked_in))
                total += hash_text(text)
        return total


@dataclass(frozen=True)
class Pass:
    """How one step's gradients are made: the other workers, the precision, ``pieces``, how many pieces a share is cut
    into (at most so many where it is cut by queries, about so many or more where it is cut by tokens), how many tokens
    a piece of the second kind holds at most, and whether all workers must take the same passes through the student,
    because each holds a part of it."""

    workers: Workers
    scaler: torch.amp.GradScaler
    sum: GradientSum
    precision: Precision = "fp32"
    pieces: int = 1
    piece_tokens: int = 8192
    takes_same_passes: bool = False

    def tokens_per_piece(self, tokens: int) -> int:
        """How many tokens a piece of a share of ``tokens`` holds at most, padding included."""
        return min(self.piece_tokens, -(-tokens // self.pieces)) if self.pieces > 1 else self.piece_tokens

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor] | None = None, *, last: bool) -> None:
        """Add gradients to the parameters': of a loss, or of tensors whose gradients are known (scaled already).
        While the ``last`` one of a step runs, gradients that are ready are exchanged."""
        if last:
            self.sum.arm()
        if gradients is None:
            tensors = [self.scaler.scale(tensor) for tensor in tensors]
        torch.autograd.backward(tensors, gradients)


Part = TypeVar("Part", bound=Samples)


class Objective(Protocol[Part]):
    """Batches and their loss."""

    @property
    def sampler(self) -> Sampling: ...

    def share(self, number: int, rank: int, world: int) -> Part:
        """What worker ``rank`` of ``world`` computes of batch ``number``: a function of the seed and these numbers.
        May run in another thread, one call at a time, while ``student`` is trained."""

    def backward(self, share: Part, step: Pass) -> Tensor:
        """Add this worker's part of the gradient of the whole batch's mean loss, and return its part of that loss [1].
        Both sum, over the workers, to those of the batch computed at once; pieces change rounding only."""


class Sampler:
    """Shares of batches, drawn from one data set each."""

    def __init__(self, run: TrainingRun, members: Mapping[str, Batches], texts: Mapping[str, TokenRows]):
        self.members, self.texts = members, texts
        self.sizes = {name: len(batches.passages) for name, batches in members.items()}
        self.langs = {name: batches.langs for name, batches in members.items()}
        self.mixture = Mixture(run.shares, self.sizes, run.temperature, run.train.seed)

    @classmethod
    def open(cls, run: TrainingRun, data: Mapping[str, Mapping[str, Any]], student: TextEncoder) -> "Sampler":
        """Open the data sets."""
        members, texts, config = {}, {}, run.train
        passages, seeds = sample_members(config, {name: open_passages(artifacts) for name, artifacts in data.items()})
        for name, artifacts in data.items():
            queries, docs = open_queries(artifacts["queries"]), open_docs(artifacts["docs"])
            members[name] = Batches(passages[name], queries, docs, config.draw, config.batch, seeds[name])
            texts[name] = TokenRows(student, queries, docs, run.prompts[name].by_task if name in run.prompts else None)
        return cls(run, members, texts)

    def share(self, number: int, rank: int, world: int) -> Share:
        """See ``Objective``."""
        name, inside = self.mixture.locate(number)
        groups, skipped = self.members[name].entries(inside, rank, world)
        entries = [entry for group in groups for entry in group]
        queries = list(dict.fromkeys((entry.query_lang, entry.query_id) for entry in entries))
        docs = list(dict.fromkeys(key for e in entries for key in zip(e.langs, e.doc_ids, strict=True)))
        texts, is_asked_in_several = self.texts[name], len(self.members[name].queries) > 1
        rows = texts.of_queries(queries), texts.of_docs(docs)
        return Share(number, name, groups, skipped, *rows, is_asked_in_several)


def sample_members(config: TrainConfig, passages: Mapping[str, Passages]) -> tuple[dict[str, Passages], dict[str, int]]:
    """What is learnt from each data set, a sample of it where ``config.examples`` bounds them, and its seed: another
    one for each data set of a mixture, so that equal tables are not read in the same order."""
    seeds = {name: hash_text(f"{config.seed} {name}") >> 1 if len(passages) > 1 else config.seed for name in passages}
    if not config.examples:
        return dict(passages), seeds
    sizes = divide_examples({name: len(of_name) for name, of_name in passages.items()}, config.examples)
    return {name: Sample(of_name, sizes[name], seeds[name]) for name, of_name in passages.items()}, seeds


def hash_text(text: str) -> int:
    """A number of 64 bits that names a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
