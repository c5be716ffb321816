"""Configs of engines, without an engine: test_vllm.py runs one, test_endpoint.py the other."""

from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from cluster.component import fingerprint
from cluster.errors import RecipeError
from pipelines.engines.vllm import VllmOptions
from pipelines.scorers import LlmScorer
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


def test_a_teachers_prompt_needs_query_and_passage():
    assert "{query}" in LlmScorer(model="m").prompt
    with pytest.raises(ValidationError, match="prompt.*lacks {passage}"):
        LlmScorer(model="m", prompt="{query}?")


def test_no_student_translates_or_judges():
    for kind in (Llm, LlmScorer):
        with pytest.raises(ValidationError, match="the student of a recipe is an encoder and cannot do this"):
            kind(recipe="r")
