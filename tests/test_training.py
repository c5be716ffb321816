"""Training on Ray Train, each run in a process and on a Ray of its own: it learns, resumes to the bit, and divides."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.artifact import Artifact
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.students import load_encoder
from pipelines.students.adapter import Lora
from pipelines.training.config import TrainingRun, TrainResources
from pipelines.training.cpu import speed_up
from pipelines.training.validate import Pool
from toy import CONFIG, STUDENT, make_inputs, make_loop, make_start, save_loop

RUN = """
import pickle, sys
from cluster.storage import Place
from pipelines.training.config import TrainingRun
from pipelines.training.trainer import train
config, inputs, out = pickle.loads(sys.stdin.buffer.read())
print(train(TrainingRun(train=config), inputs, Place(out), None))
"""


def start(config, inputs, out):
    """A training in a process of its own, with a Ray of its own."""
    import pickle

    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"}, start_new_session=True,
    )  # fmt: skip
    process.stdin.write(pickle.dumps((config, inputs, str(out))))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process, timeout=240):
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors.decode()[-3000:]
    return eval(output.decode().splitlines()[-1])


def kill_at_first_checkpoint(process, out):
    """End a training that writes below ``out`` as soon as there is something to go on from."""
    deadline = time.monotonic() + 300
    while not list((out / "checkpoints").glob("step-*/records.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "facts.json").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    patch = pytest.MonkeyPatch()
    patch.setenv("BABELRAY_CACHE", str(root / "cache"))
    yield root
    patch.undo()


@pytest.fixture(scope="module")
def inputs(shared):
    inputs = make_inputs(shared)
    return {**inputs, "start": make_start(inputs, shared)}


@pytest.fixture(scope="module")
def trained(shared, inputs):
    """An uninterrupted training: its directory and its facts."""
    return shared / "whole", finish(start(CONFIG, inputs, shared / "whole"))


def table(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def weights(directory):
    return {
        (file.relative_to(directory).as_posix(), name): value
        for file in sorted(directory.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def test_the_student_learns(trained, inputs):
    out, facts = trained
    losses, curve = table(out / "losses.tsv"), table(out / "validation.tsv")
    assert losses[0] == ["step", "loss", "lr", "seconds"]
    assert [int(row[0]) for row in losses[1:]] == list(range(1, 101))
    loss = [float(row[1]) for row in losses[1:]]
    assert np.mean(loss[-10:]) < 0.25 * np.mean(loss[:10])
    assert [int(row[0]) for row in curve[1:]] == [0, 25, 50, 75, 100]
    assert facts["best_nDCG@20"] > float(curve[1][1]) + 0.2
    assert facts["best_nDCG@20"] == pytest.approx(max(float(r[1]) for r in curve[2:]), abs=1e-4)
    assert facts["skipped_queries"] == 0
    assert sum(facts["passages"]["main"].values()) == 100 * 8 * 8
    assert facts["examples"] == {"main": 36}
    assert facts["batches"] == {"main": 100}
    assert facts["batches_with"] == {"main": {"en": 100, "xx": 100}}
    assert facts["positives"] == {"main": {"en": 0, "xx": 0}}
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in out.iterdir()) == [
        "best",
        "curves.png",
        "facts.json",
        "last",
        "losses.tsv",
        "progress.json",
        "validation.tsv",
    ]


def test_best_and_start_are_what_was_measured(trained, inputs):
    out, facts = trained
    pool = Pool(
        Docstore.open(inputs["dev"]["queries"]),
        inputs["dev"]["qrels"],
        {lang: Docstore.open(docs) for lang, docs in inputs["dev"]["docs"].items()},
        CONFIG.validation,
    )
    start = inputs["start"].place.path / "start"
    for model, expected in (
        (out / "best", facts["best_nDCG@20"]),
        (start, float(table(out / "validation.tsv")[1][1])),
    ):
        found = pool.evaluate(load_encoder(model, "cpu"), lambda value: [value])
        assert found == pytest.approx(expected, abs=1e-4)


def test_run_again_does_nothing(trained, inputs):
    from pipelines.training.trainer import train

    out, facts = trained
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert train(TrainingRun(train=CONFIG), inputs, Place.of(out), None) == facts  # without Ray: none is running here
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


@pytest.mark.slow
def test_an_adapter_that_was_killed_ends_with_the_same_bits_and_is_left_beside_its_student(inputs, shared, one_thread):
    out, lora = shared / "adapted", Lora(rank=4, alpha=8, dropout=0.1)
    config = CONFIG.model_copy(update={"checkpoint_every": 20, "adapter": lora})
    kill_at_first_checkpoint(start(config, inputs, out), out)
    facts = finish(start(config, inputs, out))
    alone = load_encoder(inputs["start"].place.path / "start", "cpu")
    speed_up(alone.model)
    loop = make_loop(config, alone, inputs)
    for number in range(100):
        loop.step(number)
    save_loop(loop, shared / "adapted-alone")
    assert facts["samples"] == f"{loop.take_drawn().samples:016x}"
    whole, again = weights(shared / "adapted-alone" / "model"), weights(out / "last")
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[key], again[key]) for key in whole)
    assert {path.name for path in out.iterdir()} >= {"adapter", "best", "last"}
    factors = load_file(out / "adapter" / "adapter_model.safetensors")
    began = weights(inputs["start"].place.path / "start")
    name = "encoder.layer.0.intermediate.dense"
    b, a = (factors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "BA")
    key = next(key for key in began if key[1].endswith(f"{name}.weight"))
    np.testing.assert_allclose(weights(out / "best")[key], began[key] + 2 * b @ a, atol=1e-6)
    assert np.abs(b @ a).max() > 1e-3


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_workers_on_an_object_store_make_nearly_the_same_student(inputs, shared, s3_root, shard):
    plain = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
    config = CONFIG.model_copy(
        update={"steps": 10, "student": plain, "resources": TrainResources(workers=2, cpus=0.5, threads=1, shard=shard)}
    )
    place = Place.of(s3_root) / f"two-{shard}"
    inputs = {**inputs, "start": make_start(inputs, shared / f"plain-{shard}", plain)}
    first = inputs["start"].place.path / "start"
    facts = finish(start(config, inputs, place.uri))
    assert not (place / "checkpoints").list()
    two = place.fetch()
    alone = load_encoder(first, "cpu")
    loop = make_loop(config, alone, inputs)
    losses = [loop.step(number)[0] for number in range(10)]
    np.testing.assert_allclose([float(row[1]) for row in table(two / "losses.tsv")[1:]], losses, rtol=1e-4)
    assert facts["samples"] == f"{loop.take_drawn().samples:016x}"
    alone.save(shared / f"alone-{shard}")
    one, other, before = (weights(path) for path in (shared / f"alone-{shard}", two / "last", first))
    for key in one:
        if "key.bias" in key[1]:  # adds the same to all of a softmax: its gradient is rounding and nothing else
            continue
        moved = np.abs(one[key] - before[key]).max()
        assert np.abs(one[key] - other[key]).max() <= 0.02 * moved, key


def test_the_first_step_is_taken_by_the_warmed_up_student_or_by_another_training_s_best(tmp_path):
    from pipelines.training.start import open_start

    for name in ("start@0/start", "warm@0/start", "warm@0/warm", "train@0/best", "train@0/last"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").touch()
    found = {
        (name, first): open_start(Artifact(Place.of(tmp_path / name)), first).relative_to(tmp_path).as_posix()
        for name, first in (("start@0", "start"), ("warm@0", "start"), ("train@0", "best"))
    }
    assert list(found.values()) == ["start@0/start", "warm@0/warm", "train@0/best"]


def test_a_torn_list_of_checkpoints_is_forgotten(tmp_path):
    from pipelines.training.trainer import SNAPSHOT, _forget_torn_snapshot

    for text, kept in (('{"whole": 1}', True), ('{"torn', False), ("", False)):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / SNAPSHOT).write_text(text)
        _forget_torn_snapshot(Place.of(tmp_path / "c"))
        assert (tmp_path / "c").exists() == kept


def test_missing_inputs_and_wrong_tables_are_named(tmp_path, inputs):
    from pipelines.training.trainer import train

    def run(data, **more):
        train(TrainingRun(train=CONFIG, **more), {"start": inputs["start"], "data": data}, Place.of(tmp_path), None)

    main = inputs["data"]["main"]
    with pytest.raises(StepError, match="start is missing"):
        train(TrainingRun(train=CONFIG), {"data": inputs["data"]}, Place.of(tmp_path), None)
    with pytest.raises(StepError, match=r"data.main: this loss reads docs, queries, scores, got docs, queries"):
        run({"main": {"queries": main["queries"], "docs": main["docs"]}})
    with pytest.raises(StepError, match=r"data.main.docs.xx: expected a table of docs, got rankings \(scores@0\)"):
        run({"main": {**main, "docs": {**main["docs"], "xx": main["scores"]}}})
    with pytest.raises(StepError, match=r"data \['main', 'other'\] and shares \['main'\]"):
        run({"main": main, "other": main})
