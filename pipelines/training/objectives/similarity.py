"""Similarity: the cosine of two sentences is drawn towards their gold score. Imports torch.

A batch is a function of (seed, its number), as in ``pipelines.training.batches``: pairs come in shuffled epochs, and
for each the languages of its left and its right sentence are drawn from the pair's own random stream. Both sentences
are tokenised and embedded as queries: neither is a document.

In a ``Share`` a pair is an entry with one passage: ``query_id`` and ``doc_ids[0]`` are the pair's id, ``query_lang`` is
the language of its left sentence, ``langs[0]`` that of its right one, ``scores[0]`` the gold score from 0 to 1.

Tensor names end in their shape: N pairs, U distinct sentences, D dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cluster.artifact import Artifact
from cluster.errors import RecipeError, StepError
from pipelines.docstore import Docstore, RowStore
from pipelines.pairs import LeftSentences, RightSentences
from pipelines.precision import Precision
from pipelines.students.base import Task
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.tables import BEST_SCORE
from pipelines.training.batches import Batches, Candidates, Draw, Entry, Passages
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.losses import Cosine, PairLanguages
from pipelines.training.objectives.base import Sampler, Share, sample_members
from pipelines.training.objectives.distil import ByQuery
from pipelines.training.objectives.texts import TokenRows, embed, take


class Similarity(ByQuery):
    """Reads ``pairs``."""

    def __init__(self, loss: Cosine, config: TrainConfig, student: TextEncoder, sampler: Sampler):
        super().__init__(config, student, sampler)
        self._loss = loss

    def loss(self, groups: Sequence[Sequence[Entry]], share: Share, precision: Precision = "fp32") -> Tensor:
        """The sum over pairs of their losses; each of ``groups`` is one pair."""
        entries = [entry for group in groups for entry in group]
        gold_N = torch.tensor([float(entry.scores[0]) for entry in entries], device=self.student.device)
        left_ND, right_ND = embed_pairs(self.student, entries, (share.queries, share.docs), precision)
        total = torch.zeros((), device=self.student.device)
        for dim, weight in self._loss.cuts:
            cosine_N = cosine_similarity(left_ND[:, :dim], right_ND[:, :dim])
            total = total + weight * self._loss.per_entry(cosine_N, gold_N).sum()
        return total


def embed_pairs(
    student: TextEncoder,
    entries: Sequence[Entry],
    rows: tuple[Mapping[tuple[str, str], Row], Mapping[tuple[str, str], Row]],
    precision: Precision = "fp32",
) -> tuple[Tensor, Tensor]:
    """The vectors of the left and of the right sentences of pairs, float32 [N, D] each. ``rows`` are the tokenised left
    and right sentences by (language, pair id); each of them is embedded once, all in one pass."""
    left = list(dict.fromkeys((entry.query_lang, entry.query_id) for entry in entries))
    right = list(dict.fromkeys((entry.langs[0], entry.doc_ids[0]) for entry in entries))
    left_at, right_at = ({key: at for at, key in enumerate(keys)} for keys in (left, right))
    sentences = [*(rows[0][key] for key in left), *(rows[1][key] for key in right)]
    vectors_UD = embed(student, sentences, "query", precision)[0][:, 0]
    left_N = [left_at[entry.query_lang, entry.query_id] for entry in entries]
    right_N = [len(left) + right_at[entry.langs[0], entry.doc_ids[0]] for entry in entries]
    at_left, at_right = (torch.tensor(at, device=vectors_UD.device) for at in (left_N, right_N))
    return take(vectors_UD, at_left), take(vectors_UD, at_right)


class GoldPairs:
    """The pairs of a data set with their gold scores from 0 to 1; see ``pipelines.training.batches.Passages``."""

    def __init__(self, rows: RowStore):
        self.name, self._rows = rows.name, rows

    def __len__(self) -> int:
        return len(self._rows)

    def candidates(self, row: int, pool: int) -> Candidates:
        """The pair itself."""
        pair = self._rows.row_at(row)
        return Candidates(pair["pair_id"], [pair["pair_id"]], np.array([pair["score"] / BEST_SCORE], np.float32))


def make_entry(pair: Candidates, languages: tuple[str, str]) -> Entry:
    """A pair, its left and its right sentence in these languages, as an entry with one passage."""
    left, right = languages
    return Entry(pair.query_id, (pair.query_id,), (right,), pair.scores, query_lang=left)


class PairBatches(Batches):
    """Looks up the pairs of a batch, an entry each. ``between`` are the languages that may be drawn, (left, right)."""

    def __init__(
        self,
        pairs: Passages,
        sides: tuple[Mapping[str, Docstore], Mapping[str, Docstore]],
        between: Sequence[tuple[str, str]],
        batch: int,
        seed: int,
    ):
        super().__init__(pairs, *sides, Draw(ways=1), batch, seed)
        self.between = tuple(between)

    def _draw(self, row: int, random: np.random.Generator) -> list[Entry]:
        """The pair at this row, in two languages drawn for it."""
        languages = self.between[int(random.integers(len(self.between)))]
        return [make_entry(self.passages.candidates(row, 1), languages)]


class PairRows(TokenRows):
    """Tokenised sentences of a data set by (language, pair id): the left ones as its queries, the right ones in the
    place of documents. Both are tokenised as queries."""

    def __init__(
        self,
        student: TextEncoder,
        sides: tuple[Mapping[str, Docstore], Mapping[str, Docstore]],
        prompts: Mapping[Task, str] | None = None,
    ):
        super().__init__(student, sides[0], {}, prompts)
        self._right = TokenRows(student, sides[1], {}, prompts)

    def of_docs(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Row]:
        """The rows of these right sentences, by (language, pair id)."""
        return self._right.of_queries(keys)


def open_pair_sampler(
    run: TrainingRun, data: Mapping[str, Mapping[str, Any]], student: TextEncoder, languages: PairLanguages
) -> Sampler:
    """Open the data sets, each ``{"pairs": PAIRS by language}``.

    Raises:
        StepError: the languages of a data set hold different pairs.
        RecipeError: pairs are to be across languages, and there is one language.
    """
    members, texts = {}, {}
    opened = {name: GoldPairs(open_aligned(of_name["pairs"])) for name, of_name in data.items()}
    pairs, seeds = sample_members(run.train, opened)
    for name, of_name in data.items():
        by_lang = sorted(of_name["pairs"].items())
        sides = (
            {lang: LeftSentences.open(artifact) for lang, artifact in by_lang},
            {lang: RightSentences.open(artifact) for lang, artifact in by_lang},
        )
        between = list_language_pairs([lang for lang, _ in by_lang], languages)
        members[name] = PairBatches(pairs[name], sides, between, run.train.batch, seeds[name])
        texts[name] = PairRows(student, sides, run.prompts[name].by_task if name in run.prompts else None)
    return Sampler(run, members, texts)


def open_aligned(pairs: Mapping[str, Artifact]) -> RowStore:
    """The pairs in the first of their languages. Raises StepError where another language holds other pairs."""
    stores = {lang: RowStore.open(artifact) for lang, artifact in sorted(pairs.items())}
    first, *others = stores.values()
    for other in others:
        if list(other.ids) != list(first.ids):
            raise StepError(
                f"{other.name} holds other pairs than {first.name}: expected the same ids in the same order. Take all "
                "languages from one source and split"
            )
    return first


def list_language_pairs(langs: Sequence[str], languages: PairLanguages) -> list[tuple[str, str]]:
    """The languages of the left and the right sentence that may be drawn.

    Raises:
        RecipeError: two different ones are wanted of a single language.
    """
    every = [(left, right) for left in langs for right in langs]
    wanted = {"mono": [p for p in every if p[0] == p[1]], "cross": [p for p in every if p[0] != p[1]], "both": every}
    if not wanted[languages]:
        raise RecipeError(
            f"train.loss.pairs = cross needs two languages, and languages.docs has {', '.join(langs)}: add one, or set "
            "train.loss.pairs = mono"
        )
    return wanted[languages]
