"""Works that the executor's tests run in Ray workers: they leave a line in a log for each thing that they do.

Run as a program it is the driver that the tests kill: ``python works.py STEP ROOT LOG PARTS SECONDS``.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from cluster import executor
from cluster.component import Component, Resources
from cluster.progress import Progress
from cluster.step import Step
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


def slow_source(parts: int, seconds: float) -> Step:
    """A source that takes its time."""
    return Step("numbers", Count, Numbers(parts=parts, seconds=seconds), table=DOCS)


if __name__ == "__main__":
    os.environ["RAY_AUTH_MODE"] = "disabled"
    name, root, log, parts, seconds = sys.argv[1:]
    step = slow_source(int(parts), float(seconds)) if name == "numbers" else steps(log, int(parts), float(seconds))[1]
    executor.run([step], Place.of(root), Progress())
