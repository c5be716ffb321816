"""Imitation: the student's vector of a text is drawn to the teacher's vector of the original. Imports torch.

A batch is a function of (seed, its number), as in ``pipelines.training.batches``: texts come in shuffled epochs, and
the language in which each is read is drawn from its own random stream. The teacher's vectors are known, so those of the
whole batch are candidates on every worker, and the loss is a mean over texts. In a ``Share`` a text is an entry with
one passage. Memory holds the teacher's vectors as float16: 800 bytes for a text of 384 dimensions.

Tensor names end in their shape: N texts of this worker, M distinct texts of the batch, D dimensions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cluster.artifact import Artifact, read_part
from cluster.errors import RecipeError
from pipelines.batching import by_length
from pipelines.docstore import Docstore
from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Batches, Candidates, Draw, Entry, Passages
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.data import open_docs
from pipelines.training.losses import TeacherVectors
from pipelines.training.objectives.base import Pass, Sampler, Share, sample_members
from pipelines.training.objectives.distil import ByQuery, backward_pieces
from pipelines.training.objectives.texts import TokenRows, embed
from pipelines.vectors import read_vectors


class Targets:
    """The texts of which there is a vector of the teacher; see ``pipelines.training.batches.Passages``."""

    def __init__(self, artifact: Artifact):
        self.name = artifact.name
        parts = [rows for part in artifact.parts for rows in read_vectors(read_part(part))]
        self._ids = [row_id for part in parts for row_id in part.ids.to_pylist()]
        self._at = {row_id: at for at, row_id in enumerate(self._ids)}
        # without passage_length a text is one passage, and of a dense teacher a passage is one vector
        self.vectors_ND = np.concatenate([part.vectors_TN for part in parts]) if parts else np.zeros((0, 0), np.float16)

    def __len__(self) -> int:
        return len(self._ids)

    def candidates(self, row: int, pool: int) -> Candidates:
        """The text itself."""
        return Candidates(self._ids[row], [self._ids[row]], np.ones(1, np.float32))

    def of(self, ids: Sequence[str]) -> Tensor:
        """The unit vectors of these texts, float32 [N, D]."""
        found_ND = torch.from_numpy(self.vectors_ND[[self._at[i] for i in ids]].astype(np.float32))
        return normalize(found_ND, dim=-1)


class TextBatches(Batches):
    """Looks up the texts of a batch, an entry each, in a language other than ``original`` where there is one, but for
    ``share`` of them."""

    def __init__(
        self, texts: Passages, docs: Mapping[str, Docstore], languages: tuple[str, float], batch: int, seed: int
    ):
        super().__init__(texts, {}, docs, Draw(ways=1), batch, seed)
        self.original, self.share = languages

    def _draw(self, row: int, random: np.random.Generator) -> list[Entry]:
        """The text at this row in a language drawn for it; nothing where it is in none."""
        text_id = self.passages.candidates(row, 1).query_id
        others = [lang for lang in self.langs if lang != self.original and text_id in self.docs[lang]]
        wants_original, choice = random.random() < self.share, random.random()
        if self.original in self.docs and (wants_original or not others):
            others = [self.original]
        if not others:
            return []
        lang = others[int(choice * len(others))]
        return [Entry(text_id, (text_id,), (lang,), np.ones(1, np.float32))]


@dataclass(frozen=True)
class VectorShare(Share):
    """A share, with the teacher's vectors of the whole batch [M, D] and which of them is that of which text."""

    targets_MD: Tensor | None = None
    target_of: Mapping[str, int] | None = None

    def questions(self) -> Counter[str]:
        """None: nothing is asked."""
        return Counter()


class VectorSampler(Sampler):
    """Shares of batches of texts."""

    def __init__(self, run: TrainingRun, members: Mapping[str, TextBatches], data: Mapping[str, Any]):
        super().__init__(run, members, {name: texts for name, (texts, _) in data.items()})
        self._targets: dict[str, Targets] = {name: targets for name, (_, targets) in data.items()}

    def share(self, number: int, rank: int, world: int) -> VectorShare:
        """See ``Objective``."""
        name, inside = self.mixture.locate(number)
        groups, skipped = self.members[name].entries(inside)
        ids = list(dict.fromkeys(group[0].query_id for group in groups))
        own = groups[rank::world]
        rows = self.texts[name].of_docs(list(dict.fromkeys((g[0].langs[0], g[0].doc_ids[0]) for g in own)))
        target_of = {text_id: at for at, text_id in enumerate(ids)}
        counted = skipped if rank == 0 else 0  # every worker draws the whole batch
        return VectorShare(
            number, name, own, counted, {}, rows, targets_MD=self._targets[name].of(ids), target_of=target_of
        )


class Imitation(ByQuery):
    """Reads ``vectors``."""

    def __init__(self, loss: TeacherVectors, config: TrainConfig, student: TextEncoder, sampler: VectorSampler):
        super().__init__(config, student, sampler)
        self._loss = loss

    def backward(self, share: Share, step: Pass) -> Tensor:
        """See ``Objective``. Pieces are texts of similar length: a batch of sentences is one piece, a batch of
        paragraphs is several, and all take about the same memory. Where workers must take the same passes, pieces
        have the same number of texts instead."""
        if step.takes_same_passes:
            return super().backward(share, step)
        lengths = [len(row["input_ids"]) for row in _rows(share.groups, share)]
        pieces = by_length(lengths, step.tokens_per_piece(sum(lengths)))
        return backward_pieces(
            self.loss, self.config.batch, [[share.groups[i] for i in at] for at in pieces], share, step
        )

    def loss(self, groups: Sequence[Sequence[Entry]], share: Share, precision: Precision = "fp32") -> Tensor:
        """The sum over texts of their losses; each of ``groups`` is one text."""
        assert isinstance(share, VectorShare)
        assert share.targets_MD is not None
        assert share.target_of is not None
        entries = [group[0] for group in groups]
        rows = _rows(groups, share)
        vectors_ND = embed(self.student, rows, "document", precision)[0][:, 0]
        targets_MD = share.targets_MD.to(vectors_ND.device)
        own_N = torch.tensor([share.target_of[entry.query_id] for entry in entries], device=vectors_ND.device)
        total = torch.zeros((), device=vectors_ND.device)
        for dim, weight in self._loss.cuts:
            cosine_NM = normalize(vectors_ND[:, :dim], dim=-1) @ normalize(targets_MD[:, :dim], dim=-1).T
            total = total + weight * self._loss.per_entry(cosine_NM, own_N).sum()
        return total


def _rows(groups: Sequence[Sequence[Entry]], share: Share) -> list[Row]:
    """The tokenised text of each group."""
    return [share.docs[entry.langs[0], entry.doc_ids[0]] for entry, *_ in groups]


def open_vector_sampler(
    run: TrainingRun, data: Mapping[str, Mapping[str, Any]], student: TextEncoder, original: float
) -> VectorSampler:
    """Open the data sets, each ``{"docs": DOCS by language, "vectors": VECTORS by the teacher's language}``.

    Raises:
        RecipeError: the teacher's vectors have other dimensions than the student's.
    """
    targets, langs = {}, {}
    for name, of_name in data.items():
        ((langs[name], artifact),) = of_name["vectors"].items()
        targets[name] = Targets(artifact)
        if (dim := targets[name].vectors_ND.shape[1]) not in (0, student.dim):
            raise RecipeError(
                f"train.loss.kind = vectors: the teacher's vectors have {dim} dimensions, the student's {student.dim}: "
                "choose a student or a teacher of the same width"
            )
    passages, seeds = sample_members(run.train, targets)
    members, opened = {}, {}
    for name, of_name in data.items():
        docs = open_docs(of_name["docs"])
        languages = (langs[name], original)
        members[name] = TextBatches(passages[name], docs, languages, run.train.batch, seeds[name])
        prompts = run.prompts[name].by_task if name in run.prompts else None
        opened[name] = (TokenRows(student, {}, docs, prompts), targets[name])
    return VectorSampler(run, members, opened)
