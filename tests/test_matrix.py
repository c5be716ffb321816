"""Sets that are asked in several languages: their plan, the matrix of languages, its page and its picture."""

import io
import json

import pytest
from rich.console import Console

from artifacts import directory_artifact, table_artifact
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.costs.quantities import measure
from pipelines.costs.sizes import find_size
from pipelines.evaluate import EvaluateConfig, evaluate
from pipelines.language_pages import fairness_page, questions_page
from pipelines.matrix import MatrixConfig, build_matrix, column_means, read_matrix, split_means
from pipelines.plan import STUDENT, plan
from pipelines.plan.calibration import find_searches
from pipelines.recipe import load
from pipelines.tables import QRELS, RANKINGS
from test_recipe import parallel

QUESTIONS = 4
RANK = {("en", "en"): 1, ("en", "de"): 2, ("de", "en"): 3, ("de", "de"): 1, ("sw", "en"): 4, ("sw", "de"): 4}


def evaluation(root, asked):
    """What *evaluate* makes of four questions in one language: the relevant document is at ``RANK``, in English and in
    German."""
    inputs = {"rankings": {}, "qrels": {}}
    for lang in ("en", "de"):
        rank = RANK[asked, lang]
        docs = [f"other{n}" for n in range(1, 6)]
        docs.insert(rank - 1, "good")
        rows = [{"query_id": f"q{q}", "doc_ids": docs, "scores": [6.0 - n for n in range(6)]} for q in range(QUESTIONS)]
        inputs["rankings"][lang] = table_artifact(root / f"rankings-{asked}-{lang}@0", RANKINGS, rows)
        qrels = [{"query_id": f"q{q}", "doc_id": "good", "relevance": 1} for q in range(QUESTIONS)]
        inputs["qrels"][lang] = table_artifact(root / f"qrels-{lang}@0", QRELS, qrels)
    out = Place.of(root / f"evaluate-{asked}@0")
    evaluate(EvaluateConfig(name="toy", measures=("RR@10", "R@100")), inputs, out, lambda *a: [])
    return directory_artifact(root / f"evaluate-{asked}@0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The artifact of the step *matrix*, and its facts."""
    root = tmp_path_factory.mktemp("matrix")
    evaluations = {asked: evaluation(root, asked) for asked in ("en", "de", "sw")}
    out = Place.of(root / "matrix@0")
    facts = build_matrix(MatrixConfig(name="toy"), {"evaluations": evaluations}, out, lambda *a: [])
    return directory_artifact(root / "matrix@0"), facts


def test_the_matrix_holds_each_measure_and_the_means_of_its_diagonal_and_of_the_rest(made):
    artifact, facts = made
    content = read_matrix(artifact)
    assert list(content["measures"]) == ["RR@10", "R@100"]
    matrix = content["measures"]["RR@10"]
    for (asked, lang), rank in RANK.items():
        assert matrix[asked][lang] == pytest.approx(1 / rank)
    assert matrix["en"]["all"] == pytest.approx(1 / 2)  # behind de:other1, which has the same score
    assert facts["own"] == pytest.approx(1)  # Swahili has no documents, and no cell on the diagonal
    assert facts["across"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 1 / 4) / 4)
    assert facts["pool"] == pytest.approx(sum(row["all"] for row in matrix.values()) / 3)
    assert column_means(matrix)["en"] == pytest.approx((1 + 1 / 3 + 1 / 4) / 3)
    assert split_means({"sw": {"en": 0.5, "all": 0.4}}) == {"own": None, "across": 0.5, "pool": 0.4}
    assert (artifact.place / "matrix.png").read().startswith(b"\x89PNG")
    assert content["fairness"]["de"]["languages"]["de"]["relevant"] == 0.5
    assert content["fairness"]["de"]["k"] == 10


def shown(page):
    console = Console(file=io.StringIO(), width=120, highlight=False)
    console.print(page)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_the_page_has_a_row_for_each_question_language_and_their_mean(made):
    content = read_matrix(made[0])
    worse = json.loads(json.dumps(content))
    worse["measures"]["RR@10"]["de"]["all"] = 0.25
    cells = shown(questions_page("toy", {"student": content, "bm25": worse}, "student"))
    assert ["toy:", "RR@10", "of", "the", "pool"] in cells
    assert ["de", "German", "1.000", "0.250"] in cells
    assert ["own", "language", "1.000", "1.000"] in cells
    assert ["de", "German", "0.333", "1.000", "1.000"] in cells  # the matrix: en, de, all
    assert any(row[0] == "mean" and len(row) == 4 for row in cells)
    assert ["de", "German", "1.00", "1.00", "–"] in cells  # shares: three of each; no PEER


def test_the_page_of_fairness_gives_shares_with_their_ratio(made):
    fairness = read_matrix(made[0])["fairness"]["de"]
    fairness = {**fairness, "peer": 0.25, "languages": {**fairness["languages"], "fr": fairness["languages"]["en"]}}
    cells = shown(fairness_page("toy", {"student": fairness}))
    assert ["toy:", "languages", "of", "the", "first", "10", "of", "the", "pool"] in cells
    assert ["en", "English", "0.500", "0.500", "×", "1.00"] in cells
    assert ["PEER", "0.250"] in cells


def test_a_set_that_is_asked_in_each_language_has_an_evaluation_for_each_and_one_matrix(tmp_path):
    sets = parallel(tmp_path)
    once, each = plan(load("xquad", sets)), plan(load("xquad", [*sets, "evaluate.xquad.query_lang=each"]))
    langs = each.recipe.languages.docs
    assert list(each.collections) == [f"xquad-{lang}" for lang in langs]
    for lang in langs:
        step = each.evaluations[f"xquad-{lang}", STUDENT]
        assert step.parents["rankings.zh"].parents["rows"].parents["rows"].config.lang == lang
        assert step.name == f"evaluate-xquad-{lang}-student"
    matrix = each.matrices["xquad", STUDENT]
    assert list(matrix.inputs["evaluations"]) == list(langs)
    assert matrix in each.targets
    assert not once.matrices
    assert {step.id for step in once.steps if not step.name.startswith("evaluate-")} <= {s.id for s in each.steps}
    assert len({index.id for index in each.indexes.values()}) == len({i.id for i in once.indexes.values()})
    found = find_searches(each)
    assert list(found) == list(langs)
    amounts = measure(each.steps, lambda step: find_size(step, Place.of(tmp_path), {}))
    assert amounts[matrix.id].units == len(langs)


def test_question_languages_may_be_a_list_and_names_may_not_collide(tmp_path):
    sets = parallel(tmp_path)
    two = plan(load("xquad", [*sets, 'evaluate.xquad.query_lang=["de", "zh"]']))
    assert list(two.collections) == ["xquad-de", "xquad-zh"]
    assert list(two.collections["xquad-de"].docs) == list(two.recipe.languages.docs)
    few = plan(load("xquad", [*sets, "evaluate.xquad.query_lang=each", 'evaluate.xquad.languages=["de", "zh"]']))
    assert list(few.collections) == ["xquad-de", "xquad-zh"]
    one = plan(load("xquad", [*sets, "evaluate.xquad.query_lang=de"]))
    assert list(one.collections) == ["xquad"]
    assert one.collections["xquad"].queries.config.lang == "de"
    with pytest.raises(RecipeError, match=r"evaluate\.xquad\.query_lang makes the set xquad-de"):
        plan(load("xquad", [*sets, "evaluate.xquad.query_lang=each", "evaluate.xquad-de.split=dev"]))
