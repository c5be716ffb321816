"""The late-interaction index beside brute force and beside fast-plaid, on the same vectors: speed, bytes, recall.

    python tests/benchmarks/bench_index.py [--docs 20000] [--queries 100] [--bits 2] [--top 20] [--minilm]

Clustered unit vectors of 128 dimensions, a topic for each token; documents of 30 to 90 tokens, queries of 24 near the
tokens of a document. ``--minilm`` takes all-MiniLM-L6-v2's token vectors of the XQuAD paragraphs in three languages
instead (its last layer in its first 128 principal directions), with their questions, and also prints nDCG@20 beside
that of exact search. For each engine: documents built per second, bytes, queries per second (all at once), median
milliseconds of one query alone, CPU milliseconds per query, recall of the exact top 10. Wall times mean something on a
quiet machine only; CPU times more or less on any. Fails where PLAID takes more CPU time per query than exact search.

fast-plaid runs in its own environment (``python tests/fast_plaid_environment.py DIRECTORY``), whose Python
``BABELRAY_FAST_PLAID_PYTHON`` names, at the same bits and as many threads; without it, it is not measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # before numpy is loaded, as everywhere (cluster/__init__.py)

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from bench_plaid import texts, token_vectors
from engine_times import Measured, Rankings, cpu_seconds, time_queries

from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards, search
from tests.shards import Doc, build, unit, vectors_artifact

DIM, LANGS = 128, ("en", "de", "es")
PYTHON = "BABELRAY_FAST_PLAID_PYTHON"


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


def measure_ours(name: str, index: Any, root: Path, vectors: Any, queries: Sequence[np.ndarray], top: int) -> Measured:
    """Build, open and search an index of ours."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    place = build(root / name, index, vectors)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    size = sum(file.stat().st_size for file in (root / name / "shards").rglob("*") if file.is_file())
    shards = open_shards(Place.of(place.path), "en")
    return Measured(
        name, wall, cpu, size, *time_queries(lambda some: search(shards, some, SearchOptions(k=top)), queries)
    )


def measure_fast_plaid(
    root: Path, docs: list[Doc], queries: Sequence[np.ndarray], bits: int, top: int
) -> Measured | None:
    """The same of fast-plaid, in its environment; None, and said, where there is none. Queries are of one length."""
    if not (python := os.environ.get(PYTHON)):
        print(f"fast-plaid is not measured: {PYTHON} names no Python that has it")
        return None
    matrices = [passages[0] for _, passages in docs]
    tokens = np.array([len(matrix) for matrix in matrices])
    np.savez(root / "vectors.npz", vectors=np.concatenate(matrices), tokens=tokens, queries=np.stack(queries))
    script = Path(__file__).with_name("fast_plaid_engine.py")
    command = [python, str(script), str(root / "vectors.npz"), str(bits), str(top)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    made = json.loads(done.stdout.splitlines()[-1])
    made["found"] = [[(docs[int(number)][0], score) for number, score in ranking] for ranking in made["found"]]
    return Measured(**made)


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
    parser.add_argument("--bits", type=int, default=2, choices=(1, 2, 4))
    parser.add_argument("--top", type=int, default=20, help="documents that a search returns, 10 at least")
    parser.add_argument("--minilm", action="store_true")
    arguments = parser.parse_args()
    relevant: list[str] = []
    if arguments.minilm:
        docs, queries, relevant = make_minilm(arguments.queries)
    else:
        docs, queries = make_clustered(arguments.docs, arguments.queries)
    tokens = sum(len(passages[0]) for _, passages in docs)
    print(f"{len(docs)} documents, {tokens} tokens, {len(queries)} queries")
    with TemporaryDirectory() as temp:
        root = Path(temp)
        vectors = {"vectors": {"en": vectors_artifact(root / "vectors", docs, 8)}}
        bits, top = arguments.bits, arguments.top
        exact = measure_ours("exact", Exact(), root, vectors, queries, top)
        ours = measure_ours(f"plaid {bits} bits", Plaid(bits=bits), root, vectors, queries, top)
        theirs = None if arguments.minilm else measure_fast_plaid(root, docs, queries, bits, top)
    for engine in filter(None, (exact, ours, theirs)):
        engine.show(len(docs), tokens, exact.found)
        if relevant:
            print(f"{'':18} nDCG@20 {ndcg(engine.found, relevant):.4f}")
    for other in filter(None, (exact, theirs)):
        print(
            f"ours beside {other.name}: queries/s × {ours.qps / other.qps:.1f},"
            f" one alone × {other.alone_ms / ours.alone_ms:.1f}, CPU × {other.cpu_ms / ours.cpu_ms:.1f},"
            f" build × {other.build_s / ours.build_s:.2f} (CPU × {other.build_cpu_s / ours.build_cpu_s:.2f}),"
            f" bytes × {ours.size / other.size:.2f}"
        )
    if ours.cpu_ms > exact.cpu_ms:
        raise SystemExit("expected the index to take less CPU time than exact search")


if __name__ == "__main__":
    main()
