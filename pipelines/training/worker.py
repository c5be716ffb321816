"""What runs in each worker of a training: it opens the student and the data, takes steps, measures and saves."""

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.accelerators import hide_accelerators
from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.training.config import TrainingRun
from pipelines.training.data import open_docs
from pipelines.training.records import Drawn, ProgressFile, Records
from pipelines.training.start import open_start

if TYPE_CHECKING:
    from pipelines.training.loop import Loop
    from pipelines.training.validate import Pool
    from pipelines.training.workers import Workers

UNRANKED = -1e300  # the score of a checkpoint whose student was not measured


@dataclass(frozen=True)
class Job:
    """What every worker gets."""

    run: TrainingRun
    inputs: Mapping[str, Any]
    out: Place


def train_worker(settings: dict[str, Any]) -> None:
    """Train from the start or from the last checkpoint to the last step."""
    job: Job = settings["job"]
    resources = job.run.train.resources
    if not resources.gpus:
        hide_accelerators()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # the texts of a batch are tokenised together, in a thread
    import torch
    from ray import train as ray_train

    from pipelines.training.workers import Workers

    context = ray_train.get_context()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(resources.threads or max(1, cores // context.get_local_world_size()))
    torch.backends.mkldnn.deterministic = True  # type: ignore[assignment]
    workers = Workers(context.get_world_rank(), context.get_world_size())
    checkpoint = ray_train.get_checkpoint()
    if checkpoint is None:
        _run(job, workers, None)
    else:
        with checkpoint.as_directory() as directory:
            _run(job, workers, Path(directory))


def _run(job: Job, workers: "Workers", checkpoint: Path | None) -> None:
    from pipelines.students.loading import load
    from pipelines.training.cpu import keep_freed_memory, speed_up
    from pipelines.training.loop import Loop
    from pipelines.training.objectives import build_objective
    from pipelines.training.validate import Pool

    config = job.run.train
    if checkpoint and not config.adapter:
        first = checkpoint / "model"
    else:  # also an adapter goes on beside the weights that it began with
        first = open_start(job.inputs["start"], job.run.first)
    student = load(str(first), "cuda" if config.resources.gpus else "cpu", config.precision)
    if not config.resources.gpus:
        keep_freed_memory()
        speed_up(student.model)
    loop = Loop(config, student, build_objective(job.run, job.inputs["data"], student), workers)
    sampler = loop.objective.sampler
    records = Records(config.steps, drawn=Drawn.nothing(sampler.langs), examples=dict(sampler.sizes))
    if checkpoint:
        loop.restore(checkpoint)
        records = Records.parse((checkpoint / "records.json").read_text())
    pool = None
    if dev := job.inputs.get("dev"):
        pool = Pool(Docstore.open(dev["queries"]), dev["qrels"], open_docs(dev["docs"]), config.validation)
    _take_steps(job, loop, records, pool)


def _take_steps(job: Job, loop: "Loop", records: Records, pool: "Pool | None") -> None:
    """Take the remaining steps, measuring and saving when it is time."""
    config, workers = loop.config, loop.workers
    began = time.monotonic() - records.seconds
    progress = ProgressFile(job.out)
    if pool and not records.done:
        _measure(loop, records, pool)
    while records.done < config.steps:
        loss, lr = loop.step(records.done)
        records.step(loss, lr, time.monotonic() - began)
        last = records.done == config.steps
        measured = pool is not None and (last or records.done % config.validation.every == 0)
        if pool and measured:
            _measure(loop, records, pool)
        if workers.rank == 0:
            progress.say(records, last)
        if last or measured or records.done % config.checkpoint_every == 0:
            records.count(loop.take_drawn())
            records.overflows = loop.overflows
            _report(loop, records, measured)


def _measure(loop: "Loop", records: Records, pool: "Pool") -> None:
    workers = loop.workers
    with loop.shares.paused(), loop.whole() as student:  # which uses the student's tokenizer
        records.validation(pool.evaluate(student, workers.gather, workers.rank, workers.world))


def _report(loop: "Loop", records: Records, measured: bool) -> None:
    """Give Ray Train a checkpoint, with a score where the student was measured. All workers meet here."""
    from ray import train as ray_train

    # a finite number below every measure: Ray's list of checkpoints is JSON, in which NaN comes back as None
    score = records.validations[-1][1] if measured else UNRANKED
    metrics = {"step": records.done, "score": score, "measured": measured}
    name = f"step-{records.done:08d}"
    if loop.workers.rank:
        loop.save(None)
        ray_train.report(metrics, checkpoint=None, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as directory:
        with loop.shares.paused():
            loop.save(Path(directory))
        (Path(directory) / "records.json").write_text(records.text())
        ray_train.report(metrics, checkpoint=ray_train.Checkpoint.from_directory(directory), checkpoint_dir_name=name)
