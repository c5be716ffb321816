"""Episodes: the questions and passages of each meta-task. An episode is a function of (seed, its number).

An episode has the sets of one specification (see ``specs``), which the episodes take in turn. Each set has questions in
one language; a question makes a triplet for each language of its passages: a relevant passage in that language and a
negative in any of the set's. No question is in two sets of an episode, but for the same question in another language
where sets are ``similar``.

    random    questions of every set are drawn from all
    similar   a query set is drawn from the same questions as the support set's where it asks in another language, and
              from the questions nearest to those under the student that training begins with; what is missing is drawn
              from all questions

Everything is looked up among training questions and training passages: no other text can be in an episode.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cluster.artifact import Artifact
from cluster.errors import StepError
from pipelines.docstore import RowStore
from pipelines.training.batches import EPISODE_STREAM, Entry, stream
from pipelines.training.meta.config import Meta
from pipelines.training.meta.negatives import NearNegatives, RandomNegatives
from pipelines.training.meta.specs import Part, Spec

SCORES = np.array([1.0, 0.0], np.float32)  # of the relevant passage and of the negative


@dataclass(frozen=True)
class Episode:
    """A meta-task: its specification, and its sets, the support set first. An entry is a triplet: a question, a
    relevant passage and a negative; or a sentence pair."""

    spec: Spec
    sets: tuple[tuple[Entry, ...], ...]


class Episodes(Protocol):
    """Gives meta-tasks by number. ``name`` is for messages, ``size`` how many questions, or pairs, may be drawn."""

    name: str
    size: int

    def episode(self, number: int) -> Episode:
        """Meta-task ``number``, always the same."""


class Answers:
    """The relevant passages of each question by language. ``qrels`` and ``docs`` are by language; a passage that a
    translation rejected is none."""

    def __init__(self, qrels: Mapping[str, Artifact], docs: Mapping[str, RowStore]):
        self._of: dict[str, dict[str, list[str]]] = {}
        self._names: dict[str, set[str]] = {}
        for lang, store in sorted(docs.items()):
            rows = [
                row for row in qrels[lang].read(["query_id", "doc_id", "relevance"]).to_pylist() if row["relevance"] > 0
            ]
            found = store.positions([row["doc_id"] for row in rows]) >= 0
            of_lang = self._of.setdefault(lang, {})
            for row, is_there in zip(rows, found.tolist(), strict=True):
                self._names.setdefault(row["query_id"], set()).add(row["doc_id"])
                if is_there:
                    of_lang.setdefault(row["query_id"], []).append(row["doc_id"])

    def of(self, query_id: str, lang: str) -> list[str]:
        """Those in one language."""
        return self._of[lang].get(query_id, [])

    def ids(self, query_id: str) -> frozenset[str]:
        """The ids of those in any language: an id is the same passage in every language."""
        return frozenset(self._names.get(query_id, ()))


class RetrievalEpisodes:
    """Episodes of questions and passages; see ``Episodes``.

    ``data`` holds ``queries`` and ``docs`` by language; ``nearest`` has rankings of questions by (language, language of
    those found), for ``similar`` sets, and of passages, for negatives that are not random.
    """

    def __init__(
        self,
        meta: Meta,
        queries: Mapping[str, RowStore],
        docs: Mapping[str, RowStore],
        answers: Answers,
        nearest: Mapping[str, Mapping[str, RowStore]],
        seed: int,
    ):
        self.meta, self.specs, self.seed = meta, meta.specs, seed
        self.name = " + ".join(store.name for store in queries.values())
        self._answers, self._similar = answers, nearest.get("questions", {})
        self._negatives: Callable[..., tuple[str, str]] = RandomNegatives(docs, answers.ids)
        if meta.negatives != "random":
            self._negatives = NearNegatives(meta, nearest["passages"], answers.ids)
        self._usable = {part: self._find_usable(part, queries, docs) for s in self.specs for part in s.parts}
        self._known = {part: frozenset(ids) for part, ids in self._usable.items()}
        self.size = len(frozenset[str]().union(*self._known.values()))
        for position, spec in enumerate(self.specs):
            self._check_size(position, spec)

    def _find_usable(
        self, part: Part, queries: Mapping[str, RowStore], docs: Mapping[str, RowStore]
    ) -> tuple[str, ...]:
        """The questions that are there in the language of a set, with a relevant passage in each of its languages."""
        ids = queries[part.query].ids
        return tuple(query for query in ids if all(self._answers.of(query, lang) for lang in part.docs))

    def _check_size(self, position: int, spec: Spec) -> None:
        """Raise StepError where the questions do not suffice for the sets of a specification."""
        needed = self.meta.support + self.meta.queries * len(spec.queries)
        for part in spec.parts:
            if (found := len(self._usable[part])) < needed:
                raise StepError(
                    f"train.meta.tasks[{position}]: an episode of {spec} needs {needed} different questions (support = "
                    f"{self.meta.support}, queries = {self.meta.queries}), and {found} of {self.name} are asked in "
                    f"{part.query} and have a relevant passage in {' and '.join(part.docs)}: lower them, or "
                    "add questions"
                )

    def episode(self, number: int) -> Episode:
        """See ``Episodes``."""
        random = stream(self.seed, EPISODE_STREAM, number)
        spec = self.specs[number % len(self.specs)]
        support = _draw(self._usable[spec.support], self.meta.support, frozenset(), random)
        drawn, used = [support], set(support)
        for part in spec.queries:
            chosen: list[str] = []
            if self.meta.sampling == "similar":
                pool = self._list_similar(support, spec.support.query, part, used)
                chosen = _draw(pool, min(self.meta.queries, len(pool)), frozenset(), random)
            rest = self.meta.queries - len(chosen)
            chosen = [*chosen, *_draw(self._usable[part], rest, used.union(chosen), random)]
            drawn.append(chosen)
            used.update(chosen)
        sets = [self._list_triplets(ids, part, random) for ids, part in zip(drawn, spec.parts, strict=True)]
        return Episode(spec, tuple(sets))

    def _list_similar(self, support: Sequence[str], lang: str, part: Part, used: set[str]) -> list[str]:
        """The questions of the support set, where the set asks in another language, and those nearest to them."""
        nearest = self._similar[f"{lang}-{part.query}"]
        found: dict[str, None] = {}
        for query_id in support:
            if part.query != lang and query_id not in used - set(support):
                found[query_id] = None
            others = [other for other in nearest.row(query_id)["doc_ids"] if other not in used]
            found |= dict.fromkeys(others[: self.meta.neighbours])
        return [query_id for query_id in found if query_id in self._known[part]]

    def _list_triplets(self, query_ids: Sequence[str], part: Part, random: np.random.Generator) -> tuple[Entry, ...]:
        return tuple(self._make_triplet(query, part, lang, random) for query in query_ids for lang in part.docs)

    def _make_triplet(self, query_id: str, part: Part, lang: str, random: np.random.Generator) -> Entry:
        relevant = self._answers.of(query_id, lang)
        positive = relevant[0] if len(relevant) == 1 else relevant[int(random.integers(len(relevant)))]
        other, negative = self._negatives(query_id, part, (lang, positive), random)
        ids = self._answers.ids(query_id)
        return Entry(query_id, (positive, negative), (lang, other), SCORES, ids, part.query)


def _draw(ids: Sequence[str], count: int, without: Any, random: np.random.Generator) -> list[str]:
    """``count`` different ones of ``ids``, none of them in ``without``."""
    left = [one for one in ids if one not in without] if without else ids
    return [left[at] for at in random.choice(len(left), count, replace=False).tolist()] if count else []
