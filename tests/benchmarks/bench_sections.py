"""Long documents: the sections of a manual in two languages, by PLAID beside exact search.

    python tests/benchmarks/bench_sections.py [RECIPE] [--queries 50] [--set KEY=VALUE]…

Run the recipe first (default: xquad): its student encodes ``../shared/data/react/en-zh``, 1,596 sections in English and
Chinese, in windows of 180 tokens as the recipe says, and the English questions. Prints, for PLAID as the recipe has it
and exact search: CPU and wall seconds of the build, bytes, and, for each language, CPU and wall milliseconds of a query
by itself, and recall of the exact top 10. Fails where a query costs PLAID more CPU time than exact search.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster.artifact import Artifact
from cluster.storage import Place
from pipelines.encode import Encode, EncodeConfig
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Exact, Index
from pipelines.indexes.base import Query, Ranking, SearchOptions
from pipelines.plan import STUDENT, Plan, encoder_of, plan
from pipelines.recipe import load
from pipelines.search import open_shards
from pipelines.tables import DOCS, QUERIES, VECTORS
from pipelines.vectors import read_vectors
from tests.artifacts import table_artifact
from tests.shards import local_fan_out, recall

DATA = Path(__file__).parents[3] / "shared" / "data" / "react" / "en-zh"
LANGS, TOP = ("en", "zh"), 10


def read(name: str) -> list[list[str]]:
    """The lines of a file, cut at tabs."""
    return [line.split("\t") for line in (DATA / name).read_text().splitlines()]


def encode(planned: Plan, directory: Path, count: int) -> tuple[dict[str, Artifact], list[Query]]:
    """VECTORS of the sections by language, and matrices of the questions."""
    recipe, system = planned.recipe, planned.systems[STUDENT]
    assert system.student
    inputs = {"student": system.student.artifact(Place.of(recipe.root))}
    how: dict[str, Any] = dict(encoder_of(recipe, system))
    passages = {"passage_length": recipe.passage_length, "passage_stride": recipe.passage_stride}
    work = Encode(EncodeConfig(role="docs", **how, **passages), inputs)
    vectors = {}
    for lang in LANGS:
        rows = [{"doc_id": i, "lang": lang, "title": "", "text": text} for i, text in read(f"collection.{lang}.tsv")]
        vectors[lang] = table_artifact(directory / lang, VECTORS, work(DOCS.of(rows)).to_pylist())
    asked = [{"query_id": i, "lang": "en", "text": text} for i, text in read("queries.en.tsv")[:count]]
    found = Encode(EncodeConfig(role="queries", **how), inputs)(QUERIES.of(asked))
    return vectors, [matrix for piece in read_vectors(found) for matrix in piece.matrices]


def search(index: Place, lang: str, queries: list[Query]) -> tuple[list[Ranking], float, float]:
    """The rankings of queries asked one at a time, and the median of CPU and of wall milliseconds."""
    group = open_shards(index, lang)
    group.search(queries[:1], SearchOptions(k=TOP))
    rankings, cpu, wall = [], [], []
    for query in queries:
        started = time.process_time(), time.perf_counter()
        rankings += group.search([query], SearchOptions(k=TOP))
        cpu.append(1000 * (time.process_time() - started[0]))
        wall.append(1000 * (time.perf_counter() - started[1]))
    return rankings, median(cpu), median(wall)


def main() -> None:
    """Build and search both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="xquad")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    planned = plan(load(arguments.recipe, arguments.set))
    is_slower = False
    with TemporaryDirectory() as temp:
        vectors, queries = encode(planned, Path(temp), arguments.queries)
        places = {}
        kinds: tuple[Index, ...] = (Exact(), planned.recipe.index)
        for index in kinds:
            started = time.process_time(), time.perf_counter()
            facts = build_index(
                IndexConfig(index=index), {"vectors": vectors}, Place.of(Path(temp) / index.kind), local_fan_out
            )
            cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
            print(f"{index.kind}: built in {cpu:.1f} CPU s, {wall:.1f} s; {facts['bytes'] / 1e6:.1f} MB")
            places[index.kind] = Place.of(Path(temp) / index.kind)
        for lang in LANGS:
            truth, exact_cpu, exact_wall = search(places["exact"], lang, queries)
            found, cpu, wall = search(places[planned.recipe.index.kind], lang, queries)
            kept = float(np.mean([recall(f, t) for f, t in zip(found, truth, strict=True) if t]))
            print(
                f"{lang}: {planned.recipe.index.kind} {cpu:.1f} CPU ms ({wall:.1f} ms), exact {exact_cpu:.1f} CPU ms"
                f" ({exact_wall:.1f} ms), recall@10 {kept:.3f}",
                flush=True,
            )
            is_slower |= cpu > exact_cpu
    if is_slower:
        raise SystemExit("expected a query of the index to take less CPU time than one of exact search")


if __name__ == "__main__":
    main()
