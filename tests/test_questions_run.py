"""Questions in several languages on real Ray: a training on two workers, and a recipe from its data to its matrix."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts import table_artifact
from pipelines.tables import QUERIES
from pipelines.training.config import TrainResources
from test_training import finish, start
from toy import CONFIG, NAMES, STUDENT, foreign, make_inputs, make_loop, make_start, open_corpus

STEPS = 6


def test_two_workers_ask_in_the_languages_that_one_loop_asks_in(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    inputs = make_inputs(tmp_path)
    rows = [
        {"query_id": f"t{form}-{n}", "lang": "xx", "text": f"ж {foreign(name)}", "reject": "bad" if n < 2 else None}
        for form in range(3)
        for n, name in enumerate(NAMES)
    ]
    main = inputs["data"]["main"]
    asked = {"en": main["queries"], "xx": table_artifact(tmp_path / "queries-xx@0", QUERIES, rows)}
    both = {**inputs, "start": make_start(inputs, tmp_path), "data": {"main": {**main, "queries": asked}}}
    changes = {"steps": STEPS, "resources": TrainResources(workers=2, threads=1, cpus=0.5)}
    config = CONFIG.model_copy(update=changes)
    facts = finish(start(config, both, tmp_path / "out"))
    loop = make_loop(config, STUDENT.build(open_corpus(inputs), 0), both)
    shares = [loop.objective.share(number, 0, 1) for number in range(STEPS)]
    assert facts["samples"] == f"{sum(share.digest() for share in shares) % 2**64:016x}"
    counted = sum((share.questions() for share in shares), start=shares[0].questions() - shares[0].questions())
    assert facts["questions"] == {"main": dict(sorted(counted.items()))}
    assert set(counted) == {"en", "xx"}
    assert sum(counted.values()) == STEPS * CONFIG.batch


@pytest.mark.slow
def test_a_recipe_asked_in_two_languages_ends_with_a_matrix(tmp_path):
    sets = [
        "source.territories=12", 'languages.docs=["en", "fa"]', 'languages.query=["en", "fa"]', "train.steps=20",
        "train.student.words=", "evaluate.atlas.query_lang=each", "measure.untrained=false", f"root={tmp_path}",
        "select.index.kind=exact", "select.encoder.model=minilm",
    ]  # fmt: skip

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "pipelines", *words, *(part for value in sets for part in ("--set", value))]
        root = Path(__file__).parents[1]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=500, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    out = run("run", "atlas")
    assert "questions by documents" in out
    assert "share of the first 20 / share of the relevant" in out
    measures = json.loads(run("evaluate", "atlas", "--json"))
    assert set(measures) == {"atlas-en", "atlas-fa"}
    (matrix,) = tmp_path.glob("matrix-atlas-student@*")
    content = json.loads((matrix / "matrix.json").read_text())
    assert content["measures"]["nDCG@20"]["fa"] == {lang: of["nDCG@20"] for lang, of in measures["atlas-fa"].items()}
    (trained,) = tmp_path.glob("train@*")
    facts = json.loads((trained / "manifest.json").read_text())["facts"]
    assert set(facts["questions"]["main"]) == {"en", "fa"}
    (shown,) = json.loads(run("show", "atlas", "evaluate-atlas-fa-student", "--json"))
    assert set(shown["facts"]["fairness"]["languages"]) == {"en", "fa"}
