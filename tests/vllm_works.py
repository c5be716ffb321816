"""Works that test_vllm.py runs in Ray workers that have vLLM: a source of given rows, and a translation whose engine
dies once."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.component import Component
from cluster.table import Reject, Table
from pipelines.tables import DOCS, QUERIES, RANKINGS
from pipelines.translate import Translate, TranslateConfig

TABLES = {"docs": DOCS, "queries": QUERIES, "rankings": RANKINGS}


class Given(Component):
    """Rows of a table, cut into parts."""

    table: str
    parts: tuple[tuple[dict[str, Any], ...], ...]


class Give:
    """SourceWork."""

    def __init__(self, config: Given, inputs: object) -> None:
        self._config = config

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]:
        table: Table = TABLES[self._config.table]
        for part in self._config.parts:
            yield table.of(list(part)), []


class Mortal(Translate):
    """RowWork: before its second part the engine is killed, once; notes the process of each part."""

    def __init__(self, config: TranslateConfig, inputs: Mapping[str, Any]) -> None:
        super().__init__(config, inputs)
        self._log = Path(os.environ["BABELRAY_TEST_LOG"])

    def __call__(self, rows: pa.Table, before: pa.Table | None = None) -> pa.Table:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        with self._log.open("a") as file:
            file.write(f"{os.getpid()} {rows['doc_id'][0].as_py()}\n")
        if len(lines) == 1:
            import psutil

            for child in psutil.Process().children(recursive=True):
                child.send_signal(signal.SIGKILL)
        return super().__call__(rows, before)
