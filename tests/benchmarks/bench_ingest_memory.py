"""Memory of ingest as the collection grows tenfold: peak resident bytes for n and 10 n lines, each in its own process.

    python tests/benchmarks/bench_ingest_memory.py [--lines 200000] [--rows-per-part 4096]

Prints one line per size and, last, JSON with the ratio. A collection of numbers, about 330 bytes per line, is written
to a temporary directory first: 0.7 GB for 10 n at the default.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from growth import compare, in_own_process, peak_mb


def write(path: Path, lines: int) -> None:
    """A collection of ``lines`` passages that differ."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            file.write(f"{number}\t{' '.join(str((number * 31 + word) % 100_003) for word in range(55))}\n")


def ingest(directory: str, rows_per_part: int) -> dict[str, float]:
    """Stream the collection and drop each part, as a step does once it is written."""
    from pipelines.ingest import IngestConfig, IngestDocs
    from pipelines.sources import MsMarco

    config = IngestConfig.of(MsMarco(path=directory), "en", "all", rows_per_part, "docs")
    started = time.perf_counter()
    rows = sum(len(part) for part, _ in IngestDocs(config, {})())
    seconds = time.perf_counter() - started
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "peak_mb": round(peak_mb(), 1),
    }


def both(lines: int, rows_per_part: int) -> Iterator[dict[str, Any]]:
    """Measure n and 10 n lines."""
    for size in (lines, 10 * lines):
        with tempfile.TemporaryDirectory() as directory:
            write(Path(directory) / "collection.tsv", size)
            yield in_own_process(__file__, ["--directory", directory, "--rows-per-part", rows_per_part])


def main() -> None:
    """Measure both sizes and print the ratio of their peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rows-per-part", type=int, default=4096)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.directory:
        print(json.dumps(ingest(arguments.directory, arguments.rows_per_part)))
    else:
        compare(both(arguments.lines, arguments.rows_per_part))


if __name__ == "__main__":
    main()
