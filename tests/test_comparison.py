"""What ``babelray evaluate --json`` says, on evaluations that are there already: nothing is run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from artifacts import directory_artifact, table_artifact
from cluster.step import Step
from cluster.storage import Place
from pipelines.__main__ import app
from pipelines.evaluate import evaluate
from pipelines.matrix import build_matrix
from pipelines.tables import QRELS, RANKINGS
from pipelines.terminal import QUIET
from pipelines.verbs import load_plan
from test_recipe import parallel

RANKS = {  # of the relevant document, by its language, for each system and language of the question
    ("student", "xquad-en"): {"en": 1, "de": 3},
    ("student", "xquad-de"): {"en": 1, "de": 2},
    ("bm25", "xquad-en"): {"en": 2, "de": 3},
    ("bm25", "xquad-de"): {"en": 3, "de": 2},
}


def complete(step: Step, root: Place, rank_of: dict[str, int]) -> None:
    """Make an evaluation as the step would, of rankings in which the relevant document has these ranks."""
    inputs: dict = {"rankings": {}, "qrels": {}}
    for lang, rank in rank_of.items():
        docs = ["other", "another", "good"]
        docs.insert(rank - 1, docs.pop())
        found = {"query_id": "q1", "doc_ids": docs, "scores": [3.0 - rank, 2.0 - rank, 1.0 - rank]}
        directory = root.path / "tables" / f"{step.id}-{lang}"
        inputs["rankings"][lang] = table_artifact(directory / "rankings@0", RANKINGS, [found])
        judged = {"query_id": "q1", "doc_id": "good", "relevance": 1}
        inputs["qrels"][lang] = table_artifact(directory / "qrels@0", QRELS, [judged])
    evaluate(step.config, inputs, root / step.id, lambda *a: [])
    directory_artifact(root.path / step.id)


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    """A finished recipe whose set is asked in English and in German, of documents in both."""
    data = tmp_path / "data"
    data.mkdir()
    sets = [
        *parallel(data), f"root={tmp_path}/root", 'languages.docs=["en", "de"]', "evaluate.xquad.query_lang=each",
        "measure.untrained=false", "validate_split=", "train.student.words=",
    ]  # fmt: skip
    plan, root = load_plan("xquad", sets)
    for (name, system), step in plan.evaluations.items():
        complete(step, root, RANKS[system, name])
    for step in plan.matrices.values():
        evaluations = {asked: of.artifact(root) for asked, of in step.inputs["evaluations"].items()}
        build_matrix(step.config, {"evaluations": evaluations}, root / step.id, lambda *a: [])
        directory_artifact(root.path / step.id)
    return [word for override in sets for word in ("--set", override)]


def run_evaluate(*words: str) -> dict:
    done = CliRunner(env=QUIET).invoke(app, ["evaluate", "xquad", "--json", *words])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_set_has_measures_and_the_shares_of_its_languages(sets: list[str]) -> None:
    found = run_evaluate(*sets)["xquad-de"]
    assert list(found) == ["measures", "fairness"]
    assert found["measures"]["en"]["RR@10"] == 1
    assert found["measures"]["de"]["RR@10"] == 0.5
    assert found["fairness"]["k"] == 20
    german = found["fairness"]["languages"]["de"]  # of the pool's first three documents one is German
    assert (german["relevant"], german["found"]) == (0.5, pytest.approx(1 / 3))
    assert german["ratio"] == pytest.approx(2 / 3)
    assert found["fairness"]["peer"] is None  # one relevant document a language


def test_a_set_that_is_asked_in_several_languages_has_a_matrix(sets: list[str]) -> None:
    found = run_evaluate(*sets)
    assert set(found) == {"xquad", "xquad-en", "xquad-de"}
    assert list(found["xquad"]) == ["matrix"]
    assert list(found["xquad"]["matrix"]) == ["nDCG@20", "AP", "R@100", "RR@10"]
    rows = found["xquad"]["matrix"]["RR@10"]
    assert (rows["en"]["de"], rows["de"]["de"]) == (pytest.approx(1 / 3), 0.5)
    assert {asked: set(row) for asked, row in rows.items()} == dict.fromkeys(("en", "de"), {"en", "de", "all"})


def test_the_matrix_is_that_of_the_system_that_is_asked_for(sets: list[str]) -> None:
    found = run_evaluate("--system", "bm25", *sets)["xquad"]["matrix"]["RR@10"]
    expected = {"en": (1 / 2, 1 / 3), "de": (1 / 3, 1 / 2)}
    assert {asked: (row["en"], row["de"]) for asked, row in found.items()} == {
        asked: pytest.approx(row) for asked, row in expected.items()
    }
