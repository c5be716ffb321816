"""The training step: a student learns from a teacher's scores, on Ray Train.

Inputs: ``queries``, ``scores`` (the teacher's RANKINGS), ``docs`` by language, and, to choose the best checkpoint,
``dev``: ``queries``, ``qrels`` by language and, where they differ from the training documents, ``docs`` by language.

The artifact: ``start/`` (the untrained student; ``warm/`` after its warm-up, where it has one), ``last/`` and ``best/``
(all sentence-transformers directories), ``losses.tsv``, ``validation.tsv``, ``curves.png``. While it grows there are
``checkpoints/`` (Ray Train's), from which a killed training goes on, and ``progress.json``. Starting the workers costs
10 to 20 s on a laptop, most of it imports.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.artifact import Artifact
from cluster.errors import BabelrayError, StepError
from cluster.session import connect
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.docstore import Docstore, RowStore
from pipelines.training.config import TrainConfig
from pipelines.training.records import ProgressFile, Records

if TYPE_CHECKING:
    from pipelines.training.loop import Loop, Workers

log = logging.getLogger("babelray.train")
CHECKPOINTS = "checkpoints"
WARM, WARM_FACTS = "warm", "warm.json"  # the student after its warm-up, and what that said
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of checkpoints
UNMEASURED = -1.0  # below every nDCG
# how long workers wait for one another: the first builds the student and warms it up alone, which takes hours on a
# large collection, where torch's own 30 minutes would end the training. A worker that dies is noticed without this
PATIENCE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class _Job:
    """What every worker is told."""

    config: TrainConfig
    inputs: Mapping[str, Any]
    out: Place


def train(config: TrainConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Train, or go on from the last checkpoint below ``out``, and write the artifact's files (see above).

    Returns facts: steps, the last loss, the best step and its nDCG@20 where there are dev queries, queries skipped for
    want of translations, steps that overflowed fp16, passages per language, seconds, and what the student's warm-up
    said, where it has one.

    Raises:
        StepError: an input is missing, or workers failed more than ``resources.failures`` times.
    """
    if {"queries", "scores", "docs"} - set(inputs):
        raise StepError(f"training needs the inputs queries, scores and docs; got {', '.join(sorted(inputs))}")
    finished = out / "facts.json"
    if not finished.exists():
        connect()
        _forget_torn_snapshot(out / CHECKPOINTS)
        finished.write(json.dumps(_publish(_fit(_Job(config, inputs, out)), out)).encode())
    (out / CHECKPOINTS).delete()
    (out / WARM).delete()
    facts: dict[str, Any] = json.loads(finished.read())
    return facts


def _fit(job: _Job) -> Any:
    """Run the workers; returns Ray Train's result."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # else a relative path in a recipe means another file in the workers
    # a report waits for the controller's next look; at the default of 2 s, checkpoints cost more than a small training
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    from ray import train as ray_train
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = job.config.resources
    filesystem, path = job.out.filesystem()
    per_worker = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.memory_gb:
        per_worker["memory"] = resources.memory_gb * (1 << 30)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
        scaling_config=ray_train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={name: amount for name, amount in per_worker.items() if amount},
        ),
        run_config=ray_train.RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray_train.FailureConfig(max_failures=resources.failures),
            checkpoint_config=ray_train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),
            logging_config=ray_train.LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # of Train V2
        ),
    )
    try:
        return trainer.fit()
    except ray_train.TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            cause = getattr(failure, "_base_exc", failure)
            if isinstance(cause, BabelrayError):
                raise cause from error
        raise StepError(
            f"training failed; its last checkpoint is kept, so run again when it is mended:\n{error}"
        ) from error


def _publish(result: Any, out: Place) -> dict[str, Any]:
    """Copy the best and the last student out of their checkpoints, and write the curves."""
    with result.checkpoint.as_directory() as directory:
        records = Records.parse((Path(directory) / "records.json").read_text())
        (out / "last").put(Path(directory) / "model")
    best, metrics = max(result.best_checkpoints, key=lambda pair: (pair[1]["score"], pair[1]["step"]))
    if metrics["score"] == UNMEASURED:
        best, metrics = result.checkpoint, result.metrics
    with best.as_directory() as directory:
        (out / "best").put(Path(directory) / "model")
    records.write(out)
    summary = f"loss {records.losses[-1][1]:.4f}"
    facts = {
        "steps": records.done,
        "loss": records.losses[-1][1],
        "best_step": metrics["step"],
        "skipped_queries": records.skipped,
        "overflowed_steps": records.overflows,
        "passages": records.languages,
        "training_seconds": records.seconds,
    }
    if (out / WARM_FACTS).exists():
        facts["warm_up"] = json.loads((out / WARM_FACTS).read())
    if records.validations:
        facts["best_nDCG@20"] = metrics["score"]
        summary += f", dev nDCG@20 {metrics['score']:.3f} at step {metrics['step']}"
    return {**facts, "summary": summary}


def _forget_torn_snapshot(checkpoints: Place) -> None:
    """Ray Train does not write its list of checkpoints in one piece. A kill in that moment would leave a list that it
    cannot read; then the training begins again."""
    snapshot = checkpoints / SNAPSHOT
    if not snapshot.exists():
        return
    try:
        json.loads(snapshot.read())
    except ValueError:
        log.warning("the list of checkpoints in %s was cut off by a kill; training begins again", checkpoints.redacted)
        checkpoints.delete()


def train_worker(settings: dict[str, Any]) -> None:
    """What runs in each Ray Train worker."""
    import torch
    from ray import train as ray_train

    from pipelines.training.loop import Workers

    job: _Job = settings["job"]
    context = ray_train.get_context()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(job.config.resources.threads or max(1, cores // context.get_local_world_size()))
    torch.backends.mkldnn.deterministic = True  # type: ignore[assignment]
    workers = Workers(context.get_world_rank(), context.get_world_size())
    checkpoint = ray_train.get_checkpoint()
    if checkpoint is None:
        _run(job, workers, None)
    else:
        with checkpoint.as_directory() as directory:
            _run(job, workers, Path(directory))


def _run(job: _Job, workers: "Workers", checkpoint: Path | None) -> None:
    """Train from the start, or from a checkpoint's directory, to the last step."""
    from pipelines.devices import device
    from pipelines.students.base import Corpus
    from pipelines.students.loading import load
    from pipelines.training.batches import Batches
    from pipelines.training.distil import Distillation
    from pipelines.training.loop import Loop
    from pipelines.training.validate import Pool

    config = job.config
    corpus = Corpus(Docstore.open(job.inputs["queries"]), open_docs(job.inputs["docs"]))
    first = checkpoint / "model" if checkpoint else _warm(job, corpus, workers, _start(job, corpus, workers))
    student = load(str(first), device())
    batches = Batches(RowStore.open(job.inputs["scores"]), corpus.docs, config.draw, config.batch, config.seed)
    objective = Distillation(student, corpus.queries, corpus.docs, config.loss, config.consistency)
    loop = Loop(config, student, batches, objective, workers)
    records = Records(config.steps)
    if checkpoint:
        loop.restore(checkpoint)
        records = Records.parse((checkpoint / "records.json").read_text())
    pool = None
    if dev := job.inputs.get("dev"):
        docs = open_docs(dev["docs"]) if "docs" in dev else corpus.docs
        pool = Pool(Docstore.open(dev["queries"]), dev["qrels"], docs, config.validation)
    _steps(job, loop, records, pool)


def open_docs(docs: Mapping[str, Artifact]) -> dict[str, Docstore]:
    """The collection by language."""
    return {lang: Docstore.open(artifact) for lang, artifact in sorted(docs.items())}


def _steps(job: _Job, loop: "Loop", records: Records, pool: Any) -> None:
    """Take the remaining steps, measuring and saving when it is time."""
    config, workers = job.config, loop.workers
    began = time.monotonic() - records.seconds
    progress = ProgressFile(job.out)
    if pool and not records.done:
        records.validation(pool.evaluate(loop.student, workers.gather, workers.rank, workers.world))
    while records.done < config.steps:
        loss, lr = loop.step(records.done)
        records.step(loss, lr, time.monotonic() - began)
        last = records.done == config.steps
        score = UNMEASURED
        if pool and (last or records.done % config.validation.every == 0):
            score = pool.evaluate(loop.student, workers.gather, workers.rank, workers.world)
            records.validation(score)
        if workers.rank == 0 and (line := progress.say(records, last)):
            log.info(line)
        if last or score != UNMEASURED or records.done % config.checkpoint_every == 0:
            records.count(*loop.drawn())
            records.overflows = loop.overflows
            _report(loop, records, score)


def _report(loop: "Loop", records: Records, score: float) -> None:
    """Give Ray Train a checkpoint. All workers meet here."""
    from ray import train as ray_train

    metrics, name = {"step": records.done, "score": score}, f"step-{records.done:08d}"
    if loop.workers.rank:
        ray_train.report(metrics, checkpoint=None, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as directory:
        loop.save(Path(directory))
        (Path(directory) / "records.json").write_text(records.text())
        ray_train.report(metrics, checkpoint=ray_train.Checkpoint.from_directory(directory), checkpoint_dir_name=name)


def _start(job: _Job, corpus: Any, workers: "Workers") -> Path:
    """The untrained student's directory. The first worker builds it; all open the same files and have its weights."""
    start, complete = job.out / "start", job.out / "start.json"
    if workers.rank == 0 and not complete.exists():
        _put(job.config.student.build(corpus, job.config.seed), start)
        complete.write(b"{}")
    workers.wait()
    return start.fetch()


def _warm(job: _Job, corpus: Any, workers: "Workers", start: Path) -> Path:
    """The directory of the student that takes the first step: the untrained one, unless it has a ``warm_up``, which
    learns from the corpus alone. The first worker does that once, and a training that begins again finds it done."""
    from pipelines.students.loading import load

    warm_up = getattr(job.config.student, "warm_up", None)
    if warm_up is None:
        return start
    warm, complete = job.out / WARM, job.out / WARM_FACTS
    if workers.rank == 0 and not complete.exists():
        student = load(str(start), "cpu")
        facts = warm_up(student, corpus, job.config.seed)
        _put(student, warm)
        complete.write(json.dumps(facts).encode())
        log.info("warm-up: %s", json.dumps(facts))
    workers.wait()
    return warm.fetch()


def _put(student: Any, place: Place) -> None:
    with tempfile.TemporaryDirectory() as directory:
        student.save(Path(directory))
        place.put(Path(directory))
