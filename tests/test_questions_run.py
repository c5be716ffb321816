"""Questions in several languages on real Ray: a recipe from its data to its matrix."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
