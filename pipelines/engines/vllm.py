"""vLLM in the process of the actor: greedy, and a whole part in one call, which its continuous batching fills.

Greedy decoding of one prompt alone is reproducible; in batches of other sizes sums are rounded otherwise, and where two
tokens are nearly equal another one may win. A part that is done again may differ from the first time in such places.

An engine that dies (out of memory, a lost GPU) does not come back: the process ends, and the pool puts another in its
place, which counts as an attempt of the part (``cluster.pool``).
"""

import logging
import os
import threading
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import Field

from cluster.component import NOT_CONTENT, Component, Speed, fingerprint
from cluster.errors import RecipeError, StepError
from pipelines.generation import Generated
from pipelines.models import Pretrained, resolve

log = logging.getLogger("babelray")
WATCH_S = 1.0  # between two looks at the engine
EXIT_CODE = 1  # of the process whose engine died
TOO_LONG = "the prompt is longer than the model reads"


class VllmOptions(Component):
    """How vLLM runs a model.

    Attributes:
        dtype: what the model computes with; "checkpoint" is what its weights are stored in.
        max_model_len: the longest prompt and answer together, in tokens; None is the model's own limit.
        quantization: as vLLM names it ("fp8"); None is what the checkpoint says.
        chat: put the prompt into the tokenizer's chat template, where it has one.
        template: arguments of that template: ``{enable_thinking = false}``.
        arguments: more arguments of ``vllm.LLM``.
        tensor_parallel: over how many GPUs of the actor the model is spread.
        gpu_memory_utilization: the share of a GPU's memory that weights and cache take.
        max_num_seqs: the most prompts that are decoded at once; None is vLLM's choice.
        enforce_eager: no CUDA graphs and no compilation: starts sooner, decodes more slowly.
    """

    dtype: Literal["checkpoint", "float32", "float16", "bfloat16"] = "checkpoint"
    max_model_len: int | None = Field(None, ge=8)
    quantization: str | None = None
    chat: bool = True
    template: dict[str, bool | int | str] = {}
    arguments: dict[str, Any] = {}
    tensor_parallel: Speed = Speed(1)
    gpu_memory_utilization: Annotated[float, NOT_CONTENT, Field(gt=0, le=1)] = 0.9
    max_num_seqs: Speed | None = None
    enforce_eager: Annotated[bool, NOT_CONTENT] = False


class VllmGenerator:
    """A loaded model: a ``pipelines.generation.Generator`` that also tells how likely a word is to come next."""

    def __init__(self, model: Pretrained, options: VllmOptions) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise RecipeError(
                f"model {model.model} is to be run by vLLM, which is not installed here: pip install 'babelray[vllm]', "
                "or give the step an environment that has it (resources.STEP.environment)"
            ) from error
        directory = resolve(model)
        try:
            self._llm = LLM(directory, **_arguments(directory, options))
        except (ValueError, OSError) as error:
            raise RecipeError(
                f"model {model.model} cannot be run by vLLM: {error}. Choose another model, or correct `engine`"
            ) from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._longest = int(self._llm.llm_engine.model_config.max_model_len)
        self._template = options.template if options.chat and self._tokenizer.chat_template else None

    def close(self) -> None:
        """End the engine and give back its memory."""
        self._llm.llm_engine.engine_core.shutdown()

    def generate(self, prompts: Sequence[str], limits: Sequence[int]) -> list[Generated]:
        """See ``Generator``. A prompt that leaves no room for an answer is a failure."""
        from vllm import SamplingParams

        tokens = self._tokenize(prompts)
        rooms = [self._longest - len(ids) for ids in tokens]
        fits = [i for i, room in enumerate(rooms) if room > 0]
        options = [SamplingParams(temperature=0, max_tokens=min(limits[i], rooms[i])) for i in fits]
        answers = [Generated("", False, TOO_LONG)] * len(prompts)
        for i, output in zip(fits, self._run([tokens[i] for i in fits], options), strict=True):
            answer = output.outputs[0]
            answers[i] = Generated(answer.text, ended=answer.finish_reason == "stop")
        return answers

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See ``Generator``; without the tokens that the model puts around a text."""
        if not texts:
            return []
        return [len(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def cut(self, texts: Sequence[str], tokens: int) -> list[str]:
        """The texts, each cut after its first ``tokens`` tokens."""
        if not texts:
            return []
        found = self._tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [
            text[: ends[tokens - 1][1]] if len(ends) > tokens else text for text, ends in zip(texts, found, strict=True)
        ]

    def log_probabilities(self, prompts: Sequence[str], words: Sequence[str]) -> np.ndarray:
        """Return float32 ``(len(prompts), len(words))``: the log-probability of each word as the next after a prompt.

        Raises:
            RecipeError: a word is not one token of the model.
            StepError: a prompt is longer than the model reads.
        """
        from vllm import SamplingParams

        ids = [self._token(word) for word in words]
        tokens = self._tokenize(prompts)
        if longest := max((len(t) for t in tokens if len(t) >= self._longest), default=0):
            raise StepError(
                f"a prompt has {longest} tokens; the model reads {self._longest - 1} and answers with one. Give "
                "documents fewer tokens (max_length), or the engine more (engine.max_model_len)"
            )
        options = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=ids, detokenize=False)
        outputs = self._run(tokens, [options] * len(tokens))
        rows = [[output.outputs[0].logprobs[0][i].logprob for i in ids] for output in outputs]
        return np.asarray(rows, np.float32).reshape(len(prompts), len(words))

    def _token(self, word: str) -> int:
        ids = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise RecipeError(
                f"expected words that are one token each, but {word!r} is {len(ids)}: choose another word"
            )
        return int(ids[0])

    def _tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, in the chat template where there is one."""
        if not prompts:
            return []
        if self._template is None:
            return list(self._tokenizer(list(prompts))["input_ids"])
        chats = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, **self._template
            )
            for prompt in prompts
        ]
        return list(self._tokenizer(chats, add_special_tokens=False)["input_ids"])  # the template has written them

    def _run(self, tokens: list[list[int]], options: list[Any]) -> list[Any]:
        """vLLM's outputs. Ends the process where the engine has died."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if not tokens:
            return []
        is_done = threading.Event()
        threading.Thread(target=_watch, args=(self._llm.llm_engine.engine_core, is_done), daemon=True).start()
        try:
            return self._llm.generate([{"prompt_token_ids": ids} for ids in tokens], options, use_tqdm=False)
        except EngineDeadError:
            _end()
        finally:
            is_done.set()


def _watch(engine: Any, is_done: threading.Event) -> None:
    """End this process when the engine's dies before ``is_done`` is set. vLLM 0.32 marks an engine that was killed (by
    the kernel, out of memory) as dead, but does not wake the call that waits for it, which would wait for ever."""
    while not is_done.wait(WATCH_S):
        if getattr(getattr(engine, "resources", None), "engine_dead", False):
            _end()


def _end() -> NoReturn:
    log.error("the engine died; its process ends so that another takes its place")
    os._exit(EXIT_CODE)


_loaded: dict[str, VllmGenerator] = {}  # of this process: one at most


def load(model: Pretrained, options: VllmOptions) -> VllmGenerator:
    """The model, loaded once per process: translations into seven languages share one engine. Another model's is
    closed first, since an engine takes most of a GPU."""
    key = fingerprint([model.model, model.content, options])
    if key not in _loaded:
        for other in _loaded.values():
            other.close()
        _loaded.clear()
        _loaded[key] = VllmGenerator(model, options)
    return _loaded[key]


def _arguments(directory: str, options: VllmOptions) -> dict[str, Any]:
    """Arguments of ``vllm.LLM``. The checkpoint's own sampling (temperature, penalties) is not used; its ends are."""
    named = {
        "dtype": _stored_dtype(directory) if options.dtype == "checkpoint" else options.dtype,
        "max_model_len": options.max_model_len,
        "quantization": options.quantization,
        "tensor_parallel_size": int(options.tensor_parallel),
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "enforce_eager": options.enforce_eager,
        "generation_config": "vllm",
        "seed": 0,
    }
    if options.max_num_seqs:
        named["max_num_seqs"] = int(options.max_num_seqs)
    return named | options.arguments


def _stored_dtype(directory: str) -> str:
    """What the weights are stored in. vLLM's own "auto" halves float32 on some devices, and would not say the same on
    every machine."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    dtype = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return str(dtype).removeprefix("torch.") if dtype else "auto"
