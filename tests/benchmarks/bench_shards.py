"""What it costs to cut an index into 64 shards: a query over 64 shards against one shard of the same documents.

    python tests/benchmarks/bench_shards.py [--docs 6400] [--queries 6]     # about a minute on an idle core

Clustered unit vectors of 128 dimensions, passages of 20 to 60 tokens, queries of 32 tokens; texts of Zipf's law for
BM25. Prints the median CPU time of a query on one thread, in interleaved runs, and the ratio by kind of index and k,
and checks that the rankings are equal. For PLAID also what the 64 shards find when each is searched by itself with its
share of the depth (as in serving): their time together, and the recall of the exact top k beside that of the group.
Fails above a ratio of 1.5, but for BM25: the look-up of terms in a shard takes about 0.1 ms, which is much beside one
small shard and little beside the postings of 100,000 documents. HNSW is left out: a graph per shard finds other
documents than one graph does.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # CPU time of spinning threads is no cost

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.plaid import Plaid
from pipelines.search import merge, open_shards, search
from tests.shards import Doc, build, docs_artifact, recall, unit, vectors_artifact

SHARDS, DIM, ROUNDS, MOST = 64, 128, 5, 1.5


def token_docs(count: int, shortest: int, longest: int, rng: np.random.Generator) -> list[Doc]:
    """Documents of one passage about one of count / 40 topics: neighbours in a topic's subspace, as real tokens are."""
    topics = rng.normal(size=(max(8, count // 40), 24, DIM))
    docs = []
    for number in range(count):
        topic = topics[rng.integers(len(topics))]
        tokens = topic[rng.integers(24, size=rng.integers(shortest, longest + 1))]
        docs.append((f"d{number:06d}", [unit(tokens + 0.8 * rng.normal(size=tokens.shape)).astype(np.float16)]))
    return docs


def near(docs: list[Doc], count: int, tokens: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Queries near the tokens of some document."""
    picked = [docs[i][1][0].astype(np.float32) for i in rng.integers(len(docs), size=count)]
    return [
        unit(m[rng.integers(len(m), size=tokens)] + 0.1 * rng.normal(size=(tokens, DIM))).astype(np.float32)
        for m in picked
    ]


def time_pair(cut: Any, whole: Any, queries: list[Any], options: SearchOptions) -> tuple[float, float]:
    """Median milliseconds per query of 64 shards and of one, in interleaved runs; the rankings must be equal."""
    assert search(cut, queries, options) == search(whole, queries, options), "64 shards rank otherwise than one"
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for query in queries:
            for which, shards in enumerate((cut, whole)):
                started = time.process_time()
                search(shards, [query], options)
                times[which].append(1000 * (time.process_time() - started))
    return median(times[0]), median(times[1])


def compare(name: str, places: list[Place], queries: list[Any], ks: tuple[int, ...]) -> list[float]:
    """Print times and ratios; returns the ratios."""
    cut, whole = (open_shards(place, "en") for place in places)
    ratios = []
    for k in ks:
        ms_cut, ms_whole = time_pair(cut, whole, queries, SearchOptions(k=k))
        ratios.append(ms_cut / ms_whole)
        print(
            f"{name:12} k={k:<5} {SHARDS} shards {ms_cut:7.1f} ms  1 shard {ms_whole:7.1f} ms  ratio {ratios[-1]:.2f}"
        )
    return ratios


def compare_alone(places: list[Place], exact: Place, queries: list[Any], k: int) -> None:
    """Print what 64 shards, each by itself, cost and find."""
    options = SearchOptions(k=k)
    truth = search(open_shards(exact, "en"), queries, options)
    together = search(open_shards(places[1], "en"), queries, options)
    names = [place.name for place in (places[0] / "shards").list()]
    shards = [open_shards(places[0], "en", [name]) for name in names]
    started = time.process_time()
    alone = [search(shard, queries, options) for shard in shards]
    took = 1000 * (time.process_time() - started) / len(queries)
    merged = [merge(rankings, k) for rankings in zip(*alone, strict=True)]
    apart, one = (np.mean([recall(*pair) for pair in zip(f, truth, strict=True)]) for f in (merged, together))
    print(f"plaid, alone k={k:<5} {took:7.1f} ms for all {SHARDS}, recall@{k} {apart:.3f}, as a group {one:.3f}")


def main() -> None:
    """Build each index twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=6_400)
    parser.add_argument("--queries", type=int, default=6)
    arguments = parser.parse_args()
    count, rng, ratios = arguments.docs, np.random.default_rng(0), list[float]()
    with TemporaryDirectory() as temp:
        directory = Path(temp)

        def build_both(name: str, index: Any, inputs: dict[str, Any]) -> list[Place]:
            return [build(directory / f"{name}-{r}", index, inputs, r) for r in (count // SHARDS, count)]

        docs = token_docs(count, 20, 60, rng)
        vectors = {"vectors": {"en": vectors_artifact(directory / "v", docs, SHARDS)}}
        queries = near(docs, arguments.queries, 32, rng)
        plaids = build_both("plaid", Plaid(centroids=2048, sample_tokens=1 << 16), vectors)
        exacts = build_both("exact", Exact(), vectors)
        ratios += compare("plaid", plaids, queries, (10, 100, 1000))
        for k in (10, 100):
            compare_alone(plaids, exacts[1], queries, k)
        ratios += compare("exact", exacts, queries[:2], (10, 1000))
        single = token_docs(4 * count, 1, 1, rng)
        vectors = {"vectors": {"en": vectors_artifact(directory / "s", single, SHARDS)}}
        count *= 4
        for structure in ("flat", "ivf"):
            places = build_both(structure, Faiss(structure=structure, cells=256), vectors)
            ratios += compare(f"faiss {structure}", places, near(single, arguments.queries, 1, rng), (10, 100))
        words = [f"w{i}" for i in range(20_000)]
        law = 1 / np.arange(1, len(words) + 1)
        drawn = rng.choice(len(words), (count, 40), p=law / law.sum())
        texts = {f"d{i:06d}": " ".join(words[w] for w in row) for i, row in enumerate(drawn)}
        bm25s = build_both("bm25", Bm25(), {"docs": {"en": docs_artifact(directory / "d", texts, "en", SHARDS)}})
        questions = [" ".join(words[w] for w in rng.choice(2000, 8)) for _ in range(arguments.queries)]
        compare("bm25", bm25s, questions, (10, 1000))
    if max(ratios) > MOST:
        raise SystemExit(f"expected {SHARDS} shards to cost at most {MOST} times one, got {max(ratios):.2f}")


if __name__ == "__main__":
    main()
