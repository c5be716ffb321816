"""What meta-learning costs beside fine-tuning on the same episodes: time and peak memory of a step. Not a test:

    python tests/benchmarks/bench_meta.py [--steps 3] [--layers 4] [--hidden 256] [--length 64]

A small BERT of random weights, questions of 12 words and passages of ``--length`` words in four languages, the
specifications, sizes and inner steps of the recipe maml-align-lareqa: 4 tasks a step, of 8 support questions and 4 in
each query set. Each form is measured in a process of its own: medians of the wall and the CPU time of a step, the CPU
time beside that of fine-tuning, and the peak of memory above what the process held before the first step. The load of
the machine stands above the table.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_training import WORDS
from growth import in_own_process, peak_mb

from artifacts import table_artifact
from pipelines.students import Corpus, Dense
from pipelines.students.scratch import Scratch
from pipelines.tables import DOCS, QRELS, QUERIES
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.cpu import keep_freed_memory, speed_up
from pipelines.training.loop import Loop
from pipelines.training.losses import Triplet
from pipelines.training.meta.config import Meta
from pipelines.training.objectives import build_objective
from pipelines.training.workers import Workers

LANGS = ("ar", "de", "el", "hi")
META = Meta(tasks=("el_el-el_ar-el_ar,el,hi", "hi_hi-hi_de-hi_de,hi,ar"))
FORMS: dict[str, dict[str, Any]] = {
    "finetune": {"algorithm": "finetune"},
    "maml, first order": {"algorithm": "maml"},
    "maml, second order": {"algorithm": "maml", "order": 2},
    "maml_align, as the code": {},
    "maml_align, as the text": {"student_adapts": True},
    "maml_align, second order": {"order": 2},
    "maml_align, embeddings": {"kd_target": "embeddings"},
}
QUESTIONS = 200


def make_data(root: Path, length: int) -> dict[str, Any]:
    """Questions in four languages, each with a passage in each."""
    random = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(random.choice(WORDS.split(), words))

    data: dict[str, Any] = {"queries": {}, "docs": {}, "qrels": {}}
    for lang in LANGS:
        asked = [{"query_id": f"q{n}", "lang": lang, "text": text(12)} for n in range(QUESTIONS)]
        docs = [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": text(length)} for n in range(QUESTIONS)]
        judged = [{"query_id": f"q{n}", "doc_id": f"d{n}", "relevance": 1} for n in range(QUESTIONS)]
        data["queries"][lang] = table_artifact(root / f"queries-{lang}@0", QUERIES, asked)
        data["docs"][lang] = table_artifact(root / f"docs-{lang}@0", DOCS, docs)
        data["qrels"][lang] = table_artifact(root / f"qrels-{lang}@0", QRELS, judged)
    return data


def measure(form: dict[str, Any], length: int, hidden: int, layers: int, steps: int) -> dict[str, float]:
    """Medians of the wall and CPU seconds of a step, and the peak in MB above what was held before the first."""
    os.environ["BABELRAY_CACHE"] = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as directory:
        data = make_data(Path(directory), length)
        base = Scratch(vocabulary=2000, hidden=hidden, layers=layers, positions=512)
        student_config = Dense(base=base, query_prefix="", doc_prefix="", query_length=96, doc_length=352)
        corpus = Corpus.open({"main": {"queries": data["queries"]["el"], "docs": data["docs"]}})
        student = student_config.build(corpus, 0)
        keep_freed_memory()
        speed_up(student.model)
        config = TrainConfig(
            student=student_config, steps=100, batch=4, lr=5e-5, meta=META.model_copy(update=form),
            loss=Triplet(margin=1.0, distance="euclidean", in_batch=False),
        )  # fmt: skip
        loop = Loop(config, student, build_objective(TrainingRun(train=config), {"main": data}, student), Workers())
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, walls, cpus = peak_mb(), [], []
        for number in range(steps + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            loop.step(number)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        found = {"wall": statistics.median(walls[1:]), "cpu": statistics.median(cpus[1:])}
        return {**found, "peak": peak_mb() - before}


def main() -> None:
    """Measure each form and print a table."""
    parser = argparse.ArgumentParser(description="Time and memory of meta-learning")
    sizes = {"length": 64, "hidden": 256, "layers": 4, "steps": 3}
    for name, default in {**sizes, "threads": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--form", choices=FORMS, help="measure this one in this process, and print JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    given = {name: getattr(options, name) for name in sizes}
    if options.form:
        print(json.dumps(measure(FORMS[options.form], **given)))
        return
    print("load", *(f"{value:.1f}" for value in os.getloadavg()), "cores", len(os.sched_getaffinity(0)))
    print(f"{'form':28}{'wall s':>9}{'CPU s':>9}{'times':>8}{'peak MB':>9}")
    first = 0.0
    for name in FORMS:
        arguments = [
            word for key, value in {**given, "threads": options.threads}.items() for word in (f"--{key}", value)
        ]
        found = in_own_process(__file__, ["--form", name, *arguments])
        first = first or found["cpu"]
        times = found["cpu"] / first
        print(f"{name:28}{found['wall']:9.2f}{found['cpu']:9.2f}{times:8.1f}{found['peak']:9.0f}", flush=True)


if __name__ == "__main__":
    main()
