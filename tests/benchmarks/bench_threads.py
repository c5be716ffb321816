"""How a CPU's threads are best used for encoding, alone and beside other work. Not a test:

    python tests/benchmarks/bench_threads.py [--busy 0 2] [--rounds 3]

Tokens a second of MiniLM, in batches of 128 texts of 16 tokens. ``shared``: all threads compute one batch; ``each``: a
thread computes a batch (``pipelines.students.inference``). ``spinning`` is OpenMP's default, in which threads that wait
for each other keep their core; ``sleeping`` is OMP_WAIT_POLICY=PASSIVE, as everywhere here (``cluster/__init__.py``).
``--busy`` processes do nothing but count meanwhile. Each policy has a process of its own, and they take turns.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

TEXTS, TOKENS, BATCHES = 128, 16, 12
POLICIES = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}}


def measure() -> dict[str, float]:
    """Tokens a second of both ways, once."""
    import torch

    from pipelines.students import load_encoder
    from pipelines.students.inference import map_batches

    model: Any = load_encoder("minilm", "cpu").model.eval()
    features = [
        {"input_ids": torch.randint(1000, 20000, (TEXTS, TOKENS)), "attention_mask": torch.ones(TEXTS, TOKENS).long()}
        for _ in range(BATCHES)
    ]

    def compute(batch: dict[str, Any]) -> Any:
        return model(dict(batch))["sentence_embedding"]

    found = {}
    for name, is_thread_safe in (("shared", False), ("each", True)):
        map_batches(compute, features[:4], "cpu", "fp32", is_thread_safe=is_thread_safe)
        began = time.perf_counter()
        map_batches(compute, features, "cpu", "fp32", is_thread_safe=is_thread_safe)
        found[name] = TEXTS * TOKENS * BATCHES / (time.perf_counter() - began)
    return found


def _count() -> None:
    while True:
        pass


def compare(busy: int, rounds: int) -> None:
    """Print medians of some rounds beside so many busy processes."""
    others = [multiprocessing.Process(target=_count, daemon=True) for _ in range(busy)]
    for other in others:
        other.start()
    found: dict[str, list[dict[str, float]]] = {policy: [] for policy in POLICIES}
    for _ in range(rounds):
        for policy, variables in POLICIES.items():
            environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
            command = [sys.executable, __file__, "--measure"]
            done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
            found[policy].append(json.loads(done.stdout.splitlines()[-1]))
    for other in others:
        other.kill()
    for policy, measured in found.items():
        values = {way: statistics.median(one[way] for one in measured) for way in ("shared", "each")}
        print(f"{busy:5} {policy:10} {values['shared']:8.0f} {values['each']:8.0f}", flush=True)


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description="Threads of encoding on a CPU")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help="measure in this process")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    print("tokens a second;", len(os.sched_getaffinity(0)), "cores")
    print(f"{'busy':>5} {'waiting':10} {'shared':>8} {'each':>8}", flush=True)
    for busy in options.busy:
        compare(busy, options.rounds)


if __name__ == "__main__":
    main()
