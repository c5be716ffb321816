"""Batches: which passages, in which languages, a training step sees. A batch is a function of (seed, its number).

Nothing is streamed and nothing remembered: batch i is looked up, so a resume is a seek, and neither the number of
workers nor a restart changes a sample. Queries come in shuffled epochs without replacement; each draws from a random
stream of its own (Philox keyed by seed and position), so that a worker computes its own queries and no others.

The three strategies are those of MTD (§3.2):

    mix_passages          each passage of a query in a language drawn for itself
    mix_entries           all passages of a query in one drawn language
    round_robin_entries   the same passages once in each language, so batch · languages entries (the paper uses 2 ways)

Where there are questions in several languages, each query is asked in one of them, drawn after its passages from the
same stream: all of its entries have the same question, so that round robin compares the languages of passages alone.

A passage may be missing in a language (its translation was rejected), and so may a query. Such a passage is not drawn,
nor such a query asked, in that language; a query that is missing in all or has too few passages left is replaced by
another and counted as skipped.
With 50 passages in 7 languages a query costs 0.7 ms when it is drawn first, for looking them up, and 0.2 ms when it is
drawn again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from cluster.errors import StepError
from pipelines.docstore import RowStore
from pipelines.ids import hash_ids

Mixing = Literal["mix_passages", "mix_entries", "round_robin_entries"]
Sampling = Literal["random", "top"]

# high bits of the key: they never share random numbers
EPOCH_STREAM, MIXTURE_STREAM, ENTRY_STREAM, SAMPLE_STREAM, EPISODE_STREAM = range(5)
REMEMBERED = 100_000  # rankings, 0.5 KB each, of which it is known what is there
REPLACEMENTS = 1000  # queries tried in place of one that cannot be used


@dataclass(frozen=True)
class Entry:
    """A query and its W passages: ids, the language of each, and the teacher's scores (float32 [W]).

    With labels the first passage is relevant, the scores are 1 and 0, and ``relevant`` holds all that are known to be.
    ``query_lang`` is the language in which the query is asked. ``teacher`` holds a teacher's scores of passages of this
    query by id, where a loss on labels reads them too.
    """

    query_id: str
    doc_ids: tuple[str, ...]
    langs: tuple[str, ...]
    scores: np.ndarray = field(compare=False)
    relevant: frozenset[str] = frozenset()
    query_lang: str = ""
    teacher: Mapping[str, float] = field(default_factory=dict, compare=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return self._names == other._names and np.array_equal(self.scores, other.scores)

    def __hash__(self) -> int:
        return hash(self._names)

    @property
    def _names(self) -> tuple[object, ...]:
        return self.query_lang, self.query_id, self.doc_ids, self.langs


@dataclass(frozen=True)
class Draw:
    """How a query's passages are drawn: ``ways`` of the first ``pool``, at random (both papers: 6 of 50) or the best
    ones, in languages according to ``mixing``. With labels: one relevant passage and ``ways`` - 1 others."""

    mixing: Mixing = "mix_passages"
    ways: int = 6
    pool: int = 50
    sampling: Sampling = "random"


@dataclass(frozen=True)
class Candidates:
    """The passages that may be drawn for a query, best first; the first ``positives`` of them are relevant, where there
    are labels. ``scores`` is float32 [K]. ``teacher``: see ``Entry``."""

    query_id: str
    doc_ids: Sequence[str]
    scores: np.ndarray
    positives: int = 0
    teacher: Mapping[str, float] = field(default_factory=dict)


class Passages(Protocol):
    """The candidates of each query. ``name`` is that of the artifact, for messages."""

    name: str

    def __len__(self) -> int: ...

    def candidates(self, row: int, pool: int) -> Candidates:
        """Those of the query at this row: ``pool`` of them, and the relevant ones."""


class Batches:
    """Looks up the entries of a batch.

    ``passages`` are ranked by the teacher or labelled; ``queries`` and ``docs`` are the texts by language. ``batch``
    counts queries.
    """

    def __init__(
        self,
        passages: Passages,
        queries: Mapping[str, RowStore],
        docs: Mapping[str, RowStore],
        draw: Draw,
        batch: int,
        seed: int,
    ):
        if not len(passages):
            raise StepError(f"{passages.name} has no passages for any query: there is nothing to learn from")
        self.passages, self.queries, self.docs = passages, dict(sorted(queries.items())), dict(docs)
        self.draw, self.batch, self.seed = draw, batch, seed
        self.langs = tuple(sorted(self.docs))
        self._present: dict[int, tuple[np.ndarray, tuple[str, ...]]] = {}

    def entries(self, number: int, rank: int = 0, world: int = 1) -> tuple[list[list[Entry]], int]:
        """The entries of batch ``number`` that worker ``rank`` of ``world`` computes, one list per query, and how many
        queries were skipped.

        All entries of a query are on one worker. The lists of all workers, interleaved, are those of a single one.

        Raises:
            StepError: no query has enough passages.
        """
        positions = range(number * self.batch + rank, (number + 1) * self.batch, world)
        drawn = [self._query(position) for position in positions]
        return [entries for entries, _ in drawn], sum(skipped for _, skipped in drawn)

    def _query(self, position: int) -> tuple[list[Entry], int]:
        """The entries of the query at this position of the epochs, or of its replacement, and how many were skipped."""
        random = stream(self.seed, ENTRY_STREAM, position)
        epoch, index = divmod(position, len(self.passages))
        row = int(_permutation(self.seed, epoch, len(self.passages))[index])
        for skipped in range(REPLACEMENTS):
            if entries := self._draw(row, random):
                return entries, skipped
            row = int(random.integers(len(self.passages)))
        # an imitation of vectors has no queries
        asked = f"are missing in {' and '.join(store.name for store in self.queries.values())} or " * bool(self.queries)
        raise StepError(
            f"{REPLACEMENTS} queries of {self.passages.name} in a row {asked}have fewer than {self.draw.ways} passages "
            f"in {', '.join(self.langs)}: expected {self.draw.ways} ways of the best {self.draw.pool}. Lower "
            "train.ways, raise select.k, or look at the rejected rows of the translations"
        )

    def _draw(self, row: int, random: np.random.Generator) -> list[Entry]:
        """The entries of one query, or none when it is missing or too few of its passages exist."""
        found = self.passages.candidates(row, self.draw.pool)
        there_LK, asked_in = self._find_present(row, found)
        if not there_LK.size:
            return []
        drawn = _DRAWS[self.draw.mixing](there_LK, found.positives, self.draw, random)
        if not drawn:
            return []
        query_lang = asked_in[0] if len(asked_in) == 1 else asked_in[int(random.integers(len(asked_in)))]
        relevant = frozenset(found.doc_ids[: found.positives])
        return [
            Entry(
                found.query_id,
                tuple(found.doc_ids[k] for k in ways),
                tuple(self.langs[lang] for lang in langs),
                found.scores[ways],
                relevant,
                query_lang,
                found.teacher,
            )
            for ways, langs in drawn
        ]

    def _find_present(self, row: int, found: Candidates) -> tuple[np.ndarray, tuple[str, ...]]:
        """Which of the K candidates there are in each of L languages, [L, K], and the languages in which the query is
        asked; [L, 0] and none where it is missing."""
        known = self._present.get(row)
        if known is None:
            asked_in = tuple(lang for lang, store in self.queries.items() if found.query_id in store)
            doc_ids = found.doc_ids if asked_in else []
            hashed = hash_ids(doc_ids)
            there_LK = np.stack([self.docs[lang].positions(doc_ids, hashed) >= 0 for lang in self.langs])
            known = there_LK, asked_in
            if len(self._present) < REMEMBERED:
                self._present[row] = known
        return known


# Each of these returns pairs of arrays [W]: passages (indices into the candidates) and languages (indices), one pair
# per entry; none where the query cannot be used. ``there_LK`` says which of K passages exist in which of L languages.
DrawnEntries = list[tuple[np.ndarray, np.ndarray]]


def _mix_passages(there_LK: np.ndarray, positives: int, draw: Draw, random: np.random.Generator) -> DrawnEntries:
    ways = _ways(np.flatnonzero(there_LK.any(0)), positives, draw, random)
    if ways is None:
        return []
    return [(ways, np.array([random.choice(np.flatnonzero(there_LK[:, k])) for k in ways]))]


def _mix_entries(there_LK: np.ndarray, positives: int, draw: Draw, random: np.random.Generator) -> DrawnEntries:
    enough = np.flatnonzero(there_LK.sum(1) >= draw.ways)
    if positives:
        enough = np.intersect1d(enough, np.flatnonzero(there_LK[:, :positives].any(1)))
    if not len(enough):
        return []
    lang = random.choice(enough)
    ways = _ways(np.flatnonzero(there_LK[lang]), positives, draw, random)
    return [] if ways is None else [(ways, np.full(len(ways), lang))]


def _round_robin(there_LK: np.ndarray, positives: int, draw: Draw, random: np.random.Generator) -> DrawnEntries:
    ways = _ways(np.flatnonzero(there_LK.all(0)), positives, draw, random)
    return [] if ways is None else [(ways, np.full(len(ways), lang)) for lang in range(len(there_LK))]


_DRAWS = {"mix_passages": _mix_passages, "mix_entries": _mix_entries, "round_robin_entries": _round_robin}


def _ways(candidates: np.ndarray, positives: int, draw: Draw, random: np.random.Generator) -> np.ndarray | None:
    """``draw.ways`` of the candidates, which are in falling order; None where there are too few. With labels the first
    is one of the relevant ones, which are those below ``positives``, and the others are not."""
    if not positives:
        return _choose(candidates, draw.ways, draw, random)
    relevant, others = candidates[candidates < positives], candidates[candidates >= positives]
    if not len(relevant) or len(others) < draw.ways - 1:
        return None
    return np.concatenate([random.choice(relevant, 1), _choose(others, draw.ways - 1, draw, random)])


def _choose(candidates: np.ndarray, ways: int, draw: Draw, random: np.random.Generator) -> np.ndarray | None:
    if len(candidates) < ways:
        return None
    return candidates[:ways] if draw.sampling == "top" else random.choice(candidates, ways, replace=False)


def stream(seed: int, kind: int, number: int) -> np.random.Generator:
    """The random numbers of one purpose: of an epoch's order, of a query, of a block of batches, of a sample, of an
    episode. The seed is below 2^63, so that its highest bit is free."""
    key = np.array([seed | (kind >> 2) << 63, ((kind & 3) << 62) | number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@lru_cache(maxsize=4)  # a batch may lie across the border of two epochs
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return stream(seed, EPOCH_STREAM, epoch).permutation(size)
