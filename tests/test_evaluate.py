"""Evaluation: hand-computed values, an independent nDCG and trec_eval's own code as oracles, the pool, ties, files."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts import table_artifact
from cluster.component import canonical, fingerprint
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.evaluate import EvaluateConfig, break_ties, evaluate, lower_ties, measure, pool_qrels, pool_runs
from pipelines.tables import QRELS, RANKINGS

NAMES = ("nDCG@20", "AP", "R@100", "RR@10")


def run_of(rankings):
    """{query: {doc: score}} → RANKINGS, sorted by score, then doc id."""
    rows = []
    for query, docs in rankings.items():
        order = sorted(docs, key=lambda d: (-np.float32(docs[d]), d))
        rows.append({"query_id": query, "doc_ids": order, "scores": [docs[d] for d in order]})
    return [break_ties(RANKINGS.of(rows))]


def values(run, qrels, names=NAMES):
    return {(row["query_id"], row["measure"]): row["value"] for row in measure(names, run, qrels)}


def artifacts(tmp_path, rankings, qrels):
    inputs = {"rankings": {}, "qrels": {}}
    for lang, docs in rankings.items():
        rows = run_of(docs)[0].to_pylist()
        inputs["rankings"][lang] = table_artifact(tmp_path / f"rankings-{lang}", RANKINGS, rows[:1], rows[1:])
    for lang, judged in qrels.items():
        rows = [{"query_id": q, "doc_id": d, "relevance": g} for q, docs in judged.items() for d, g in docs.items()]
        inputs["qrels"][lang] = table_artifact(tmp_path / f"qrels-{lang}", QRELS, rows)
    return inputs


def evaluated(tmp_path, rankings, qrels, names=NAMES, **options):
    out = Place.of(tmp_path / "out")
    config = EvaluateConfig(name="toy", measures=names, **options)
    facts = evaluate(config, artifacts(tmp_path, rankings, qrels), out, lambda *a: [])
    return facts, tmp_path / "out"


RUN = {"q1": {"a": 3.0, "b": 2.0, "c": 1.0}, "q2": {"c": 2.0, "a": 1.0}}
JUDGED = {"q1": {"a": 0, "b": 2, "d": 1}, "q2": {"c": 1}, "q3": {"a": 1}, "q4": {"a": 0}}


def test_by_hand():
    """q1: b (grade 2) at rank 2, d not found. q2: c at rank 1. q3: not in the run. q4: nothing relevant."""
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    expected = {
        ("q1", "nDCG@20"): (2 / math.log2(3)) / ideal,
        ("q1", "AP"): (1 / 2) / 2,
        ("q1", "R@100"): 1 / 2,
        ("q1", "RR@10"): 1 / 2,
        **{("q2", name): 1.0 for name in NAMES},
        **{("q3", name): 0.0 for name in NAMES},
    }
    assert values(run_of(RUN), JUDGED) == pytest.approx(expected, abs=1e-6)


def test_a_query_that_found_nothing_counts_as_zero_and_one_without_relevant_documents_not_at_all(tmp_path):
    facts, out = evaluated(tmp_path, {"en": RUN}, {"en": JUDGED})
    measures = json.loads((out / "measures.json").read_text())
    assert measures["en"]["RR@10"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert measures["all"] == pytest.approx(measures["en"])
    assert facts.pop("fairness") == json.loads((out / "fairness.json").read_text())
    assert facts == {"set": "toy", "queries": {"en": 3, "all": 3}, "left_out": 0, "measures": measures}


def test_topics_in_every_language_by_hand(tmp_path):
    """q1 is relevant in both languages, q2 in English alone, q3 judged in German without a relevant document.

    q1: English at rank 2, German at rank 1. The pool is as deep as the deepest ranking: en:a (3), en:b (2), without
    de:x (1), so one of its two relevant documents is found, at rank 2.
    """
    rankings = {"en": {"q1": {"a": 3.0, "b": 2.0}, "q2": {"c": 1.0}}, "de": {"q1": {"x": 1.0}, "q2": {"x": 1.0}}}
    qrels = {
        "en": {"q1": {"b": 1}, "q2": {"c": 1}, "q3": {"a": 1}},
        "de": {"q1": {"x": 1}, "q2": {"y": 0}, "q3": {"x": 0}},
    }
    facts, out = evaluated(tmp_path, rankings, qrels, ("RR@10", "AP"), topics_in="every")
    assert facts["queries"] == {"en": 1, "de": 1, "all": 1}
    assert facts["left_out"] == 2
    assert facts["measures"] == {
        "en": {"RR@10": 0.5, "AP": 0.5},
        "de": {"RR@10": 1.0, "AP": 1.0},
        "all": {"RR@10": 0.5, "AP": (1 / 2) / 2},
    }
    assert {line.split()[0] for line in (out / "qrels.all.trec").read_text().splitlines()} == {"q1"}
    facts, _ = evaluated(tmp_path / "any", rankings, qrels, ("RR@10",))
    assert facts["queries"] == {"en": 3, "de": 1, "all": 3}
    assert facts["left_out"] == 0


def test_topics_in_every_language_that_are_none(tmp_path):
    rankings, qrels = {"en": RUN, "de": RUN}, {"en": {"q1": {"a": 1}}, "de": {"q2": {"c": 1}}}
    with pytest.raises(StepError, match="relevant document in every language"):
        evaluated(tmp_path, rankings, qrels, topics_in="every")


def test_the_default_of_topics_in_leaves_fingerprints_unchanged():
    assert fingerprint(EvaluateConfig(name="x")) == fingerprint(EvaluateConfig(name="x", topics_in="any"))
    assert fingerprint(EvaluateConfig(name="x")) != fingerprint(EvaluateConfig(name="x", topics_in="every"))
    assert "topics_in" not in canonical(EvaluateConfig(name="x"))


def ndcg(docs, judged, k):
    """An independent nDCG with linear gains: Järvelin and Kekäläinen 2002 with log2(rank + 1)."""
    gains = np.array([judged.get(d, 0) for d in docs[:k]], float)
    ideal = np.sort(np.array(list(judged.values()), float))[::-1][:k]
    return (gains / np.log2(np.arange(2, len(gains) + 2))).sum() / (ideal / np.log2(np.arange(2, len(ideal) + 2))).sum()


def random_case(seed, grades, ties=False):
    rng = np.random.default_rng(seed)
    draw = (lambda: float(rng.integers(0, 4))) if ties else (lambda: float(rng.normal()))
    run = {f"q{i}": {f"d{j}": draw() for j in rng.choice(60, rng.integers(1, 40), replace=False)} for i in range(12)}
    qrels = {f"q{i}": {f"d{j}": int(rng.integers(0, grades + 1)) for j in rng.choice(60, 15)} for i in range(14)}
    return run, {q: {**docs, "d1": 1} for q, docs in qrels.items()}


@pytest.mark.parametrize("grades", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_ndcg_ap_and_rr_against_our_own_formulas(grades, ties):
    run, qrels = random_case(grades, grades, ties)
    found = values(run_of(run), qrels, ("nDCG@20", "RR@10", "AP"))
    for query, judged in qrels.items():
        docs = sorted(run.get(query, {}), key=lambda d: (-np.float32(run[query][d]), d))
        hits = [judged.get(d, 0) > 0 for d in docs]
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
        first = next((1 / (i + 1) for i, hit in enumerate(hits[:10]) if hit), 0.0)
        assert found[query, "nDCG@20"] == pytest.approx(ndcg(docs, judged, 20) if docs else 0.0, abs=1e-6)
        assert found[query, "RR@10"] == pytest.approx(first)
        assert found[query, "AP"] == pytest.approx(sum(precisions) / sum(g > 0 for g in judged.values()), abs=1e-6)


@pytest.mark.parametrize("grades", [1, 3])
def test_the_means_are_those_of_ir_measures(tmp_path, grades):
    import ir_measures

    run, qrels = random_case(7, grades)
    facts, _ = evaluated(tmp_path, {"en": run}, {"en": qrels})
    oracle = ir_measures.calc_aggregate([ir_measures.parse_measure(n) for n in NAMES], qrels, run)
    assert facts["measures"]["en"] == pytest.approx({str(m): v for m, v in oracle.items()}, abs=1e-9)


def test_ties_stand_in_the_order_of_doc_ids_not_in_trec_evals():
    run, qrels = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}, {"q": {"a": 1}}
    assert values(run_of(run), qrels)["q", "RR@10"] == 1.0
    assert values(run_of(run), {"q": {"b": 1}})["q", "AP"] == pytest.approx(1 / 2)
    assert values(run_of(run), {"q": {"c": 1}})["q", "AP"] == pytest.approx(1 / 3)


@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, -0.0, 1.0, 5e-45]), max_size=30))
def test_scores_without_ties_fall_strictly_and_stay_close(scores):
    ordered = np.sort(np.array(scores, np.float32))[::-1]
    out = lower_ties(ordered)
    assert (np.diff(out) < 0).all()
    assert np.allclose(out, ordered, rtol=1e-5, atol=1e-40)


scores = st.dictionaries(
    st.sampled_from([f"d{i}" for i in range(8)]), st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1
)
grades = st.dictionaries(st.sampled_from([f"d{i}" for i in range(8)]), st.integers(0, 2), min_size=1)


@given(st.dictionaries(st.sampled_from(["de", "en", "zh"]), st.tuples(scores, grades), min_size=1))
@settings(max_examples=60)
def test_the_pool_is_the_concatenation_of_the_languages(found):
    together = {f"{lang}:{d}": s for lang, (docs, _) in found.items() for d, s in docs.items()}
    order = sorted(together, key=lambda d: (-together[d], d))[: max(len(docs) for docs, _ in found.values())]
    raw = {lang: [RANKINGS.of([_ranked(docs)])] for lang, (docs, _) in found.items()}
    pooled = pool_runs(raw)[0].to_pylist()[0]
    assert pooled["doc_ids"] == order
    qrels = pool_qrels({lang: {"q": judged} for lang, (_, judged) in found.items()})
    judged = {f"{lang}:{d}": g for lang, (_, of) in found.items() for d, g in of.items()}
    assert qrels == {"q": judged}
    if any(judged.values()):
        alone = values(run_of({"q": {d: together[d] for d in order}}), {"q": judged})
        assert values([break_ties(rows) for rows in pool_runs(raw)], qrels) == alone


def _ranked(docs):
    order = sorted(docs, key=lambda d: (-docs[d], d))
    return {"query_id": "q", "doc_ids": order, "scores": [docs[d] for d in order]}


def test_the_files_measure_the_same_when_trec_tools_read_them(tmp_path):
    import ir_measures

    run, qrels = random_case(3, 2, ties=True)
    other, judged = random_case(4, 2, ties=True)
    facts, out = evaluated(tmp_path, {"en": run, "de": other}, {"en": qrels, "de": judged})
    for lang in ("en", "de", "all"):
        read = ir_measures.calc_aggregate(
            [ir_measures.parse_measure(n) for n in NAMES],
            list(ir_measures.read_trec_qrels(str(out / f"qrels.{lang}.trec"))),
            list(ir_measures.read_trec_run(str(out / f"run.{lang}.trec"))),
        )
        assert facts["measures"][lang] == pytest.approx({str(m): v for m, v in read.items()}, abs=1e-6)
    line = (out / "run.all.trec").read_text().splitlines()[0].split()
    assert line[:2] == ["q0", "Q0"]
    assert line[2].partition(":")[0] in ("en", "de")
    assert line[3] == "1"


def test_per_query_values_average_to_the_measures(tmp_path):
    facts, out = evaluated(tmp_path, {"en": RUN, "de": {"q3": {"a": 1.0}}}, {"en": JUDGED, "de": {"q3": {"a": 1}}})
    rows = pq.read_table(out / "per_query.parquet").to_pylist()
    for lang, measures in facts["measures"].items():
        for name, value in measures.items():
            found = [r["value"] for r in rows if (r["lang"], r["measure"]) == (lang, name)]
            assert len(found) == facts["queries"][lang]
            assert np.mean(found) == pytest.approx(value)


def test_white_space_in_ids_does_not_break_the_trec_files(tmp_path):
    _, out = evaluated(tmp_path, {"en": {"q 1": {"d\u00a0x": 1.0}}}, {"en": {"q 1": {"d\u00a0x": 1}}})
    assert (out / "run.en.trec").read_text().split() == ["q%201", "Q0", "d%C2%A0x", "1", "1.0", "babelray"]
    assert (out / "qrels.en.trec").read_text().split() == ["q%201", "0", "d%C2%A0x", "1"]
    assert pq.read_table(out / "per_query.parquet")["query_id"].to_pylist() == ["q 1"] * 8


def test_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown measure 'mAPP@3'"):
        EvaluateConfig(name="x", measures=("mAPP@3",))
    with pytest.raises(StepError, match="no query has a relevant document"):
        evaluated(tmp_path, {"en": RUN}, {"en": {"q1": {"a": 0}}})
    inputs = artifacts(tmp_path, {}, {"en": JUDGED})
    with pytest.raises(StepError, match=r"expected rankings.*\['en'\]"):
        evaluate(EvaluateConfig(name="x"), inputs, Place.of(tmp_path / "o"), lambda *a: [])
