"""Memory of a step with in-batch negatives: a batch of 1,024 queries takes what one of 32 takes. Each batch size in a
process of its own, which prints its peak above what it held before its first step.

The C library is told to give freed memory back, so that what is measured is memory in use. The workers of a training on
CPUs keep it, since that is faster, and then the holes between tensors of other sizes count too.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PASSAGE, LARGE, MOST = 60, 1024, 1.15
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # of glibc, in bytes
FORGET_PEAK = "5"  # proc(5): written to clear_refs, it sets VmHWM to the memory in use


def measure(batch: int, root: Path) -> dict[str, float]:
    """Take a step of a transformer whose activations are large beside its weights and its vectors."""
    import torch

    from pipelines.students import Dense
    from pipelines.students.scratch import Scratch
    from pipelines.training.config import TrainConfig, TrainResources
    from pipelines.training.cpu import speed_up
    from pipelines.training.losses import InfoNce
    from toy import make_loop, open_corpus

    torch.set_num_threads(1)
    inputs = make_data(root)
    base = Scratch(vocabulary=200, hidden=32, layers=12, heads=8, positions=64)
    student = Dense(base=base, query_prefix="", doc_prefix="", query_length=64, doc_length=64)
    config = TrainConfig(
        student=student, batch=batch, ways=2, pool=3, steps=1, lr=1e-3, loss=InfoNce(temperature=0.05),
        piece_tokens=4096, resources=TrainResources(threads=1),
    )  # fmt: skip
    encoder = student.build(open_corpus(inputs), 0)
    speed_up(encoder.model)
    loop = make_loop(config, encoder, inputs)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before the step would hide what the step takes
    Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
    before = memory_mb("VmRSS")
    loss, _ = loop.step(0)
    return {"loss": loss, "peak_mb": memory_mb("VmHWM") - before}


def memory_mb(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name))) / 1024


def make_data(root: Path) -> dict:
    """Questions of three letters, and passages of about ``PASSAGE`` tokens, which are single letters."""
    import numpy as np

    from artifacts import table_artifact
    from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS

    random = np.random.default_rng(0)

    def text(letters: int) -> str:
        return " ".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), letters))

    queries = [{"query_id": f"q{n}", "lang": "en", "text": text(3)} for n in range(LARGE)]
    docs = [{"doc_id": f"d{n}", "lang": "en", "title": "", "text": text(PASSAGE)} for n in range(4 * LARGE)]
    qrels = [{"query_id": f"q{n}", "doc_id": f"d{4 * n}", "relevance": 1} for n in range(LARGE)]
    rankings = [
        {"query_id": f"q{n}", "doc_ids": [f"d{4 * n + k}" for k in range(4)], "scores": [4.0, 3.0, 2.0, 1.0]}
        for n in range(LARGE)
    ]
    data = {
        "queries": table_artifact(root / "queries@0", QUERIES, queries),
        "docs": {"en": table_artifact(root / "docs@0", DOCS, docs)},
        "qrels": {"en": table_artifact(root / "qrels@0", QRELS, qrels)},
        "rankings": table_artifact(root / "rankings@0", RANKINGS, rankings),
    }
    return {"data": {"main": data}}


def in_own_process(batch: int, root: Path) -> dict[str, float]:
    environment = {**os.environ, **GIVE_BACK, "PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parent}"}
    command = [sys.executable, __file__, str(batch), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peaks of memory from Linux' /proc")
def test_a_batch_of_1024_takes_the_memory_of_one_of_32(tmp_path):
    few, many = (in_own_process(batch, tmp_path / str(batch)) for batch in (32, LARGE))
    assert few["peak_mb"] > 100  # activations dominate
    assert many["loss"] > few["loss"]  # more candidates
    assert many["peak_mb"] < MOST * few["peak_mb"], (few, many)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("BABELRAY_CACHE", cache)
        print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
