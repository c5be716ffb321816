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


@pytest.mark.slow
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


TOWNS = {"Altdorf": "Altdorf", "Bergheim": "Bergheim", "Vienna": "Wien", "Munich": "München", "Cologne": "Köln"}
GOODS = {"salt": "Salz", "cloth": "Tuch", "bread": "Brot", "horses": "Pferde", "silver": "Silber", "wine": "Wein"}


def write_collection(folder: Path) -> None:
    """Thirty passages and a question about each, in English and in German; a fifth of the towns for dev and test."""
    lines: dict[str, list[str]] = {}
    for town, stadt in TOWNS.items():
        for goods, ware in GOODS.items():
            name, split = f"{town}-{goods}", {"Vienna": "dev", "Munich": "test"}.get(town, "train")
            for file, line in {
                "collection.en.tsv": f"{name}\tThe merchants of {town} sold {goods} at the market every spring.",
                "collection.de.tsv": f"{name}\tDie Händler von {stadt} verkauften {ware} jeden Frühling auf dem Markt.",
                "queries.en.tsv": f"q-{name}\twho sold {goods} in {town}?",
                "queries.de.tsv": f"q-{name}\twer verkaufte {ware} in {stadt}?",
                "qrels.tsv": f"q-{name} 0 {name} 1",
                "groups.tsv": f"{name}\t{town}\nq-{name}\t{town}",
                "splits/fold0.tsv": f"q-{name}\t{split}",
            }.items():
                lines.setdefault(file, []).append(line)
    (folder / "splits").mkdir(parents=True)
    for file, of in lines.items():
        (folder / file).write_text("\n".join(of) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_a_recipe_asked_in_two_languages_ends_with_a_matrix(tmp_path):
    write_collection(tmp_path / "data")
    sets = [
        f"source.path={tmp_path}/data", f"root={tmp_path}/root", 'languages.docs=["en", "de"]',
        'languages.query=["en", "de"]', "evaluate.xquad.query_lang=each", "measure.untrained=false", "select.k=12",
        "train.pool=12", "train.ways=3", "train.steps=6", "train.batch=8", "train.warmup=2", "train.student.words=",
        "index.kind=exact", "score.scorer.kind=bm25",
    ]  # fmt: skip

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "pipelines", *words, *(part for value in sets for part in ("--set", value))]
        checkout = Path(__file__).parents[1]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, timeout=500, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    out = " ".join(run("run", "xquad").split())  # titles of narrow tables are broken into lines
    assert "question by documents" in out
    assert "share of the first 20 / share of the relevant" in out
    measures = json.loads(run("evaluate", "xquad", "--json"))
    assert set(measures) == {"xquad-en", "xquad-de", "xquad"}
    root = tmp_path / "root"
    (matrix,) = root.glob("matrix-xquad-student@*")
    content = json.loads((matrix / "matrix.json").read_text())
    for asked in ("en", "de"):
        expected = {lang: of["nDCG@20"] for lang, of in measures[f"xquad-{asked}"]["measures"].items()}
        assert content["measures"]["nDCG@20"][asked] == measures["xquad"]["matrix"]["nDCG@20"][asked] == expected
        assert expected[asked] > 0.5
    (trained,) = root.glob("train@*")
    facts = json.loads((trained / "manifest.json").read_text())["facts"]
    assert set(facts["questions"]["main"]) == {"en", "de"}
    assert sum(facts["questions"]["main"].values()) == 6 * 8
    (shown,) = json.loads(run("show", "xquad", "evaluate-xquad-de-student", "--json"))
    assert set(shown["facts"]["fairness"]["languages"]) == {"en", "de"}
