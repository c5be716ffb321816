"""Choosing the depth of a finished index by trying: a shallow one that finds a wanted part of the exact ranking.

For each language some questions are searched exactly, in the vectors themselves, and then by the index at one depth
after another: for the exact top 10, and for the exact top 100. From the deepest that is tried, first the passages
decoded are lowered by bisection, then the passages scored by their cells, then the cells probed; each may give up a
third of what the deepest search finds above the wanted. What searches find that decode or score fewer passages than the
deepest is known from its scores (``Trace``); other cells are searched. Where even the deepest finds less than is wanted
(the bits of the residuals allow no more), the depth is that which keeps what the deepest finds but for ``NEARLY``:
``recall`` and ``most`` in the result say so.

The questions are those that the step is given, or, without any, tokens of the collection's own passages. Which depth
is chosen depends on no clock: counts fall, and recall decides. It need not be the cheapest: that few passages are
decoded may take many cells.
Cost per language: an exact search of ``QUESTIONS`` questions, the deepest search of them by the index, and about 4
shallow ones for each top; on the disk the vectors of one shard; in memory 20 bytes for each question and candidate.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes.base import Ranking, SearchOptions, ShardPlan
from pipelines.indexes.exact import Exact
from pipelines.indexes.files import offsets
from pipelines.indexes.maxsim import rank
from pipelines.indexes.plaid.depth import Level
from pipelines.vectors import FloatArray, stream_vectors

if TYPE_CHECKING:
    from pipelines.indexes.plaid import Plaid
    from pipelines.indexes.plaid.search import PlaidGroup

QUESTIONS = 100
TOPS = (10, 100)
DEEPEST = (64, 16_384, 2_048)  # cells; passages scored by their cells, and decoded, for documents of one passage
NEARLY = 0.005
PARTS = 8  # that passages are drawn from, where there are no questions
TOKENS = 24  # of such a passage
STEP = 1.5  # between the numbers of passages that are tried


def tune(
    config: "Plaid", plans: Sequence[ShardPlan], questions: Sequence[str], out: Place, fan_out: FanOut
) -> dict[str, list[dict[str, Any]]]:
    """The levels of each language of the index in ``out``, with the recall that each has, as JSON.

    ``questions`` are the parts of a table of VECTORS, none to draw passages.
    """
    langs = sorted({plan.lang for plan in plans})
    arguments = {"config": config, "plans": list(plans), "questions": list(questions), "out": out}
    facts = fan_out("tune", TuneLanguage, arguments, langs)
    return {lang: fact["levels"] for lang, fact in zip(langs, facts, strict=True)}


class TuneLanguage:
    """Chooses the levels of one language per call (a UnitWork)."""

    def __init__(self, config: "Plaid", plans: list[ShardPlan], questions: list[str], out: Place):
        self.config, self.plans, self.questions, self.out = config, plans, questions, out

    def __call__(self, unit: str) -> dict[str, Any]:
        """Try depths; return the levels of the language ``unit``, none where it has no document."""
        assert self.config.recall is not None
        lang = unit
        plans = [plan for plan in self.plans if plan.lang == lang]
        queries = draw_questions(self.questions, self.config.seed) or draw_passages(plans, self.config.seed)
        group = self.config.open([(self.out / "shards" / plan.name).fetch() for plan in plans])
        if not queries or not group.passages:
            return {"lang": lang, "levels": []}
        truth = rank_exactly(plans, queries, max(TOPS))
        trials = Trials(group, queries, truth)
        return {"lang": lang, "levels": [trials.choose(top, self.config.recall) for top in TOPS]}


class Trials:
    """Searches of the same questions at several depths, beside their exact rankings."""

    def __init__(self, group: "PlaidGroup", queries: Sequence[FloatArray], truth: Sequence[Ranking]):
        self.group, self.queries, self.truth = group, queries, truth
        self.deepest = find_deepest(group.passages, len(group.docs))
        self.traces = list(group.trace(queries, self.deepest))

    def choose(self, top: int, wanted: float) -> dict[str, Any]:
        """The level for ``top`` documents, as JSON, with its ``recall``, and ``most``, that of the deepest search."""
        level = replace(self.deepest, k=top)
        most = self.imitate(level)
        least = wanted if wanted <= most else most - NEARLY
        fewest = {"decoded": min(level.decoded, top), "candidates": 0, "probes": 1}
        for number, count in enumerate(fewest, start=1):
            measure = self.recall if count == "probes" else self.imitate
            goal = most - (most - least) * number / len(fewest)
            tried = _between(fewest[count] or level.decoded, getattr(level, count))
            levels = [replace(level, **{count: n}) for n in tried]
            level = levels[bisect_left(levels[:-1], goal, key=measure)]
        return {**asdict(level), "recall": round(self.recall(level), 4), "most": round(most, 4)}

    def recall(self, level: Level) -> float:
        """The part of the exact top that a search at this level finds, mean over the questions."""
        self.group.levels = (level,)
        return self._compare(level, self.group.search(self.queries, SearchOptions(k=level.k)))

    def imitate(self, level: Level) -> float:
        """The same by the traces of the deepest search, of a level with as many probes."""
        kept = (trace.find(level.candidates, level.decoded) for trace in self.traces)
        return self._compare(level, [rank(self.group.docs, docs, scores, level.k) for docs, scores in kept])

    def _compare(self, level: Level, found: Sequence[Ranking]) -> float:
        truth = [{doc for doc, _ in ranking[: level.k]} for ranking in self.truth]
        return float(np.mean([len(t & {doc for doc, _ in f}) / len(t) for f, t in zip(found, truth, strict=True)]))


def find_deepest(passages: int, docs: int) -> Level:
    """The deepest level that is tried on a group of so many passages and documents."""
    probes, candidates, decoded = DEEPEST
    candidates = min(passages, math.ceil(candidates * passages / docs))
    return Level(max(TOPS), probes, candidates, min(candidates, math.ceil(decoded * passages / docs)))


def _between(low: int, high: int) -> list[int]:
    """Rising numbers from ``low`` to ``high``, each about ``STEP`` times the one before."""
    steps = math.ceil(math.log(high / low, STEP)) if high > low else 0
    return sorted({min(high, round(low * STEP**step)) for step in range(steps + 1)} | {high})


def draw_questions(parts: Sequence[str], seed: int) -> list[FloatArray]:
    """Up to ``QUESTIONS`` questions of the parts of a table of VECTORS, without those of zeros alone."""
    found = [matrix for rows in stream_vectors(parts) for matrix in rows.matrices if matrix.any()]
    chosen = np.random.default_rng(seed).permutation(len(found))[:QUESTIONS]
    return [found[i] for i in np.sort(chosen)]


def draw_passages(plans: Sequence[ShardPlan], seed: int) -> list[FloatArray]:
    """Up to ``QUESTIONS`` passages of up to ``PARTS`` parts, up to ``TOKENS`` of the tokens of each, as questions."""
    random, parts = np.random.default_rng(seed), [part for plan in plans for part in plan.parts]
    chosen = [parts[i] for i in np.sort(random.permutation(len(parts))[:PARTS])]
    drawn: list[FloatArray] = []
    for part in chosen:
        for rows in stream_vectors([part]):
            starts = offsets(rows.tokens_P)
            for i in random.permutation(len(rows.tokens_P))[: math.ceil(QUESTIONS / len(chosen))]:
                tokens = starts[i] + random.permutation(rows.tokens_P[i])[:TOKENS]
                drawn.append(rows.vectors_TN[tokens].astype(np.float32))
    return drawn[:QUESTIONS]


def rank_exactly(plans: Sequence[ShardPlan], queries: Sequence[FloatArray], k: int) -> list[Ranking]:
    """The exact top ``k`` of all shards together, one shard after another."""
    best: list[Ranking] = [[] for _ in queries]
    for plan in plans:
        with TemporaryDirectory() as temp:
            directory = Path(temp)
            Exact().build().write(plan, Place.of(temp), directory)
            (directory / "shard.json").write_text(json.dumps({"lang": plan.lang}))
            found = Exact().open([directory]).search(queries, SearchOptions(k=k))
        merged = [sorted(a + b, key=lambda hit: (-hit[1], hit[0])) for a, b in zip(best, found, strict=True)]
        best = [ranking[:k] for ranking in merged]
    return best
