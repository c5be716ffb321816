"""Ray Data's own checkpointing, measured: why a step resumes by parts and receipts instead (docs/architecture.md).

    python tests/benchmarks/bench_checkpointing.py [--rows 20000] [--cpus 4]

Runs read → repartition → actor map → write three times: plain, with ``CheckpointConfig``, and again with its record
of finished rows. Prints the seconds of each. With ``--cpus 2`` the third did not end within two minutes on Ray 2.60.0:
stop it with Ctrl-C.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS_PER_FILE = 10_000


class Same:
    """A work that does nothing."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


def write_source(directory: Path, rows: int) -> None:
    """Parquet files of passages with string ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory.mkdir()
    for first in range(0, rows, ROWS_PER_FILE):
        ids = [f"msmarco-passage-{i:09d}" for i in range(first, min(rows, first + ROWS_PER_FILE))]
        pq.write_table(pa.table({"doc_id": ids, "text": ["x" * 50] * len(ids)}), directory / f"{first:09d}.parquet")


def job(source: Path, out: Path, record: Path | None) -> float:
    """Seconds of one run; ``record`` is where Ray keeps the ids that are done."""
    import ray.data
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = None
    if record is not None:
        context.checkpoint_config = CheckpointConfig("doc_id", str(record), delete_checkpoint_on_success=False)
    started = time.perf_counter()
    rows = ray.data.read_parquet(str(source)).repartition(target_num_rows_per_block=ROWS_PER_FILE)
    rows.map_batches(Same, compute=ray.data.ActorPoolStrategy(size=1)).write_parquet(str(out))
    return time.perf_counter() - started


def main() -> None:
    """Time the three runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--cpus", type=int, default=4)
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_source(place / "source", arguments.rows)
        print(f"plain         {job(place / 'source', place / 'plain', None):.1f} s", flush=True)
        print(f"checkpointed  {job(place / 'source', place / 'out', place / 'record'):.1f} s", flush=True)
        print(f"run again     {job(place / 'source', place / 'out', place / 'record'):.1f} s", flush=True)


if __name__ == "__main__":
    main()
