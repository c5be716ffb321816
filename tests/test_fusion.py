"""Fusion of rankings: by hand, against a naive oracle, as steps of a plan, and learnt weights."""

import json
import random
from pathlib import Path

import pytest

from artifacts import directory_artifact, table_artifact
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.fuse import Fuse, FuseConfig, LearnConfig, learn_weights, list_weights
from pipelines.fusion import Fusion, fuse
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.search import pool
from pipelines.tables import QRELS, RANKINGS

SMALL = ["source.territories=12"]
BOTH = 'systems.both={fuse=["student", "bm25"]}'
ONE = [("a", 9.0), ("b", 5.0), ("c", 1.0)]
TWO = [("c", 0.4), ("d", 0.2)]


def test_ranks_by_hand():
    expected = {"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62}
    assert fuse([ONE, TWO], Fusion()) == [(name, pytest.approx(expected[name])) for name in ("c", "a", "b", "d")]
    weighted = dict(fuse([ONE, TWO], Fusion(k=1, weights=(1.0, 3.0))))
    assert weighted == pytest.approx({"a": 1 / 2, "b": 1 / 3, "c": 1 / 4 + 3 / 2, "d": 3 / 3})


def test_scores_by_hand():
    found = fuse([ONE, TWO], Fusion(kind="scores", weights=(3, 1)))
    assert found == [("a", 0.75), ("b", 0.375), ("c", 0.25), ("d", 0.0)]
    assert fuse([[("a", 2.0)], []], Fusion(kind="scores")) == [("a", 0.5)]
    assert fuse([[("b", 2.0), ("a", 2.0)]], Fusion(kind="scores")) == [("a", 1.0), ("b", 1.0)]


def naive(rankings, k):
    names = {name for ranking in rankings for name, _ in ranking}
    places = [[name for name, _ in ranking] for ranking in rankings]
    scores = {name: sum(1 / (k + p.index(name) + 1) for p in places if name in p) for name in names}
    return sorted(scores, key=lambda name: (-scores[name], name))


@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_those_of_a_naive_loop(seed):
    dice = random.Random(seed)
    rankings = []
    for _ in range(dice.randint(1, 4)):
        names = dice.sample(range(40), dice.randint(0, 30))
        rankings.append([(f"d{name:02}", -float(at)) for at, name in enumerate(names)])
    assert [name for name, _ in fuse(rankings, Fusion(k=7))] == naive(rankings, 7)


def write_rankings(root, tables):
    """Artifacts of rankings by system and language."""
    inputs = {}
    for (system, lang), rankings in tables.items():
        rows = [
            {"query_id": query, "doc_ids": [name for name, _ in hits], "scores": [score for _, score in hits]}
            for query, hits in rankings.items()
        ]
        inputs.setdefault(system, {})[lang] = table_artifact(root / f"{system}-{lang}@0", RANKINGS, rows)
    return inputs


FOUND = {
    ("student", "de"): {"q": [("x", 8.0), ("y", 2.0)], "r": [("y", 3.0)]},
    ("student", "en"): {"q": [("x", 9.0), ("z", 5.0)], "r": [("x", 2.0)]},
    ("bm25", "de"): {"q": [], "r": [("x", 1.0)]},
    ("bm25", "en"): {"q": [("z", 7.0), ("x", 6.0)], "r": []},
}


def test_the_languages_of_a_fused_system_pool_to_the_fusion_of_the_pools():
    tables = tuple(FOUND)
    for fusion in (Fusion(), Fusion(kind="scores", weights=(0.3, 0.7))):
        fused = {}
        for lang in ("de", "en"):
            rows = [RANKINGS.of([_row(query, FOUND[key][query]) for query in ("q", "r")]) for key in tables]
            work = Fuse(FuseConfig(lang=lang, tables=tables, fusion=fusion), {})
            fused[lang] = RANKINGS.conform(work(*rows)).to_pylist()
        for at, query in enumerate(("q", "r")):
            by_lang = {
                lang: list(zip(rows[at]["doc_ids"], rows[at]["scores"], strict=True)) for lang, rows in fused.items()
            }
            pools = [
                pool({lang: FOUND[system, lang][query] for lang in ("de", "en")}, 9) for system in ("student", "bm25")
            ]
            assert pool(by_lang, 9) == [(name, pytest.approx(score, rel=1e-6)) for name, score in fuse(pools, fusion)]


def _row(query, hits):
    return {"query_id": query, "doc_ids": [name for name, _ in hits], "scores": [score for _, score in hits]}


def test_a_rejected_query_stays_rejected_and_depth_is_cut():
    tables = (("student", "de"), ("bm25", "de"))
    good = RANKINGS.of([_row("q", [("x", 2.0), ("y", 1.0)]), {"query_id": "r", "reject": "no text"}])
    other = RANKINGS.of([_row("q", [("z", 2.0)]), _row("r", [("z", 2.0)])])
    rows = Fuse(FuseConfig(lang="de", tables=tables, k=2), {})(good, other).to_pylist()
    assert rows[0]["doc_ids"] == ["x", "z"]
    assert rows[1]["reject"] == "no text"


def test_weights_are_those_of_the_grid_that_rank_best(tmp_path):
    """The system ``bad`` finds the relevant document last, ``good`` first; with little weight it cannot do harm."""
    tables = {
        ("bad", "en"): {"q": [("w", 2.0), ("v", 1.0), ("x", 0.0)]},
        ("good", "en"): {"q": [("x", 2.0), ("v", 1.0), ("w", 0.0)]},
    }
    qrels = {"en": table_artifact(tmp_path / "qrels@0", QRELS, [{"query_id": "q", "doc_id": "x", "relevance": 1}])}
    inputs = {"rankings": write_rankings(tmp_path, tables), "qrels": qrels}
    config = LearnConfig(tables=tuple(tables), fusion=Fusion(kind="scores"), measure="RR@10")
    out = tmp_path / "weights@0"
    facts = learn_weights(config, inputs, Place.of(out), lambda *_: [])
    assert facts["weights"] == [0.4, 0.6]  # of those that put x first, the most even
    assert json.loads((out / "weights.json").read_text()) == facts
    by_weights = {tuple(one["weights"]): one["value"] for one in facts["tried"]}
    assert len(by_weights) == 11
    assert (by_weights[1.0, 0.0], by_weights[0.0, 1.0], by_weights[0.4, 0.6]) == (pytest.approx(1 / 3), 1, 1)
    rows = [RANKINGS.of([_row("q", tables[key]["q"])]) for key in tables]
    work = Fuse(
        FuseConfig(lang="en", tables=tuple(tables), fusion=config.fusion), {"weights": directory_artifact(out, facts)}
    )
    assert work.fusion.weights == (0.4, 0.6)
    assert work(*rows).to_pylist()[0]["doc_ids"][0] == "x"


def test_the_grid_has_all_tenths():
    assert len(list_weights(2)) == 11
    assert len(list_weights(3)) == 66
    assert all(sum(weights) == pytest.approx(1) for weights in list_weights(3))


def test_a_fused_system_is_planned_from_the_rankings_of_its_members():
    made = plan(load("atlas", [*SMALL, BOTH, 'systems.sharp={fuse=["both","untrained"], fusion={weights="learn"}}']))
    steps = {step.name: step for step in made.steps}
    fused = steps["fuse-both-fa"]
    assert fused.rows[0] == "rankings.student.en"
    assert len(fused.rows) == 2 * len(made.recipe.languages.docs)
    assert fused.parents["rankings.bm25.fa"].id in {step.id for step in made.steps if step.name == "search-bm25-fa"}
    assert "evaluate-atlas-both" in steps
    assert ("atlas", "both") not in made.indexes
    weights = steps["weights-sharp"]
    assert steps["fuse-sharp-fa"].parents["weights"].id == weights.id
    assert weights.parents["qrels.fa"].config.split == "dev"
    before = {step.id for step in plan(load("atlas", SMALL)).steps}
    assert before <= {step.id for step in made.steps}  # nothing that was made is made anew


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ('systems.x={fuse=["student", "y"]}', r"systems\.x\.fuse has y: expected systems above it, student, bm25"),
        ('systems.x={fuse=["student"]}', "expected two different systems or more"),
        ('systems.x={fuse=["student", "bm25"], docs_in="en"}', "leave out the other keys"),
        ('systems.x={fuse=["student", "bm25"], fusion={weights=[1]}}', "expected 2, one for each of student, bm25"),
        ('systems.x={fuse=["student", "bm25"], fusion={weights=[0, 0]}}', "not all of them 0"),
        ('systems.x={index={kind="bm25"}, fusion={k=3}}', "add fuse"),
        ('serve.hybrid={like="bm25"}', r"serve\.hybrid\.like = 'bm25': expected a system of this recipe with fuse"),
        ("serve.hybrid={weights=[1, 2, 3]}", r"serve\.hybrid\.weights = .*one for each of student, bm25"),
        ('serve.hybrid={system="untrained"}', r"serve\.hybrid\.system = 'untrained': .*, bm25"),
        ('serve.rerank={scorer={kind="bm25"}}', "expected cross_encoder, monot5 or dense"),
        ('serve.rerank={scorer={kind="dense", recipe="xquad"}}', r"rerank\.scorer\.recipe"),
    ],
)
def test_what_cannot_be_fused_names_the_key(key: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load("atlas", [key])


def test_a_recipe_without_words_names_the_key_that_it_lacks() -> None:
    with pytest.raises(
        RecipeError, match=r"serve\.hybrid\.system = 'bm25'.*this recipe has none: set measure\.bm25 = true"
    ):
        load("atlas", ["measure.bm25=false", "serve.hybrid.depth=50"])


def test_learnt_weights_need_dev_questions(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"systems\.x\.fusion\.weights = .*set validate_split"):
        load(
            "serve-model", [f"source.path={tmp_path}", 'systems.x={fuse=["student", "bm25"], fusion={weights="learn"}}']
        )


def test_an_index_of_words_is_made_for_the_server_of_a_recipe_that_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The ruble is the currency of Russia.")
    made = plan(load("serve-model", [f"source.path={tmp_path}", "serve.hybrid.depth=50"]))
    assert {system for _, system in made.indexes} == {"student", "bm25"}
