"""Kills at random over the making of training data, and the tables of an undisturbed run at the end.

    BABELRAY_KILLS=100 python -m pytest -m slow tests/test_data_chaos.py -s     # a hundred; without it six

A small atlas is translated by an endpoint, and what gates reject by a model in the worker; questions are written, found
again and capped; a cross-encoder reads the translations, and hard negatives are mined.
"""

import json
import os
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from cluster.artifact import MANIFEST
from pipelines import verbs
from pipelines.sources.atlas.source import AtlasSource
from storm import Driver, Endpoint, Nodes, Storm

KILLS = int(os.environ.get("BABELRAY_KILLS", 6))
SECONDS = 900.0 + 30.0 * KILLS  # on a machine that does other things; an idle one takes a fifth
TARGETS = ["mine", "gate-de-2", "gate-fr-2", "gate-es-2"]
LANGUAGES = {"de": "German", "fr": "French", "es": "Spanish"}
TERRITORIES = 24
RECIPE = """
[source]
kind = "atlas"
territories = {territories}

[languages]
docs = ["en", "de", "fr", "es"]

[[translate]]
kind = "openai"
url = "http://127.0.0.1:{port}/v1"
model = "by-heart"
concurrency = 2
requests_per_s = 30
timeout_s = 5

[[translate]]
kind = "nmt"
model = "{nmt}"
beam = 4

[gates]

[synthesis]
kind = "templates"
task = "keywords"
keep = 5
most = 250

[select]
k = 30

[score]
doc_lang = "de"
scorer = {{ kind = "cross_encoder", model = "{cross}" }}

[mine]
max_overlap = 1

[train]
ways = 2
loss = {{ kind = "infonce" }}
student = {{ kind = "lexical" }}

[index]
kind = "exact"

[run]
rows_per_part = 12
queries_per_part = 12
max_rejects = 0.5

[resources]
ingest = {{ cpus = 0.5 }}
gate = {{ cpus = 0.5 }}
"""


def list_texts(lang: str) -> list[str]:
    return [entry.row["text"] for entry in AtlasSource(territories=TERRITORIES).docs(lang, "train")]


def write_answers(file: Path) -> None:
    """What the endpoint says: the atlas's own translations, and some that each gate must find."""
    texts = {lang: list_texts(lang) for lang in ["en", *LANGUAGES]}
    answers: dict[str, dict[str, str]] = {name: {} for name in LANGUAGES.values()}
    others = dict(zip(LANGUAGES, [*list(LANGUAGES)[1:], "de"], strict=True))
    for lang, name in LANGUAGES.items():
        for number, english in enumerate(texts["en"]):
            good, other = texts[lang][number], texts[others[lang]][number]
            bad = ["", english, other, good[:12], good + " und so weiter" * 12, "– – –"]
            answers[name][english] = bad[number // 3 % len(bad)] if number % 3 == 0 else good
    file.write_text(json.dumps(answers), "utf-8")


def write_cross_encoder(folder: Path) -> None:
    """A BERT of random weights with one output, which knows the words of the German atlas."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    words = sorted({word.strip(".,:„“").lower() for text in list_texts("de") for word in text.split()} - {""})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.2,
    )
    BertForSequenceClassification(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A translation model that nearly copies what it reads, and a teacher."""
    folder = tmp_path_factory.mktemp("models")
    lines = checkpoints.sentences()
    checkpoints.marian(folder / "nmt", checkpoints.sentencepiece_model(folder, lines), lines)
    write_cross_encoder(folder / "cross")
    return {name: str(folder / name) for name in ("nmt", "cross")}


def describe_tables(recipe: str, root: Path) -> dict[str, Any]:
    """All that must be the same of the artifacts below a root: the files, and what the manifests count. A driver that
    is killed in the moment after it has completed an artifact leaves receipts there, which nothing reads."""
    plan, place = verbs.load_plan(recipe, [f"root={root}"])
    wanted = {step.id for target in TARGETS for found in plan.find_steps(target) for step in ancestors(found)}
    assert {child.name for child in place.list()} == wanted, "other artifacts than the plan's"
    found: dict[str, Any] = {}
    for step in sorted(wanted):
        manifest = json.loads((root / step / MANIFEST).read_text())
        counts = {name: manifest[name] for name in ("parts", "rows", "rejects", "facts", "inputs", "config", "table")}
        found |= {f"{step} {name}": value for name, value in counts.items()}
        files = [file for file in (root / step).rglob("*") if file.is_file() and file.name != MANIFEST]
        found |= {f"{step} {file.relative_to(root / step)}": file.read_bytes() for file in files}
    return found


def ancestors(step: Any) -> list[Any]:
    """A step and all that it is made from."""
    return [step, *(above for parent in step.parents.values() for above in ancestors(parent))]


def assert_work_was_done(tables: dict[str, Any]) -> None:
    """The undisturbed run has something to lose: each stage did some rows, each gate rejected some."""
    facts = {name.partition("@")[0]: value for name, value in tables.items() if name.endswith(" facts")}
    rejects = {name.partition("@")[0]: value for name, value in tables.items() if name.endswith(" rejects")}
    rows = {name.partition("@")[0]: value for name, value in tables.items() if name.endswith(" rows")}
    assert facts["translate-de-2"]["1 openai"] > rows["translate-de"] / 2
    assert len([reason for reason in rejects["gate-de"] if reason.startswith("gate: ")]) >= 4
    assert facts["score"]["scored"] > 1000
    assert sum(found["count"] for found in rejects["mine"].values()) < rows["mine"] / 2


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_kills_at_random_leave_the_same_tables(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # the defaults take half a minute to miss a node
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    began, seed = time.monotonic(), random.randrange(2**32)
    write_answers(tmp_path / "answers.json")
    endpoint = Endpoint(tmp_path / "answers.json")
    recipe = str(tmp_path / "chaos.toml")
    Path(recipe).write_text(RECIPE.format(port=endpoint.port, territories=TERRITORIES, **models))

    def start(name: str, address: str = "") -> Driver:
        words = [recipe, *TARGETS, "--set", f"root={tmp_path / name}"]
        return Driver(words, tmp_path / f"{name}.out", tmp_path / f"cache-{name}", address)

    start("quiet").finish(SECONDS / 3)
    run_s = time.monotonic() - began
    expected = describe_tables(recipe, tmp_path / "quiet")
    assert_work_was_done(expected)
    print(f"seed {seed}; undisturbed {run_s:.0f} s")
    nodes = Nodes(2, 2)
    storm = Storm(nodes, endpoint, random.Random(seed), run_s, KILLS)
    roots = 0
    try:
        while storm.kills.total() < KILLS:
            name, roots = f"stormy-{roots}", roots + 1
            storm.rage(partial(start, name, nodes.cluster.address), began + SECONDS)
            found = describe_tables(recipe, tmp_path / name)
            print(f"{roots} roots, {dict(storm.kills)}, given up {storm.given_up}, {time.monotonic() - began:.0f} s")
            assert [key for key in expected if found.get(key) != expected[key]] == []
            assert [key for key in found.keys() - expected.keys() if key.endswith(".parquet")] == []
    finally:
        nodes.cluster.shutdown()
        endpoint.kill()
    kinds = ("driver", "worker", "node", "engine")
    assert KILLS < 50 or all(storm.kills[kind] for kind in kinds), storm.kills  # few kills may miss a kind
