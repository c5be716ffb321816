"""Batches: a pure function of (seed, number), the three mixing strategies, and what happens to missing translations."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from artifacts import table_artifact
from cluster.artifact import Artifact
from cluster.errors import StepError
from cluster.storage import Place
from pipelines import tables
from pipelines.docstore import Docstore, RowStore
from pipelines.tables import DOCS, QRELS, RANKINGS
from pipelines.training.batches import Batches, Draw
from pipelines.training.data import LabelledPassages, ScoredPassages

LANGS = ("de", "en", "zh")
QUERIES, POOL = 20, 12


def stores(root, missing=(), rejected=()):
    """20 queries that rank 12 of 40 passages each, in three languages; ``missing`` are (lang, doc_id), ``rejected``
    queries. Returns what ``Batches`` reads: passages, queries, docs."""
    random = np.random.default_rng(0)
    rows = []
    for q in range(QUERIES):
        picked = random.choice(40, POOL, replace=False)
        scores = np.sort(random.normal(size=POOL).astype(np.float32))[::-1]
        rows.append({"query_id": f"q{q}", "doc_ids": [f"d{p}" for p in picked], "scores": scores.tolist()})
    docs = {
        lang: Docstore.open(table_artifact(root / f"docs-{lang}@0", DOCS, [
            {"doc_id": f"d{n}", "lang": lang, "title": "", "text": "x",
             "reject": "bad" if (lang, f"d{n}") in missing else None} for n in range(40)
        ])) for lang in LANGS
    }  # fmt: skip
    queries = [{"query_id": row["query_id"], "lang": "en", "text": "x",
                "reject": "bad" if row["query_id"] in rejected else None} for row in rows]  # fmt: skip
    return (
        ScoredPassages(RowStore.open(table_artifact(root / "scores@0", RANKINGS, rows))),
        {"en": Docstore.open(table_artifact(root / "queries@0", tables.QUERIES, queries))},
        docs,
    )


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    root = tmp_path_factory.mktemp("batches")
    patch = pytest.MonkeyPatch()
    patch.setenv("BABELRAY_CACHE", str(root / "cache"))
    yield stores(root)
    patch.undo()


def row_of(passages, query_id):
    """The candidates of a query."""
    return next(c for c in (passages.candidates(row, POOL) for row in range(QUERIES)) if c.query_id == query_id)


def groups(batches, *number):
    return batches.entries(*number)[0]


def flat(batches, number):
    return list(chain.from_iterable(groups(batches, number)))


draws = st.builds(
    Draw,
    mixing=st.sampled_from(["mix_passages", "mix_entries", "round_robin_entries"]),
    ways=st.integers(2, 6),
    pool=st.integers(6, 12),
    sampling=st.sampled_from(["random", "top"]),
)


@given(draw=draws, batch=st.integers(1, 9), number=st.integers(0, 30), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_workers_and_restarts_change_no_sample(complete, draw, batch, number, seed):
    whole = groups(Batches(*complete, draw, batch, seed), number)
    assert len(whole) == batch
    assert whole == groups(Batches(*complete, draw, batch, seed), number)
    fresh = Batches(*complete, draw, batch, seed)
    fresh.entries(number + 1)  # no state: another batch before it changes nothing
    assert groups(fresh, number) == whole
    for world in (2, 3):
        shares = [groups(Batches(*complete, draw, batch, seed), number, r, world) for r in range(world)]
        interleaved = [shares[i % world][i // world] for i in range(batch)]
        assert interleaved == whole


@given(draw=draws, seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_obey_their_strategy(complete, draw, seed):
    for entries in groups(Batches(*complete, draw, 5, seed), 0):
        ranking = row_of(complete[0], entries[0].query_id)
        teacher = dict(zip(ranking.doc_ids[: draw.pool], ranking.scores, strict=False))
        for entry in entries:
            assert len(set(entry.doc_ids)) == draw.ways
            assert entry.scores.tolist() == [pytest.approx(teacher[d]) for d in entry.doc_ids]
            if draw.sampling == "top":
                assert entry.doc_ids == tuple(ranking.doc_ids[: draw.ways])
            if draw.mixing != "mix_passages":
                assert len(set(entry.langs)) == 1
        if draw.mixing == "round_robin_entries":
            assert [e.langs[0] for e in entries] == list(LANGS)
            assert len({e.doc_ids for e in entries}) == 1
        else:
            assert len(entries) == 1


def test_epochs_are_shuffled_and_without_replacement(complete):
    batches = Batches(*complete, Draw(), batch=8, seed=1)
    order = [entries[0].query_id for number in range(15) for entries in groups(batches, number)]  # 120 = 6 epochs
    epochs = [order[k : k + QUERIES] for k in range(0, 120, QUERIES)]
    assert all(sorted(e) == sorted(epochs[0]) and len(set(e)) == QUERIES for e in epochs)
    assert len({tuple(e) for e in epochs}) == 6
    assert order != [e[0].query_id for n in range(15) for e in groups(Batches(*complete, Draw(), 8, seed=2), n)]


@pytest.mark.parametrize("mixing", ["mix_passages", "mix_entries", "round_robin_entries"])
def test_languages_are_balanced(complete, mixing):
    batches = Batches(*complete, Draw(mixing=mixing, ways=4), batch=100, seed=3)
    seen = Counter(chain.from_iterable(e.langs for n in range(6) for e in flat(batches, n)))
    draws_of_a_language = [seen[lang] // (4 if mixing == "mix_entries" else 1) for lang in LANGS]
    assert chisquare(draws_of_a_language).pvalue > 0.001
    assert batches.entries(0)[1] == 0


def test_ways_are_uniform_over_the_pool(complete):
    batches = Batches(*complete, Draw(ways=3, pool=6), batch=200, seed=4)
    ranks = Counter()
    for entry in flat(batches, 0) + flat(batches, 1):
        order = row_of(complete[0], entry.query_id).doc_ids
        ranks.update(order.index(d) for d in entry.doc_ids)
    assert set(ranks) == set(range(6))
    assert chisquare(list(ranks.values())).pvalue > 0.001


def test_a_missing_translation_is_never_drawn_in_its_language(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    missing = {("zh", f"d{n}") for n in range(30)} | {(lang, "d35") for lang in LANGS}
    collection = stores(tmp_path, missing)
    for mixing in ("mix_passages", "mix_entries", "round_robin_entries"):
        drawn, skipped = Batches(*collection, Draw(mixing=mixing, ways=3, pool=12), batch=50, seed=5).entries(0)
        entries = list(chain.from_iterable(drawn))
        pairs = {pair for e in entries for pair in zip(e.langs, e.doc_ids, strict=True)}
        assert not pairs & missing
        assert any(lang == "zh" for lang, _ in pairs)
        rankings = [collection[0].candidates(q, 12).doc_ids for q in range(QUERIES)]
        usable = sum(sum(("zh", d) not in missing for d in doc_ids) >= 3 for doc_ids in rankings)
        assert usable < QUERIES  # so that round robin must replace queries, and says so
        assert (skipped > 0) == (mixing == "round_robin_entries")


def test_a_query_whose_translation_was_rejected_is_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    batches = Batches(*stores(tmp_path, rejected={"q3", "q7"}), Draw(ways=3), QUERIES, 5)
    drawn, skipped = batches.entries(0)  # one epoch
    seen = {entries[0].query_id for entries in drawn}
    assert len(drawn) == QUERIES
    assert not seen & {"q3", "q7"}
    assert skipped >= 2
    assert skipped == sum(batches.entries(0, rank, 3)[1] for rank in range(3))


def test_what_is_remembered_of_a_ranking_changes_no_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    collection = stores(tmp_path, {("zh", f"d{n}") for n in range(0, 40, 3)})
    drawn = [Batches(*collection, Draw(ways=3), 15, 6).entries(number) for number in range(8)]  # nothing remembered
    for most in (0, 5, QUERIES):
        monkeypatch.setattr("pipelines.training.batches.REMEMBERED", most)
        batches = Batches(*collection, Draw(ways=3), 15, 6)
        assert [batches.entries(number) for number in range(8)] == drawn
        assert len(batches._present) == most


def test_nothing_to_draw_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    _, queries, docs = collection = stores(tmp_path, {("zh", f"d{n}") for n in range(40)})
    with pytest.raises(StepError, match=r"fewer than 2 passages .*Lower train.ways"):
        Batches(*collection, Draw("round_robin_entries", ways=2), 1, 0).entries(0)
    with pytest.raises(StepError, match=r"queries of \S+ in a row have fewer than 2 passages"):
        Batches(collection[0], {}, docs, Draw(ways=2), 1, 0).entries(0)
    empty = ScoredPassages(RowStore.open(table_artifact(tmp_path / "none@0", RANKINGS, [])))
    with pytest.raises(StepError, match="nothing to learn from"):
        Batches(empty, queries, docs, Draw(), 1, 0)


def labels(root, qrels, docs):
    """The passages of ``stores`` with judgements instead of scores: ``qrels`` are (query_id, doc_id)."""
    rows = [{"query_id": q, "doc_id": d, "relevance": 1} for q, d in qrels]
    judged = table_artifact(root / "qrels@0", QRELS, [*rows, {"query_id": "q0", "doc_id": "d1", "relevance": 0}])
    return LabelledPassages({"en": judged}, RowStore.open(Artifact(Place.of(root / "scores@0"))))


@pytest.mark.parametrize("mixing", ["mix_passages", "mix_entries", "round_robin_entries"])
def test_labelled_entries_begin_with_a_relevant_passage_and_hold_no_other(tmp_path, monkeypatch, mixing):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    missing = {("zh", f"d{n}") for n in range(0, 40, 5)}
    passages, queries, docs = stores(tmp_path, missing)
    first = {q: list(passages.candidates(q, POOL).doc_ids) for q in range(QUERIES)}
    qrels = {(f"q{q}", doc) for q in range(0, QUERIES, 2) for doc in (first[q][2], f"d{q + 1}")}
    labelled = labels(tmp_path, sorted(qrels), docs)
    assert len(labelled) == QUERIES // 2  # a query without a label has no row
    drawn, _ = Batches(labelled, queries, docs, Draw(mixing, ways=3, pool=8), 40, 1).entries(0)
    for entry in chain.from_iterable(drawn):
        assert (entry.query_id, entry.doc_ids[0]) in qrels
        assert not any((entry.query_id, doc) in qrels for doc in entry.doc_ids[1:])
        assert entry.relevant == {doc for query, doc in qrels if query == entry.query_id}
        others = [d for d in first[int(entry.query_id[1:])] if d not in entry.relevant][:8]
        assert set(entry.doc_ids[1:]) <= set(others)
        assert not set(zip(entry.langs, entry.doc_ids, strict=True)) & missing
    if mixing == "mix_passages":  # both of a query's relevant passages are drawn, in turn
        assert len({entry.doc_ids[0] for group in drawn for entry in group if entry.query_id == "q4"}) == 2
