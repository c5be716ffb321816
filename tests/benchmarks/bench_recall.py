"""How much of exact search the index of a finished recipe keeps: recall of the exact top 10, and nDCG@20, per language.

    python tests/benchmarks/bench_recall.py [RECIPE] [--queries 150] [--wanted 0.97] [--set KEY=VALUE]…

Run the recipe first (default: atlas). Searches its index at the recipe's depth, and an exact index of the same vectors,
built in a temporary directory. ``--wanted`` builds the index, too, in the temporary directory, with this recall wanted,
tried on the questions that chose the student, and searches it at the depth that it has by itself. Prints recall@10,
nDCG@20 of both, milliseconds of CPU time per query of both. Fails where recall is below 0.95, or below ``--wanted``,
or nDCG@20 more than 0.3 points below that of exact search.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster.artifact import MANIFEST, Artifact, read_part
from cluster.step import Step
from cluster.storage import Place
from cluster.table import good
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Exact, Index
from pipelines.indexes.base import Query, Ranking, SearchOptions
from pipelines.plan import STUDENT, Plan, plan
from pipelines.recipe import load
from pipelines.search import open_shards, search
from pipelines.tables import VECTORS
from pipelines.vectors import read_vectors
from tests.artifacts import table_artifact
from tests.shards import local_fan_out, recall

TOP, LEAST, POINTS = 10, 0.95, 0.3


def found(index: Place, lang: str, queries: list[Query], options: SearchOptions) -> tuple[list[Ranking], float]:
    """The rankings, and CPU milliseconds per query."""
    shards = open_shards(index, lang)
    search(shards, queries[:1], options)
    started = time.process_time()
    rankings = search(shards, queries, options)
    return rankings, (time.process_time() - started) * 1000 / len(queries)


def ndcg(rankings: list[Ranking], ids: list[str], relevant: dict[str, dict[str, int]]) -> float:
    """nDCG@20 in points, mean over the queries that have a relevant document."""
    measured = []
    for name, ranking in zip(ids, rankings, strict=True):
        if gains := relevant.get(name):
            ideal = sum(gain / np.log2(rank + 2) for rank, gain in enumerate(sorted(gains.values(), reverse=True)[:20]))
            own = sum(gains.get(doc, 0) / np.log2(rank + 2) for rank, (doc, _) in enumerate(ranking[:20]))
            measured.append(own / ideal)
    return 100 * float(np.mean(measured))


def read_questions(vectors: Artifact, count: int) -> tuple[list[str], list[Query]]:
    """Ids and matrices of the first questions."""
    pieces = [piece for table in vectors.tables() for piece in read_vectors(table)]
    ids = [name for piece in pieces for name in piece.ids.to_pylist()]
    return ids[:count], [matrix for piece in pieces for matrix in piece.matrices][:count]


def read_qrels(qrels: Artifact) -> dict[str, dict[str, int]]:
    """Relevant documents by query."""
    relevant: dict[str, dict[str, int]] = {}
    for table in qrels.tables():
        for row in good(table).to_pylist():
            if row["relevance"] > 0:
                relevant.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    return relevant


def encode(step: Step, root: Place, directory: Path) -> Artifact:
    """The artifact of an encode step, or, where it is not there, the same made here, in this process."""
    if (root / step.id / MANIFEST).exists():
        return step.artifact(root)
    inputs = step.input_artifacts(root)
    work: Any = step.work(step.config, inputs)  # type: ignore[call-arg]
    return table_artifact(directory, VECTORS, *(work(read_part(part)).to_pylist() for part in inputs["rows"].parts))


def build(planned: Plan, index: Index, step: Step, directory: Path) -> Place:
    """An index of the vectors that ``step`` reads."""
    root, place = Place.of(planned.recipe.root), Place.of(directory / index.kind)
    inputs: dict[str, Any] = {"vectors": {lang: s.artifact(root) for lang, s in step.inputs["vectors"].items()}}
    if index.kind == "plaid" and "questions" in step.inputs:
        inputs["questions"] = encode(step.inputs["questions"], root, directory / "questions")
    started = time.process_time()
    facts = build_index(IndexConfig(index=index), inputs, place, local_fan_out)
    print(f"{index.kind} built in {time.process_time() - started:.1f} CPU s, {facts['bytes'] / 1e6:.1f} MB", flush=True)
    for lang, levels in facts.get("levels", {}).items():
        print(f"{lang} tried:", *levels, sep="\n   ")
    return place


def main() -> None:
    """Compare language by language."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="atlas")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--wanted", type=float)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    wanted = [f"index.recall={arguments.wanted}"] if arguments.wanted else []
    planned = plan(load(arguments.recipe, [*arguments.set, *wanted]))
    root, options = Place.of(planned.recipe.root), planned.recipe.search
    name, collection = next(iter(planned.collections.items()))
    step = planned.indexes[name, STUDENT]
    some_search = next(iter(planned.evaluations[name, STUDENT].inputs["rankings"].values()))
    ids, queries = read_questions(some_search.inputs["rows"].artifact(root), arguments.queries)
    rows = []
    with TemporaryDirectory() as temp:
        exact = build(planned, Exact(), step, Path(temp))
        own = step.artifact(root).place if not wanted else build(planned, step.config.index, step, Path(temp))  # type: ignore[attr-defined]
        if wanted:
            options = SearchOptions(k=options.k)
        for lang in collection.docs:
            truth, exact_ms = found(exact, lang, queries, SearchOptions(k=options.k))
            rankings, own_ms = found(own, lang, queries, options)
            kept = float(np.mean([recall(f[:TOP], t[:TOP]) for f, t in zip(rankings, truth, strict=True) if t]))
            relevant = read_qrels(collection.qrels[lang].artifact(root))
            rows.append((kept, ndcg(rankings, ids, relevant), ndcg(truth, ids, relevant)))
            print(
                f"{lang}  recall@10 {kept:.3f}  nDCG@20 {rows[-1][1]:.2f}, exact {rows[-1][2]:.2f}"
                f"  CPU {own_ms:.1f} ms/query, exact {exact_ms:.1f}",
                flush=True,
            )
    kept, mean, exact_mean = np.mean(rows, axis=0)
    print(f"all recall@10 {kept:.3f}  nDCG@20 {mean:.2f}, exact {exact_mean:.2f}")
    if kept < max(LEAST, arguments.wanted or 0) or mean < exact_mean - POINTS:
        raise SystemExit(f"expected a recall of {max(LEAST, arguments.wanted or 0)} and nDCG@20 within {POINTS} points")


if __name__ == "__main__":
    main()
