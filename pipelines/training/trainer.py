"""The step *train*: a student learns, on Ray Train.

Inputs: ``start``, the student that takes the first step (see ``start``, or another training); ``data``, by the name of
the data set: ``queries`` (by language where there are several), ``docs`` by language, and ``scores`` (the teacher's
RANKINGS), or, for a loss that reads labels, ``qrels`` by language and ``rankings`` (the selection, for negatives), and
``scores`` too where a teacher says which negatives are false; and, to choose the best checkpoint, ``dev``: ``queries``
in one language, and ``qrels`` and ``docs`` by language. For a loss that reads sentence pairs ``data`` and ``dev`` hold
``pairs`` by language.

The artifact: ``last/`` and ``best/`` (sentence-transformers directories; the same student where there is no ``dev``),
``adapter/`` where one was trained (peft's: the one that is merged in ``best/``),
``losses.tsv``, ``validation.tsv``, ``curves.png``. While it grows there are ``checkpoints/`` (Ray Train's), from which
a killed training goes on, and ``progress.json``. Starting the workers costs 10 to 20 s on a laptop, most of it imports.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import StepError
from cluster.session import connect, is_given
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.data import check_data, find_needs
from pipelines.training.records import ProgressFile, Records
from pipelines.training.worker import Job, train_worker

log = logging.getLogger("babelray.train")
CHECKPOINTS = "checkpoints"
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of checkpoints
TRAIN_SETTINGS = {  # of Ray Train, where the user has not set them
    # a report waits for the controller's next look; at the default of 2 s, checkpoints cost more than a small training
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # workers wait this long for nodes that boot, then they are asked for again, for ever. After a node is lost, the
    # first try of an elastic training may still count on it and wait in vain: not much longer than the default of 60 s
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}
LOCAL_SETTINGS = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # nobody announces that this machine is taken back


def train(config: TrainingRun, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Train, or go on from the last checkpoint below ``out``, and write the artifact's files (see above).

    Returns facts: steps, the last loss, the best step and its measure (``best_nDCG@20``, ``best_Pearson``) where there
    is a dev set, queries skipped for want of translations, steps that overflowed fp16, by data set the queries that may
    be drawn and the batches, by data set and language the batches with such passages, the questions, the passages and
    the relevant ones, a digest of the samples, and seconds. A sentence pair counts as a question in the language of its
    left sentence and a passage in that of its right one.

    Raises:
        StepError: an input is missing or of the wrong kind, more than ``resources.failures`` workers were lost in an
            hour, or a worker failed as it would in every attempt, as for want of memory. An error of ours in a worker
            is raised as itself.
        FloatingPointError: the loss is no number; see ``pipelines.training.loop``.
    """
    if missing := {"start", "data"} - set(inputs):
        raise StepError(f"training needs the inputs start and data; {', '.join(sorted(missing))} is missing")
    finished = out / "facts.json"
    if not finished.exists():
        check_data(inputs["data"], find_needs(config.train.loss, config.train.meta), config.shares)
        connect()
        _forget_torn_snapshot(out / CHECKPOINTS)
        ProgressFile(out).say_start()
        finished.write(json.dumps(_publish(_fit(Job(config, inputs, out)), out)).encode())
    (out / CHECKPOINTS).delete()
    facts: dict[str, Any] = json.loads(finished.read())
    return facts


def _fit(job: Job) -> Any:
    """Run the workers; returns Ray Train's result."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # else a relative path in a recipe means another file in the workers
    for name, value in (TRAIN_SETTINGS if is_given() else TRAIN_SETTINGS | LOCAL_SETTINGS).items():
        os.environ.setdefault(name, value)
    from ray.train import TrainingFailedError
    from ray.train.v2.api.config import CheckpointConfig, LoggingConfig, RunConfig, ScalingConfig

    from pipelines.training.failures import Trainer, find_own_error

    resources = job.run.train.resources
    filesystem, path = job.out.filesystem()
    per_worker = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.memory_gb:
        per_worker["memory"] = resources.memory_gb * (1 << 30)
    trainer = Trainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={name: amount for name, amount in per_worker.items() if amount},
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    trainer.most_failures = resources.failures
    try:
        return trainer.fit()
    except TrainingFailedError as error:
        if own := find_own_error(error):
            raise own from error
        raise StepError(
            "training failed. Its last checkpoint is kept: remove the cause that is named below and run again:\n"
            f"{error}"
        ) from error


def _publish(result: Any, out: Place) -> dict[str, Any]:
    """Copy the best and the last student out of their checkpoints, and write the curves."""
    with result.checkpoint.as_directory() as directory:
        records = Records.parse((Path(directory) / "records.json").read_text())
        (out / "last").put(Path(directory) / "model")
    measured = [pair for pair in result.best_checkpoints if pair[1]["measured"]]
    best, metrics = max(
        measured, key=lambda pair: (pair[1]["score"], pair[1]["step"]), default=(result.checkpoint, result.metrics)
    )
    with best.as_directory() as directory:
        (out / "best").put(Path(directory) / "model")
        if (adapter := Path(directory) / "adapter").is_dir():
            (out / "adapter").put(adapter)
    records.write(out)
    summary = f"loss {records.losses[-1][1]:.4f}"
    drawn = records.drawn
    facts = {
        "steps": records.done,
        "loss": records.losses[-1][1],
        "best_step": metrics["step"],
        "skipped_queries": drawn.skipped,
        "overflowed_steps": records.overflows,
        "examples": records.examples,
        "batches": drawn.batches,
        "batches_with": drawn.batches_with,
        "questions": drawn.questions,
        "passages": drawn.passages,
        "positives": drawn.positives,
        "samples": f"{drawn.samples:016x}",
        "training_seconds": records.seconds,
    }
    if measured:
        facts[f"best_{records.measure}"] = metrics["score"]
        summary += f", dev {records.measure} {metrics['score']:.3f} at step {metrics['step']}"
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
