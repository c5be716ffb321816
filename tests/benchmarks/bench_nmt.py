"""Rows per second of neural machine translation, against CTranslate2 by itself and against transformers' ``generate``.

    python tests/benchmarks/bench_nmt.py [--compute-type int8] [--together 32] [--rows 96] [--output 40] [--rounds 3]

Ours is the step's work on a part: reading the texts, tokenizing, decoding in batches of ``max_batch_tokens``, the table
and its file. CTranslate2 gets finished tokens and batches as large, and its tokens are thrown away; ``generate``, in
float32, gets batches of ``together`` texts of like length, and its tokens are thrown away too. All are greedy, on one
thread, with the model loaded, in turns; seconds of the processor. The model has the size of OPUS-MT's and random
weights under which no translation ends before its limit. Exits with an error below 0.95 of CTranslate2 or 4 times
``generate``.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1]))

import checkpoints
from cluster.artifact import write_part
from cluster.storage import Place
from pipelines.tables import DOCS
from pipelines.translate import Translate, TranslateConfig
from pipelines.translators import Nmt
from pipelines.translators.nmt import NmtTranslator

LEAST = {"CTranslate2": 0.95, "generate": 4.0}
VOCABULARY = 32_000


def make_texts(rows: int) -> list[str]:
    """Sentences of about as many words as MS MARCO's have."""
    rng = random.Random(0)
    lengths = (max(4, min(60, int(rng.lognormvariate(2.9, 0.4)))) for _ in range(rows))
    return [" ".join(rng.choices(checkpoints.WORDS, k=length)) for length in lengths]


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The three translators of the same texts, loaded."""
    import torch
    from transformers import AutoTokenizer, MarianMTModel

    torch.set_num_threads(1)
    checkpoints.opus_sized_marian(folder / "model", tuple(f"word{i}" for i in range(VOCABULARY)))
    config = Nmt(model=str(folder / "model"), max_output=options.output, compute_type=options.compute_type)
    texts = make_texts(options.rows)
    rows = DOCS.of([{"doc_id": f"d{n}", "lang": "en", "text": text} for n, text in enumerate(texts)])
    work = Translate(TranslateConfig(source_lang="en", target_lang="de", translator=config), {})
    raw = NmtTranslator(config, "en", "de")
    tokens = [raw.tokens(text) for text in texts]
    model, tokenizer = MarianMTModel.from_pretrained(folder / "model"), AutoTokenizer.from_pretrained(folder / "model")
    by_length = sorted(texts, key=len)
    batches = [by_length[i : i + options.together] for i in range(0, len(texts), options.together)]

    def generate() -> None:
        for batch in batches:
            encoded = tokenizer(batch, return_tensors="pt", padding=True)
            model.generate(**encoded, num_beams=1, do_sample=False, max_new_tokens=options.output)

    return {
        "ours": lambda: write_part(Place.of(folder / "part.parquet"), DOCS.conform(work(rows))),
        "CTranslate2": lambda: raw._model.translate_batch(
            tokens, beam_size=1, max_batch_size=2048, batch_type="tokens", max_decoding_length=options.output
        ),
        "generate": generate,
    }


def main() -> None:
    """Measure all three in turns, and print the ratios of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 96), ("output", 40), ("rounds", 3), ("together", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--compute-type", default="int8")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BABELRAY_CACHE"] = f"{folder}/cache"
        functions = prepare(Path(folder), options)
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for number in range(options.rounds + 1):
            for name, function in functions.items():
                begin = time.process_time()
                function()
                if number:  # the first round warms up
                    seconds[name].append(time.process_time() - begin)
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    ratios = {name: medians[name] / medians["ours"] for name in LEAST}
    for name, spent in medians.items():
        print(
            f"{name:12} {options.rows / spent:6.1f} rows/s" + (f", ratio {ratios[name]:.2f}" if name in LEAST else "")
        )
    if any(ratios[name] < least for name, least in LEAST.items()):
        raise SystemExit(f"expected ratios of at least {LEAST}")


if __name__ == "__main__":
    main()
