"""Memory of ingest as the collection grows tenfold: peak resident bytes for n and 10 n lines, each in its own process.

    python tests/benchmarks/bench_ingest_memory.py [--lines 200000] [--rows-per-part 4096]

Prints one line per size and, last, JSON with the ratio. A collection of numbers, about 330 bytes per line, is written
to a temporary directory first: 0.7 GB for 10 n at the default.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "peak_mb": round(peak, 1),
    }


def main() -> None:
    """Measure both sizes and print the ratio of their peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rows-per-part", type=int, default=4096)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.directory:
        print(json.dumps(ingest(arguments.directory, arguments.rows_per_part)))
        return
    measured = []
    for lines in (arguments.lines, 10 * arguments.lines):
        with tempfile.TemporaryDirectory() as directory:
            write(Path(directory) / "collection.tsv", lines)
            own = [sys.executable, __file__, "--directory", directory, "--rows-per-part", str(arguments.rows_per_part)]
            out = subprocess.run(own, check=True, capture_output=True, text=True).stdout
            measured.append(json.loads(out))
            print(out.strip())
    print(json.dumps({"ratio": round(measured[1]["peak_mb"] / measured[0]["peak_mb"], 3)}))


if __name__ == "__main__":
    main()
