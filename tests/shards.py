"""Small collections of vectors, indexes of them, and the brute-force ranking that they are held against."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.artifact import Artifact
from cluster.storage import Place
from pipelines.index import IndexConfig, build_index
from pipelines.indexes.base import SearchOptions
from pipelines.search import open_shards, search
from pipelines.tables import DOCS, VECTORS
from tests.artifacts import table_artifact

Doc = tuple[str, list[np.ndarray]]  # id and passages, each [tokens, dim] float16


def local_fan_out(label: str, work: Callable[..., Any], arguments: dict[str, Any], units: list[Any]) -> list[dict]:
    """The executor's fan-out, in this process."""
    made = work(**arguments)
    return [made(unit) for unit in units]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def make_docs(count: int, dim: int = 16, seed: int = 0, tokens: int = 12, passages: int = 3) -> list[Doc]:
    """Clustered unit vectors: documents of 1 to ``passages`` passages of 1 to ``tokens`` tokens."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(max(4, count // 4), dim))
    docs = []
    for number in range(count):
        sizes = rng.integers(1, tokens + 1, rng.integers(1, passages + 1))
        made = [unit(topics[rng.integers(len(topics), size=n)] + 0.7 * rng.normal(size=(n, dim))) for n in sizes]
        docs.append((f"d{(number * 7919) % 100_003:06d}", [p.astype(np.float16) for p in made]))
    return docs


def make_queries(docs: Sequence[Doc], count: int, tokens: int = 5, seed: int = 1) -> list[np.ndarray]:
    """Queries near some document's tokens, their rows weighted: norms from 0.5 to 2."""
    rng = np.random.default_rng(seed)
    queries = []
    for _ in range(count):
        passage = docs[rng.integers(len(docs))][1][0].astype(np.float64)
        near = unit(
            passage[rng.integers(len(passage), size=tokens)] + 0.2 * rng.normal(size=(tokens, passage.shape[1]))
        )
        queries.append((near * rng.uniform(0.5, 2, (tokens, 1))).astype(np.float32))
    return queries


def vector_rows(docs: Sequence[Doc]) -> list[dict[str, Any]]:
    return [
        {"id": name, "tokens": [len(p) for p in passages], "vectors": b"".join(p.tobytes() for p in passages)}
        for name, passages in docs
    ]


def vectors_artifact(directory: Path, docs: Sequence[Doc], parts: int = 1) -> Artifact:
    rows = vector_rows(docs)
    size = -(-len(rows) // parts)
    return table_artifact(directory, VECTORS, *(rows[i : i + size] for i in range(0, len(rows), size)))


def docs_artifact(directory: Path, texts: dict[str, str], lang: str, parts: int = 1) -> Artifact:
    rows = [{"doc_id": name, "lang": lang, "title": "", "text": text} for name, text in texts.items()]
    size = -(-len(rows) // parts)
    return table_artifact(directory, DOCS, *(rows[i : i + size] for i in range(0, len(rows), size)))


def build(out: Path, index: Any, inputs: dict[str, Artifact], shard_rows: int = 10**6) -> Place:
    place = Place.of(out)
    build_index(IndexConfig(index=index, shard_rows=shard_rows), inputs, place, local_fan_out)
    return place


def find(
    index: Place, queries: Sequence[Any], lang: str | None = None, **options: Any
) -> list[list[tuple[str, float]]]:
    lang = lang or json.loads((index / "index.json").read())["shards"][0]["lang"]
    return search(open_shards(index, lang), queries, SearchOptions(**options))


def oracle(query: np.ndarray, docs: Sequence[Doc], k: int) -> list[tuple[str, float]]:
    """MaxSim and MaxP as their definitions read, in float64, one document after another."""
    scored = []
    for name, passages in docs:
        sums = [(query.astype(np.float64) @ p.astype(np.float64).T).max(axis=1).sum() for p in passages]
        scored.append((name, float(np.float32(max(sums)))))
    return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:k]


def recall(found: Sequence[tuple[str, float]], truth: Sequence[tuple[str, float]]) -> float:
    return len({n for n, _ in found} & {n for n, _ in truth}) / len(truth)
