"""Memory of the driver from a thousand rows to a million: peak resident bytes while steps run, each size in a process.

    python tests/benchmarks/bench_driver_memory.py [--sizes 1000 100000 1000000] [--cpus 2]

Two ingests and the join of their rows (parts of 4,096 rows, as in a recipe), by the executor on a Ray of its own. Then
the same again in the same process, which reads manifests only. Prints one line per size, with the driver's peak, how
many parts were made, and the seconds of both; last the ratio of the peaks.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
sys.path.insert(0, str(Path(__file__).parents[2]))

from growth import compare, in_own_process, peak_mb

LANGS = ("en", "de")
ROWS_PER_PART = 4096


def write(directory: Path, rows: int) -> None:
    """A parallel collection of ``rows`` documents in two languages, and one judged question."""
    for lang in LANGS:
        with (directory / f"collection.{lang}.tsv").open("w", encoding="utf-8") as file:
            for number in range(rows):
                file.write(f"d{number}\t{lang} {' '.join(str((number * 31 + word) % 10_007) for word in range(12))}\n")
        (directory / f"queries.{lang}.tsv").write_text(f"q0\twhat is {lang}\n", encoding="utf-8")
    (directory / "qrels.tsv").write_text("q0 0 d0 1\n", encoding="utf-8")


def run(directory: str, cpus: int) -> dict[str, Any]:
    """Make the steps, and once more."""
    import ray
    from rich.console import Console

    from cluster import executor
    from cluster.progress import Progress
    from cluster.step import Step
    from cluster.storage import Place
    from pipelines.ingest import IngestConfig, IngestDocs
    from pipelines.sources import Parallel as ParallelSource
    from pipelines.tables import DOCS
    from pipelines.translate import JoinTranslations, TranslateConfig
    from pipelines.translators import Parallel

    source = ParallelSource(path=f"{directory}/data")
    docs = {
        lang: Step(f"docs-{lang}", IngestDocs, IngestConfig.of(source, lang, "all", ROWS_PER_PART, "docs"), table=DOCS)
        for lang in LANGS
    }
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Parallel(), stage=1)
    inputs = {"docs": docs["en"], "translations": docs["de"]}
    join = Step("translate-de", JoinTranslations, config, inputs, table=DOCS, rows=("docs",))
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    root, seconds = Place.of(f"{directory}/root"), []
    for _ in range(2):
        started = time.perf_counter()
        (artifact,) = executor.run([join], root, Progress(Console(file=io.StringIO())))
        seconds.append(round(time.perf_counter() - started, 2))
    facts = json.loads((artifact.place / "manifest.json").read())
    return {
        "rows": facts["rows"],
        "parts": len(facts["parts"]),
        "seconds": seconds[0],
        "seconds_again": seconds[1],
        "peak_mb": round(peak_mb(), 1),
    }


def measure(sizes: list[int], cpus: int) -> Iterator[dict[str, Any]]:
    """One run for each size."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "data").mkdir()
            write(Path(directory) / "data", size)
            yield in_own_process(__file__, ["--directory", directory, "--cpus", cpus])


def main() -> None:
    """Measure each size and print the ratio of the last peak to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.directory:
        print(json.dumps(run(given.directory, given.cpus)))
    else:
        compare(measure(given.sizes, given.cpus))


if __name__ == "__main__":
    main()
