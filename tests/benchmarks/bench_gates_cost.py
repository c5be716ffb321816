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


def build_translator(folder: Path):
    """A converted Marian model of the usual size."""
    from ctranslate2 import Translator
    from ctranslate2.converters import TransformersConverter
    from transformers import MarianConfig, MarianMTModel

    spm = checkpoints.sentencepiece_model(folder, checkpoints.sentences())
    tokenizer = checkpoints.marian_tokenizer(folder / "model", spm, tuple(f"word{i}" for i in range(WORDS)))
    sizes = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    shape = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    pad = tokenizer.pad_token_id
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=512,
        **shape,
        max_position_embeddings=512,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=None,
    )
    MarianMTModel(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    TransformersConverter(str(folder / "model")).convert(str(folder / "converted"), quantization="int8")
    return Translator(str(folder / "converted"), compute_type="int8", intra_threads=1)


def translated_per_second(tokens: int) -> float:
    """Rows that a processor translates in a second."""
    with tempfile.TemporaryDirectory() as folder:
        translator = build_translator(Path(folder))
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
