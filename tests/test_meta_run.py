"""Meta-learning on real Ray Train: a training that was killed goes on from its checkpoint and ends with the bits of one
that was not."""

import json
import signal
import time

import numpy as np
import pytest

from pipelines.students import load_encoder
from pipelines.training.cpu import speed_up
from pipelines.training.trainer import CHECKPOINTS, SNAPSHOT
from test_meta_pairs import META
from test_training import finish, start, table, weights
from toy import make_loop, save_loop
from toy_pairs import CONFIG, PLAIN, make_pair_start, make_pairs

STEPS, EVERY = 40, 10
TEXT = META.model_copy(update={"student_adapts": True})  # MAML-Align with both inner loops, as in the paper's text
TRAINING = CONFIG.model_copy(
    update={"student": PLAIN, "meta": TEXT, "batch": 4, "steps": STEPS, "checkpoint_every": EVERY}
)


def kill_when_listed(process, out):
    """End a training that writes below ``out`` as soon as Ray Train lists a checkpoint, which the next run goes on
    from. Returns how many steps that one holds."""
    deadline = time.monotonic() + 300
    while not (listed := list_checkpoints(out)):
        assert process.poll() is None, process.communicate()[1].decode()[-3000:]
        assert time.monotonic() < deadline, "no checkpoint within 300 s"
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "facts.json").exists()
    return int(listed[-1].removeprefix("step-"))


def list_checkpoints(out):
    """The names of those that Ray Train lists; none where the list is just being written."""
    try:
        state = json.loads((out / CHECKPOINTS / SNAPSHOT).read_text())
    except (FileNotFoundError, ValueError):
        return []
    return [one["checkpoint_dir_name"] for one in state["checkpoint_results"]]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_meta_training_that_was_killed_ends_with_the_same_bits(tmp_path, monkeypatch):
    """The oracle is the loop, in this process and without Ray."""
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    inputs, out = make_pairs(tmp_path / "pairs"), tmp_path / "killed"
    inputs = {"data": inputs["data"], "start": make_pair_start(inputs, tmp_path, PLAIN)}
    done = kill_when_listed(start(TRAINING, inputs, out), out)
    assert 0 < done < STEPS
    facts = finish(start(TRAINING, inputs, out), timeout=600)

    alone = load_encoder(inputs["start"].place.path / "start", "cpu")
    speed_up(alone.model)
    loop = make_loop(TRAINING, alone, inputs)
    losses = [loop.step(number)[0] for number in range(STEPS)]
    save_loop(loop, tmp_path / "alone")
    assert [float(row[1]) for row in table(out / "losses.tsv")[1:]] == pytest.approx(losses, abs=1e-6)  # as written
    assert facts["samples"] == f"{loop.take_drawn().samples:016x}"
    whole, again = weights(tmp_path / "alone" / "model"), weights(out / "last")
    before = weights(inputs["start"].place.path / "start")
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[key], again[key]) for key in whole)
    assert any(not np.array_equal(whole[key], before[key]) for key in whole)
