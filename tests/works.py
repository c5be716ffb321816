"""Works that the executor's tests run in Ray workers: they leave a line in a log for each thing that they do.

Run as a program it is the driver that the tests kill: ``python works.py STEP ROOT LOG PARTS SECONDS``, where STEP is
``numbers``, ``upper`` or ``all``.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster import executor
from cluster.component import Component, Resources
from cluster.errors import StepError
from cluster.progress import Progress
from cluster.step import FanOut, Step
from cluster.storage import Place
from cluster.table import Reject
from pipelines.tables import DOCS

ROWS = 5


class Numbers(Component):
    """``parts`` parts of five documents, each of which takes ``seconds``; every ``broken``-th record cannot be read."""

    parts: int
    broken: int = 0
    seconds: float = 0.0


class Shout(Component):
    """How long a part takes, and where each part that is done is noted (neither changes the content). The part that
    begins with ``deadly`` ends the process that does it."""

    log: str
    seconds: float = 0.0
    reject: str = ""
    deadly: str = ""


class Count:
    """SourceWork."""

    def __init__(self, config: Numbers, inputs: object) -> None:
        self.config = config

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]:
        for part in range(self.config.parts):
            time.sleep(self.config.seconds)
            ids = range(part * ROWS, (part + 1) * ROWS)
            good = [i for i in ids if not self.config.broken or i % self.config.broken]
            rows = [{"doc_id": f"d{i}", "lang": "en", "title": "", "text": f"text {i}"} for i in good]
            yield DOCS.of(rows), [Reject("broken", f"file:{i}") for i in ids if i not in good]


class Upper:
    """RowWork: notes ``<first id> <pid>`` before it writes in capitals."""

    def __init__(self, config: Shout, inputs: object) -> None:
        self.config = config

    def __call__(self, rows: pa.Table) -> pa.Table:
        time.sleep(self.config.seconds)
        with Path(self.config.log).open("a") as log:
            log.write(f"{rows['doc_id'][0]} {os.getpid()}\n")
        if rows["doc_id"][0].as_py() == self.config.deadly:
            os._exit(1)
        out = [row | {"text": row["text"].upper()} for row in rows.to_pylist()]
        for row in out:
            if row["doc_id"] == self.config.reject:
                row |= {"text": None, "reject": "unwanted"}
        return DOCS.of(out)


class Join:
    """RowWork over two aligned tables: the text of the first, a colon, the text of the second."""

    version = 2

    def __init__(self, config: Numbers, inputs: object) -> None:
        self.inputs = inputs

    def __call__(self, first: pa.Table, second: pa.Table) -> pa.Table:
        texts = [f"{a}:{b}" for a, b in zip(first["text"].to_pylist(), second["text"].to_pylist(), strict=True)]
        return first.set_column(first.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))


def steps(log: str, parts: int, seconds: float = 0.0) -> tuple[Step, Step]:
    """A source and a step over it."""
    source = Step("numbers", Count, Numbers(parts=parts), table=DOCS)
    resources = Resources(actors=2)
    upper = Step(
        "upper", Upper, Shout(log=log, seconds=seconds), {"docs": source}, DOCS, ("docs",), resources=resources
    )
    return source, upper


class Nap(Component):
    """A directory step that takes ``seconds``, and as many for each of its ``units``, and notes its begin and end.
    It first waits until the log has ``lines`` lines that begin with ``after``."""

    number: int
    log: str
    seconds: float = 0.0
    units: int = 0
    fails: bool = False
    after: str = ""
    lines: int = 0


def nap(config: Nap, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """DirectoryWork: as a training does, it waits in the driver for what others do."""
    note(config.log, f"begin {config.number}")
    end = time.monotonic() + 240
    while sum(line.startswith(config.after) for line in Path(config.log).read_text().splitlines()) < config.lines:
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    time.sleep(config.seconds)
    if config.fails:
        note(config.log, f"fail {config.number}")
        raise StepError(f"nap {config.number} failed")
    if config.units:
        fan_out("units", Doze, {"config": config}, list(range(config.units)))
    (out / "pillow").write(b"%d" % config.number)
    note(config.log, f"end {config.number}")
    return {"number": config.number}


class Doze:
    """UnitWork."""

    def __init__(self, config: Nap) -> None:
        self.config = config

    def __call__(self, unit: int) -> dict[str, Any]:
        note(self.config.log, f"unit {self.config.number} {unit}")
        time.sleep(self.config.seconds)
        return {}


def note(log: str, line: str) -> None:
    """Add a line to a log with the time."""
    with Path(log).open("a") as file:
        file.write(f"{line} {time.time()}\n")


def naps(log: str, count: int, seconds: float, **options: Any) -> list[Step]:
    """Independent directory steps."""
    return [Step(f"nap-{n}", nap, Nap(number=n, log=log, seconds=seconds), **options) for n in range(count)]


class Eyes(Component):
    """Nothing to configure."""


class See:
    """RowWork: writes into each text which accelerators and how many threads its process may use."""

    def __init__(self, config: Eyes, inputs: object) -> None:
        names = ("CUDA_VISIBLE_DEVICES", "BABELRAY_TEST_ENVIRONMENT", "OMP_NUM_THREADS")
        self.seen = " ".join(str(os.environ.get(name)) for name in names)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return DOCS.of([row | {"text": self.seen} for row in rows.to_pylist()])


def all_steps(log: str, parts: int, seconds: float) -> list[Step]:
    """A plan with every form of step: two sources and what maps them, a join of aligned tables, a directory step."""
    small = Resources(cpus=0.5, actors=2)
    targets = []
    for n in range(2):
        source = Step(f"numbers-{n}", Count, Numbers(parts=parts + n, seconds=seconds / 4), table=DOCS, resources=small)
        shout = Shout(log=log, seconds=seconds)
        upper = Step(f"upper-{n}", Upper, shout, {"docs": source}, DOCS, ("docs",), resources=small)
        inputs = {"low": source, "high": upper}
        joined = Step(f"joined-{n}", Join, Numbers(parts=n + 1), inputs, DOCS, ("high", "low"), resources=small)
        config = Nap(number=n, log=log, seconds=seconds, units=parts)
        targets.append(Step(f"nap-{n}", nap, config, {"docs": joined}, resources=small))
    return targets


def slow_source(parts: int, seconds: float) -> Step:
    """A source that takes its time."""
    return Step("numbers", Count, Numbers(parts=parts, seconds=seconds), table=DOCS)


def main(name: str, root: str, log: str, parts: str, seconds: str) -> None:
    """Run a plan as a driver of its own."""
    if name == "all":
        targets = all_steps(log, int(parts), float(seconds))
    elif name == "numbers":
        targets = [slow_source(int(parts), float(seconds))]
    else:
        targets = [steps(log, int(parts), float(seconds))[1]]
    executor.run(targets, Place.of(root), Progress())


if __name__ == "__main__":
    os.environ["RAY_AUTH_MODE"] = "disabled"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    main(*sys.argv[1:])
