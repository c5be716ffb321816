"""The executor: rows are written exactly once, whatever dies; what is done is not done again."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import works
from cluster import executor
from cluster.artifact import Artifact
from cluster.component import Resources
from cluster.errors import StepError
from cluster.progress import Progress
from cluster.receipt import RECEIPTS
from cluster.step import Step
from cluster.storage import Place
from pipelines.tables import DOCS

PARTS = 30


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    from cluster import session

    session.connect()
    yield
    ray.shutdown()


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def receipts(root: Place, step: Step) -> int:
    return len((root / step.id / RECEIPTS).list())


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {part.name: part.read() for part in artifact.parts}


def expected_rows(parts: int = PARTS) -> list[tuple[str, str]]:
    return [(f"d{i}", f"TEXT {i}") for i in range(parts * works.ROWS)]


def rows_of(artifact: Artifact) -> list[tuple[str, str]]:
    table = artifact.read()
    return list(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def driver(root: str, log: Path, seconds: float) -> "subprocess.Popen[str]":
    """A driver in a process of its own (and process group: it is killed alone, its Ray ends by itself)."""
    command = [sys.executable, works.__file__, root, str(log), str(PARTS), str(seconds)]
    env = os.environ | {"PYTHONPATH": str(Path(works.__file__).parent)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_killed_driver_goes_on_and_writes_each_row_once(store: str, tmp_path: Path, s3_root: str) -> None:
    root = Place.of(tmp_path / "root") if store == "disk" else Place.of(s3_root) / f"kill-{tmp_path.name}"
    log = tmp_path / "log"
    step = works.steps(str(log), PARTS, 0.1)[1]
    first = driver(root.uri, log, 0.1)
    stop_at = random.randint(2, PARTS - 5)
    until(lambda: receipts(root, step) >= stop_at)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: _settled(root, step))
    kept = receipts(root, step)
    done_before = {f"d{5 * int(p.name[:5])}" for p in (root / step.id / RECEIPTS).list()}
    assert stop_at <= kept < PARTS

    second = driver(root.uri, log, 0.1)
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0
    assert int(out) == PARTS * works.ROWS
    artifact = step.artifact(root)
    assert rows_of(artifact) == expected_rows()
    times = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert {part: times[part] for part in done_before} == dict.fromkeys(done_before, 1), (
        "a finished part was done again"
    )


def _settled(root: Place, step: Step) -> bool:
    """Whether no orphan of the killed driver writes any more: its Ray ends a moment after it."""
    before = receipts(root, step)
    time.sleep(1.5)
    return receipts(root, step) == before


def test_killed_worker_is_replaced_within_the_run(ray_here: None, tmp_path: Path) -> None:
    root, log = Place.of(tmp_path), tmp_path / "log"
    step = works.steps(str(log), PARTS, 0.1)[1]

    def kill() -> None:
        until(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
        os.kill(int(log.read_text().splitlines()[-1].split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    (artifact,) = executor.run([step], root, Progress())
    killer.join()
    assert rows_of(artifact) == expected_rows()
    assert len({line.split()[1] for line in log.read_text().splitlines()}) >= 2


def test_complete_step_runs_nothing_and_needs_no_inputs(ray_here: None, tmp_path: Path) -> None:
    root, log = Place.of(tmp_path), tmp_path / "log"
    source, step = works.steps(str(log), 3)
    (artifact,) = executor.run([step], root, Progress())
    before = contents(artifact)
    source.artifact(root).place.delete()  # to save space
    lines = log.read_text()
    (again,) = executor.run([step], root, Progress())
    assert contents(again) == before
    assert log.read_text() == lines
    assert not source.artifact(root).place.exists()


def test_interrupted_run_equals_an_uninterrupted_one_byte_for_byte(ray_here: None, tmp_path: Path) -> None:
    whole, cut = Place.of(tmp_path / "whole"), Place.of(tmp_path / "cut")
    log = tmp_path / "log"
    step = works.steps(str(log), 6)[1]
    (expected,) = executor.run([step], whole, Progress())
    executor.run([works.steps(str(log), 6)[0]], cut, Progress())
    partial = cut / step.id
    for name in ("part-00001.parquet", "part-00004.parquet"):  # as if killed between a part and its receipt
        (partial / name).write(b"torn")
    (artifact,) = executor.run([step], cut, Progress())
    assert contents(artifact) == contents(expected)


def test_rejected_rows_keep_their_keys_and_are_counted(ray_here: None, tmp_path: Path) -> None:
    root, log = Place.of(tmp_path), tmp_path / "log"
    source, _ = works.steps(str(log), 3)
    config = works.Shout(log=str(log), reject="d7")
    strict = Step("upper", works.Upper, config, {"docs": source}, DOCS, "docs")
    with pytest.raises(StepError, match=r"(?s)rejected 1 of 15 records.*unwanted: 1, for example d7"):
        executor.run([strict], root, Progress())
    lines = log.read_text()
    lenient = Step("upper", works.Upper, config, {"docs": source}, DOCS, "docs", max_rejects=0.1)
    (artifact,) = executor.run([lenient], root, Progress())
    assert log.read_text() == lines, "a higher limit must not do the work again"
    assert artifact.rows == 15
    assert artifact.manifest.rejects["unwanted"].count == 1
    assert "d7" not in [key for key, _ in rows_of(artifact)]


def test_source_rejects_are_counted_with_their_place(ray_here: None, tmp_path: Path) -> None:
    broken = Step("numbers", works.Count, works.Numbers(parts=2, broken=4), table=DOCS, max_rejects=0.5)
    (artifact,) = executor.run([broken], Place.of(tmp_path), Progress())
    rejected = artifact.manifest.rejects["broken"]
    assert (artifact.rows, rejected.count) == (7, 3)
    assert rejected.examples[1].startswith("file:4")


def test_failing_work_says_why_and_keeps_what_was_done(ray_here: None, tmp_path: Path) -> None:
    root = Place.of(tmp_path)
    step = works.steps(str(tmp_path / "no" / "such" / "directory"), 2)[1]
    with pytest.raises(StepError, match=r"(?s)step upper@\w+ failed: FileNotFoundError.*run the same command again"):
        executor.run([step], root, Progress())
    assert executor.complete(works.steps("", 2)[0], root)


def test_lost_node_does_not_lose_or_double_a_row(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    root, log = Place.of(tmp_path / "root"), tmp_path / "log"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        os.environ["RAY_ADDRESS"] = cluster.address
        step = works.steps(str(log), PARTS, 0.15)[1]

        def remove() -> None:
            until(lambda: receipts(root, step) >= 4)
            cluster.remove_node(nodes[random.randrange(2)], allow_graceful=False)

        remover = threading.Thread(target=remove)
        remover.start()
        (artifact,) = executor.run([step], root, Progress())
        remover.join()
        assert rows_of(artifact) == expected_rows()
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        ray.shutdown()
        cluster.shutdown()


def test_fingerprint_leaves_out_resources_and_limits() -> None:
    source, step = works.steps("log", 3)
    moved = Step(
        "upper", works.Upper, step.config, {"docs": source}, DOCS, "docs", resources=Resources(gpus=1), max_rejects=1
    )
    other = Step("upper", works.Upper, step.config, {"docs": works.steps("log", 4)[0]}, DOCS, "docs")
    assert moved.id == step.id
    assert other.id != step.id
