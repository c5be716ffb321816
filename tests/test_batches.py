"""Batches: a pure function of (seed, number), the three mixing strategies, and what happens to missing translations."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from artifacts import table_artifact
from cluster.errors import StepError
from pipelines.docstore import Docstore, RowStore
from pipelines.tables import DOCS, RANKINGS
from pipelines.training.batches import Batches, Draw

LANGS = ("de", "en", "zh")
QUERIES, POOL = 20, 12


def stores(root, missing=()):
    """20 queries that rank 12 of 40 passages each, in three languages; ``missing`` are (lang, doc_id)."""
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
    return RowStore.open(table_artifact(root / "scores@0", RANKINGS, rows)), docs


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    root = tmp_path_factory.mktemp("batches")
    patch = pytest.MonkeyPatch()
    patch.setenv("BABELRAY_CACHE", str(root / "cache"))
    yield stores(root)
    patch.undo()


def flat(batch):
    return list(chain.from_iterable(batch))


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
    scores, docs = complete
    whole = Batches(scores, docs, draw, batch, seed).entries(number)
    assert len(whole) == batch
    assert whole == Batches(scores, docs, draw, batch, seed).entries(number)
    fresh = Batches(scores, docs, draw, batch, seed)
    fresh.entries(number + 1)  # no state: another batch before it changes nothing
    assert fresh.entries(number) == whole
    for world in (2, 3):
        shares = [Batches(scores, docs, draw, batch, seed).entries(number, r, world) for r in range(world)]
        interleaved = [shares[i % world][i // world] for i in range(batch)]
        assert interleaved == whole


@given(draw=draws, seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_obey_their_strategy(complete, draw, seed):
    scores, docs = complete
    for entries in Batches(scores, docs, draw, 5, seed).entries(0):
        ranking = scores.row(entries[0].query_id)
        teacher = dict(zip(ranking["doc_ids"][: draw.pool], ranking["scores"], strict=False))
        for entry in entries:
            assert len(set(entry.doc_ids)) == draw.ways
            assert entry.scores.tolist() == [pytest.approx(teacher[d]) for d in entry.doc_ids]
            if draw.sampling == "top":
                assert entry.doc_ids == tuple(ranking["doc_ids"][: draw.ways])
            if draw.mixing != "mix_passages":
                assert len(set(entry.langs)) == 1
        if draw.mixing == "round_robin_entries":
            assert [e.langs[0] for e in entries] == list(LANGS)
            assert len({e.doc_ids for e in entries}) == 1
        else:
            assert len(entries) == 1


def test_epochs_are_shuffled_and_without_replacement(complete):
    batches = Batches(*complete, Draw(), batch=8, seed=1)
    order = [entries[0].query_id for number in range(15) for entries in batches.entries(number)]  # 120 = 6 epochs
    epochs = [order[k : k + QUERIES] for k in range(0, 120, QUERIES)]
    assert all(sorted(e) == sorted(epochs[0]) and len(set(e)) == QUERIES for e in epochs)
    assert len({tuple(e) for e in epochs}) == 6
    assert order != [e[0].query_id for n in range(15) for e in Batches(*complete, Draw(), 8, seed=2).entries(n)]


@pytest.mark.parametrize("mixing", ["mix_passages", "mix_entries", "round_robin_entries"])
def test_languages_are_balanced(complete, mixing):
    batches = Batches(*complete, Draw(mixing=mixing, ways=4), batch=100, seed=3)
    seen = Counter(chain.from_iterable(e.langs for n in range(6) for e in flat(batches.entries(n))))
    assert seen == batches.languages
    draws_of_a_language = [seen[lang] // (4 if mixing == "mix_entries" else 1) for lang in LANGS]
    assert chisquare(draws_of_a_language).pvalue > 0.001
    assert batches.skipped == 0


def test_ways_are_uniform_over_the_pool(complete):
    batches = Batches(*complete, Draw(ways=3, pool=6), batch=200, seed=4)
    ranks = Counter()
    for entry in flat(batches.entries(0)) + flat(batches.entries(1)):
        order = complete[0].row(entry.query_id)["doc_ids"]
        ranks.update(order.index(d) for d in entry.doc_ids)
    assert set(ranks) == set(range(6))
    assert chisquare(list(ranks.values())).pvalue > 0.001


def test_a_missing_translation_is_never_drawn_in_its_language(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    missing = {("zh", f"d{n}") for n in range(30)} | {(lang, "d35") for lang in LANGS}
    scores, docs = stores(tmp_path, missing)
    for mixing in ("mix_passages", "mix_entries", "round_robin_entries"):
        batches = Batches(scores, docs, Draw(mixing=mixing, ways=3, pool=12), batch=50, seed=5)
        pairs = {pair for e in flat(batches.entries(0)) for pair in zip(e.langs, e.doc_ids, strict=True)}
        assert not pairs & missing
        assert any(lang == "zh" for lang, _ in pairs)
        usable = sum(sum(("zh", d) not in missing for d in scores.row_at(q)["doc_ids"]) >= 3 for q in range(QUERIES))
        assert usable < QUERIES  # so that round robin must replace queries, and says so
        assert (batches.skipped > 0) == (mixing == "round_robin_entries")


def test_what_is_remembered_of_a_ranking_changes_no_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    scores, docs = stores(tmp_path, {("zh", f"d{n}") for n in range(0, 40, 3)})
    drawn = [Batches(scores, docs, Draw(ways=3), 15, 6).entries(number) for number in range(8)]  # nothing remembered
    for most in (0, 5, QUERIES):
        monkeypatch.setattr("pipelines.training.batches.REMEMBERED", most)
        batches = Batches(scores, docs, Draw(ways=3), 15, 6)
        assert [batches.entries(number) for number in range(8)] == drawn
        assert len(batches._there) == most


def test_nothing_to_draw_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    scores, docs = stores(tmp_path, {("zh", f"d{n}") for n in range(40)})
    with pytest.raises(StepError, match=r"fewer than 2 passages .*Lower train.ways"):
        Batches(scores, docs, Draw("round_robin_entries", ways=2), 1, 0).entries(0)
    empty = RowStore.open(table_artifact(tmp_path / "none@0", RANKINGS, []))
    with pytest.raises(StepError, match="nothing to learn from"):
        Batches(empty, docs, Draw(), 1, 0)
