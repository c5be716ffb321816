"""Configs of engines, without an engine: test_vllm.py runs one, test_endpoint.py the other."""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import ValidationError

from cluster.component import canonical, fingerprint
from cluster.errors import RecipeError
from pipelines.engines import vllm
from pipelines.engines.vllm import VllmOptions
from pipelines.scorers import LlmScorer
from pipelines.synthesis.llm import Llm as LlmWriter
from pipelines.translators import Llm


def test_how_fast_vllm_runs_is_in_no_fingerprint():
    fast = VllmOptions(tensor_parallel=4, gpu_memory_utilization=0.5, max_num_seqs=64, enforce_eager=True)
    assert fingerprint(Llm(model="m", engine=fast)) == fingerprint(Llm(model="m"))
    others = (
        {"dtype": "float16"},
        {"max_model_len": 64},
        {"quantization": "fp8"},
        {"chat": False},
        {"arguments": {"a": 1}},
    )
    assert len({fingerprint(Llm(model="m", engine=VllmOptions(**o))) for o in ({}, *others)}) == 6


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("build", [lambda: Llm(model="m").build("en", "de"), lambda: LlmScorer(model="m").build(None)])
def test_without_vllm_the_error_names_what_to_set(build):
    with pytest.raises(RecipeError, match=r"model m .*pip install 'babelray\[vllm\]'.*resources.STEP.environment"):
        build()


def test_what_writes_questions_loads_its_model_once_for_all_languages_and_shares_it(monkeypatch, tmp_path):
    started: list[str] = []

    class Engine:
        """Stands for ``vllm.LLM``."""

        llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))

        def __init__(self, directory: str, **arguments: object) -> None:
            started.append(directory)

        def get_tokenizer(self):
            return SimpleNamespace(chat_template=None)

    library = ModuleType("vllm")
    library.LLM = Engine
    monkeypatch.setitem(sys.modules, "vllm", library)
    monkeypatch.setattr(vllm, "_loaded", {})
    engine = VllmOptions(dtype="float32")
    writer = LlmWriter(model=str(tmp_path), engine=engine)
    for lang in ("de", "fr"):
        writer.build(lang, writer.wording(lang))
    Llm(model=str(tmp_path), engine=engine).build("en", "de")
    assert started == [str(tmp_path)]


def test_options_of_what_writes_questions_are_read_with_the_recipe():
    plain, quick = (LlmWriter(model="m", engine={"chat": False} | more) for more in ({}, {"tensor_parallel": 2}))
    assert canonical(plain) == {"engine": {"chat": False}, "kind": "llm", "model": "m"}
    assert fingerprint(plain) == fingerprint(quick)
    with pytest.raises(ValidationError, match="max_len"):
        LlmWriter(model="m", engine={"max_len": 8})


def test_a_teachers_prompt_needs_query_and_passage():
    assert "{query}" in LlmScorer(model="m").prompt
    with pytest.raises(ValidationError, match="prompt.*lacks {passage}"):
        LlmScorer(model="m", prompt="{query}?")


def test_no_student_translates_or_judges():
    for kind in (Llm, LlmScorer):
        with pytest.raises(ValidationError, match="the student of a recipe is an encoder and cannot do this"):
            kind(recipe="r")
