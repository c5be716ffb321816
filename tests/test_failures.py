"""What ends a training and what does not: our own errors, lost nodes, an hour with too many of them."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import PreemptionError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.preemption import PreemptionInfo

from cluster.errors import RecipeError
from pipelines.students import load_encoder
from pipelines.training import failures
from pipelines.training.config import TrainConfig, TrainingRun, TrainResources
from toy import CONFIG, STUDENT, make_inputs, make_loop, make_start

RETRY, RAISE = FailureDecision.RETRY, FailureDecision.RAISE


class _Wrapped(Exception):
    """As Ray Train brings a worker's error."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self._base_exc = error


def worker_error(*errors: Exception) -> WorkerGroupError:
    return WorkerGroupError("failed", dict(enumerate(errors)))


def test_lost_workers_are_counted_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(failures.time, "monotonic", lambda: now[0])
    policy = failures.HourlyBudget(2)
    decisions = []
    for minute in (0, 10, 61, 62, 200, 201, 202):
        now[0] = 60.0 * minute
        decisions.append(policy.make_decision(worker_error(RayActorError())))
    # at 62 minutes those at 10 and 61 are in the last hour, so it is the third
    assert decisions == [RETRY, RETRY, RETRY, RAISE, RETRY, RETRY, RAISE]
    preempted = PreemptionError(PreemptionInfo(deadline_ms=0, preempted_node_to_ranks={"node": [1]}))
    assert [policy.make_decision(preempted) for _ in range(9)] == [RETRY] * 9


@pytest.mark.parametrize("error", [RecipeError("lr"), FloatingPointError("nan")])
def test_our_own_errors_end_a_run_at_once(error: Exception) -> None:
    lost = worker_error(RayActorError(), _Wrapped(error))
    assert failures.find_own_error(lost) is error
    assert failures.HourlyBudget(9).make_decision(lost) is RAISE
    assert failures.find_own_error(worker_error(_Wrapped(KeyError("x")))) is None


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), ValueError("x"), torch.OutOfMemoryError("CUDA")])
def test_an_error_that_every_attempt_would_repeat_ends_a_run_at_once(error: Exception) -> None:
    assert failures.HourlyBudget(9).make_decision(worker_error(_Wrapped(error))) is RAISE
    assert failures.HourlyBudget(9).make_decision(worker_error(ConnectionError("peer"), error)) is RAISE


@pytest.mark.parametrize(
    "lost", [RayActorError(), OutOfMemoryError("node"), WorkerHealthCheckTimeoutError("silent"), RuntimeError("gloo")]
)
def test_a_lost_worker_is_no_error_that_every_attempt_would_repeat(lost: Exception) -> None:
    errors = [lost] if isinstance(lost, RuntimeError) else [lost, _Wrapped(ValueError("of the other worker"))]
    assert failures.HourlyBudget(9).make_decision(worker_error(*errors)) is RETRY


# a worker group that counts on a node which is gone waits for it in vain: not as long as in earnest
FAST = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}

RUN = """
import json, os, pathlib, pickle, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.trainer import train

config, inputs, out = pickle.loads(sys.stdin.buffer.read())
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
ray.init(cluster.address, log_to_driver=False)
seen, saved = [], []
ended = threading.Event()

def watch():
    killed = False
    while not ended.is_set():
        steps = sorted(int(p.parent.name[5:]) for p in pathlib.Path(out).glob("checkpoints/step-*/records.json"))
        try:
            done = json.loads((pathlib.Path(out) / "progress.json").read_bytes()).get("done", 0)
        except (OSError, ValueError):
            done = 0
        if done and (not seen or seen[-1] != done):
            seen.append(done)
        if steps and steps[-1] >= 60 and not killed:
            saved.append(steps[-1])
            cluster.remove_node(nodes[1], allow_graceful=False)
            killed = True
        time.sleep(0.05)

def give_up():
    if not ended.wait(280):
        cluster.shutdown()
        os._exit(3)

watcher = threading.Thread(target=watch)
watcher.start()
threading.Thread(target=give_up).start()
try:
    facts = train(TrainingRun(train=config), inputs, Place(out), None)
finally:
    ended.set()
watcher.join()
pathlib.Path(out + ".json").write_text(json.dumps({"facts": facts, "seen": seen, "saved": saved[0]}))
ray.shutdown()
cluster.shutdown()
"""


def run(config: TrainConfig, inputs: dict[str, Any], out: str, code: str = RUN) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((config, inputs, out)),
        capture_output=True,
        timeout=400,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_health_check_period_ms": "500", **FAST},
    )


def make_elastic(directory: Path, steps: int) -> tuple[TrainConfig, dict[str, Any]]:
    """A training on one or two workers that is measured at its end alone, and its inputs; no dropout."""
    plain = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
    inputs = make_inputs(directory)
    inputs["start"] = make_start(inputs, directory, plain)
    resources = TrainResources(workers=(1, 2), threads=1)
    validation = CONFIG.validation.model_copy(update={"every": 10 * steps})
    changes = {"student": plain, "steps": steps, "checkpoint_every": 30, "resources": resources}
    return CONFIG.model_copy(update={**changes, "validation": validation}), inputs


@pytest.mark.slow
def test_a_node_lost_in_training_costs_a_checkpoint_interval_and_changes_no_sample(tmp_path, monkeypatch, one_thread):
    """Two workers on two nodes; one is killed after the second checkpoint, and training goes on with one worker."""
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    config, inputs = make_elastic(tmp_path, steps=300)
    done = run(config, inputs, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    seen = found["seen"]
    drops = [(before, after) for before, after in zip(seen, seen[1:], strict=False) if after < before]
    assert len(drops) <= 1  # none, where the first step after the loss was not looked at in time
    # Ray may not know yet of the checkpoint whose files were just written: then it goes on from the one before
    assert all(after > found["saved"] - config.checkpoint_every for _, after in drops)
    assert found["saved"] < 300
    loop = make_loop(config, load_encoder(tmp_path / "start@0" / "start", "cpu"), inputs)
    losses = [loop.step(number)[0] for number in range(300)]
    assert found["facts"]["samples"] == f"{loop.take_drawn().samples:016x}"
    rows = [line.split("\t") for line in (tmp_path / "out" / "losses.tsv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(1, 301))
    assert abs(float(rows[20][1]) - losses[20]) < 1e-3


GROWING = 600  # steps, slow ones until two workers train: Ray asks for the resources of a joined node some 20 s later
GROW = """
import dataclasses, json, os, pathlib, pickle, sys, threading, time
import ray
import ray.train.v2.api.config as train_config
from ray.cluster_utils import Cluster
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.losses import KullbackLeibler
from pipelines.training.trainer import train

class Slow(KullbackLeibler):
    two_train: str

    def per_entry(self, student_NW, teacher_NW):
        if not os.path.exists(self.two_train):
            time.sleep(0.2)
        return super().per_entry(student_NW, teacher_NW)

@dataclasses.dataclass
class ScalingConfig(train_config.ScalingConfig):
    elastic_resize_monitor_interval_s: float = 2.0  # Ray looks for new nodes every minute; this training takes less

train_config.ScalingConfig = ScalingConfig
config, inputs, out = pickle.loads(sys.stdin.buffer.read())
loss = Slow(**config.loss.model_dump(), two_train=out + ".two-train")
config = config.model_copy(update={"loss": loss})
# its hooks at exit would be signal handlers, which a thread that adds a node cannot set
head = {"num_cpus": 0, "include_dashboard": False}
cluster = Cluster(initialize_head=True, shutdown_at_exit=False, head_node_args=head)
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(cluster.address, log_to_driver=False)
workers = []
ended = threading.Event()

def watch():
    is_added = False
    while not ended.is_set():
        busy = int(ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0))
        if busy and (not workers or workers[-1] != busy):
            workers.append(busy)
        if busy > 1:
            pathlib.Path(loss.two_train).touch()
        if not is_added and list(pathlib.Path(out).glob("checkpoints/step-*/records.json")):
            cluster.add_node(num_cpus=1)
            is_added = True
        time.sleep(0.2)

watcher = threading.Thread(target=watch)
watcher.start()
try:
    facts = train(TrainingRun(train=config), inputs, Place(out), None)
finally:
    ended.set()
    watcher.join()
pathlib.Path(out + ".json").write_text(json.dumps({"facts": facts, "workers": workers}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_changes_no_sample(tmp_path, monkeypatch, one_thread):
    """Training begins with one worker where two may be; a node joins after the first checkpoint."""
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    config, inputs = make_elastic(tmp_path, steps=GROWING)
    done = run(config, inputs, str(tmp_path / "out"), GROW)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["workers"][0] == 1
    assert 2 in found["workers"]
    loop = make_loop(config, load_encoder(tmp_path / "start@0" / "start", "cpu"), inputs)
    losses = [loop.step(number)[0] for number in range(GROWING)]
    assert found["facts"]["samples"] == f"{loop.take_drawn().samples:016x}"
    rows = [line.split("\t") for line in (tmp_path / "out" / "losses.tsv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(1, GROWING + 1))
    assert max(abs(float(row[1]) - loss) for row, loss in zip(rows[:20], losses, strict=False)) < 1e-3


FAILS = """
import pickle, sys
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.trainer import train
config, inputs, out = pickle.loads(sys.stdin.buffer.read())
try:
    train(TrainingRun(train=config), inputs, Place(out), None)
except FloatingPointError as error:
    print("raised as itself:", error)
"""


def test_a_loss_that_is_no_number_is_raised_as_itself_after_one_try(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    inputs = make_inputs(tmp_path)
    inputs["start"] = make_start(inputs, tmp_path)
    config = CONFIG.model_copy(update={"lr": 1e30, "clip": 1e30, "schedule": "none"})
    done = run(config, inputs, str(tmp_path / "out"), FAILS)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert "raised as itself: the loss of step" in done.stdout.decode()
    assert TrainingRun(train=config).train.resources.failures == 5


OUT_OF_MEMORY = """
import pickle, sys
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.losses import KullbackLeibler
from pipelines.training.trainer import train

class Large(KullbackLeibler):
    def per_entry(self, student_NW, teacher_NW):
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        if self.__dict__["calls"] > (150 if len(student_NW) > 4 else 300):
            raise MemoryError(f"no room for {len(student_NW)} entries")
        return super().per_entry(student_NW, teacher_NW)

config, inputs, out = pickle.loads(sys.stdin.buffer.read())
config = config.model_copy(update={"loss": Large(temperature=0.5)})
try:
    train(TrainingRun(train=config), inputs, Place(out), None)
except StepError as error:
    print(error)
in_pieces = config.model_copy(update={"accumulation": 2})
print("steps", train(TrainingRun(train=in_pieces), inputs, Place(out), None)["steps"])
"""


@pytest.mark.slow
def test_a_training_that_ran_out_of_memory_ends_at_once_and_goes_on_in_smaller_pieces(tmp_path, monkeypatch):
    """There is no room for 8 entries after 150 steps of 200, and for pieces of 4 after 300: enough for the second half
    alone."""
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    inputs = make_inputs(tmp_path)
    inputs["start"] = make_start(inputs, tmp_path)
    config = CONFIG.model_copy(update={"steps": 200, "checkpoint_every": 50})
    done = run(config, inputs, str(tmp_path / "out"), OUT_OF_MEMORY)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    said = done.stdout.decode()
    assert "Its last checkpoint is kept" in said
    assert said.count("MemoryError: no room for 8 entries") == 1
    assert "steps 200" in said
