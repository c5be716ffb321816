"""Questions that are asked in several languages: each is one question of an experiment."""

from pathlib import Path

import numpy as np
import pytest

from cluster.artifact import Artifact
from cluster.errors import StepError
from pipelines.experiment.claims import Claim
from pipelines.experiment.config import Experiment
from pipelines.experiment.plan import plan_experiment
from pipelines.experiment.report import ReportConfig, TrialKey, analyse, read_scores
from tests.test_experiment import write_evaluation
from tests.test_recipe import parallel


def test_a_question_that_is_asked_in_several_languages_is_one_question(tmp_path: Path) -> None:
    """Its value is the mean over the languages, so that what is the same thrice is no sample of three."""
    random = np.random.default_rng(0)
    keys = [TrialKey(variant=variant, fold=fold) for variant in ("good", "bad") for fold in ("0", "1")]
    config = ReportConfig(
        name="asked",
        measures=("nDCG@20",),
        trials=tuple(keys),
        asked_of={f"lareqa-{lang}": "lareqa" for lang in ("ar", "de", "el")},
        compare=(Claim(name="better", a="good", b="bad"),),
    )
    evaluations: dict[str, dict[str, Artifact]] = {}
    expected: dict[tuple[str, str], float] = {}
    for number, key in enumerate(keys):
        of_question = random.uniform(0.4, 0.6, 20) + (0.05 if key.variant == "good" else 0.0)
        for shift, name in zip((-0.1, 0.0, 0.4), config.asked_of, strict=True):
            values = {f"q{n}": float(value) + shift for n, value in enumerate(of_question)}
            made = write_evaluation(tmp_path / f"{name}@{number}", {"all": values})
            evaluations.setdefault(name, {})[str(number)] = made
        expected |= {(key.variant, f"{key.fold}/q{n}"): value + 0.1 for n, value in enumerate(of_question)}
    found = {
        (one.variant, question): value
        for one in read_scores(config, evaluations)
        for question, (value,) in one.values.items()
    }
    assert found == pytest.approx(expected)
    (verdict,) = analyse(config, list(read_scores(config, evaluations)), ()).verdicts
    assert verdict.n == 40

    another = write_evaluation(tmp_path / "another", {"all": {"q0": 0.5}})  # asked in Arabic, of 20 questions one
    wrong = {**evaluations, "lareqa-ar": {**evaluations["lareqa-ar"], "2": another}}
    with pytest.raises(StepError, match=r"bad, nDCG@20 in all, question 0/q1: .*lareqa-ar.*got lareqa-de, lareqa-el"):
        list(read_scores(config, wrong))


def test_the_plan_says_which_sets_ask_the_same_questions(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    experiment = Experiment(name="x", base="xquad", set={"evaluate.xquad.query_lang": ["en", "de"]}, variants={"a": {}})
    assert plan_experiment(experiment, sets).report.config.asked_of == {"xquad-de": "xquad", "xquad-en": "xquad"}
    experiment = Experiment(name="x", base="xquad", variants={"a": {}})
    assert plan_experiment(experiment, sets).report.config.asked_of == {}
    own = {f"evaluate.own-{lang}": {"split": "test", "languages": [lang], "query_lang": lang} for lang in ("de", "es")}
    own["evaluate.dev"] = {"split": "dev", "languages": ["de"], "query_lang": "es"}
    experiment = Experiment(name="x", base="xquad", set=own, sets=["own-de", "own-es", "dev"], variants={"a": {}})
    assert plan_experiment(experiment, sets).report.config.asked_of == {"own-de": "own-de", "own-es": "own-de"}
