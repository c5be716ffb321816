"""Ensembles of teachers, by hand and against scipy."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from artifacts import table_artifact
from cluster.component import Component, fingerprint
from cluster.errors import StepError
from cluster.step import Step
from cluster.storage import Place
from local_executor import run_here
from pipelines.precision import with_precision
from pipelines.scorers import Bm25Scorer, CrossEncoderScorer, EnsembleScorer, Scorer
from pipelines.scorers.base import Collection
from pipelines.scorers.ensemble import scale
from pipelines.scoring import MergeConfig, MergeScores, ScoreConfig
from pipelines.tables import DOCS, RANKINGS

FIRST = {"a": 3.0, "b": 1.0, "c": 1.0, "d": -1.0}
SECOND = {"b": -0.1, "a": -0.2, "d": -5.0, "c": -9.0}
ORACLES = {  # of one teacher's scores, with numpy and scipy
    "none": lambda s: s,
    "z": stats.zscore,
    "min_max": lambda s: (s - min(s)) / (max(s) - min(s)),
    "rank": lambda s: 1 - (stats.rankdata(-s) - 1) / len(s),
}


def row(query_id, scores, reject=None):
    ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])) if scores is not None else None
    lists = {"doc_ids": [d for d, _ in ranked], "scores": [s for _, s in ranked]} if ranked is not None else {}
    return {"query_id": query_id, **lists, "reject": reject}


def merged(config, *tables):
    return RANKINGS.conform(MergeScores(config, {})(*(RANKINGS.of(rows) for rows in tables))).to_pylist()


@pytest.mark.parametrize("weights", [None, (1.0, 1.0), (3.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("how", list(ORACLES))
def test_an_ensemble_is_the_weighted_mean_of_scaled_scores(how, weights):
    (out,) = merged(MergeConfig(normalise=how, weights=weights), [row("q", FIRST)], [row("q", SECOND)])
    one, two = (np.array([teacher[d] for d in "abcd"]) for teacher in (FIRST, SECOND))
    w, v = weights or (1, 1)
    expected = dict(zip("abcd", (w * ORACLES[how](one) + v * ORACLES[how](two)) / (w + v), strict=True))
    assert dict(zip(out["doc_ids"], out["scores"], strict=True)) == pytest.approx(expected, abs=1e-6)
    assert out["scores"] == sorted(out["scores"], reverse=True)


@pytest.mark.parametrize("how", ["z", "min_max"])
def test_scores_that_are_all_equal_say_nothing(how):
    assert scale(np.full(5, 2.5), how).tolist() == [0.0] * 5
    assert scale(np.array([7.0]), how).tolist() == [0.0]


def test_ties_are_ordered_by_doc_id_and_an_empty_row_stays_empty():
    rows = merged(
        MergeConfig(), [row("q", {"b": 1.0, "a": 1.0}), row("r", {})], [row("q", {"b": 2.0, "a": 2.0}), row("r", {})]
    )
    assert rows[0]["doc_ids"] == ["a", "b"]
    assert (rows[1]["doc_ids"], rows[1]["reject"]) == ([], None)


def test_what_a_teacher_lacks_is_left_out_or_rejected():
    first = [row("q", FIRST), row("r", {"a": 1.0}), row("s", None, "no text"), row("t", FIRST)]
    second = [row("q", {"d": 1.0, "a": 0.0}), row("r", {"b": 1.0}), row("s", SECOND), row("t", None, "too long")]
    out = merged(MergeConfig(normalise="none"), first, second)
    assert (out[0]["doc_ids"], out[0]["scores"]) == (["a", "d"], [1.5, 0.0])
    assert [r["reject"] for r in out] == [None, "no document has a score of every teacher", "no text", "too long"]


def test_weights_must_fit():
    members = [{"kind": "bm25"}, {"kind": "bm25", "k1": 2.0}]
    for weights, message in (
        ([1, 2, 3], "3 numbers for 2 teachers"),
        ([0, 0], "not all of them 0"),
        ([1, -1], "at least 0"),
    ):
        with pytest.raises(ValidationError, match=message):
            EnsembleScorer.model_validate({"of": members, "weights": weights})
    with pytest.raises(StepError, match="a weight for each of 1 teachers"):
        merged(MergeConfig(weights=(1.0, 2.0)), [row("q", FIRST)])


def test_a_recipe_names_the_members_and_their_precision_is_resolved():
    written = {
        "kind": "ensemble",
        "of": [{"kind": "cross_encoder", "model": "m", "precision": "auto"}, {"kind": "bm25"}],
        "normalise": "rank",
        "weights": [2, 1],
    }
    scorer = TypeAdapter(Scorer).validate_python(written)
    with pytest.raises(ValidationError, match=r'score\.scorer\.of\.0\.precision = "auto"'):
        ScoreConfig(scorer=scorer, query_lang="en", doc_lang="en")
    resolved = with_precision(scorer, gpus=1)
    assert resolved.of == (CrossEncoderScorer(model="m", precision="fp16"), Bm25Scorer())
    assert with_precision(resolved, gpus=1) is resolved
    assert fingerprint(ScoreConfig(scorer=resolved, query_lang="en", doc_lang="en"))
    with pytest.raises(ValidationError, match="ensemble"):
        EnsembleScorer.model_validate({"of": [written, written]})


class Given(Component):
    """A table that is there already."""

    name: str


def test_the_merge_is_a_step_over_aligned_tables_and_the_loaded_ensemble_agrees(tmp_path):
    texts = {"a": "salt and wool", "b": "the old bridge and the old town", "c": "a bridge", "d": "old wool", "e": "no"}
    docs = table_artifact(
        tmp_path / "docs", DOCS, [{"doc_id": d, "lang": "en", "title": "", "text": t} for d, t in texts.items()]
    )
    of, queries = Collection(docs, "en", "en"), {"q0": "old bridge", "q1": "wool"}
    pairs = np.array([(i, j) for i in range(2) for j in range(5)])
    members = (Bm25Scorer(), Bm25Scorer(k1=3.0, b=1.0))
    root, steps = Place.of(tmp_path / "root"), {}
    for number, member in enumerate(members):
        scores = member.build(of).score(list(queries.values()), list(texts.values()), pairs).reshape(2, 5).tolist()
        rows = [row(q, dict(zip(texts, s, strict=True))) for q, s in zip(queries, scores, strict=True)]
        steps[str(number)] = Step(f"score-{number}", Given, Given(name=str(number)), table=RANKINGS)
        table_artifact((root / steps[str(number)].id).path, RANKINGS, *([r] for r in rows))
    config = MergeConfig(normalise="min_max", weights=(1.0, 2.0))
    merge = Step("score", MergeScores, config, {"scores": steps}, RANKINGS, ("scores.0", "scores.1"))
    (made,) = run_here([merge], root)
    ensemble = EnsembleScorer(of=members, normalise="min_max", weights=(1.0, 2.0)).build(of)
    together = ensemble.score(list(queries.values()), list(texts.values()), pairs).reshape(2, 5)
    for line, expected in zip(made.read().to_pylist(), together.tolist(), strict=True):
        assert dict(zip(line["doc_ids"], line["scores"], strict=True)) == pytest.approx(
            dict(zip(texts, expected, strict=True)), abs=1e-6
        )
