"""Checkpoints that are copied to memory and stored while training goes on: the copy, a kill, an error of the store."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from cluster.storage import Place
from pipelines.students.adapter import Lora
from pipelines.training.snapshot import Snapshot
from slow_store import SlowProxy
from test_training import finish, start, weights
from toy import CONFIG, STUDENT, make_inputs, make_loop, make_start, open_corpus, save_loop

pytestmark = pytest.mark.usefixtures("one_thread")


def files_of(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("adapter", [None, Lora(rank=2, alpha=4)])
def test_a_snapshot_is_the_training_when_it_was_taken(tmp_path, adapter):
    inputs = make_inputs(tmp_path)
    loop = make_loop(CONFIG.model_copy(update={"adapter": adapter}), STUDENT.build(open_corpus(inputs), 0), inputs)
    snapshot = Snapshot()
    for number in range(3):
        loop.step(number)
    loop.take(snapshot)  # which the second replaces
    for number in range(3, 6):
        loop.step(number)
    loop.take(snapshot)
    save_loop(loop, tmp_path / "then")
    for number in range(6, 9):
        loop.step(number)
    snapshot.write(tmp_path / "later")
    save_loop(loop, tmp_path / "now")
    then, later, now = (files_of(tmp_path / name) for name in ("then", "later", "now"))
    assert {name: later[name] for name in later if "optimizer" not in name} == {
        name: then[name] for name in then if "optimizer" not in name
    }
    assert now["model/model.safetensors"] != then["model/model.safetensors"]
    ours, theirs = (torch.load(tmp_path / name / "optimizer.pt", weights_only=True) for name in ("later", "then"))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_writing_a_snapshot_changes_no_bit_of_what_follows(tmp_path):
    inputs = make_inputs(tmp_path)
    ended = []
    for saves in (True, False):
        loop, snapshot = make_loop(CONFIG, STUDENT.build(open_corpus(inputs), 0), inputs), Snapshot()
        for number in range(8):
            loop.step(number)
            if saves:
                loop.take(snapshot)
        ended.append([p.detach().clone() for p in loop.student.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_upload_leaves_the_last_whole_one(tmp_path, s3_root):
    """On a store that takes some 50 kB a second. The resume ends with the bits of a training that was never killed."""
    inputs = make_inputs(tmp_path)
    inputs["start"] = make_start(inputs, tmp_path)
    config = CONFIG.model_copy(update={"checkpoint_every": 20, "steps": 60})
    whole = tmp_path / "whole"
    facts = finish(start(config, inputs, whole))
    with SlowProxy(s3_root, 50_000) as proxy:
        slow, place = Place.of(proxy.root) / "cut", Place.of(s3_root) / "cut"
        process = start(config, inputs, slow.uri)
        deadline, checkpoints = time.monotonic() + 300, place / "checkpoints"
        cut: set[str] = set()
        while not cut and process.poll() is None:
            assert time.monotonic() < deadline
            stored = {name: {path for path, *_ in (checkpoints / name).files()} for name in names_of(checkpoints)}
            is_whole = {name for name, files in stored.items() if any("records.json" in path for path in files)}
            cut = {name for name, files in stored.items() if files and is_whole and name not in is_whole}
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert cut, "no upload was caught in the middle"
    again = finish(start(config, inputs, place.uri))
    assert {k: v for k, v in again.items() if k != "training_seconds"} == {
        k: v for k, v in facts.items() if k != "training_seconds"
    }
    ours, theirs = weights(place.fetch() / "last"), weights(whole / "last")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def names_of(checkpoints: Place) -> set[str]:
    names = {child.name for child in checkpoints.list()} if checkpoints.exists() else set()
    return {name for name in names if name.startswith("step-")}


FAILING = """
import pickle, sys
from cluster.errors import StorageError
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.trainer import train
config, inputs, out = pickle.loads(sys.stdin.buffer.read())
try:
    train(TrainingRun(train=config), inputs, Place(out), None)
except StorageError as error:
    print("STORAGE", error)
"""


@pytest.mark.slow
def test_an_upload_that_fails_ends_the_run_with_its_message(tmp_path):
    inputs = make_inputs(tmp_path)
    inputs["start"] = make_start(inputs, tmp_path)
    out = tmp_path / "full"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "step-00000020").write_text("a file where a directory is to be")
    config = CONFIG.model_copy(update={"checkpoint_every": 20, "steps": 60})
    run = subprocess.run(
        [sys.executable, "-c", FAILING], input=pickle.dumps((config, inputs, str(out))), capture_output=True,
        timeout=300, env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    (line,) = [line for line in run.stdout.decode().splitlines() if line.startswith("STORAGE")]
    assert f"checkpoint step-00000020 could not be stored below {out}" in line
    assert run.stderr.decode().count("could not be stored") <= 2  # it is not tried five times
