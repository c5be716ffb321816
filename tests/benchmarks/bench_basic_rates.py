"""CPU seconds per unit of the steps that have no model: what `plan` takes for them where nothing was measured.

    python tests/benchmarks/bench_basic_rates.py

20,000 passages of 56 words drawn from 50,000 words by Zipf's law, 20,000 questions, rankings of 50. In this process, in
CPU seconds of all its threads, so that what else the machine does hardly counts. See ``BASIC`` in
``pipelines/costs/rates.py``.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from artifacts import table_artifact  # noqa: E402
from cluster.artifact import read_part, write_part  # noqa: E402
from cluster.storage import Place  # noqa: E402
from pipelines.evaluate import EvaluateConfig, evaluate  # noqa: E402
from pipelines.index import IndexConfig, build_index  # noqa: E402
from pipelines.indexes import Bm25, Exact  # noqa: E402
from pipelines.ingest import IngestConfig, IngestDocs, IngestQrels, IngestQueries  # noqa: E402
from pipelines.scoring import MergeConfig, MergeScores  # noqa: E402
from pipelines.sources.msmarco import MsMarco  # noqa: E402
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS, VECTORS  # noqa: E402
from pipelines.translate import JoinTranslations, TranslateConfig  # noqa: E402
from pipelines.translators import Parallel  # noqa: E402
from shards import local_fan_out  # noqa: E402

PASSAGES, WORDS, PER_PART, DEPTH = 20_000, 56, 4096, 50


@contextmanager
def measured(name: str, units: int) -> Iterator[None]:
    """Print the CPU seconds per unit of a block."""
    before = time.process_time()
    yield
    print(f"{name:24} {(time.process_time() - before) / units:.1e} s")


def write_source(root: Path) -> None:
    """MS MARCO's three files, of drawn words."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 50_001)
    words = rng.choice(50_000, (PASSAGES, WORDS), p=share / share.sum())
    texts = [" ".join(f"word{n}" for n in row) for row in words]
    (root / "collection.tsv").write_text("".join(f"{n}\t{text}\n" for n, text in enumerate(texts)))
    questions = "".join(f"{n}\t{' '.join(text.split()[:6])}\n" for n, text in enumerate(texts))
    (root / "queries.train.tsv").write_text(questions)
    (root / "qrels.train.tsv").write_text("".join(f"{n}\t0\t{n}\t1\n" for n in range(PASSAGES)))


def ingest(root: Path, work: type, table: object, name: str, **inputs: object) -> object:
    """Run an ingest and write its parts."""
    config = IngestConfig.of(MsMarco(path=str(root)), "en", "train", PER_PART, name)
    with measured(work.__name__, PASSAGES):
        parts = [rows for rows, _ in work(config, inputs)()]
        for number, rows in enumerate(parts):
            write_part(Place.of(root / f"{name}-{number}.parquet"), table.conform(rows))
    return table_artifact(root / f"{name}@0", table, *(rows.to_pylist() for rows in parts))


def main() -> None:
    """Measure each work once."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write_source(root)
        docs = ingest(root, IngestDocs, DOCS, "docs")
        queries = ingest(root, IngestQueries, QUERIES, "queries")
        qrels = ingest(root, IngestQrels, QRELS, "qrels", docs=docs, queries=queries)
        join = JoinTranslations(
            TranslateConfig(source_lang="en", target_lang="de", translator=Parallel()), {"translations": docs}
        )
        with measured("JoinTranslations", PASSAGES):
            for number, part in enumerate(docs.parts):
                write_part(Place.of(root / f"join-{number}.parquet"), DOCS.conform(join(read_part(part))))
        with measured("build_index:bm25", PASSAGES):
            config = IndexConfig(index=Bm25(), shard_rows=100_000)
            build_index(config, {"docs": {"en": docs}}, Place.of(root / "bm25"), local_fan_out)
        measure_rankings(root, qrels)
        measure_exact(root)


def measure_rankings(root: Path, qrels: object) -> None:
    """What reads rankings."""
    rng = np.random.default_rng(1)
    rows = [
        {"query_id": str(n), "doc_ids": [str(n), *map(str, PASSAGES + rng.permutation(DEPTH - 1))],
         "scores": list(np.linspace(9, 1, DEPTH))} for n in range(4000)
    ]  # fmt: skip
    rankings = table_artifact(root / "rankings@0", RANKINGS, rows)
    with measured("evaluate", len(rows)):
        (root / "evaluate").mkdir()
        config = EvaluateConfig(name="x", measures=("nDCG@20", "AP", "R@100", "RR@10"))
        inputs = {"rankings": {"en": rankings}, "qrels": {"en": qrels}}
        evaluate(config, inputs, Place.of(root / "evaluate"), local_fan_out)
    table = read_part(rankings.parts[0])
    with measured("MergeScores", len(rows)):
        RANKINGS.conform(MergeScores(MergeConfig(), {})(table, table))


def measure_exact(root: Path) -> None:
    """An exact index: vectors are copied."""
    rng = np.random.default_rng(2)
    rows = [
        {"id": str(n), "tokens": [76], "vectors": rng.standard_normal((76, 128)).astype(np.float16).tobytes()}
        for n in range(2000)
    ]
    vectors = table_artifact(root / "vectors@0", VECTORS, rows)
    with measured("build_index:exact", len(rows)):
        config = IndexConfig(index=Exact(), shard_rows=100_000)
        build_index(config, {"vectors": {"en": vectors}}, Place.of(root / "exact"), local_fan_out)


if __name__ == "__main__":
    main()
