"""Batches: which passages, in which languages, a training step sees. A batch is a function of (seed, its number).

Nothing is streamed and nothing remembered: batch i is looked up, so a resume is a seek, and neither the number of
workers nor a restart changes a sample. Queries come in shuffled epochs without replacement; each draws from a random
stream of its own (Philox keyed by seed and position), so that a worker computes its own queries and no others.

The three strategies are those of MTD (§3.2):

    mix_passages          each passage of a query in a language drawn for itself
    mix_entries           all passages of a query in one drawn language
    round_robin_entries   the same passages once in each language, so batch · languages entries (the paper uses 2 ways)

A passage may be missing in a language (its translation was rejected). Such a passage is not drawn in that language; a
query that has too few left is replaced by another and counted in ``skipped``. With 50 passages in 7
languages a query costs 0.7 ms when it is drawn first, for looking them up, and 0.2 ms when it is drawn again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from cluster.errors import StepError
from pipelines.docstore import RowStore, hashes

Mixing = Literal["mix_passages", "mix_entries", "round_robin_entries"]
Sampling = Literal["random", "top"]

EPOCH_STREAM, ENTRY_STREAM = 0, 1  # the high bit of the key, so that the two never share random numbers
REMEMBERED = 100_000  # rankings, 0.5 KB each, of which it is known what is there
REPLACEMENTS = 1000  # queries tried in place of one that cannot be used


@dataclass(frozen=True)
class Entry:
    """A query and its W passages: ids, the language of each, and the teacher's scores (float32 [W])."""

    query_id: str
    doc_ids: tuple[str, ...]
    langs: tuple[str, ...]
    scores: np.ndarray = field(compare=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        same = (self.query_id, self.doc_ids, self.langs) == (other.query_id, other.doc_ids, other.langs)
        return same and np.array_equal(self.scores, other.scores)

    def __hash__(self) -> int:
        return hash((self.query_id, self.doc_ids, self.langs))


@dataclass(frozen=True)
class Draw:
    """How a query's passages are drawn: ``ways`` of the teacher's best ``pool``, at random (both papers: 6 of 50) or
    the best ones, in languages according to ``mixing``."""

    mixing: Mixing = "mix_passages"
    ways: int = 6
    pool: int = 50
    sampling: Sampling = "random"


class Batches:
    """Looks up the entries of a batch.

    ``scores`` are the teacher's RANKINGS; ``docs`` the collection in each language. ``batch`` counts queries.
    """

    def __init__(self, scores: RowStore, docs: Mapping[str, RowStore], draw: Draw, batch: int, seed: int):
        if not len(scores):
            raise StepError(f"{scores.name} ranks no passages for any query: there is nothing to learn from")
        self.scores, self.docs, self.draw, self.batch, self.seed = scores, dict(docs), draw, batch, seed
        self.langs = tuple(sorted(self.docs))
        self.skipped = 0
        self.languages: Counter[str] = Counter()  # passages drawn in each language
        self._there: dict[int, np.ndarray] = {}

    def entries(self, number: int, rank: int = 0, world: int = 1) -> list[list[Entry]]:
        """The entries of batch ``number`` that worker ``rank`` of ``world`` computes, one list per query.

        All entries of a query are on one worker. The lists of all workers, interleaved, are those of a single one.

        Raises:
            StepError: no query has enough passages.
        """
        positions = range(number * self.batch + rank, (number + 1) * self.batch, world)
        return [self._query(position) for position in positions]

    def _query(self, position: int) -> list[Entry]:
        random = _random(self.seed, ENTRY_STREAM, position)
        epoch, index = divmod(position, len(self.scores))
        row = int(_permutation(self.seed, epoch, len(self.scores))[index])
        for _ in range(REPLACEMENTS):
            if entries := self._draw(row, random):
                for entry in entries:
                    self.languages.update(entry.langs)
                return entries
            self.skipped += 1
            row = int(random.integers(len(self.scores)))
        raise StepError(
            f"{REPLACEMENTS} queries of {self.scores.name} in a row have fewer than {self.draw.ways} passages in "
            f"{', '.join(self.langs)}: expected {self.draw.ways} ways of the best {self.draw.pool}. Lower train.ways, "
            "raise select.k, or look at the rejected rows of the translations"
        )

    def _draw(self, row: int, random: np.random.Generator) -> list[Entry]:
        """The entries of one query, or none when too few of its passages exist."""
        ranking = self.scores.row_at(row)
        doc_ids = ranking["doc_ids"][: self.draw.pool]
        scores = np.asarray(ranking["scores"][: self.draw.pool], np.float32)
        drawn = _DRAWS[self.draw.mixing](self._which(row, doc_ids), self.draw, random)
        return [
            Entry(
                ranking["query_id"],
                tuple(doc_ids[k] for k in ways),
                tuple(self.langs[lang] for lang in langs),
                scores[ways],
            )
            for ways, langs in drawn
        ]

    def _which(self, row: int, doc_ids: Sequence[str]) -> np.ndarray:
        """Which of the K passages of a ranking there are in each of L languages, bool [L, K]."""
        there_LK = self._there.get(row)
        if there_LK is None:
            hashed = hashes(doc_ids)
            there_LK = np.stack([self.docs[lang].positions(doc_ids, hashed) >= 0 for lang in self.langs])
            if len(self._there) < REMEMBERED:
                self._there[row] = there_LK
        return there_LK


# Each of these returns pairs of arrays [W]: passages (indices into the pool) and languages (indices), one pair per
# entry; none where the query cannot be used. ``there_LK`` says which of the K passages exist in which of L languages.
Drawn = list[tuple[np.ndarray, np.ndarray]]


def _mix_passages(there_LK: np.ndarray, draw: Draw, random: np.random.Generator) -> Drawn:
    ways = _ways(np.flatnonzero(there_LK.any(0)), draw, random)
    if ways is None:
        return []
    return [(ways, np.array([random.choice(np.flatnonzero(there_LK[:, k])) for k in ways]))]


def _mix_entries(there_LK: np.ndarray, draw: Draw, random: np.random.Generator) -> Drawn:
    enough = np.flatnonzero(there_LK.sum(1) >= draw.ways)
    if not len(enough):
        return []
    lang = random.choice(enough)
    ways = _ways(np.flatnonzero(there_LK[lang]), draw, random)
    return [] if ways is None else [(ways, np.full(len(ways), lang))]


def _round_robin(there_LK: np.ndarray, draw: Draw, random: np.random.Generator) -> Drawn:
    ways = _ways(np.flatnonzero(there_LK.all(0)), draw, random)
    return [] if ways is None else [(ways, np.full(len(ways), lang)) for lang in range(len(there_LK))]


_DRAWS = {"mix_passages": _mix_passages, "mix_entries": _mix_entries, "round_robin_entries": _round_robin}


def _ways(candidates: np.ndarray, draw: Draw, random: np.random.Generator) -> np.ndarray | None:
    """``draw.ways`` of the candidates, which are in the teacher's order; None where there are too few."""
    if len(candidates) < draw.ways:
        return None
    return candidates[: draw.ways] if draw.sampling == "top" else random.choice(candidates, draw.ways, replace=False)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    key = np.array([seed, (stream << 63) | number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@lru_cache(maxsize=2)  # a batch may lie across the border of two epochs
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return _random(seed, EPOCH_STREAM, epoch).permutation(size)
