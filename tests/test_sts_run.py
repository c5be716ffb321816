"""Recipes of sentence pairs on real Ray: from files to correlations, by plain training and by MAML-Align."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.verbs import load_plan
from toy_pairs import LANGS, write_pairs

SETS = (
    f"languages.docs={list(LANGS)}", "train.steps=4", "train.warmup=0", "train.batch=4", "train.validation.every=2",
    "resources.start.cpus=1", "resources.encode.cpus=1",
)  # fmt: skip

BASE = '{kind="scratch", vocabulary=200, hidden=32, layers=1, heads=2, positions=128, dropout=0.0}'
META_SETS = (
    f"train.student.base={BASE}", 'train.meta.tasks=["en_en-en_de-en_de,en,ru", "de_de-de_ru-de_ru,de,en"]',
    "train.warmup=0", "train.steps=2", "train.validation.every=2", f"languages.docs={list(LANGS)}",
)  # fmt: skip


def babelray(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words], capture_output=True, text=True, timeout=600,
        cwd=Path(__file__).parents[1], env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_collection_of_pairs_is_run_and_evaluated(tmp_path: Path) -> None:
    sets = [f"source.path={write_pairs(tmp_path / 'files')}", f"root={tmp_path / 'root'}", *SETS]
    flags = [word for one in sets for word in ("--set", one)]
    shown = babelray("run", "sts-small", *flags)
    assert "within a language" in shown
    assert "serve" not in shown  # there is nothing to serve
    plan, root = load_plan("sts-small", sets)
    facts = plan.training.train.artifact(root).manifest.facts
    assert facts["steps"] == 4
    assert sum(facts["questions"]["main"].values()) == sum(facts["passages"]["main"].values()) == 16
    assert -1 <= facts["best_Pearson"] <= 1
    assert (root / plan.training.train.id / "validation.tsv").read().startswith(b"step\tPearson\tseconds\n0\t")
    assert plan.pairs["sts"]["ru"].artifact(root).rows == 30
    both = {of: json.loads(babelray("evaluate", "sts-small", "--system", of, "--json", *flags))["sts"]["measures"]
            for of in ("student", "untrained")}  # fmt: skip
    assert both["student"] != both["untrained"]
    assert both["student"] == plan.correlations["sts", "student"].artifact(root).manifest.facts["measures"]
    assert set(both["student"]) == {"all", "mono", "cross"} | {
        a if a == b else f"{a}/{b}" for a in LANGS for b in LANGS
    }


@pytest.mark.slow
def test_a_meta_training_of_pairs_is_run_and_evaluated(tmp_path: Path) -> None:
    sets = [f"source.path={write_pairs(tmp_path / 'files')}", f"root={tmp_path / 'root'}", *META_SETS]
    shown = babelray("run", "maml-align-sts-small", *(word for one in sets for word in ("--set", one)))
    assert "across languages" in shown
    plan, root = load_plan("maml-align-sts-small", sets)
    facts = plan.training.train.artifact(root).manifest.facts
    assert facts["steps"] == 2
    losses = [
        float(line.split("\t")[1])
        for line in (root / plan.training.train.id / "losses.tsv").read().decode().splitlines()[1:]
    ]
    assert len(losses) == 2
    assert plan.correlations["sts", "student"].artifact(root).manifest.facts["measures"]["all"]
