"""What the gates cost beside the translation that they judge: rows per second of one processor, of both.

    python tests/benchmarks/bench_gates_cost.py [--data DIR] [--tokens 180] [--langs de zh]

The texts are the paragraphs of XQuAD, about 180 tokens each. The translator is CTranslate2 in int8, greedy, with a
Marian model of the size of OPUS-MT's (6 + 6 layers of 512) and random weights that is made to write that many tokens:
what it costs does not depend on what it says. Exits with an error where the gates cost more than 5 % of it.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
from pipelines.gates import Gate, GateConfig
from translations import Pairs, read_collection

ROOT = Path(__file__).parents[2]
ROWS, WORDS, MOST = 32, 32_000, 0.05


def translated_per_second(tokens: int) -> float:
    """Rows that a processor translates in a second."""
    from ctranslate2 import Translator
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory() as folder:
        checkpoints.opus_sized_marian(Path(folder) / "model", tuple(f"word{i}" for i in range(WORDS)))
        TransformersConverter(f"{folder}/model").convert(f"{folder}/converted", quantization="int8")
        translator = Translator(f"{folder}/converted", compute_type="int8", intra_threads=1)
        texts = [[f"word{random.randrange(WORDS)}" for _ in range(tokens)] for _ in range(ROWS)]
        started = time.process_time()
        translator.translate_batch(texts, beam_size=1, min_decoding_length=tokens, max_decoding_length=tokens)
        return ROWS / (time.process_time() - started)


def judged_per_second(lang: str, pairs: Pairs) -> float:
    """Rows that a processor judges in a second, all gates on."""
    gate = Gate(GateConfig(source_lang="en", target_lang=lang), {})
    gate.judge(pairs)
    started = time.process_time()
    gate.judge(pairs)
    return len(pairs) / (time.process_time() - started)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--tokens", type=int, default=180)
    parser.add_argument("--langs", nargs="+", default=["ar", "de", "es", "hi", "ru", "tr", "zh"])
    given = parser.parse_args()
    translated = translated_per_second(given.tokens)
    print(f"NMT   {translated:8.1f} rows/s")
    costs = []
    for lang in given.langs:
        judged = judged_per_second(lang, read_collection(given.data / "xquad", "collection", lang))
        costs.append(translated / judged)
        print(f"{lang:5} {judged:8.1f} rows/s, {costs[-1]:.2%} of NMT", flush=True)
    if max(costs) > MOST:
        sys.exit(f"the gates cost more than {MOST:.0%} of the translation")


if __name__ == "__main__":
    main()
