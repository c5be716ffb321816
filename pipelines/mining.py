"""Hard negatives: passages that look like answers to a query and are none.

``MineNegatives`` maps a selection, and maybe a teacher's scores of it, to RANKINGS that hold the negatives alone, best
first. Before a teacher comes ``pipelines.positives``, which puts the relevant passages into what it scores.

Names and meaning of the parameters are those of ``sentence_transformers.util.mine_hard_negatives`` (6.2), which is the
oracle of the tests; NV-Retriever (arXiv 2407.15831) compares them. One filter is added, for what a margin of scores
does not see: a passage that repeats most of the words of a relevant one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from cluster.artifact import Artifact
from cluster.component import Component
from pipelines.docstore import Docstore
from pipelines.ids import hash_ids
from pipelines.positives import NO_POSITIVE, Positives
from pipelines.tables import RANKINGS
from pipelines.tokenize import load_analyser

# TOML has no null: relative_margin = "none"
Margin = Annotated[float | None, BeforeValidator(lambda value: None if value == "none" else value)]
PER_NEGATIVE = 10  # candidates looked at for each negative, where a filter may remove some (the library's number)
REMEMBERED = 10_000  # passages whose words are at hand, 10 KB each
NO_SCORE = "a relevant passage has no score"
NONE_LEFT = "no negative passes the filter"


class Mine(Component):
    """Which passages of a ranking are hard negatives.

    Attributes:
        range_min: how many of the best candidates that pass are skipped.
        range_max: candidates end at this rank. None: 10 for each negative wanted where there is a filter, else 1.
        min_score, max_score: the least and the greatest score of a negative.
        absolute_margin: a negative's score is lower than that of each relevant passage by at least this.
        relative_margin: the same, as a share of the absolute value of that passage's score. NV-Retriever §4: 0.05.
            "none": no such margin.
        num_negatives: negatives of a query; it may get fewer.
        sampling_strategy: the best ones, or a random choice, which is a function of ``seed`` and the query's id.
        max_overlap: a passage that shares more of its words with a relevant one (words of both by words of either) is a
            copy or a paraphrase of it, and no negative. 1: any. Two paragraphs of XQuAD share at most 0.42, one and its
            paraphrase by synonyms at least 0.78; two entries of a gazetteer may share more, so set 1 there.
    """

    range_min: int = Field(0, ge=0)
    range_max: int | None = Field(None, ge=1)
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: Margin = 0.05
    num_negatives: int = Field(3, ge=1)
    sampling_strategy: Literal["random", "top"] = "top"
    seed: int = Field(0, ge=0)
    max_overlap: float = Field(0.75, ge=0, le=1)

    @model_validator(mode="after")
    def _range_is_wide_enough(self) -> "Mine":
        if self.range_max is not None and self.num_negatives > self.range_max - self.range_min:
            raise ValueError(
                f"mine.num_negatives = {self.num_negatives} cannot be taken from ranks {self.range_min} to "
                f"{self.range_max}: raise mine.range_max, or lower mine.range_min or mine.num_negatives"
            )
        return self

    @property
    def has_margin(self) -> bool:
        """Whether a negative is compared with the scores of the relevant passages."""
        return self.absolute_margin is not None or self.relative_margin is not None

    @property
    def reads_scores(self) -> bool:
        """Whether scores decide: without, a teacher's scores are of no use."""
        return self.has_margin or self.max_score is not None or self.min_score is not None

    def last_rank(self, positives: int, has_teacher: bool) -> int:
        """``range_max``, or what the library derives in its place. ``positives``: see ``Positives.most``."""
        if self.range_max is not None:
            return self.range_max
        filters = self.has_margin or self.max_score is not None or (has_teacher and self.min_score is not None)
        return self.range_min + self.num_negatives * (PER_NEGATIVE if filters else 1) + positives

    @property
    def depth(self) -> int:
        """How much of a selection a teacher must score, not counting relevant passages (``PositivesConfig.depth``)."""
        return self.last_rank(0, has_teacher=True)


class MineConfig(Component):
    """What is a negative, and the language of the passages. For ``query_lang`` see ``PositivesConfig``."""

    query_lang: str
    mine: Mine
    doc_lang: str = ""


class MineNegatives:
    """RowWork: RANKINGS of a selection, and maybe a teacher's of it -> RANKINGS that hold the negatives alone.

    Without a teacher the selection's own scores decide, and with a margin a query whose relevant passages were not all
    selected has no negatives: each passage that was selected scores higher. ``inputs["qrels"]`` as for
    ``WithPositives``; ``inputs["docs"]`` are the DOCS that were selected from.
    A query without a negative is rejected; ``facts`` counts what was removed, and why.
    """

    def __init__(self, config: MineConfig, inputs: Mapping[str, Any]) -> None:
        self._mine = config.mine
        self._relevant = Positives(inputs.get("qrels", {}))
        self._overlap = _Overlap(config.doc_lang, inputs["docs"]) if self._mine.max_overlap < 1 else None
        self.facts: dict[str, int] = {}

    def __call__(self, rankings: pa.Table, scores: pa.Table | None = None) -> pa.Table:
        """Mine a part."""
        counts: Counter[str] = Counter()
        teacher = rankings if scores is None else scores
        pairs = zip(rankings.to_pylist(), teacher.to_pylist(), strict=True)
        rows = [self._mined(row, scored, scores is not None, counts) for row, scored in pairs]
        self.facts = dict(counts)
        return RANKINGS.of(rows)

    def _mined(
        self, row: dict[str, Any], scored: dict[str, Any], has_teacher: bool, counts: Counter[str]
    ) -> dict[str, Any]:
        """A row of negatives."""
        out = {"query_id": row["query_id"]}
        if reason := row["reject"] or scored["reject"]:
            return {**out, "reject": reason}
        relevant = self._relevant.of(row["query_id"])
        if not relevant:
            return {**out, "reject": NO_POSITIVE}
        known = dict(zip(scored["doc_ids"], scored["scores"], strict=True))
        positive = np.array([known[name] for name in relevant if name in known], np.float32)
        if self._mine.has_margin and len(positive) < (1 if has_teacher else len(relevant)):
            return {**out, "reject": NO_SCORE}
        candidates = self._candidates(row, relevant, has_teacher)
        passing = self._filter([(name, known[name]) for name in candidates if name in known], positive, counts)
        negatives = self._draw(row["query_id"], self._drop_copies(passing, relevant, counts), has_teacher)
        if not negatives:
            return {**out, "reject": NONE_LEFT}
        counts["negatives"] += len(negatives)
        counts["queries with fewer than num_negatives"] += len(negatives) < self._mine.num_negatives
        return {**out, "doc_ids": [name for name, _ in negatives], "scores": [score for _, score in negatives]}

    def _candidates(self, row: dict[str, Any], relevant: Sequence[str], has_teacher: bool) -> list[str]:
        """The selected passages down to the last rank, but for the relevant ones."""
        last = self._mine.last_rank(self._relevant.most, has_teacher) + self._relevant.most
        return [name for name in row["doc_ids"][:last] if name not in relevant]

    def _filter(
        self, candidates: list[tuple[str, float]], positive: np.ndarray, counts: Counter[str]
    ) -> list[tuple[str, float]]:
        """The candidates whose scores pass, best first; in float32, as the library computes."""
        scores, mine = np.array([score for _, score in candidates], np.float32), self._mine
        tests: dict[str, np.ndarray] = {}
        if mine.absolute_margin is not None:
            tests["absolute_margin"] = scores + mine.absolute_margin > positive.min()
        if mine.relative_margin is not None:
            tests["relative_margin"] = scores > positive.min() - abs(positive.min()) * mine.relative_margin
        if mine.max_score is not None:
            tests["max_score"] = scores > mine.max_score
        if mine.min_score is not None:
            tests["min_score"] = scores < mine.min_score
        passing = np.ones(len(scores), bool)
        for name, removed in tests.items():
            counts[f"removed by {name}"] += int((removed & passing).sum())
            passing &= ~removed
        order = np.argsort(-scores, kind="stable")  # a tie stands as it was selected
        return [candidates[i] for i in order[passing[order]]]

    def _drop_copies(
        self, candidates: list[tuple[str, float]], relevant: Sequence[str], counts: Counter[str]
    ) -> Iterator[tuple[str, float]]:
        """The candidates that are no copies of a relevant passage; read only as far as they are asked for."""
        for name, score in candidates:
            if self._overlap and self._overlap.largest(name, relevant) > self._mine.max_overlap:
                counts["removed by max_overlap"] += 1
            else:
                yield name, score

    def _draw(self, query_id: str, passing: Iterator[tuple[str, float]], has_teacher: bool) -> list[tuple[str, float]]:
        first, count = self._mine.range_min, self._mine.num_negatives
        if self._mine.sampling_strategy == "top":
            return list(islice(passing, first, first + count))
        options = list(islice(passing, first, self._mine.last_rank(self._relevant.most, has_teacher)))
        key = np.array([self._mine.seed, hash_ids([query_id])[0]], np.uint64)
        drawn = np.random.Generator(np.random.Philox(key=key)).permutation(len(options))[:count]
        return [options[i] for i in sorted(drawn)]


class _Overlap:
    """How much of their words two passages share: words of both by words of either, each word once (Jaccard)."""

    def __init__(self, lang: str, docs: Artifact) -> None:
        self._analyse, self._docs = load_analyser(lang), Docstore.open(docs)
        self._words = lru_cache(maxsize=REMEMBERED)(self._read_words)

    def largest(self, name: str, others: Sequence[str]) -> float:
        """The largest share of words that a passage has in common with one of the others."""
        words = self._words(name)
        return max((len(words & self._words(o)) / max(1, len(words | self._words(o))) for o in others), default=0.0)

    def _read_words(self, name: str) -> frozenset[str]:
        position = int(self._docs.positions([name])[0])
        if position < 0:  # its translation was rejected: it is never read as a negative either
            return frozenset()
        return frozenset(self._analyse(self._docs.text_at(position)))
