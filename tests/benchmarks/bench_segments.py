"""What it costs that an index has grown: a query over 64 segments against one, and what drift does to recall.

    python tests/benchmarks/bench_segments.py [--docs 6400] [--queries 12]     # minutes on an idle core

The first segment holds three quarters of the documents, 63 later ones the rest; a tenth of all has been replaced or
deleted. Clustered unit vectors of 128 dimensions, passages of 20 to 60 tokens, queries of 32 tokens. Prints the median
CPU time of a query on one thread, in interleaved runs, over the segments and after ``compact``, and checks that both
rank equally; the seconds of an ``add`` of 100 documents (without encoding) and of ``compact``. Fails above 1.3.

Then documents about other topics are added: for several shares of new topics the mean cosine of their vectors to the
cells, and recall of the exact top 10 for questions to them, under the old codec and under one learnt from all.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # CPU time of spinning threads is no cost

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards, search
from pipelines.segments.growing import GrowingIndex
from pipelines.tables import VECTORS
from tests.benchmarks.bench_shards import near, token_docs
from tests.growing import write_parts
from tests.shards import Doc, build, docs_artifact, recall, unit, vector_rows, vectors_artifact

SEGMENTS, ROUNDS, MOST = 64, 5, 1.3


class KnownVectors:
    """Maps DOCS to the vectors that were made for them beforehand."""

    def __init__(self, docs: Sequence[Doc]):
        self.rows = {row["id"]: row for row in vector_rows(docs)}

    def __call__(self, rows: pa.Table) -> pa.Table:
        return VECTORS.of([self.rows[name] for name in rows["doc_id"].to_pylist()])


def grow(root: Path, index: Any, docs: Sequence[Doc]) -> GrowingIndex:
    """An index of the first three quarters, to which the rest is added in ``SEGMENTS`` − 1 pieces."""
    first = docs[: len(docs) * 3 // 4]
    texts = {"en": docs_artifact(root / "docs", {name: "first" for name, _ in first}, "en")}
    place = build(root / index.kind, index, {"vectors": {"en": vectors_artifact(root / "v", first, 8)}}, 10**6)
    growing = GrowingIndex(place, texts, partial(dict, en=KnownVectors(docs)), {}, 10**6)
    rest = docs[len(first) :]
    for piece in np.array_split(np.arange(len(rest)), SEGMENTS - 1):
        replaced = {docs[i][0]: f"changed {piece[0]}" for i in (piece * 7) % len(first)}
        growing.add(write_parts(root, {rest[i][0]: "new" for i in piece} | dict(list(replaced.items())[:6])))
    growing.delete([name for name, _ in docs[5 :: len(docs) // 200]])
    return growing


def time_pair(opened: Sequence[Any], queries: Sequence[Any], options: SearchOptions) -> list[float]:
    """Median CPU milliseconds of a query for each of two groups; the rankings must be equal."""
    assert search(opened[0], queries, options) == search(opened[1], queries, options), (
        "segments rank otherwise than one"
    )
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for query in queries:
            for which, group in enumerate(opened):
                started = time.process_time()
                search(group, [query], options)
                times[which].append(1000 * (time.process_time() - started))
    return [median(some) for some in times]


def compare(growing: GrowingIndex, queries: Sequence[Any], name: str) -> list[float]:
    """Print and return the ratios of the segments' time to that of one segment."""
    segments = growing.snapshot()
    assert len(segments.state.segments) == SEGMENTS
    started = time.process_time()
    growing.compact()
    print(f"{name:6} compact: {time.process_time() - started:.1f} CPU s")
    opened = [segments.open("en"), growing.snapshot().open("en")]
    ratios = []
    for k in (10, 100, 1000):
        many, one = time_pair(opened, queries, SearchOptions(k=k))
        ratios.append(many / one)
        print(f"{name:6} k={k:<5} {SEGMENTS} segments {many:7.2f} ms  one {one:7.2f} ms  ratio {ratios[-1]:.2f}")
    return ratios


def measure_drift(root: Path, count: int, queries: int, rng: np.random.Generator) -> None:
    """Print cosines and recall for additions of which some share is about topics that the codec has not seen."""
    first, other = token_docs(count, 20, 60, rng), token_docs(count, 20, 60, rng)
    docs = {"en": docs_artifact(root / "docs", {name: "first" for name, _ in first}, "en")}
    vectors = vectors_artifact(root / "v", first, 8)
    index = Plaid(centroids=2048, sample_tokens=1 << 16)
    base = build(root / "base", index, {"vectors": {"en": vectors}}, 10**6)
    for share in (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0):
        mixed = [
            (
                f"n{number}",
                [unit((1 - share) * a[1][0][: len(b[1][0])].astype(np.float32) + share * b[1][0][: len(a[1][0])])],
            )
            for number, (a, b) in enumerate(zip(first[: count // 4], other, strict=False))
        ]
        added = [(name, [p.astype(np.float16) for p in passages]) for name, passages in mixed]
        place = root / f"copy-{share}"
        place.symlink_to(base.path)
        growing = GrowingIndex(base.of(place), docs, partial(dict, en=KnownVectors(added)))
        growing = replace(growing, vectors={"en": [part.uri for part in vectors.parts]})
        cosines = growing.add(write_parts(root, {name: "new" for name, _ in added})).cosines["en"]
        questions = near(added, queries, 32, rng)
        everything = {"en": vectors_artifact(root / f"all-{share}", [*first, *added], 8)}
        anew, exact = (
            build(root / f"{kind.kind}-{share}", kind, {"vectors": everything}, 10**6) for kind in (index, Exact())
        )
        options = SearchOptions(k=10)
        truth = search(open_shards(exact, "en"), questions, options)
        found = [search(g, questions, options) for g in (growing.snapshot().open("en"), open_shards(anew, "en"))]
        old, new = (np.mean([recall(*pair) for pair in zip(some, truth, strict=True)]) for some in found)
        print(
            f"drift  share of other topics {share:.2f}: cosine {cosines['new']:.3f} (first {cosines['first']:.3f}), "
            f"recall@10 {old:.3f}, under a codec of all {new:.3f}"
        )


def main() -> None:
    """Grow two indexes and compare; then let one drift."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=6_400)
    parser.add_argument("--queries", type=int, default=12)
    arguments = parser.parse_args()
    rng, ratios = np.random.default_rng(0), list[float]()
    with TemporaryDirectory() as temp:
        os.environ["BABELRAY_CACHE"] = f"{temp}/cache"
        docs = token_docs(arguments.docs, 20, 60, rng)
        queries = near(docs, arguments.queries, 32, rng)
        for index in (Plaid(centroids=2048, sample_tokens=1 << 16), Exact()):
            root = Path(temp) / index.kind
            root.mkdir()
            growing = grow(root, index, docs)
            added = token_docs(100, 20, 60, rng)
            later = [(f"later{number}", passages) for number, (_, passages) in enumerate(added)]
            before = replace(growing, open_encoders=partial(dict, en=KnownVectors(later)))
            ratios += compare(growing, queries[: 12 if index.kind == "plaid" else 2], index.kind)
            started = time.process_time()
            before.add(write_parts(root, {name: "later" for name, _ in later}))
            print(f"{index.kind:6} add of 100 documents: {time.process_time() - started:.2f} CPU s")
        root = Path(temp) / "drift"
        root.mkdir()
        measure_drift(root, arguments.docs // 2, arguments.queries * 4, rng)
    if max(ratios) > MOST:
        raise SystemExit(f"expected {SEGMENTS} segments to cost at most {MOST} times one, got {max(ratios):.2f}")


if __name__ == "__main__":
    main()
