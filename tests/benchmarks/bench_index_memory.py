"""Memory of building a shard as a collection grows tenfold, for each kind of index.

    python tests/benchmarks/bench_index_memory.py [--docs 5000]

The peak resident memory of a process that builds one shard of synthetic documents of 100 tokens (128 dimensions) or 100
words, less what it held before it began. Prints one line per kind and size. 1.4 GB of disk at the default.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from growth import in_own_process, peak_mb

from cluster.artifact import MANIFEST, Artifact, write_part
from cluster.storage import Place
from pipelines.index import BuildShard, plan_shards
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.plaid import Plaid
from pipelines.tables import VECTORS
from tests.artifacts import table_artifact
from tests.shards import docs_artifact, local_fan_out, unit, vector_rows

DIM, ROWS = 128, 500
INDEXES = {"exact": Exact(), "plaid": Plaid(centroids=4096, sample_tokens=50_000), "bm25": Bm25()}


def make_collection(directory: Path, parts: int) -> tuple[Artifact, Artifact]:
    """``parts`` parts of ``ROWS`` documents of 100 tokens, and as many texts of 100 words."""
    rng = np.random.default_rng(0)
    topics = unit(rng.normal(size=(500, DIM)))
    vectors, docs = directory / "vectors", directory / "docs"
    empty = table_artifact(vectors, VECTORS, *[[] for _ in range(parts)]).manifest
    filled = tuple(part.model_copy(update={"rows": ROWS}) for part in empty.parts)
    (vectors / MANIFEST).write_text(empty.model_copy(update={"parts": filled}).model_dump_json())
    for part in range(parts):
        made = unit(topics[rng.integers(500, size=(ROWS, 100))] + 0.05 * rng.normal(size=(ROWS, 100, DIM)))
        rows = vector_rows([(f"{part:03d}-{i}", [m.astype(np.float16)]) for i, m in enumerate(made)])
        write_part(Place.of(vectors) / f"part-{part:05d}.parquet", VECTORS.of(rows))
    words = [f"word{n}" for n in range(20_000)]
    zipf = (20_000 * rng.random((parts * ROWS, 100)) ** 3).astype(int)
    made_texts = {f"{i:06d}": " ".join(words[w] for w in row) for i, row in enumerate(zipf)}
    return Artifact(Place.of(vectors)), docs_artifact(docs, made_texts, "en", parts)


def build_one(kind: str, root: str) -> None:
    """In its own process: build the shard that is prepared below ``root``; print the growth of its memory in MB."""
    index = INDEXES[kind]
    role = index.build().role
    plans = plan_shards({f"{role}-en": Artifact(Place.of(root) / role)}, role, 10**9)
    import faiss  # noqa: F401  so that its code does not count

    before = peak_mb()
    BuildShard(index, plans, Place.of(root) / kind)(0)
    print(json.dumps({"peak_mb": round(peak_mb() - before)}))


def main() -> None:
    """Measure every kind at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=5000)
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build_one(*arguments.build)
        return
    peaks: dict[str, list[float]] = {kind: [] for kind in INDEXES}
    for parts in (arguments.docs // ROWS, 10 * arguments.docs // ROWS):
        with TemporaryDirectory() as temp:
            inputs = dict(zip(("vectors", "docs"), make_collection(Path(temp), parts), strict=True))
            for kind, index in INDEXES.items():
                builder = index.build()
                plans = plan_shards({f"{builder.role}-en": inputs[builder.role]}, builder.role, 10**9)
                builder.prepare(plans, Place.of(Path(temp) / kind), local_fan_out)
                peaks[kind].append(in_own_process(__file__, ["--build", kind, temp])["peak_mb"])
                size = sum(f.stat().st_size for f in (Path(temp) / kind / "shards").rglob("*") if f.is_file())
                print(
                    f"{kind:6} {parts * ROWS:7} docs: {peaks[kind][-1]:5} MB for a shard of {size >> 20} MB", flush=True
                )
    print(json.dumps({kind: round(after / before, 2) for kind, (before, after) in peaks.items()}))


if __name__ == "__main__":
    main()
