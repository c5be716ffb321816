"""What runs in each worker of a training: it opens the student and the data, takes steps, measures and saves."""

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.accelerators import hide_accelerators
from cluster.errors import StorageError
from cluster.retry import patiently
from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.training.config import TrainingRun, Validation
from pipelines.training.data import open_docs
from pipelines.training.records import Drawn, ProgressFile, Records
from pipelines.training.start import open_start

if TYPE_CHECKING:
    from pipelines.training.loop import Loop
    from pipelines.training.validate import Pool
    from pipelines.training.validate_pairs import PairPool
    from pipelines.training.workers import Workers

RETURN_EVERY = 16  # steps after which a processor's freed memory is given back
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
    from pipelines.precision import require_resolved
    from pipelines.students.loading import load
    from pipelines.training.cpu import keep_freed_memory, speed_up
    from pipelines.training.loop import Loop
    from pipelines.training.objectives import build_objective

    config = job.run.train
    if checkpoint and not config.adapter:
        first = checkpoint / "model"
    else:  # also an adapter goes on beside the weights that it began with
        first = open_start(job.inputs["start"], job.run.first)
    student = load(str(first), "cuda" if config.resources.gpus else "cpu", require_resolved(config.precision))
    if not config.resources.gpus:
        keep_freed_memory()
        speed_up(student.model)
    loop = Loop(config, student, build_objective(job.run, job.inputs["data"], student), workers)
    sampler = loop.objective.sampler
    records = Records(config.steps, drawn=Drawn.nothing(sampler.langs), examples=dict(sampler.sizes))
    if checkpoint:
        loop.restore(checkpoint)
        records = Records.parse((checkpoint / "records.json").read_text())
    pool = _open_pool(job.inputs["dev"], config.validation) if job.inputs.get("dev") else None
    if pool:
        records.measure = pool.label
    _take_steps(job, loop, records, pool)


def _open_pool(dev: Mapping[str, Any], config: Validation) -> "Pool | PairPool":
    """What the student is measured on while it learns."""
    from pipelines.training.validate import Pool
    from pipelines.training.validate_pairs import PairPool

    if "pairs" in dev:
        return PairPool(dev["pairs"], config)
    return Pool(Docstore.open(dev["queries"]), dev["qrels"], open_docs(dev["docs"]), config)


def _take_steps(job: Job, loop: "Loop", records: Records, pool: "Pool | PairPool | None") -> None:
    """Take the remaining steps, measuring and saving when it is time."""
    from pipelines.training.cpu import return_freed_memory

    config, workers = loop.config, loop.workers
    began = time.monotonic() - records.seconds
    progress, checkpoints = ProgressFile(job.out), Checkpoints(loop, job.out)
    if workers.rank == 0:
        progress.say(records, now=True)
    if pool and not records.done:
        _measure(loop, records, pool)
    while records.done < config.steps:
        loss, lr = loop.step(records.done)
        records.step(loss, lr, time.monotonic() - began)
        if records.done % RETURN_EVERY == 0 and not config.resources.gpus:
            return_freed_memory()
        last = records.done == config.steps
        measured = pool is not None and (last or records.done % config.validation.every == 0)
        if pool and measured:
            _measure(loop, records, pool)
        if workers.rank == 0:
            progress.say(records, last)
        if last or measured or records.done % config.checkpoint_every == 0:
            records.count(loop.take_drawn())
            records.overflows = loop.overflows
            checkpoints.report(records, measured)


def _measure(loop: "Loop", records: Records, pool: "Pool | PairPool") -> None:
    workers = loop.workers
    with loop.shares.paused(), loop.whole() as student:  # which uses the student's tokenizer
        records.validation(pool.evaluate(student, workers.gather, workers.rank, workers.world))


class Checkpoints:
    """Gives Ray Train the checkpoints of a training. One is copied to memory, then written and stored by another thread
    while training goes on. The next is copied when it is stored: a slow storage holds up training, and does not fill
    the node."""

    def __init__(self, loop: "Loop", out: Place):
        from pipelines.training.snapshot import Snapshot

        self._loop, self._out = loop, out
        self._snapshot = None if loop.workers.rank else Snapshot()
        self._records = ""
        self._stored = threading.Event()
        self._stored.set()
        self._error: StorageError | None = None

    def report(self, records: Records, measured: bool) -> None:
        """Copy the loop as it is now, with a score where the student was measured. All workers meet here.

        Raises:
            StorageError: the last checkpoint could not be stored.
        """
        from ray import train as ray_train
        from ray.train import CheckpointUploadMode

        # a finite number below every measure: Ray's list of checkpoints is JSON, in which NaN comes back as None
        score = records.validations[-1][1] if measured else UNRANKED
        directory = self._copy(records)
        ray_train.report(
            {"step": records.done, "score": score, "measured": measured},
            checkpoint=ray_train.Checkpoint.from_directory(directory) if directory else None,
            checkpoint_dir_name=f"step-{records.done:08d}",
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._store,
            delete_local_checkpoint_after_upload=True,
        )

    def _copy(self, records: Records) -> str | None:
        """Copy the training to the first worker's memory, to which the others give their parts, and make the directory
        for the files. Returns that directory; None on the other workers."""
        if self._snapshot:
            self._stored.wait()
            if self._error:
                raise self._error
            self._stored.clear()
        with self._loop.shares.paused():
            self._loop.take(self._snapshot)
        self._records = records.text()
        return tempfile.mkdtemp(prefix="babelray-checkpoint-") if self._snapshot else None

    def _store(self, checkpoint: Any, name: str) -> Any:
        """Write the copy and store it. Ray Train calls this in a thread; an error that it raises ends the run."""
        from ray import train as ray_train

        assert self._snapshot
        try:
            self._snapshot.write(Path(checkpoint.path))
            (Path(checkpoint.path) / "records.json").write_text(self._records)
            storage = ray_train.get_context().get_storage()
            return patiently(storage.persist_current_checkpoint, checkpoint, name)
        except Exception as error:
            self._error = StorageError(
                f"checkpoint {name} could not be stored below {self._out.redacted}: {type(error).__name__}: {error}\n"
                "The last one that was stored is kept: run again when the storage is mended"
            )
            raise self._error from error
        finally:
            self._stored.set()
