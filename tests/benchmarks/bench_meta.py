"""What meta-learning costs beside fine-tuning on the same episodes: time and peak memory of a step. Not a test:

    python tests/benchmarks/bench_meta.py [--data DIR] [--rounds 3] [--tasks 2] [--threads 0] [--only all]

The recipe maml-align-small on the weights of all-MiniLM-L6-v2, once with its LoRA and once with all weights trained:
episodes of LAReQA, which is ``DIR/lareqa`` (default: ../shared/data), three inner steps. All is in fp32, since second
order is. A step has ``--tasks`` meta-tasks (the recipe: 4): time is in proportion to them, and one is in memory at a
time.

Each form has a process of its own, and takes turns with that of fine-tuning, the same step each, so that other load
falls on both alike. Its times are medians over the rounds; ``times`` is the median of its CPU time divided by that of
fine-tuning in the same round. The peak is that of memory above what the process held before its first step, which is
not timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from growth import peak_mb

from artifacts import table_artifact
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.students import Corpus
from pipelines.students.loading import load as open_student
from pipelines.tables import DOCS, QRELS, QUERIES
from pipelines.training.config import TrainingRun
from pipelines.training.cpu import keep_freed_memory, speed_up
from pipelines.training.loop import Loop
from pipelines.training.objectives import build_objective
from pipelines.training.workers import Workers

FORMS: dict[str, dict[str, Any]] = {
    "finetune": {"algorithm": "finetune"},
    "maml, first order": {"algorithm": "maml"},
    "maml, second order": {"algorithm": "maml", "order": 2},
    "maml_align, as the code": {},
    "maml_align, as the text": {"student_adapts": True},
}
TRAINED = {"lora": "LoRA of rank 16", "all": "all weights"}
SHARED = Path(__file__).parents[3] / "shared" / "data"


def make_loop(form: str, options: argparse.Namespace, root: Path) -> Loop:
    """The loop of a form, as a worker opens it."""
    base = '{kind="checkpoint", model="minilm"}'
    recipe = load(
        "maml-align-small",
        [f"data={options.data}", f"train.student.base={base}", "train.precision=fp32", f"train.batch={options.tasks}"],
    )
    training = plan(recipe).training
    assert training
    assert recipe.source
    assert recipe.languages
    config = training.train.config.train
    meta = config.meta.model_copy(update=FORMS[form])
    config = config.model_copy(update={"meta": meta} | ({"adapter": None} if options.trained == "all" else {}))
    tables = (("queries", QUERIES), ("docs", DOCS), ("qrels", QRELS))
    data: dict[str, dict[str, Any]] = {
        name: {
            lang: table_artifact(
                root / f"{name}-{lang}@0",
                table,
                [entry.row for entry in getattr(recipe.source, name)(lang, "train") if entry.row],
            )
            for lang in recipe.languages.docs
        }
        for name, table in tables
    }
    config.student.build(Corpus.open({}), 0).save(root / "start")
    student = open_student(str(root / "start"), "cpu", config.precision)
    keep_freed_memory()
    speed_up(student.model)
    return Loop(config, student, build_objective(TrainingRun(train=config), {"main": data}, student), Workers())


def take_steps(form: str, options: argparse.Namespace) -> None:
    """Take the step whose number comes as a line, and answer with seconds and the peak so far, until lines end."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BABELRAY_CACHE"] = f"{directory}/cache"
        loop = make_loop(form, options, Path(directory))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak_mb()
        for line in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            loop.step(int(line))
            found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            print(json.dumps({**found, "peak": peak_mb() - before}), flush=True)


class Process:
    """A form in a process of its own."""

    def __init__(self, form: str, trained: str, options: argparse.Namespace):
        given = {name: getattr(options, name) for name in ("data", "tasks", "threads")} | {"trained": trained}
        words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        self.form = form
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--form", form, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.steps: list[dict[str, float]] = []
        self.step(0)
        self.steps.clear()

    def step(self, number: int) -> None:
        """Have it take a step. Raises RuntimeError where it has ended."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        if not (answer := self._process.stdout.readline()):
            raise RuntimeError(f"the process of {self.form} ended: its error stands above")
        self.steps.append(json.loads(answer))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def compare(trained: str, options: argparse.Namespace) -> None:
    """Measure all forms of one student, and print a table."""
    print(f"{TRAINED[trained]}; load", *(f"{value:.1f}" for value in os.getloadavg()))
    print(f"{'form':26}{'wall s':>8}{'CPU s':>8}{'times':>7}  (from … to){'peak MB':>13}{'times':>7}", flush=True)
    first, *others = FORMS
    beside = Process(first, trained, options)
    for form in others:
        process = Process(form, trained, options)
        before = len(beside.steps)
        for number in range(1, options.rounds + 1):
            beside.step(number)
            process.step(number)
        process.close()
        print_row(process, beside.steps[before:])
    beside.close()
    print_row(beside, beside.steps)


def print_row(process: Process, beside: list[dict[str, float]]) -> None:
    """A line of the table: a form, and the steps of fine-tuning that it is compared with."""
    wall, cpu, peak = ([step[name] for step in process.steps] for name in ("wall", "cpu", "peak"))
    ratios = [one / other["cpu"] for one, other in zip(cpu, beside, strict=True)]
    print(
        f"{process.form:26}{statistics.median(wall):8.2f}{statistics.median(cpu):8.2f}{statistics.median(ratios):7.2f}"
        f"  ({min(ratios):.2f} … {max(ratios):.2f}){max(peak):11.0f}{max(peak) / max(s['peak'] for s in beside):7.2f}",
        flush=True,
    )


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description="Time and memory of meta-learning")
    parser.add_argument("--data", type=Path, default=SHARED)
    for name, default in {"rounds": 3, "tasks": 2, "threads": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", choices=TRAINED, help="measure this student alone")
    parser.add_argument("--form", choices=FORMS, help="take the steps of this form that standard input names")
    parser.add_argument("--trained", choices=TRAINED, default="lora", help="with --form")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.form:
        take_steps(options.form, options)
        return
    print("cores", len(os.sched_getaffinity(0)), "threads", torch.get_num_threads(), "tasks a step", options.tasks)
    for trained in [options.only] if options.only else TRAINED:
        compare(trained, options)


if __name__ == "__main__":
    main()
