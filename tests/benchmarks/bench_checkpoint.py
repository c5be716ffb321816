"""How long a checkpoint holds up training: copied to memory, as it is, and written to files at once. Seconds of CPU and
of the clock, medians of interleaved rounds, of a student of MiniLM's shape with the state of AdamW.

    python tests/benchmarks/bench_checkpoint.py
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.students import LateInteraction
from pipelines.students.scratch import Scratch
from pipelines.training.snapshot import Snapshot
from toy import CONFIG, make_inputs, make_loop, open_corpus, save_loop

ROUNDS = 7
BASE = Scratch(vocabulary=2000, hidden=384, layers=6, heads=12, positions=256)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        inputs = make_inputs(root)
        loop = make_loop(CONFIG, LateInteraction(base=BASE, dim=128).build(open_corpus(inputs), 0), inputs)
        snapshot, times = Snapshot(), {"step": [], "copy": [], "files": []}
        loop.step(0)
        loop.take(snapshot)  # the first allocates
        for number in range(1, ROUNDS + 1):
            measure(times["step"], lambda n=number: loop.step(n))
            measure(times["copy"], lambda: loop.take(snapshot))
            measure(times["files"], lambda n=number: save_loop(loop, root / f"checkpoint-{n}"))
        parameters = sum(p.numel() for p in loop.student.model.parameters())
        print(f"{parameters / 1e6:.1f} M parameters")
        for what, found in times.items():
            cpu, clock = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{what:>6}: {cpu:.3f} s of CPU, {clock:.3f} s")


def measure(into: list, function) -> None:
    cpu, clock = time.process_time(), time.monotonic()
    function()
    into.append((time.process_time() - cpu, time.monotonic() - clock))


if __name__ == "__main__":
    main()
