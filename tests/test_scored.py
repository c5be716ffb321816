"""Pairs that a finished step has scored are copied; a teacher that counts says what was left for it."""

import random
from typing import ClassVar

import numpy as np
import pytest

from artifacts import table_artifact
from cluster.artifact import MANIFEST, Artifact
from cluster.component import Component
from cluster.receipt import merge_facts
from cluster.step import Step
from cluster.storage import Place
from local_executor import run_here
from pipelines.scorers import Bm25Scorer
from pipelines.scorers.base import Collection
from pipelines.scoring import Score, ScoreConfig
from pipelines.tables import DOCS, QUERIES, RANKINGS

WORDS = ["river", "stone", "bridge", "market", "north", "salt", "wool", "tower", "spring", "old"]
QUERY_IDS = ["q0", "q1", "q2"]


class Given(Component):
    """A table that is there already."""

    table: str


def given(root, name, table, *parts):
    step = Step(name, Given, Given(table=f"{name} {parts}"), table=table)
    table_artifact((root / step.id).path, table, *parts)
    return step


class Counting(Bm25Scorer):
    """BM25, noting each pair that it scores. In a fingerprint it is BM25."""

    pairs: ClassVar[list[tuple[str, str]]] = []

    def build(self, collection):
        return CountingTeacher(super().build(collection), self.pairs)


class CountingTeacher:
    def __init__(self, teacher, pairs):
        self._teacher, self._pairs = teacher, pairs

    def score(self, queries, docs, pairs_P2):
        self._pairs += [(queries[i], docs[j]) for i, j in pairs_P2]
        return self._teacher.score(queries, docs, pairs_P2)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """The texts of a root, and a ranking of 60 documents for each of three queries."""
    rng = random.Random(0)
    root = Place.of(tmp_path_factory.mktemp("root"))
    docs = [
        {"doc_id": f"d{i}", "lang": "en", "title": "", "text": f"{i} {' '.join(rng.choices(WORDS, k=9))}"}
        for i in range(60)
    ]
    asked = [{"query_id": q, "lang": "en", "text": " ".join(rng.choices(WORDS, k=3)) + f" {q}"} for q in QUERY_IDS]
    order = {q: rng.sample([d["doc_id"] for d in docs], 60) for q in QUERY_IDS}
    return root, given(root, "docs-en", DOCS, docs), given(root, "queries-en", QUERIES, asked), order


def selection(order, k):
    return [{"query_id": q, "doc_ids": ids[:k], "scores": [0.0] * k} for q, ids in order.items()]


def score_step(collection, k, scorer=Bm25Scorer(), root=None, docs=None):  # noqa: B008
    own, english, queries, order = collection
    rows = selection(order, k)
    inputs = {"rankings": given(root or own, f"select-{k}", RANKINGS, rows[:2], rows[2:]), "queries": queries}
    config = ScoreConfig(scorer=scorer, query_lang="en", doc_lang="en")
    return Step("score", Score, config, {**inputs, "docs": docs or english}, RANKINGS, ("rankings",))


@pytest.fixture(scope="module")
def twenty(collection):
    """The step with ``select.k`` = 20, finished."""
    (made,) = run_here([score_step(collection, 20)], collection[0])
    assert made.manifest.facts == {"scored": 60}
    return made


def count(collection, k, scorer=None, **changes):
    """The pairs that the teacher is asked for, the work's facts and its rows."""
    Counting.pairs.clear()
    step = score_step(collection, k, **changes)
    config = step.config.model_copy(update={"scorer": scorer or Counting()})
    inputs = {role: step.inputs[role].artifact(collection[0]) for role in ("queries", "docs")}
    work = Score(config, inputs)
    rows = work(RANKINGS.of(selection(collection[3], k)))
    return list(Counting.pairs), work.facts, RANKINGS.conform(rows).to_pylist()


def test_a_deeper_selection_asks_for_its_new_pairs_alone(collection, twenty):
    root, docs, queries, order = collection
    pairs, facts, rows = count(collection, 50)
    texts = {r["doc_id"]: r["text"] for r in docs.artifact(root).read().to_pylist()}
    asked = {r["query_id"]: r["text"] for r in queries.artifact(root).read().to_pylist()}
    assert sorted(pairs) == sorted((asked[q], texts[d]) for q, ids in order.items() for d in ids[20:50])
    assert len(pairs) == 3 * 30
    assert facts == {"scored": 90, "copied": {twenty.name: 60}}
    teacher = Bm25Scorer().build(Collection(docs.artifact(root), "en", "en"))
    for row in rows:
        one_query = np.array([(0, j) for j in range(50)])
        expected = teacher.score([asked[row["query_id"]]], [texts[d] for d in row["doc_ids"]], one_query)
        assert row["scores"] == pytest.approx(expected, abs=1e-6)
        assert set(row["doc_ids"]) == set(order[row["query_id"]][:50])


def test_the_manifest_sums_what_came_from_where(collection, twenty):
    step = score_step(collection, 45)
    (made,) = run_here([step], collection[0])
    assert len(made.parts) == 2
    assert made.manifest.facts == {"scored": 75, "copied": {twenty.name: 60}}
    made.place.delete()


def test_other_teachers_and_other_texts_are_not_copied(collection, twenty):
    root, docs, _, _ = collection
    others = [
        count(collection, 20, scorer=Counting(k1=1.2)),
        count(collection, 20, docs=given(root, "docs-de", DOCS, docs.artifact(root).read().to_pylist())),
    ]
    for pairs, facts, _ in others:
        assert (len(pairs), facts) == (60, {"scored": 60})


def test_a_teacher_whose_version_was_raised_copies_nothing(collection, twenty, monkeypatch):
    monkeypatch.setattr(Bm25Scorer, "version", 2)
    assert count(collection, 20)[1] == {"scored": 60}


def test_what_is_half_deleted_is_left_out_with_a_warning(collection, twenty, caplog):
    root = collection[0]
    for number, remove in enumerate(["part-00001.parquet", MANIFEST]):
        other = root / f"score-{number}@{twenty.name.partition('@')[2]}"
        other.put(twenty.place.path)
        (other / remove).delete()
    truncated = root / f"score-truncated@{twenty.manifest.fingerprint}"
    truncated.put(twenty.place.path)
    (truncated / "part-00000.parquet").write(b"PAR1")
    (root / "score-broken@000000000000" / MANIFEST).write(b"{")
    pairs, facts, _ = count(collection, 20)
    assert (len(pairs), facts) == (0, {"scored": 0, "copied": {twenty.name: 60}})
    left_out = [record.getMessage() for record in caplog.records if "are not copied" in record.getMessage()]
    assert [message.split()[2].partition("@")[0] for message in left_out] == [
        "score-0",
        "score-broken",
        "score-truncated",
    ]
    for place in root.list():
        if place.name.startswith("score-"):
            place.delete()


def test_a_store_of_objects_is_looked_through_too(s3_root, collection):
    bucket = Place.of(s3_root) / "runs"
    root, docs, queries, order = collection
    for step in (docs, queries):
        (bucket / step.id).put((root / step.id).path)
    step = score_step(collection, 20)
    inputs = {role: Artifact(bucket / step.inputs[role].id) for role in ("queries", "docs")}
    work = Score(step.config, inputs)
    rows = work(RANKINGS.of(selection(order, 20)))
    assert work.facts == {"scored": 60}
    (made,) = run_here([step], root)
    (bucket / made.name).put(made.place.path)
    again = Score(step.config, inputs)
    assert again(RANKINGS.of(selection(order, 20))) == rows
    assert again.facts == {"scored": 0, "copied": {made.name: 60}}


def test_facts_of_units_are_summed():
    one = {"scored": 3, "copied": {"a": 1}, "seconds": 0.5, "model": "x", "is_new": True}
    two = {"scored": 4, "copied": {"a": 2, "b": 5}, "seconds": 1.0, "model": "y", "is_new": False}
    assert merge_facts([one, {}, two]) == {
        "scored": 7, "copied": {"a": 3, "b": 5}, "seconds": 1.5, "model": "x", "is_new": True,
    }  # fmt: skip
    assert merge_facts([]) == {}
