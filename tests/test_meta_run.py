"""Meta-learning on real Ray: a training that was killed ends with the same bits; from files to measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifacts import directory_artifact
from cluster.storage import Place
from pipelines.sources.parallel import Parallel
from pipelines.students import load_encoder
from pipelines.training.cpu import speed_up
from pipelines.training.meta.config import Meta
from pipelines.training.start import BuildStudent, StartConfig
from pipelines.verbs import load_plan
from test_meta_episodes import ALIGN, LANGS, read_tables, write_collection
from test_meta_loop import CONFIG, STUDENT
from test_meta_pairs import TASKS as PAIR_TASKS
from test_training import finish, kill_at_first_checkpoint, start, table, weights
from toy import make_loop
from toy_pairs import CONFIG as PAIR_CONFIG
from toy_pairs import PLAIN, make_pair_start, make_pairs

pytestmark = pytest.mark.usefixtures("one_thread")
RETRIEVAL = Meta(tasks=ALIGN, support=3, queries=2, inner_steps=2, inner_lr=0.1, kd_weight=5.0)
TEXT = RETRIEVAL.model_copy(update={"student_adapts": True, "order": 2})


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory):
    """Questions, passages and judgements in four languages, and an untrained student."""
    root = tmp_path_factory.mktemp("retrieval")
    (root / "files").mkdir()
    write_collection(root / "files")
    tables = read_tables(Parallel(path=str(root / "files")), root / "tables")
    read = {"main": {"queries": tables["queries"]["el"], "docs": tables["docs"]}}
    BuildStudent(StartConfig(student=STUDENT, seed=CONFIG.seed), read, Place.of(root / "start@0"))("student")
    return {"data": {"main": tables}, "start": directory_artifact(root / "start@0")}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Sentence pairs in three languages, and an untrained student."""
    root = tmp_path_factory.mktemp("pairs")
    inputs = make_pairs(root)
    return {"data": inputs["data"], "start": make_pair_start(inputs, root, PLAIN)}


def check_kill(config, inputs, root):
    """Kill -9 of the driver after the first checkpoint; the oracle is the loop, in this process and without Ray."""
    out = root / "killed"
    kill_at_first_checkpoint(start(config, inputs, out), out)
    facts = finish(start(config, inputs, out))
    alone = load_encoder(inputs["start"].place.path / "start", "cpu")
    speed_up(alone.model)
    loop = make_loop(config, alone, inputs)
    losses = [loop.step(number)[0] for number in range(config.steps)]
    loop.save(root / "alone")
    assert facts["samples"] == f"{loop.take_drawn().samples:016x}"
    assert [float(row[1]) for row in table(out / "losses.tsv")[1:]] == pytest.approx(losses, abs=1e-6)  # as written
    whole, again = weights(root / "alone" / "model"), weights(out / "last")
    before = weights(inputs["start"].place.path / "start")
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[key], again[key]) for key in whole)
    assert any(not np.array_equal(whole[key], before[key]) for key in whole)


@pytest.mark.slow
@pytest.mark.parametrize("meta", [RETRIEVAL, TEXT], ids=["code", "text, second order"])
def test_a_training_killed_between_its_episodes_ends_with_the_same_bits(retrieval, tmp_path, monkeypatch, meta):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    config = CONFIG.model_copy(update={"meta": meta, "steps": 60, "checkpoint_every": 10})
    check_kill(config, retrieval, tmp_path)


@pytest.mark.slow
def test_a_training_on_pairs_killed_between_its_episodes_ends_with_the_same_bits(pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    meta = RETRIEVAL.model_copy(update={"tasks": PAIR_TASKS})
    config = PAIR_CONFIG.model_copy(
        update={"student": PLAIN, "meta": meta, "batch": 4, "steps": 60, "checkpoint_every": 10}
    )
    check_kill(config, pairs, tmp_path)


RECIPE = """
extends = "maml-align-small"
[languages]
query = ["el", "hi"]
docs = ["el", "hi", "ar", "de"]
[train]
steps = 6
batch = 4
lr = 2e-3
warmup = 0
precision = "fp32"
validation = { every = 3, max_queries = 10, max_docs = 40 }
resources = { cpus = 1, threads = 1 }
[train.student]
kind = "dense"
base = { kind = "scratch", vocabulary = 120, hidden = 32, layers = 1, heads = 2, positions = 32 }
query_length = 16
doc_length = 24
[train.meta]
tasks = ["el_el-el_ar-el_ar,el,hi", "hi_hi-hi_de-hi_de,hi,ar"]
support = 3
queries = 2
inner_steps = 2
sampling = "similar"
[evaluate.lareqa]
split = "test"
languages = ["el", "ar"]
query_lang = "each"
[measure]
untrained = false
bm25 = false
[resources]
start = { cpus = 1 }
encode = { cpus = 1, actors = 1 }
"""


def babelray(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words], capture_output=True, text=True, timeout=900,
        cwd=Path(__file__).parents[1], env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_meta_recipe_is_run_from_files_to_measures(tmp_path):
    """Start, nearest questions, meta-training, encode, index, search, evaluate, in one Ray of two cores."""
    (tmp_path / "files").mkdir()
    write_collection(tmp_path / "files")
    recipe = tmp_path / "few.toml"
    recipe.write_text(RECIPE)
    sets = [f"source.path={tmp_path / 'files'}", f"root={tmp_path / 'root'}"]
    shown = babelray("run", str(recipe), *(word for one in sets for word in ("--set", one)))
    plan, root = load_plan(str(recipe), sets)
    assert {step.name.partition("-")[0] for step in plan.steps} >= {
        "docs", "queries", "qrels", "start", "nearest", "train", "encode", "index", "search", "evaluate"
    }  # fmt: skip
    assert all((root / step.id / "manifest.json").exists() for step in plan.steps)
    facts = plan.training.train.artifact(root).manifest.facts
    assert facts["steps"] == 6
    assert facts["questions"] == {"main": {"el": 6 * 2 * (3 + 2 + 6), "hi": 6 * 2 * (3 + 2 + 6)}}
    assert set(facts["passages"]["main"]) == set(LANGS)
    assert "AP@20" in shown
    for (name, system), step in plan.evaluations.items():
        measures = json.loads((root / step.id / "measures.json").read())
        assert 0 < measures["all"]["AP@20"] <= 1, (name, system)
