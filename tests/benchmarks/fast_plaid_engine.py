"""fast-plaid, measured in its own environment: called by ``bench_index.py``, which needs another torch.

    PYTHON tests/benchmarks/fast_plaid_engine.py VECTORS.npz BITS TOP    # prints one JSON line

VECTORS.npz holds ``vectors`` (float16, tokens × dim), ``tokens`` per document, ``queries`` (float32, queries × tokens ×
dim). All else is at fast-plaid's defaults. Documents are named by their numbers.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from engine_times import Measured, Rankings, cpu_seconds, time_queries


def measure(directory: Path, docs: list[np.ndarray], queries: np.ndarray, bits: int, top: int) -> Measured:
    """Build an index, search it."""
    import torch
    from fast_plaid.search import FastPlaid

    tensors = [torch.from_numpy(doc.astype(np.float32)) for doc in docs]
    wall, cpu = time.perf_counter(), cpu_seconds()
    index = FastPlaid(index=str(directory), device="cpu")
    index.create(documents_embeddings=tensors, nbits=bits)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())

    def ask(some: Sequence[np.ndarray]) -> Rankings:
        found = index.search(torch.from_numpy(np.stack(some)), top_k=top, show_progress=False)
        return [[(str(number), score) for number, score in ranking] for ranking in found]

    return Measured(f"fast-plaid {bits} bits", wall, cpu, size, *time_queries(ask, list(queries)))


def main(vectors: str, bits: str, top: str) -> None:
    """Measure and print."""
    made = np.load(vectors)
    docs = np.split(made["vectors"], np.cumsum(made["tokens"])[:-1])
    with TemporaryDirectory() as directory:
        measured = measure(Path(directory) / "index", docs, made["queries"], int(bits), int(top))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main(*sys.argv[1:])
