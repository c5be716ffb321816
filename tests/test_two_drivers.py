"""Two drivers on one root, each in a process with a Ray of its own: every artifact is made once, whoever is killed."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import works
from cluster.artifact import Artifact
from cluster.lease import LEASES
from cluster.receipt import RECEIPTS
from cluster.step import Step
from cluster.storage import Place


class Driver:
    """``works.main`` in a process."""

    def __init__(self, root: Place, log: Path, parts: int, seconds: float, out: Path, name: str = "all"):
        command = [sys.executable, works.__file__, name, root.uri, str(log), str(parts), str(seconds)]
        path = os.pathsep.join([str(Path(works.__file__).parent), *sys.path])
        env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path}
        self.out = out
        with out.open("ab") as file:
            self.process = subprocess.Popen(command, env=env | {"BABELRAY_LEASE_S": "12"}, stdout=file, stderr=file)

    @property
    def said(self) -> str:
        return self.out.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def finish(self) -> None:
        assert self.process.wait(400) == 0, self.said


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def plan(log: Path, parts: int, seconds: float) -> list[Step]:
    """All steps of the plan, by way of the directory steps that end it."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        for parent in step.parents.values():
            visit(parent)
        found[step.id] = step

    for target in works.all_steps(str(log), parts, seconds):
        visit(target)
    return list(found.values())


def assert_as_undisturbed(root: Place, steps: list[Step], parts: int) -> None:
    """Every table holds what one undisturbed driver writes, and nothing is left of the work."""
    for step in steps:
        artifact = Artifact(root / step.id)
        n = int(step.name[-1])
        ids = range((parts + n) * works.ROWS)
        text = {
            "numbers": lambda i: f"text {i}",
            "upper": lambda i: f"TEXT {i}",
            "joined": lambda i: f"TEXT {i}:text {i}",
        }.get(step.name[:-2])
        if text:
            table = artifact.read()
            assert table["doc_id"].to_pylist() == [f"d{i}" for i in ids]
            assert table["text"].to_pylist() == [text(i) for i in ids]
        else:
            assert (root / step.id / "pillow").read() == b"%d" % n
        names = {place.name for place in artifact.place.list() if place.exists()}
        assert not names & {RECEIPTS, LEASES}
    assert len(root.list()) == len(steps)


def test_second_driver_waits_and_goes_on_when_the_first_is_killed(tmp_path: Path, s3_root: str) -> None:
    root, log = Place.of(s3_root) / f"two-{tmp_path.name}", tmp_path / "log"
    _, upper = works.steps(str(log), 12, 0.7)
    first = Driver(root, log, 12, 0.7, tmp_path / "first", "upper")
    until(lambda: log.exists() and len(log.read_text().splitlines()) >= 3)
    second = Driver(root, log, 12, 0.7, tmp_path / "second", "upper")
    until(lambda: "; waiting" in second.said)
    words = rf"{upper.id}: made by \S+ \(pid {first.process.pid}, user \S+\) since \d\d:\d\d; waiting"
    assert re.search(words, second.said)
    first.kill()
    second.finish()
    assert upper.artifact(root).read()["text"].to_pylist() == [f"TEXT {i}" for i in range(12 * works.ROWS)]
    names = {place.name for place in upper.artifact(root).place.list() if place.exists()}
    assert not names & {RECEIPTS, LEASES}
    assert len(root.list()) == 2


@pytest.mark.slow
def test_two_drivers_make_each_artifact_once(tmp_path: Path) -> None:
    root, log = Place.of(tmp_path / "root"), tmp_path / "log"
    steps = plan(log, 5, 0.2)
    drivers = [Driver(root, log, 5, 0.2, tmp_path / f"out-{n}") for n in range(2)]
    for driver in drivers:
        driver.finish()
    assert_as_undisturbed(root, steps, 5)
    times = Counter(tuple(line.split()[:-1]) for line in log.read_text().splitlines() if line[0] != "d")
    assert set(times.values()) == {1}, "a directory step was made twice"
    rows = [line.split()[0] for line in log.read_text().splitlines() if line.split()[0].startswith("d")]
    assert len(rows) == 5 + 6, "a part was made twice"
    assert sum("made by" in driver.said for driver in drivers) >= 1
