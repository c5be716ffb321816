"""How fast batches get ready, and how fast late interaction trains beside sentence-transformers. Not a test:

    python tests/benchmarks/bench_training.py batches
        64 queries × 6 passages of 180 tokens, for a student that costs nothing: shares a second (bar: 10 on 2 cores)
    python tests/benchmarks/bench_training.py train
        16 queries × 6 passages of 180 tokens, MiniLM as base: seconds of a step of the loop, and of one of
        MultiVectorEncoderTrainer with MultiVectorDistillKLDivLoss, in fp32 and bf16 (bar: 1.6 times as fast). Needs the
        packages ``datasets`` and ``accelerate``, which the library's trainer imports

Both sides of ``train`` see the same texts, precision and batch, in one process on all cores. They take turns of two
steps, so that other load on the machine falls on both; medians are printed, of wall time and of CPU time, which other
load disturbs less.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from artifacts import table_artifact
from pipelines.students import Corpus, LateInteraction
from pipelines.students.checkpoint import Checkpoint
from pipelines.tables import DOCS, QUERIES, RANKINGS
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.cpu import speed_up
from pipelines.training.loop import Loop
from pipelines.training.objectives import build_objective
from pipelines.training.workers import Workers

STEPS = 2  # of one side before it is the other's turn
PROMPT = "[unused1] "
LANGS = ("de", "en", "zh")
WORDS = "the of city river mountain people language history science music king water road bridge market winter"


def make_data(root: Path, queries: int, docs: int, tokens: int = 180) -> dict:
    """Passages of ``tokens`` common words, each of which is a token."""
    random = np.random.default_rng(0)

    rows = {
        lang: [
            {"doc_id": f"d{n}", "lang": lang, "title": "", "text": " ".join(random.choice(WORDS.split(), tokens))}
            for n in range(docs)
        ]
        for lang in LANGS
    }
    asked = [
        {"query_id": f"q{n}", "lang": "en", "text": " ".join(random.choice(WORDS.split(), 8))} for n in range(queries)
    ]
    ranked = [
        {
            "query_id": f"q{n}",
            "doc_ids": [f"d{d}" for d in random.choice(docs, 50, replace=False)],
            "scores": np.sort(random.normal(size=50))[::-1].tolist(),
        }
        for n in range(queries)
    ]
    data = {
        "queries": table_artifact(root / "queries@0", QUERIES, asked),
        "scores": table_artifact(root / "scores@0", RANKINGS, ranked),
        "docs": {lang: table_artifact(root / f"docs-{lang}@0", DOCS, rows[lang]) for lang in LANGS},
    }
    return {"main": data}


def make_student():
    """Late interaction on all-MiniLM-L6-v2."""
    return LateInteraction(base=Checkpoint(model="minilm")).build(Corpus.open({}), 0)


def bench_batches(root: Path, seconds: float) -> None:
    """Shares a second, of texts that were never seen before."""
    data = make_data(root, queries=2000, docs=20_000)
    config = TrainConfig(student=LateInteraction(base=Checkpoint(model="minilm")), batch=64, steps=10_000)
    objective = build_objective(TrainingRun(train=config), data, make_student())
    objective.share(0, 0, 1)
    began, used, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        number += 1
        objective.share(number, 0, 1)
    passed, used = time.perf_counter() - began, time.process_time() - used
    print(
        f"{number / passed:.1f} shares a second (64 queries × 6 passages), {1000 * used / number:.0f} ms of CPU each, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def bench_train(root: Path, queries: int, blocks: int, precisions: list[str]) -> None:
    """Seconds a step on both sides, in turns of two steps; each side's model is its own copy."""
    data = make_data(root, queries=64, docs=2000)
    for precision in precisions:
        ours, theirs = [], []
        sides = {"ours": OurSide(data, precision, queries), "library": LibrarySide(data, precision, queries, root)}
        for _ in range(blocks):
            ours.append(sides["ours"].measure())
            theirs.append(sides["library"].measure())
        for name, seconds in (("ours", ours), ("sentence-transformers", theirs)):
            wall, cpu = (statistics.median(pair[k] for pair in seconds) for k in (0, 1))
            print(f"{precision} {name:22} {wall:7.2f} s a step, {cpu:7.2f} s of CPU time", flush=True)
        ratios = [[b[k] / a[k] for a, b in zip(ours, theirs, strict=True)] for k in (0, 1)]
        print(
            f"{precision} ratio {statistics.median(ratios[0]):.2f} ({min(ratios[0]):.2f} to {max(ratios[0]):.2f}), "
            f"of CPU time {statistics.median(ratios[1]):.2f}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


class OurSide:
    """Steps of the loop."""

    def __init__(self, data: dict, precision: str, queries: int):
        config = TrainConfig(
            student=LateInteraction(base=Checkpoint(model="minilm")), batch=queries, precision=precision, steps=10_000
        )
        student = make_student()
        speed_up(student.model)
        objective = build_objective(TrainingRun(train=config), data, student)
        self.loop, self.number = Loop(config, student, objective, Workers()), 0
        self.loop.step(0)

    def measure(self) -> tuple[float, float]:
        """Wall and CPU seconds of a step."""
        began = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            self.number += 1
            self.loop.step(self.number)
        return (time.perf_counter() - began[0]) / STEPS, (time.process_time() - began[1]) / STEPS


class LibrarySide:
    """Steps of ``MultiVectorEncoderTrainer`` on entries that are drawn in the same way."""

    def __init__(self, data: dict, precision: str, queries: int, root: Path):
        from datasets import Dataset

        config = TrainConfig(student=LateInteraction(base=Checkpoint(model="minilm")), batch=queries, seed=7)
        self.student, self.precision, self.queries, self.root = make_student(), precision, queries, root
        objective = build_objective(TrainingRun(train=config), data, self.student)
        corpus, rows = Corpus.open(data), []
        for number in range(64 // queries):
            for (entry,) in objective.share(number, 0, 1).groups:
                texts = [corpus.docs[lang].text(doc) for lang, doc in zip(entry.langs, entry.doc_ids, strict=True)]
                row = {"query": corpus.queries.text(entry.query_id)} | {f"d{n}": text for n, text in enumerate(texts)}
                rows.append({**row, "label": entry.scores.tolist()})
        self.dataset = Dataset.from_list(rows)

    def measure(self) -> tuple[float, float]:
        """Wall and CPU seconds of a step, the first one left out."""
        from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
        from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss
        from transformers import TrainerCallback

        marks: list[tuple[float, float]] = []

        class Clock(TrainerCallback):
            def on_step_end(self, *_: object, **__: object) -> None:
                marks.append((time.perf_counter(), time.process_time()))

        arguments = MultiVectorEncoderTrainingArguments(
            str(self.root / "library"), per_device_train_batch_size=self.queries, max_steps=STEPS + 1,
            bf16=self.precision == "bf16", use_cpu=True, save_strategy="no", report_to=[], logging_strategy="no",
            learning_rate=5e-6, lr_scheduler_type="constant", max_grad_norm=2.0, disable_tqdm=True,
            prompts={"query": self.student.model.prompts["query"], **{f"d{n}": PROMPT for n in range(6)}},
        )  # fmt: skip
        MultiVectorEncoderTrainer(
            model=self.student.model, args=arguments, train_dataset=self.dataset, callbacks=[Clock()],
            loss=MultiVectorDistillKLDivLoss(self.student.model),
        ).train()  # fmt: skip
        return tuple((marks[-1][k] - marks[0][k]) / STEPS for k in (0, 1))  # type: ignore[return-value]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["batches", "train"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    chosen = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BABELRAY_CACHE"] = f"{directory}/cache"
        if chosen.what == "batches":
            bench_batches(Path(directory), chosen.seconds)
        else:
            bench_train(Path(directory), chosen.queries, chosen.blocks, chosen.precisions)
