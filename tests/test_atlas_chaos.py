"""The whole atlas recipe on an object store, under kills: two drivers, six kills, the tables of an undisturbed run."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.artifact import MANIFEST
from cluster.storage import Place
from pipelines import verbs
from pipelines.plan import Plan

SMALL = [
    "source.territories=12",
    "measure.untrained=false",
    'languages.docs=["en", "fa"]',
    "train.steps=30",
    "train.warmup=5",
    "train.validation.every=15",
    "train.validation.max_docs=200",
    "train.student.words=",
    "train.student.dim=32",
    "train.checkpoint_every=5",
    "run.rows_per_part=100",
    "run.queries_per_part=100",
]
KILLS = 6


class Driver:
    """``python -m pipelines run atlas`` in a process, with a Ray of its own."""

    def __init__(self, root: Place, out: Path):
        sets = [word for key in [*SMALL, f"root={root.uri}"] for word in ("--set", key)]
        env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"BABELRAY_LEASE_S": "20"}
        self.out = out
        with out.open("ab") as file:
            command = [sys.executable, "-m", "pipelines", "run", "atlas", *sets]
            self.process = subprocess.Popen(command, env=env, stdout=file, stderr=file)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def finish(self, seconds: float = 900) -> None:
        try:
            assert self.process.wait(seconds) == 0, self.out.read_text()[-3000:]
        except subprocess.TimeoutExpired as late:
            self.kill()
            raise AssertionError(f"not done after {seconds:.0f} s:\n{self.out.read_text()[-3000:]}") from late


def read_tables(plan: Plan, root: Place) -> dict[str, bytes | str]:
    """The parts of every table, and the measures of every evaluation, by step and file."""
    found: dict[str, bytes | str] = {}
    for step in plan.steps:
        artifact = step.artifact(root)
        found |= {f"{step.id}/{part.name}": part.read() for part in artifact.parts}
        if step.name.startswith("evaluate-"):
            found[step.id] = (artifact.place / "measures.json").read()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_drivers_six_kills_end_in_the_same_tables(tmp_path: Path, s3_root: str) -> None:
    quiet, stormy = (Place.of(s3_root) / f"{name}-{tmp_path.name}" for name in ("quiet", "stormy"))
    Driver(quiet, tmp_path / "quiet").finish()
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    drivers = [Driver(stormy, tmp_path / f"out-{n}") for n in range(2)]
    for _ in range(KILLS):
        time.sleep(rng.uniform(5, 18))
        victim = rng.randrange(2)
        drivers[victim].kill()
        drivers[victim] = Driver(stormy, tmp_path / f"out-{victim}")
    for driver in drivers:
        driver.finish()
    plan, _ = verbs.load_plan("atlas", SMALL)
    assert all((stormy / step.id / MANIFEST).exists() for step in plan.steps)
    expected, found = read_tables(plan, quiet), read_tables(plan, stormy)
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    examples = next(step.id for step in plan.steps if step.name == "examples")
    first, second = (json.loads((root / examples / "examples.json").read()) for root in (quiet, stormy))
    assert first == second
