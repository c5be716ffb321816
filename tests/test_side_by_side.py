"""Waves side by side, on a pretended cluster of many CPUs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import works
from cluster import executor, session
from cluster.accelerators import check_gpus
from cluster.component import Resources
from cluster.errors import StepError
from cluster.lease import newest
from cluster.pool import list_units
from cluster.progress import Progress
from cluster.receipt import RECEIPTS, read_receipts
from cluster.runner import ATTEMPTS_IN_ALL, _note_attempt
from cluster.step import Step
from cluster.storage import Place
from cluster.waves import is_complete
from pipelines.tables import DOCS


@pytest.fixture(scope="module", autouse=True)
def many_cpus() -> Iterator[None]:
    """64 CPUs that are not there: the works sleep. The environment names GPUs, as that of a GPU machine may."""
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 64, "num_gpus": 0, "include_dashboard": False}
        )
        patch.setenv("RAY_ADDRESS", cluster.address)
        session.connect()
        yield
        ray.shutdown()
        cluster.shutdown()


def most_at_once(log: Path) -> int:
    running = most = 0
    for line in log.read_text().splitlines():
        running += {"begin": 1, "end": -1}.get(line.split()[0], 0)
        most = max(most, running)
    return most


def until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_forty_trainings_run_side_by_side(tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = time.monotonic()
    artifacts = executor.run(works.naps(str(log), 40, 3), Place.of(tmp_path / "root"), Progress())
    assert time.monotonic() - started < 60, "one after another they take two minutes"
    assert most_at_once(log) == 40
    assert [artifact.manifest.facts["number"] for artifact in artifacts] == list(range(40))
    assert all(artifact.manifest.seconds >= 3 for artifact in artifacts)


def test_trainings_take_all_their_workers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    steps = works.naps(str(log), 7, 0.5, resources=Resources(cpus=10), workers=2)
    executor.run(steps, Place.of(tmp_path / "root"), Progress())
    assert most_at_once(log) == 3


def test_tables_run_beside_a_directory_step_and_its_fan_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    upper = works.steps(str(log), 6, 0.5)[1]
    resources = Resources(cpus=9)
    config = works.Nap(number=0, log=str(log), seconds=0.2, units=3)
    fanning = Step("fanning", works.nap, config, resources=resources)
    long = Step("long", works.nap, works.Nap(number=1, log=str(log), after="d", lines=6), resources=resources)
    artifacts = executor.run([fanning, long, upper], Place.of(tmp_path / "root"), Progress())
    lines = [line.split() for line in log.read_text().splitlines()]
    assert artifacts[2].rows == 6 * works.ROWS
    assert sorted(line[1:3] for line in lines if line[0] == "unit") == [["0", unit] for unit in "012"]


def test_error_in_one_wave_ends_the_others_without_loss(tmp_path: Path) -> None:
    log, root = tmp_path / "log", Place.of(tmp_path / "root")
    slow = works.steps(str(log), 25, 0.5)[1]
    failing = Step("failing", works.nap, works.Nap(number=0, log=str(log), fails=True, after="d", lines=6))
    finishing = Step("finishing", works.nap, works.Nap(number=1, log=str(log), seconds=3, after="fail", lines=1))
    with pytest.raises(StepError, match="nap 0 failed"):
        executor.run([slow, failing, finishing], root, Progress())
    kept = read_receipts(root / slow.id / RECEIPTS)
    assert not is_complete(slow, root)
    assert is_complete(finishing, root), "a directory work under way is waited for"
    assert kept, "what was finished stays"
    holder = newest(root / slow.id)[1]
    assert holder
    assert holder.is_released
    done = {f"d{unit * works.ROWS}" for unit in kept}
    executor.run([slow], root, Progress())
    names = [line.split()[0] for line in log.read_text().splitlines()]
    assert all(names.count(name) == 1 for name in done)


def test_ctrl_c_ends_all_and_gives_the_leases_back(tmp_path: Path) -> None:
    log, root = tmp_path / "log", Place.of(tmp_path / "root")
    slow = works.steps(str(log), 200, 0.5)[1]

    def interrupt() -> None:
        until(lambda: log.exists() and len(log.read_text().splitlines()) >= 4)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        executor.run([slow], root, Progress())
    assert read_receipts(root / slow.id / RECEIPTS)
    holder = newest(root / slow.id)[1]
    assert holder
    assert holder.is_released
    time.sleep(1.5)
    before = log.read_text()
    time.sleep(1.5)
    assert log.read_text() == before, "the pool must have ended"


@pytest.mark.parametrize(("environment", "seen"), [("other", " its own"), ("", " None")])
def test_workers_without_gpus_see_none_and_environments_reach_them(tmp_path: Path, environment: str, seen: str) -> None:
    """In actors, which a runtime environment has, and in processes that are kept: with as many threads as CPUs."""
    source = works.steps("", 1)[0]
    resources = Resources(environment=environment, cpus=3)
    step = Step("see", works.See, works.Eyes(), {"docs": source}, DOCS, ("docs",), resources=resources)
    environments = {"other": {"env_vars": {"BABELRAY_TEST_ENVIRONMENT": "its own"}}}
    (artifact,) = executor.run([step], Place.of(tmp_path), Progress(), environments)
    threads = os.environ.get("OMP_NUM_THREADS", "3")
    assert set(artifact.read()["text"].to_pylist()) == {f"{seen} {threads}"}


def test_unknown_environment_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    step = Step("see", works.See, works.Eyes(), table=DOCS, resources=Resources(environment="vlm"), verb="translate")
    with pytest.raises(StepError, match=r"environment 'vlm', which is not defined; known: vllm.*resources.translate"):
        executor.run([step], Place.of(tmp_path), Progress(), {"vllm": {}})
    assert list(tmp_path.iterdir()) == []


def test_units_of_one_key_are_done_together() -> None:
    """Two models encode three languages, which became ready one after another: each model is loaded once."""
    tasks = [SimpleNamespace(key=model, units=2) for _ in range(3) for model in ("student", "untrained")]
    units = list_units(tasks, [set(), {1}, set(), set(), set(), set()])  # type: ignore[arg-type]
    assert [tasks[row["task"]].key for row in units] == ["student"] * 6 + ["untrained"] * 5
    assert [row["task"] for row in units] == [0, 0, 2, 2, 4, 4, 1, 3, 3, 5, 5]


def test_attempts_on_lost_nodes_do_not_count(tmp_path: Path) -> None:
    file = Place.of(tmp_path) / "00001.json"
    here = session.node_id()
    file.write(b'["gone-1", "gone-2", "%s", "gone-3", "%s"]' % (here.encode(), here.encode()))
    _note_attempt(file, 1)
    with pytest.raises(StepError, match="unit 1 killed its worker 6 times: out of memory"):
        _note_attempt(file, 1)
    file.write(b"[" + b",".join([b'"gone"'] * ATTEMPTS_IN_ALL) + b"]")
    with pytest.raises(StepError, match="killed its worker 30 times, 30 times together with its node"):
        _note_attempt(file, 1)


def test_gpus_that_are_not_there_are_missed_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if session.count_gpus():
        pytest.skip("needs a machine without GPUs")
    source = works.steps("", 1)[0]
    half = Step("see", works.See, works.Eyes(), {"docs": source}, DOCS, ("docs",), Resources(gpus=0.5), verb="encode")
    train = Step("train", works.nap, works.Nap(number=0, log=""), resources=Resources(gpus=1), workers=2)
    check_gpus([half, train])  # a cluster that was given: nodes may come
    monkeypatch.delenv("RAY_ADDRESS")
    check_gpus([source])
    message = "step see needs 0.5 GPU, but Ray finds none on this machine. Use CPUs with --set resources.encode.gpus=0"
    with pytest.raises(StepError, match=message):
        executor.run([half], Place.of(tmp_path), Progress())
    with pytest.raises(StepError, match="step train needs 2 GPUs, .*--set train.resources.gpus=0"):
        check_gpus([source, train])
    assert list(tmp_path.iterdir()) == []


def test_checking_for_gpus_starts_nothing() -> None:
    code = (
        "import sys, works; from cluster.accelerators import check_gpus; from cluster.component import Resources\n"
        "from cluster.step import Step\n"
        "try: check_gpus([Step('nap', works.nap, works.Eyes(), resources=Resources(gpus=1))])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "import ray; print(ray.is_initialized(), 'torch' in sys.modules)"
    )
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", "False"]
