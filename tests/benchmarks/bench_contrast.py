"""How fast a dense student learns by contrast beside sentence-transformers, and in how much memory. Not a test:

    python tests/benchmarks/bench_contrast.py [--queries 64] [--precisions fp32 bf16] [--blocks 3]

MiniLM as base, InfoNCE over the batch: each query has its passage and a negative, of 30 to 180 tokens. Steps of the
loop beside those of SentenceTransformerTrainer with CachedMultipleNegativesRankingLoss and with
MultipleNegativesRankingLoss, the same texts, batch and precision, in one process on all cores (or ``--threads``), in
turns of two steps, so that other load falls on all sides; medians of wall and CPU time are printed, and ratios (bar:
1.2 times as fast as each). Then the peak memory of a step above what the process held before, each side in a process of
its own. Needs the packages ``datasets`` and ``accelerate``, which the library's trainer imports.
"""

import argparse
import ctypes
import gc
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
from pipelines.students.checkpoint import Checkpoint
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.cpu import keep_freed_memory, speed_up
from pipelines.training.loop import Loop
from pipelines.training.losses import InfoNce
from pipelines.training.objectives import build_objective
from pipelines.training.workers import Workers

STEPS = 2  # of one side before it is the next one's turn
STUDENT = Dense(base=Checkpoint(model="minilm"), query_prefix="", doc_prefix="")
LIBRARY = {"cached": "CachedMultipleNegativesRankingLoss", "plain": "MultipleNegativesRankingLoss"}
SIDES = ("here", *LIBRARY)
BAR = 1.2


def make_data(root: Path, queries: int) -> dict[str, Any]:
    """Questions of 8 words, each with a passage and three others, of common words that are a token each."""
    random = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(random.choice(WORDS.split(), words))

    asked = [{"query_id": f"q{n}", "lang": "en", "text": text(8)} for n in range(queries)]
    docs = [
        {"doc_id": f"d{n}", "lang": "en", "title": "", "text": text(int(random.integers(30, 181)))}
        for n in range(4 * queries)
    ]
    qrels = [{"query_id": f"q{n}", "doc_id": f"d{4 * n}", "relevance": 1} for n in range(queries)]
    ranked = [
        {"query_id": f"q{n}", "doc_ids": [f"d{4 * n + k}" for k in range(4)], "scores": [4.0, 3.0, 2.0, 1.0]}
        for n in range(queries)
    ]
    data = {
        "queries": table_artifact(root / "queries@0", QUERIES, asked),
        "docs": {"en": table_artifact(root / "docs@0", DOCS, docs)},
        "qrels": {"en": table_artifact(root / "qrels@0", QRELS, qrels)},
        "rankings": table_artifact(root / "rankings@0", RANKINGS, ranked),
    }
    return {"main": data}


def configure(queries: int, precision: str) -> TrainConfig:
    """The training of all sides."""
    loss = InfoNce(temperature=0.05)
    return TrainConfig(
        student=STUDENT, loss=loss, batch=queries, ways=2, pool=3, precision=precision, steps=10_000, lr=2e-5
    )


class OurSide:
    """Steps of the loop."""

    def __init__(self, data: dict[str, Any], precision: str, queries: int):
        config, student = configure(queries, precision), STUDENT.build(Corpus.open({}), 0)
        speed_up(student.model)
        objective = build_objective(TrainingRun(train=config), data, student)
        self.loop, self.number = Loop(config, student, objective, Workers()), 0

    def measure(self, steps: int = STEPS) -> tuple[float, float]:
        """Wall and CPU seconds of a step, the first one of all left out."""
        if not self.number:
            self._step()
        began = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self._step()
        return (time.perf_counter() - began[0]) / steps, (time.process_time() - began[1]) / steps

    def _step(self) -> None:
        self.loop.step(self.number)
        self.number += 1


class LibrarySide:
    """Steps of ``SentenceTransformerTrainer`` on the entries of the same batches."""

    def __init__(self, data: dict[str, Any], precision: str, queries: int, loss: str, root: Path):
        from datasets import Dataset
        from sentence_transformers.sentence_transformer import losses

        self.model, self.precision, self.queries, self.root = (
            STUDENT.build(Corpus.open({}), 0).model,
            precision,
            queries,
            root,
        )
        student = STUDENT.build(Corpus.open({}), 0)
        objective = build_objective(TrainingRun(train=configure(queries, precision)), data, student)
        corpus, rows = Corpus.open(data), []
        for number in range(STEPS + 1):
            for (entry,) in objective.share(number, 0, 1).groups:
                anchor = corpus.queries.text(entry.query_id)
                positive, negative = (corpus.docs["en"].text(doc) for doc in entry.doc_ids)
                rows.append({"anchor": anchor, "positive": positive, "negative": negative})
        self.dataset = Dataset.from_list(rows)
        self.loss = getattr(losses, loss)(self.model, scale=20.0)

    def measure(self, steps: int = STEPS) -> tuple[float, float]:
        """Wall and CPU seconds of a step, the first one left out."""
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from transformers import TrainerCallback

        marks: list[tuple[float, float]] = []

        class Clock(TrainerCallback):
            def on_step_end(self, *_: object, **__: object) -> None:
                marks.append((time.perf_counter(), time.process_time()))

        arguments = SentenceTransformerTrainingArguments(
            str(self.root / "library"), per_device_train_batch_size=self.queries, max_steps=steps + 1,
            bf16=self.precision == "bf16", use_cpu=True, save_strategy="no", report_to=[], logging_strategy="no",
            learning_rate=2e-5, lr_scheduler_type="constant", max_grad_norm=2.0, disable_tqdm=True,
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=self.model, args=arguments, train_dataset=self.dataset, loss=self.loss, callbacks=[Clock()]
        ).train()
        wall, cpu = ((marks[-1][k] - marks[0][k]) / steps for k in (0, 1))
        return wall, cpu


def make_side(name: str, root: Path, precision: str, queries: int) -> OurSide | LibrarySide:
    """One of ``SIDES``, on data and a model of its own."""
    data = make_data(root / name, (STEPS + 1) * queries)
    if name == "here":
        return OurSide(data, precision, queries)
    return LibrarySide(data, precision, queries, LIBRARY[name], root)


def bench_speed(root: Path, precision: str, queries: int, blocks: int) -> bool:
    """Print seconds a step of all sides; whether those of this package meet the bar."""
    sides = {name: make_side(name, root, precision, queries) for name in SIDES}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for _ in range(blocks):
        for name, side in sides.items():
            found[name].append(side.measure())
    meets = True
    for name in SIDES:
        wall, cpu = (statistics.median(pair[k] for pair in found[name]) for k in (0, 1))
        line = f"{precision} {name:7} {wall:7.2f} s a step, {queries / wall:6.1f} queries a second, {cpu:7.2f} s of CPU"
        if name != "here":
            pairs = list(zip(found["here"], found[name], strict=True))
            ratios = [[other[k] / ours[k] for ours, other in pairs] for k in (0, 1)]
            middle = statistics.median(ratios[0])
            meets &= middle >= BAR
            line += f"; ratio {middle:.2f} ({min(ratios[0]):.2f} to {max(ratios[0]):.2f}), of CPU "
            line += f"{statistics.median(ratios[1]):.2f}"
        print(line, flush=True)
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    return meets


def measure_memory(root: Path, name: str, precision: str, queries: int) -> dict[str, Any]:
    """The peak of two steps of one side above what this process held before."""
    side = make_side(name, root, precision, queries)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted
    before = peak_mb()
    if name == "here":
        keep_freed_memory()
    side.measure(1)
    return {"side": name, "precision": precision, "queries": queries, "peak_mb": round(peak_mb() - before)}


def main() -> None:
    """Print speed and memory; exit with 1 where the bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    meets = True
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BABELRAY_CACHE"] = f"{directory}/cache"
        root = Path(directory)
        if chosen.memory_of:
            print(json.dumps(measure_memory(root, chosen.memory_of, chosen.precisions[0], chosen.queries)))
            return
        keep_freed_memory()  # for all sides alike
        for precision in chosen.precisions:
            meets &= bench_speed(root / precision, precision, chosen.queries, chosen.blocks)
    for precision in chosen.precisions:
        options: list[object] = ["--queries", chosen.queries, "--precisions", precision]
        peaks = {name: in_own_process(__file__, [*options, "--memory-of", name])["peak_mb"] for name in SIDES}
        ratios = ", ".join(f"{name} {peaks[name]} MB ({peaks[name] / peaks['here']:.2f} times)" for name in LIBRARY)
        print(f"{precision} peak memory of a step: here {peaks['here']} MB, {ratios}", flush=True)
    sys.exit(0 if meets else 1)


if __name__ == "__main__":
    main()
