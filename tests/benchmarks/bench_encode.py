"""Passages per second of encoding, against sentence-transformers on the same passages in the same run.

    python tests/benchmarks/bench_encode.py [--texts 200] [--rounds 3] [--threads N] [--sizes] [--attention]

The texts are real paragraphs (``../shared/data/xquad``), cut into passages of 180 tokens every 90. Ours counts the
cutting and tokenising; the library is given passages that are cut already, and its default batch of 32. ``dense`` is
all-MiniLM-L6-v2 against ``SentenceTransformer.encode``, ``late`` the same body under a late-interaction head against
``MultiVectorEncoder.encode_document``. ``--sizes`` measures batches of several sizes, ``--attention`` both of the
library's attention kernels that run on any device. Rounds are interleaved; medians are printed. ``--cpu-time`` counts
the processor's seconds instead of the clock's: for a busy machine, with ``--threads 1``. Prints also Kendall's tau of
the rankings in half precision with those in fp32. Exits with an error where ours is slower than the library in fp32.
With a GPU, ``--device cuda``.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from scipy.stats import kendalltau
from sentence_transformers import MultiVectorEncoder

from pipelines.precision import cast_weights
from pipelines.students import LateInteraction
from pipelines.students.checkpoint import Checkpoint
from pipelines.students.encoder import TextEncoder
from pipelines.students.loading import load

LENGTH, STRIDE = 180, 90
SIZES = (512, 1_024, 2_048, 4_096, 8_192, 16_384)


def encoders(device: str) -> dict[str, TextEncoder]:
    """MiniLM as it is, and under a late-interaction head."""
    late = LateInteraction(base=Checkpoint(model="minilm")).build(None, seed=0)  # type: ignore[arg-type]
    late.model.to(device)
    return {"dense": load("minilm", device), "late": late}  # type: ignore[arg-type]


def with_options(encoder: TextEncoder, precision: str, batch_tokens: int | None = None) -> TextEncoder:
    """The same weights at another precision or batch size, cast as ``load_encoder`` casts them."""
    model = encoder.model
    if precision != "fp32":
        model = copy.deepcopy(model)
        cast_weights(model, precision)  # type: ignore[arg-type]
    return TextEncoder(model, encoder.similarity, precision, batch_tokens)  # type: ignore[arg-type]


def ours(encoder: TextEncoder, texts: list[str]) -> Callable[[], object]:
    """Encode the passages of all texts."""
    return lambda: [len(passages) for passages in encoder.encode_passages(texts, LENGTH, STRIDE)]


def library(encoder: TextEncoder, passages: list[str]) -> Callable[[], object]:
    """What the library does with the passages."""
    if isinstance(encoder.model, MultiVectorEncoder):
        return lambda: encoder.model.encode_document(passages, show_progress_bar=False)
    return lambda: encoder.model.encode(passages, show_progress_bar=False)


def measure(runs: dict[str, Callable[[], object]], passages: int, options: argparse.Namespace) -> dict[str, float]:
    """Median passages per second of each run, in turns."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    rates = {name: passages / float(np.median(times)) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"  {name:24} {rate:8.1f} passages/s", flush=True)
    return rates


def agreement(encoder: TextEncoder, precision: str, texts: list[str]) -> float:
    """Mean Kendall's tau of the ranking of all texts by the first sentence of every tenth, with that in fp32."""
    scores = []
    for kind in ("fp32", precision):
        again = with_options(encoder, kind)
        queries, docs = again.encode_queries([text.split(".")[0] for text in texts[::10]]), again.encode_docs(texts)
        scores.append(np.array([[(q @ d.T).max(1).sum() for d in docs] for q in queries]))
    return float(np.mean([kendalltau(one, other).statistic for one, other in zip(*scores, strict=True)]))


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--models", nargs="+", choices=("dense", "late"), default=["dense", "late"])
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--attention", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    half = "bf16" if options.device == "cpu" else "fp16"
    file = Path(__file__).parents[3] / "shared" / "data" / "xquad" / "collection.en.tsv"
    texts = [line.partition("\t")[2] for line in file.read_text("utf-8").splitlines()[: options.texts]]
    ratios = []
    for name, encoder in encoders(options.device).items():
        if name not in options.models:
            continue
        passages = [passage for cut in encoder.windows(texts, LENGTH, STRIDE) for passage in cut]
        print(f"{name}: {len(texts)} texts, {len(passages)} passages, {options.threads} threads")
        runs = {
            "library fp32": library(encoder, passages),
            "ours fp32": ours(encoder, texts),
            f"ours {half}": ours(with_options(encoder, half), texts),
        }
        if options.sizes:
            runs |= {f"ours {half} {n:,} tokens": ours(with_options(encoder, half, n), texts) for n in SIZES}
        rates = measure(runs, len(passages), options)
        if options.attention:
            for kernel in ("eager", "sdpa"):
                encoder.model[0].model.set_attn_implementation(kernel)
                kernels = {f"{p} {kernel}": ours(with_options(encoder, p), texts) for p in ("fp32", half)}
                measure(kernels, len(passages), options)
        ratios.append(rates["ours fp32"] / rates["library fp32"])
        in_half = rates[f"ours {half}"]
        print(
            f"  fp32: {ratios[-1]:.2f} of the library; {half}: {in_half / rates['ours fp32']:.2f} of fp32, "
            f"{in_half / rates['library fp32']:.2f} of the library in fp32"
        )
        print(f"  tau of {half} with fp32: {agreement(encoder, half, texts):.4f}", flush=True)
    if min(ratios) < 1:
        raise SystemExit(f"expected at least the library's speed in fp32, got {min(ratios):.2f} of it")


if __name__ == "__main__":
    main()
