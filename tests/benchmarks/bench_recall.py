"""How much of exact search the index of a finished recipe keeps: recall of the exact top 10, per language.

    python tests/benchmarks/bench_recall.py [RECIPE] [--queries 150] [--set KEY=VALUE]…

Run the recipe first (default: atlas). Searches its index as it is, and an exact index of the same vectors, built in a
temporary directory. Prints recall@10 at the recipe's depth, and milliseconds per query of both. Fails below 0.95.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster.storage import Place
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Exact
from pipelines.indexes.base import Query, SearchOptions
from pipelines.plan import STUDENT, plan
from pipelines.recipe import load
from pipelines.search import open_shards, search
from pipelines.vectors import read_vectors
from tests.shards import local_fan_out

TOP, LEAST = 10, 0.95


def found(index: Place, lang: str, queries: list[Query], options: SearchOptions) -> tuple[list[set[str]], float]:
    """The ids of each query's top 10, and milliseconds per query."""
    shards = open_shards(index, lang)
    started = time.perf_counter()
    rankings = search(shards, queries, options)
    spent = (time.perf_counter() - started) * 1000 / len(queries)
    return [{doc_id for doc_id, _ in ranking[:TOP]} for ranking in rankings], spent


def main() -> None:
    """Compare language by language."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="atlas")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    planned = plan(load(arguments.recipe, arguments.set))
    root = Place.of(planned.recipe.root)
    name = next(iter(planned.collections))
    index = planned.indexes[name, STUDENT]
    some_search = next(iter(planned.evaluations[name, STUDENT].inputs["rankings"].values()))
    vectors = [
        m for t in some_search.inputs["rows"].artifact(root).tables() for p in read_vectors(t) for m in p.matrices
    ]
    queries: list[Query] = list(vectors[: arguments.queries])
    recalls = []
    with TemporaryDirectory() as directory:
        inputs = index.input_artifacts(root)
        build_index(IndexConfig(index=Exact()), inputs, Place.of(directory), local_fan_out)
        for lang in planned.collections[name].docs:
            exact, exact_ms = found(Place.of(directory), lang, queries, SearchOptions(k=TOP))
            own, own_ms = found(index.artifact(root).place, lang, queries, planned.recipe.search)
            recalls.append(sum(len(a & b) / max(1, len(b)) for a, b in zip(own, exact, strict=True)) / len(queries))
            print(f"{lang}  recall@10 {recalls[-1]:.3f}  {own_ms:.1f} ms/query, exact {exact_ms:.1f}", flush=True)
    mean = sum(recalls) / len(recalls)
    print(f"all recall@10 {mean:.3f}")
    if mean < LEAST:
        raise SystemExit(f"expected a recall of at least {LEAST}")


if __name__ == "__main__":
    main()
