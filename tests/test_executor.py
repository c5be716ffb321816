"""The executor: rows are written exactly once, whatever dies; what is done is not done again."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import works
from cluster import executor, pool, runner, session
from cluster.artifact import Artifact
from cluster.component import Resources
from cluster.errors import StepError
from cluster.lease import Fence
from cluster.progress import PROGRESS, Progress, read_progress
from cluster.receipt import RECEIPTS, Receipt
from cluster.step import Step
from cluster.storage import Place
from cluster.waves import is_complete
from pipelines.tables import DOCS

PARTS = 30
UNIT = {"task": [0], "unit": [0], "helps": [False]}
PAUSE_S = 0.2  # per part: a killed driver's orphans do not finish all before their Ray ends


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    session.connect()
    yield
    ray.shutdown()


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def done(root: Place, step: Step) -> set[str]:
    """The first ids of the parts that have a receipt."""
    names = [place.name for place in (root / step.id / RECEIPTS).list()]
    return {f"d{works.ROWS * int(name.removesuffix('.json'))}" for name in names if name.endswith(".json")}


def assert_done_once(parts: set[str], log: Path) -> None:
    times = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert {part: times[part] for part in parts} == dict.fromkeys(parts, 1), "a finished part was done again"


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {part.name: part.read() for part in artifact.parts}


def expected_rows(parts: int = PARTS) -> list[tuple[str, str]]:
    return [(f"d{i}", f"TEXT {i}") for i in range(parts * works.ROWS)]


def rows_of(artifact: Artifact) -> list[tuple[str, str]]:
    table = artifact.read()
    return list(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))


@contextmanager
def driver_to_kill(name: str, root: Place, log: Path) -> Iterator[None]:
    """A driver in a process of its own, killed (alone: its Ray ends by itself) when the block ends."""
    command = [sys.executable, works.__file__, name, root.uri, str(log), str(PARTS), str(PAUSE_S)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(works.__file__).parent), *sys.path])}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    process.kill()
    process.wait()


@pytest.mark.parametrize("store", ["disk", pytest.param("s3", marks=pytest.mark.slow)])
def test_killed_driver_goes_on_and_writes_each_row_once(
    store: str, ray_here: None, tmp_path: Path, s3_root: str
) -> None:
    root = Place.of(tmp_path / "root") if store == "disk" else Place.of(s3_root) / f"kill-{tmp_path.name}"
    log = tmp_path / "log"
    step = works.steps(str(log), PARTS, PAUSE_S)[1]
    stop_at = random.randint(2, PARTS // 2)
    with driver_to_kill("upper", root, log):
        until(lambda: len(done(root, step)) >= stop_at)
    until(lambda: _settled(root, step))
    kept = done(root, step)
    assert stop_at <= len(kept) < PARTS

    (artifact,) = executor.run([step], root, Progress())
    assert rows_of(artifact) == expected_rows()
    assert_done_once(kept, log)
    assert not (root / step.id / RECEIPTS).exists()


def test_killed_ingest_keeps_its_parts_and_tells_how_far_it_came(ray_here: None, tmp_path: Path) -> None:
    step = works.slow_source(PARTS, PAUSE_S)
    place = step.artifact(Place.of(tmp_path)).place
    with driver_to_kill("numbers", Place.of(tmp_path), tmp_path / "log"):
        until(lambda: read_progress(place).get("rows", 0) >= 3 * works.ROWS)
    until(lambda: _settled(Place.of(tmp_path), step))
    kept = {file: file.stat().st_mtime_ns for file in place.path.glob("part-*.parquet")}
    assert 3 <= len(kept) < PARTS

    (artifact,) = executor.run([step], Place.of(tmp_path), Progress())
    assert [key for key, _ in rows_of(artifact)] == [key for key, _ in expected_rows()]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "a finished part was written again"
    assert not (place / PROGRESS).exists()


def _settled(root: Place, step: Step) -> bool:
    """Whether no orphan of the killed driver writes any more: its Ray ends a moment after it."""
    before = written(root, step)
    time.sleep(1.5)
    return written(root, step) == before


def written(root: Place, step: Step) -> list[Place]:
    return [*(root / step.id).list(), *(root / step.id / RECEIPTS).list()]


def test_killed_worker_is_replaced_within_the_run(ray_here: None, tmp_path: Path) -> None:
    root, log = Place.of(tmp_path), tmp_path / "log"
    step = works.steps(str(log), PARTS, 0.1)[1]
    kept: set[str] = set()

    def kill() -> None:
        until(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
        kept.update(done(root, step))
        os.kill(int(log.read_text().splitlines()[-1].split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    (artifact,) = executor.run([step], root, Progress())
    killer.join()
    assert rows_of(artifact) == expected_rows()
    assert len({line.split()[1] for line in log.read_text().splitlines()}) >= 2
    assert kept
    assert_done_once(kept, log)


def test_wave_takes_the_room_that_another_leaves(ray_here: None, tmp_path: Path) -> None:
    """All processors but one are taken when it begins, until it has done two parts."""
    root, log = Place.of(tmp_path / "root"), tmp_path / "log"
    log.touch()
    cpus = int(session.capacity()["CPU"])
    upper = works.steps(str(log), PARTS, 2 * PAUSE_S)[1]
    nap = Step(
        "nap", works.nap, works.Nap(number=0, log=str(log), after="d", lines=2), resources=Resources(cpus=cpus - 1)
    )
    artifact, _ = executor.run([upper, nap], root, Progress())
    assert rows_of(artifact) == expected_rows()
    before, _, after = log.read_text().partition("end 0")
    alone, both = ([line.split() for line in text.splitlines() if line.startswith("d")] for text in (before, after))
    assert {first for first, _ in alone + both} == {f"d{part * works.ROWS}" for part in range(PARTS)}
    assert len(alone + both) <= PARTS + 1, "only a part that the other worker is doing may be done twice"
    assert len({process for _, process in alone}) == 1
    assert len({process for _, process in both}) == 2


def test_helpers_leave_what_is_begun(tmp_path: Path) -> None:
    doing, task = make_runner(tmp_path, [])
    helps = {"task": [0], "unit": [0], "helps": [True]}
    (task.receipts / "run" / "00000.json").write(b"[]")
    assert doing(helps)["receipt"] == [""]
    (task.receipts / "run" / "00000.json").delete()
    assert doing(helps)["receipt"] != [""]
    runner.receipt_place(task.receipts, 0).delete()
    assert doing(helps)["receipt"] == [""], "another helper has begun it"
    assert doing(UNIT)["receipt"] != [""], "the others do it all the same: the helper may be gone"
    assert task.attempts == 2


def test_processes_are_kept_from_one_pool_to_the_next(ray_here: None, tmp_path: Path) -> None:
    """And a work that another pool built is not used again: each writes into the log of its own config."""
    processes = []
    for n in range(2):
        log = tmp_path / f"log-{n}"
        _, upper = works.steps(str(log), 4)
        executor.run([upper], Place.of(tmp_path / str(n)), Progress())
        lines = [line.split() for line in log.read_text().splitlines()]
        assert sorted(first for first, _ in lines) == sorted(f"d{part * works.ROWS}" for part in range(4))
        processes.append({process for _, process in lines})
    assert processes[0] & processes[1]


def test_part_that_always_ends_its_worker_fails_the_run_with_a_reason(ray_here: None, tmp_path: Path) -> None:
    """As the kernel does when memory is out. Ray by itself would start the worker again for ever."""
    source, _ = works.steps("", 4)
    log = tmp_path / "log"
    deadly = works.Shout(log=str(log), deadly="d10")
    step = Step("upper", works.Upper, deadly, {"docs": source}, DOCS, ("docs",), resources=Resources(actors=1))
    with pytest.raises(
        StepError, match=r"(?s)step upper@\w+ failed: .*unit 2 killed its worker 3 times: out of memory\?"
    ):
        executor.run([step], Place.of(tmp_path), Progress())
    assert Counter(line.split()[0] for line in log.read_text().splitlines())["d10"] == 3
    assert {"d0", "d5"} <= done(Place.of(tmp_path), step)


@dataclass
class FlakyTask:
    """A task of one unit that raises these errors, one in each attempt, before it is done."""

    place: Place
    errors: list[Exception]
    attempts: int = 0
    name = key = "step"
    units = 1

    @property
    def receipts(self) -> Place:
        return self.place / RECEIPTS

    @property
    def fence(self) -> Fence:
        return Fence(self.place, 1)

    def build(self) -> None:
        return None

    def do(self, work: None, unit: int) -> Receipt:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return Receipt(unit=unit)


def make_runner(tmp_path: Path, errors: list[Exception]) -> tuple[runner.Runner, FlakyTask]:
    task = FlakyTask(Place.of(tmp_path), errors)
    (task.receipts / "run" / runner.DRIVER_MARK).write(b"")
    return runner.Runner([task], "run"), task


def test_what_a_kept_process_built_is_given_up(ray_here: None, tmp_path: Path) -> None:
    import ray

    task = FlakyTask(Place.of(tmp_path), [])
    (task.receipts / "run" / runner.DRIVER_MARK).write(b"")

    @ray.remote
    def do(tasks: list) -> list[bool]:
        runner.FORGET_S = 0.2
        answer = runner.run_unit(UNIT, "run", tasks[0])
        has_built = [runner._runner is not None]
        deadline = time.monotonic() + 20
        while runner._runner is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        return [answer["error"] == [""], *has_built, runner._runner is None]

    assert ray.get(do.remote([ray.put([task])])) == [True, True, True]


def test_error_that_passes_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    slow_down = OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.")
    flaky, task = make_runner(tmp_path, [slow_down, OSError(errno.EIO, "Input/output error")])
    answer = flaky(UNIT)
    assert answer["error"] == [""]
    assert Receipt.model_validate_json(answer["receipt"][0]).unit == 0
    assert (task.attempts, [pause for pause in pauses if pause >= 1]) == (3, [1, 5])


@pytest.mark.parametrize(
    ("errors", "times"),
    [([OSError(errno.ENOSPC, "No space left on device")], 1), ([OSError(errno.EIO, "Input/output error")] * 9, 4)],
    ids=["at once", "in the end"],
)
def test_error_that_stays_is_told(
    errors: list[Exception], times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    flaky, task = make_runner(tmp_path, list(errors))
    answer = flaky(UNIT)
    assert answer["error"] == [f"OSError: {errors[0]}"]
    assert "raise self.errors.pop(0)" in answer["trace"][0]
    assert task.attempts == times


def test_node_that_does_not_share_the_root_says_so(tmp_path: Path) -> None:
    elsewhere, task = make_runner(tmp_path, [])
    (tmp_path / RECEIPTS / "run" / runner.DRIVER_MARK).unlink()
    answer = elsewhere(UNIT)
    assert "does not see" in answer["error"][0]
    assert "every node mounts" in answer["error"][0]
    assert not task.attempts


def test_more_than_this_machine_has_is_an_error_at_once(ray_here: None, tmp_path: Path) -> None:
    source, _ = works.steps("", 2)
    huge = Resources(cpus=10_000, memory_gb=1)
    step = Step("upper", works.Upper, works.Shout(log=""), {"docs": source}, DOCS, ("docs",), resources=huge)
    with pytest.raises(StepError, match=r"step upper@\w+ needs 10000 CPUs, 1 GB of memory for each worker.*--set"):
        executor.run([step], Place.of(tmp_path), Progress())


def test_cluster_that_may_grow_is_waited_for_and_says_so(ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    lines: list[str] = []
    assert pool._room("score@1", Resources(gpus=1), lines.append) == 0
    assert pool._room("score@1", Resources(), lines.append) == session.capacity()["CPU"]
    assert lines == ["score@1: waiting for a node with 1 CPUs, 1 GPUs; the cluster has none. It goes on when one comes"]


def test_progress_shows_the_rows_of_an_ingest_as_they_come(tmp_path: Path) -> None:
    place, progress = Place.of(tmp_path), Progress()
    with progress.plan(["docs"]):
        progress.start("docs", None, 0, place)
        (place / PROGRESS).write(b'{"rows": 1200, "rejects": 3}')
        until(lambda: progress.lines["docs"].done == 1200)
    assert progress.lines["docs"].rejects == 3


def test_progress_that_cannot_be_read_just_now_is_no_progress(tmp_path: Path) -> None:
    assert read_progress(Place.of(tmp_path)) == {}
    for cut in (b"", b'{"rows": 12', b'{"note": "\xc3'):  # it was replaced by a longer one while it was read
        (tmp_path / PROGRESS).write_bytes(cut)
        assert read_progress(Place.of(tmp_path)) == {}
    (tmp_path / PROGRESS).unlink()
    (tmp_path / PROGRESS).mkdir()
    assert read_progress(Place.of(tmp_path)) == {}


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
    strict = Step("upper", works.Upper, config, {"docs": source}, DOCS, ("docs",))
    with pytest.raises(StepError, match=r"(?s)rejected 1 of 15 records.*unwanted: 1, for example d7"):
        executor.run([strict], root, Progress())
    lines = log.read_text()
    lenient = Step("upper", works.Upper, config, {"docs": source}, DOCS, ("docs",), max_rejects=0.1)
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
    assert is_complete(works.steps("", 2)[0], root)


def test_lost_node_does_not_lose_or_double_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # the defaults take half a minute to miss a node
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    root, log = Place.of(tmp_path / "root"), tmp_path / "log"
    kept: set[str] = set()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        session.connect()
        assert [session.room(Resources(cpus=n)) for n in (0.5, 1, 2)] == [4, 2, 0], "an actor fits within one node"
        step = works.steps(str(log), PARTS, 0.15)[1]

        def remove() -> None:
            until(lambda: len(done(root, step)) >= 4)
            kept.update(done(root, step))
            cluster.remove_node(nodes[random.randrange(2)], allow_graceful=False)

        remover = threading.Thread(target=remove)
        remover.start()
        (artifact,) = executor.run([step], root, Progress())
        remover.join()
        assert rows_of(artifact) == expected_rows()
        assert len(kept) >= 4
        assert_done_once(kept, log)
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_fingerprint_leaves_out_resources_and_limits() -> None:
    source, step = works.steps("log", 3)
    moved = Step(
        "upper", works.Upper, step.config, {"docs": source}, DOCS, ("docs",), resources=Resources(gpus=1), max_rejects=1
    )
    other = Step("upper", works.Upper, step.config, {"docs": works.steps("log", 4)[0]}, DOCS, ("docs",))
    assert moved.id == step.id
    assert other.id != step.id


def test_aligned_tables_are_mapped_part_by_part(ray_here: None, tmp_path: Path) -> None:
    source, upper = works.steps(str(tmp_path / "log"), 3)
    inputs = {"docs": {"low": source, "high": upper}}
    config = works.Numbers(parts=3)
    joined = Step("joined", works.Join, config, inputs, table=DOCS, rows=("docs.high", "docs.low"))
    root = Place.of(tmp_path / "root")
    (artifact,) = executor.run([joined], root, Progress())
    assert rows_of(artifact) == [(f"d{i}", f"TEXT {i}:text {i}") for i in range(3 * works.ROWS)]
    assert artifact.manifest.inputs == {"docs.low": source.id, "docs.high": upper.id}
    shorter = {"docs": {"low": Step("numbers", works.Count, works.Numbers(parts=2), table=DOCS), "high": upper}}
    odd = Step("joined", works.Join, config, shorter, table=DOCS, rows=("docs.high", "docs.low"))
    with pytest.raises(StepError, match="not cut into the same parts"):
        executor.run([odd], root, Progress())


def test_the_version_of_a_work_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Step("joined", works.Join, works.Numbers(parts=3), table=DOCS).fingerprint
    monkeypatch.setattr(works.Join, "version", 3)
    assert Step("joined", works.Join, works.Numbers(parts=3), table=DOCS).fingerprint != before
