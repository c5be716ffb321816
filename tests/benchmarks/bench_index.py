"""The late-interaction index beside brute force, and beside fast-plaid where it is installed: speed, bytes, recall.

    python tests/benchmarks/bench_index.py [--docs 20000] [--queries 100] [--minilm]

Clustered unit vectors of 128 dimensions, a topic for each token; documents of 30 to 90 tokens, queries of 24 near the
tokens of a document. ``--minilm`` takes all-MiniLM-L6-v2's token vectors of the XQuAD paragraphs in three languages
instead (its last layer in its first 128 principal directions), with their questions, and also prints nDCG@20 beside
that of exact search. For each engine: documents built per second, bytes, queries per second (all at once), median
milliseconds of one query alone, CPU milliseconds per query, recall of the exact top 10. Wall times mean something on a
quiet machine only; CPU times more or less on any. Fails where PLAID takes more CPU time per query than exact search.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from bench_plaid import texts, token_vectors

from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards, search
from tests.shards import Doc, build, recall, unit, vectors_artifact

DIM, TOP, LANGS = 128, 20, ("en", "de", "es")
ALONE = 20  # queries that are asked one at a time
Rankings = list[list[tuple[str, float]]]


@dataclass
class Measured:
    """What one engine did."""

    name: str
    build_s: float
    build_cpu_s: float
    size: int
    qps: float
    alone_ms: float
    cpu_ms: float
    found: Rankings

    def show(self, docs: int, truth: Rankings) -> None:
        """Print one line."""
        kept = np.mean([recall(found[:10], exact[:10]) for found, exact in zip(self.found, truth, strict=True)])
        print(
            f"{self.name:10} built {docs / self.build_s:7.0f} docs/s ({self.build_cpu_s:.1f} CPU s)"
            f" {self.size / 1e6:7.1f} MB  {self.qps:7.1f} queries/s  alone {self.alone_ms:7.2f} ms"
            f"  CPU {self.cpu_ms:7.2f} ms/query  recall@10 {kept:.4f}",
            flush=True,
        )


def make_clustered(count: int, queries: int) -> tuple[list[Doc], list[np.ndarray]]:
    """Documents whose tokens lie about topics of their own, and queries near the tokens of some document."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(count // 4, DIM)).astype(np.float32)
    docs: list[Doc] = []
    for number, tokens in enumerate(rng.integers(30, 91, count)):
        noise = rng.standard_normal((tokens, DIM), np.float32)
        made = unit(topics[rng.integers(len(topics), size=tokens)] + 0.7 * noise)
        docs.append((f"d{number:06d}", [made.astype(np.float16)]))
    asked = []
    for number in rng.integers(count, size=queries):
        matrix = docs[number][1][0].astype(np.float32)
        picked = matrix[rng.integers(len(matrix), size=24)]
        asked.append(unit(picked + 0.5 / DIM**0.5 * rng.standard_normal(picked.shape, np.float32)))
    return docs, asked


def make_minilm(queries: int) -> tuple[list[Doc], list[np.ndarray], list[str]]:
    """XQuAD's paragraphs and English questions as MiniLM sees them; the paragraph that answers each question."""
    passages = [text for lang in LANGS for text in texts(f"xquad/collection.{lang}.tsv")]
    data = Path(__file__).parents[3] / "shared" / "data" / "xquad"
    names = [line.split("\t")[0] for line in (data / "collection.en.tsv").read_text().splitlines()]
    questions = [line.split("\t") for line in (data / "queries.en.tsv").read_text().splitlines()]
    step = max(1, len(questions) // queries)
    questions = questions[::step][:queries]
    relevant = {line.split()[0]: line.split()[2] for line in (data / "qrels.tsv").read_text().splitlines()}
    matrices, asked = token_vectors(passages, 180), token_vectors([text for _, text in questions], 32)
    every = np.concatenate(matrices)
    turn_NN = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
    directions = np.linalg.svd(every[::5] - every.mean(axis=0), full_matrices=False)[2][:DIM].T @ turn_NN
    ids = [f"{lang}:{name}" for lang in LANGS for name in names]
    docs = [(i, [unit(m @ directions).astype(np.float16)]) for i, m in zip(ids, matrices, strict=True)]
    return docs, [unit(m @ directions).astype(np.float32) for m in asked], [relevant[i] for i, _ in questions]


def measure_ours(name: str, index: Any, root: Path, vectors: Any, queries: Sequence[np.ndarray]) -> Measured:
    """Build, open and search an index of ours."""
    wall, cpu = time.perf_counter(), time.process_time()
    place = build(root / name, index, vectors)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(file.stat().st_size for file in (root / name / "shards").rglob("*") if file.is_file())
    shards = open_shards(Place.of(place.path), "en")
    return Measured(
        name, wall, cpu, size, *time_queries(lambda some: search(shards, some, SearchOptions(k=TOP)), queries)
    )


def measure_fast_plaid(root: Path, docs: list[Doc], queries: Sequence[np.ndarray]) -> Measured:
    """The same of fast-plaid, at its own defaults."""
    import torch
    from fast_plaid.search import FastPlaid

    directory = root / "fast-plaid"
    tensors = [torch.from_numpy(passages[0].astype(np.float32)) for _, passages in docs]
    wall, cpu = time.perf_counter(), time.process_time()
    index = FastPlaid(index=str(directory), device="cpu")
    index.create(documents_embeddings=tensors)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())

    def ask(some: Sequence[np.ndarray]) -> Rankings:
        found = index.search(torch.from_numpy(np.stack(some)), top_k=TOP)
        return [[(docs[number][0], score) for number, score in ranking] for ranking in found]

    return Measured("fast-plaid", wall, cpu, size, *time_queries(ask, queries))


def time_queries(
    ask: Callable[[Sequence[np.ndarray]], Rankings], queries: Sequence[np.ndarray]
) -> tuple[float, float, float, Rankings]:
    """Queries per second (all at once), median milliseconds of one alone, CPU milliseconds per query, the rankings."""
    ask(queries[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    found = ask(queries)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    alone = []
    for query in queries[:ALONE]:
        started = time.perf_counter()
        ask([query])
        alone.append(1000 * (time.perf_counter() - started))
    return len(queries) / wall, median(alone), 1000 * cpu / len(queries), found


def ndcg(found: Rankings, relevant: list[str]) -> float:
    """nDCG@20 of rankings in which each of three translations of one paragraph is relevant."""
    ideal = sum(1 / np.log2(rank + 2) for rank in range(len(LANGS)))
    gains = [
        sum(1 / np.log2(rank + 2) for rank, (name, _) in enumerate(ranking) if name.partition(":")[2] == wanted)
        for ranking, wanted in zip(found, relevant, strict=True)
    ]
    return float(np.mean(gains) / ideal)


def main() -> None:
    """Measure the engines and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--minilm", action="store_true")
    arguments = parser.parse_args()
    relevant: list[str] = []
    if arguments.minilm:
        docs, queries, relevant = make_minilm(arguments.queries)
    else:
        docs, queries = make_clustered(arguments.docs, arguments.queries)
    print(f"{len(docs)} documents, {sum(len(m[0]) for _, m in docs)} tokens, {len(queries)} queries")
    with TemporaryDirectory() as temp:
        root = Path(temp)
        vectors = {"vectors": {"en": vectors_artifact(root / "vectors", docs, 8)}}
        exact = measure_ours("exact", Exact(), root, vectors, queries)
        ours = measure_ours("plaid", Plaid(), root, vectors, queries)
        engines = [exact, ours]
        try:
            import fast_plaid  # noqa: F401
        except ImportError:
            print("fast-plaid is not installed here: it is not measured")
        else:
            engines.append(measure_fast_plaid(root, docs, queries))
    for engine in engines:
        engine.show(len(docs), exact.found)
        if relevant:
            print(f"{'':10} nDCG@20 {ndcg(engine.found, relevant):.4f}")
    for other in (engine for engine in engines if engine is not ours):
        print(
            f"ours beside {other.name}: queries/s × {ours.qps / other.qps:.1f},"
            f" one alone × {other.alone_ms / ours.alone_ms:.1f}, CPU × {other.cpu_ms / ours.cpu_ms:.1f},"
            f" build × {other.build_s / ours.build_s:.2f}, bytes × {ours.size / other.size:.2f}"
        )
    if ours.cpu_ms > exact.cpu_ms:
        raise SystemExit("expected the index to take less CPU time than exact search")


if __name__ == "__main__":
    main()
