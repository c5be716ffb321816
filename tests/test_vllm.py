"""Language models in real vLLM on a processor, run by the executor in an environment of their own.

``make test-vllm`` makes the environment (tests/vllm_environment.py) and names its Python in BABELRAY_VLLM_PYTHON; they
are skipped without. This process has no vLLM: transformers, the oracle, runs here.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from cluster import executor
from cluster.artifact import read_part
from cluster.component import Resources
from cluster.progress import Progress
from cluster.step import Step
from cluster.storage import Place
from pipelines.engines.vllm import TOO_LONG, VllmOptions
from pipelines.prompts import fill_prompt
from pipelines.scorers.llm import LlmScorer
from pipelines.scoring import Score, ScoreConfig
from pipelines.tables import DOCS, QUERIES, RANKINGS
from pipelines.translate import Translate, TranslateConfig
from pipelines.translators import Llm
from vllm_works import Give, Given, Mortal

PYTHON = os.environ.get("BABELRAY_VLLM_PYTHON", "")
PROMPT = "{source_language} to {target_language}: {text} ="
RELEVANCE = "{query} | {passage} ="
ENGINE = VllmOptions(enforce_eager=True, max_num_seqs=16)
RESOURCES = Resources(cpus=2, actors=1, environment="vllm")
LINES = checkpoints.sentences()
TEXTS = [*LINES[:23], " ".join(LINES)]  # the last is longer than the model reads

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not PYTHON, reason="needs BABELRAY_VLLM_PYTHON: make test-vllm"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("qwen2")
    prompt = fill_prompt(PROMPT, source_language="English", target_language="German", text="{text}")
    checkpoints.qwen2(folder, LINES, prompt, chat=True)
    return str(folder)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def artifacts(model, log, tmp_path_factory):
    """A run of a translation, of the same with an engine that dies, and of a teacher."""
    parts = tuple(
        tuple({"doc_id": f"d{n}", "lang": "en", "title": "", "text": TEXTS[n]} for n in range(start, start + 8))
        for start in (0, 8, 16)
    )
    docs = Step("docs", Give, Given(table="docs", parts=parts), table=DOCS)
    questions = tuple({"query_id": f"q{n}", "lang": "en", "text": LINES[50 + n]} for n in range(3))
    queries = Step("queries", Give, Given(table="queries", parts=(questions,)), table=QUERIES)
    selected = tuple(
        {"query_id": f"q{n}", "doc_ids": [f"d{d}" for d in range(7)], "scores": [0.0] * 7} for n in range(3)
    )
    selection = Step("selection", Give, Given(table="rankings", parts=(selected,)), table=RANKINGS)
    translator = Llm(model=model, prompt=PROMPT, engine=ENGINE)
    config = TranslateConfig(source_lang="en", target_lang="de", translator=translator)
    scorer = LlmScorer(model=model, prompt=RELEVANCE, engine=ENGINE)
    form = {"table": DOCS, "rows": ("docs",), "resources": RESOURCES, "max_rejects": 0.1}
    inputs = {"selection": selection, "queries": queries, "docs": docs}
    steps = [
        Step("translate", Translate, config, {"docs": docs}, **form),
        Step("mortal", Mortal, config, {"docs": docs}, **form),
        Step(
            "score",
            Score,
            ScoreConfig(scorer=scorer, query_lang="en", doc_lang="en"),
            inputs,
            table=RANKINGS,
            rows=("selection",),
            resources=RESOURCES,
        ),
    ]
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "BABELRAY_TEST_LOG": str(log), "OMP_NUM_THREADS": "1"}
    environment = {"py_executable": PYTHON, "env_vars": variables}
    root = Place.of(tmp_path_factory.mktemp("root"))
    made = executor.run(steps, root, Progress(), {"vllm": environment})
    return {step.name: artifact for step, artifact in zip(steps, made, strict=True)}


@pytest.fixture(scope="module")
def oracle(model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()


def all_rows(artifact) -> list[dict]:
    return [row for part in artifact.parts for row in read_part(part).to_pylist()]


def chat(oracle, prompt: str):
    tokenizer, _ = oracle
    message = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, return_tensors="pt", add_special_tokens=False)


def greedy(oracle, text: str) -> str:
    """What transformers says, a text at a time."""
    tokenizer, model = oracle
    prompt = fill_prompt(PROMPT, source_language="English", target_language="German", text=text)
    inputs = chat(oracle, prompt)
    ids = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    return tokenizer.decode(ids[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_translation_is_what_transformers_says_token_for_token(artifacts, oracle):
    rows = all_rows(artifacts["translate"])
    expected = [greedy(oracle, text) for text in TEXTS[:-1]]
    assert len(set(expected)) > 10
    assert [row["text"] for row in rows[:-1]] == expected
    assert {(row["origin"], row["reject"]) for row in rows[:-1]} == {("1 llm", None)}
    assert (rows[-1]["text"], rows[-1]["reject"]) == (None, TOO_LONG)
    assert artifacts["translate"].manifest.rejects[TOO_LONG].count == 1


def test_an_engine_that_dies_ends_its_process_and_its_part_is_done_again(artifacts, log):
    assert all_rows(artifacts["mortal"]) == all_rows(artifacts["translate"])
    processes, parts = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert sorted(parts) == sorted(["d0", "d8", "d16", parts[1]])
    assert len(set(processes)) == 2


def test_a_teacher_tells_how_much_likelier_yes_is_than_no(artifacts, oracle):
    import torch

    tokenizer, model = oracle
    words = [tokenizer(word)["input_ids"][0] for word in ("yes", "no")]
    for row in artifacts["score"].read().to_pylist():
        query = LINES[50 + int(row["query_id"][1:])]
        expected = {}
        for number in range(7):
            with torch.inference_mode():
                logits = model(**chat(oracle, fill_prompt(RELEVANCE, query=query, passage=TEXTS[number]))).logits[0, -1]
            expected[f"d{number}"] = logits[words].log_softmax(0)[0].item()
        np.testing.assert_allclose(row["scores"], [expected[d] for d in row["doc_ids"]], atol=1e-4)
        assert len({round(score, 3) for score in expected.values()}) > 3
