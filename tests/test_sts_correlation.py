"""Correlations and their intervals against scipy; the step *correlate* on a small student; two systems compared."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from artifacts import directory_artifact, table_artifact
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.correlate import CorrelateConfig, correlate_pairs, read_intervals
from pipelines.correlation import MEASURES, bootstrap, correlate, influence, percentiles
from pipelines.evaluate import read_measures
from pipelines.experiment.report import ReportConfig, TrialKey, read_scores
from pipelines.experiment.scores import summarise
from pipelines.language_pages import correlation_page
from pipelines.significance import compare
from pipelines.students import load_encoder
from pipelines.tables import PAIRS
from toy_pairs import LANGS, PLAIN, make_pair_start, make_pairs

SCIPY = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def draw(n, seed=0, noise=1.5):
    """Values and gold scores with ties on both sides."""
    random = np.random.default_rng(seed)
    gold = np.round(random.uniform(0, 5, n) * 5) / 5
    return np.round(gold + random.normal(0, noise, n), 1), gold


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n", [3, 30, 400])
def test_a_correlation_is_that_of_scipy(measure, n):
    values, gold = draw(n)
    assert correlate(measure, values, gold) == pytest.approx(SCIPY[measure](values, gold)[0], abs=1e-12)
    assert np.isnan(correlate(measure, np.full(n, 0.3), gold))


@pytest.mark.parametrize("measure", MEASURES)
def test_the_influence_of_a_pair_is_that_of_leaving_it_out(measure):
    """The mean is the correlation itself; the values are those of the jackknife, which takes n correlations."""
    values, gold = draw(300)
    found, whole = influence(measure, values, gold), correlate(measure, values, gold)
    assert found.mean() == pytest.approx(whole, abs=1e-12)
    n = len(gold)
    left_out = [SCIPY[measure](np.delete(values, i), np.delete(gold, i))[0] for i in range(n)]
    jackknife = n * whole - (n - 1) * np.array(left_out)
    assert np.abs(found - jackknife).max() < 0.02 * np.ptp(jackknife)


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_are_those_of_scipys_bootstrap(measure):
    values, gold = draw(120)
    low, high = percentiles(bootstrap(measure, [values], gold)[:, 0])
    other = stats.bootstrap(
        (values, gold), lambda a, b: SCIPY[measure](a, b)[0], paired=True, vectorized=False, n_resamples=1000,
        method="percentile", rng=np.random.default_rng(1),
    )  # fmt: skip
    assert (low, high) == pytest.approx(tuple(other.confidence_interval), abs=0.02)
    random = np.random.default_rng(3)
    picked = np.repeat(np.arange(120), random.multinomial(120, np.full(120, 1 / 120)))
    again = bootstrap(measure, [values, values[::-1]], gold)
    assert again[:, 0] == pytest.approx(bootstrap(measure, [values], gold)[:, 0])  # the same resamples for each column
    assert correlate(measure, values[picked], gold[picked]) == pytest.approx(
        SCIPY[measure](values[picked], gold[picked])[0]
    )


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """The t interval of influences, as experiments have it: of 300 samples from a normal pair with r = 0.6."""
    random, n, covered = np.random.default_rng(5), 200, 0
    for _ in range(300):
        gold = random.normal(size=n)
        values = 0.6 * gold + 0.8 * random.normal(size=n)
        found = influence("pearson", values, gold)
        half = 1.972 * found.std(ddof=1) / n**0.5
        covered += abs(found.mean() - 0.6) < half
    assert 0.90 < covered / 300 < 0.98


def here(label, work, arguments, units):
    """The units of a step, in this process."""
    built = work(**arguments)
    return [built(unit) for unit in units]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("correlate")


@pytest.fixture(scope="module")
def inputs(root):
    inputs = make_pairs(root)
    return {"student": make_pair_start(inputs, root, PLAIN), "pairs": inputs["dev"]["pairs"]}


@pytest.fixture(scope="module")
def made(root, inputs, one_thread):
    """The artifact of the step *correlate*, and its facts."""
    config = CorrelateConfig(name="toy", checkpoint="start")
    facts = correlate_pairs(config, inputs, Place.of(root / "correlate@0"), here)
    return directory_artifact(root / "correlate@0"), facts


@pytest.fixture(scope="module")
def expected(inputs):
    """Cosines by the languages of the two sentences, of vectors that the student makes one sentence at a time."""
    student = load_encoder(inputs["student"].place.path / "start", "cpu")
    rows = {lang: of.read().to_pylist() for lang, of in inputs["pairs"].items()}
    sides = {
        (lang, side): [student.encode_queries([row[side]])[0][0] for row in of]
        for lang, of in rows.items()
        for side in ("left", "right")
    }
    gold = [row["score"] for row in rows["en"]]
    cosines = {
        (a, b): [round(float(x @ y), 6) for x, y in zip(sides[a, "left"], sides[b, "right"], strict=True)]
        for a in LANGS
        for b in LANGS
    }
    return gold, cosines


def test_the_step_measures_each_pair_of_languages_and_their_means(made, expected):
    artifact, facts = made
    gold, cosines = expected
    measures = read_measures(artifact)
    assert facts["measures"] == measures
    assert list(measures)[:3] == ["all", "mono", "cross"]
    assert set(measures) - {"all", "mono", "cross"} == {a if a == b else f"{a}/{b}" for a in LANGS for b in LANGS}
    for name in MEASURES:
        of = {pair: SCIPY[name](values, gold)[0] for pair, values in cosines.items()}
        for (a, b), value in of.items():
            assert measures[a if a == b else f"{a}/{b}"][name] == pytest.approx(value, abs=1e-5)
        assert measures["all"][name] == pytest.approx(np.mean(list(of.values())), abs=1e-5)
        assert measures["mono"][name] == pytest.approx(np.mean([of[a, a] for a in LANGS]), abs=1e-5)
        assert measures["cross"][name] == pytest.approx(np.mean([v for (a, b), v in of.items() if a != b]), abs=1e-5)
    intervals = read_intervals(artifact)
    for row, of_row in measures.items():
        for name, value in of_row.items():
            low, high = intervals[row][name]
            assert low < value < high
    matrix = json.loads((artifact.place / "matrix.json").read())["measures"]["pearson"]
    assert matrix["de"]["ru"] == measures["de/ru"]["pearson"]
    assert matrix["ru"]["de"] == measures["ru/de"]["pearson"]
    assert (artifact.place / "matrix.png").read().startswith(b"\x89PNG")
    similarities = pq.read_table(artifact.directory() / "similarities.parquet").to_pylist()
    assert len(similarities) == 9 * len(gold)
    of_pair = [row["similarity"] for row in similarities if (row["left"], row["right"]) == ("de", "ru")]
    assert of_pair == pytest.approx(cosines["de", "ru"], abs=1e-5)


def test_experiments_and_comparisons_read_the_values_of_pairs(made, root, inputs):
    """Their means are the correlations; equal systems do not differ, and another student does."""
    artifact, facts = made
    trial = ReportConfig(name="x", measures=("pearson",), trials=(TrialKey(variant="zero-shot"),))
    cells = summarise(list(read_scores(trial, {"toy": {"0": artifact}})))
    assert {cell.lang: cell.mean for cell in cells} == pytest.approx(
        {row: of["pearson"] for row, of in facts["measures"].items()}
    )
    assert all(cell.low < cell.mean < cell.high for cell in cells)
    same = compare(artifact.directory(), artifact.directory())
    assert {row.difference for row in same} == {0.0}
    config = CorrelateConfig(name="toy", model="minilm")
    correlate_pairs(config, {"pairs": inputs["pairs"]}, Place.of(root / "other@0"), here)
    other = directory_artifact(root / "other@0")
    rows = {(row.lang, row.measure): row for row in compare(other.directory(), artifact.directory())}
    for (lang, measure), row in rows.items():
        assert row.a == pytest.approx(read_measures(other)[lang][measure])
        assert row.difference == pytest.approx(row.a - row.b)
        assert row.queries == 24


def test_the_page_shows_systems_beside_each_other_and_the_matrix(made):
    artifact, facts = made
    worse = {row: {m: value - 0.1 for m, value in of.items()} for row, of in facts["measures"].items()}
    systems = {"student": facts["measures"], "untrained": worse}
    intervals = dict.fromkeys(systems, read_intervals(artifact))
    console = Console(file=io.StringIO(), width=140, highlight=False)
    console.print(correlation_page("toy", systems, intervals, "student"))
    shown = console.file.getvalue()
    (whole,) = [
        line for line in shown.splitlines() if "pearson" not in line and "all languages" in line and "[" in line
    ]
    low, high = read_intervals(artifact)["all"]["pearson"]
    assert whole.split()[2:5] == [f"{facts['measures']['all']['pearson']:.3f}", f"[{low:.3f},", f"{high:.3f}]"]
    assert "across languages" in shown
    assert "ru  Russian" in shown
    assert f"{facts['measures']['de/ru']['pearson']:.3f}" in shown


def test_pairs_that_cannot_be_correlated_are_an_error(root, inputs, tmp_path):
    equal = [{"pair_id": f"p{n}", "lang": "en", "left": f"a{n}", "right": "b", "score": 2.0} for n in range(5)]
    config = CorrelateConfig(name="toy", checkpoint="start")
    flat = {"student": inputs["student"], "pairs": {"en": table_artifact(root / "flat@0", PAIRS, equal)}}
    with pytest.raises(StepError, match=r"flat@0: a correlation needs at least 3 pairs whose scores are not all equal"):
        correlate_pairs(config, flat, Place.of(tmp_path / "flat"), here)
    mixed = {**inputs, "pairs": {**inputs["pairs"], "fr": flat["pairs"]["en"]}}
    with pytest.raises(StepError, match=r"flat@0 and dev-de@0 hold different pairs"):
        correlate_pairs(config, mixed, Place.of(tmp_path / "mixed"), here)
    one = [{**row, "left": "oslo", "right": "oslo", "score": float(n)} for n, row in enumerate(equal)]
    blind = {"student": inputs["student"], "pairs": {"en": table_artifact(root / "blind@0", PAIRS, one)}}
    with pytest.raises(StepError, match=r"all cosines of en with en are 1\.000"):
        correlate_pairs(config, blind, Place.of(tmp_path / "blind"), here)
