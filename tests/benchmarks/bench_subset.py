"""A search limited to some documents, by how many they are: PLAID and exact search beside each other.

    python tests/benchmarks/bench_subset.py [--docs 20000] [--queries 50] [--bits 2] [-k 10]
    python tests/benchmarks/bench_subset.py --select 200000    # finding the documents of a subset among so many

The clustered vectors of ``bench_index.py``. For each share of the documents, drawn at random, and for all of them
without a limit: CPU milliseconds of one query alone (the median), and the recall of two top k of the subset: of the
exact one, and of the one by all decoded vectors, which is what compression leaves to be found.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from bench_index import make_clustered
from engine_times import Rankings

from pipelines.docstore import Docstore
from pipelines.filters.fields import make_column
from pipelines.filters.subset import Selector, Subset
from pipelines.filters.text import parse
from pipelines.indexes.base import SearchOptions, ShardGroup
from pipelines.indexes.exact import Exact
from pipelines.indexes.files import Docs, DocsWriter
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards, search
from pipelines.tables import DOCS
from tests.artifacts import table_artifact
from tests.shards import build, recall, vectors_artifact

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9)


def ask(
    group: ShardGroup, queries: Sequence[np.ndarray], options: SearchOptions, within: np.ndarray | None
) -> tuple[float, Rankings]:
    """The median CPU milliseconds of one query alone, and the rankings."""
    took, found = list[float](), Rankings()
    search(group, queries[:1], options, within)
    for query in queries:
        started = time.process_time()
        found += search(group, [query], options, within)
        took.append(1000 * (time.process_time() - started))
    return median(took), found


def time_selecting(count: int, root: Path) -> None:
    """Print the CPU milliseconds of finding documents by ids and by a condition: the first time, and later."""
    ids = [f"doc-{number:08d}" for number in range(count)]
    rows = [
        {"doc_id": name, "lang": "en", "title": "", "text": "x", "metadata": {"year": float(number % 100)}}
        for number, name in enumerate(ids)
    ]
    store = Docstore.open(table_artifact(root / "docs@0", DOCS, DOCS.of(rows, make_column({"year": "number"}))))
    (root / "shard").mkdir()
    with DocsWriter(root / "shard") as written:
        written.append_ids(pa.array(ids, pa.large_string()), np.ones(count, np.int32))
    selector = Selector(Docs([root / "shard"]), [store])
    for label, subset in {
        "2 ids, the first look-up": Subset((ids[5], ids[-5])),
        "100 ids": Subset(tuple(ids[:: count // 100][:100])),
        "a condition, the first": Subset(None, parse("year >= 50")),
        "a condition of two comparisons": Subset(None, parse("year >= 60 and year < 80")),
    }.items():
        started = time.process_time()
        found = selector.select(subset)
        took = 1000 * (time.process_time() - started)
        print(f"{label:32} {took:8.2f} ms   {0 if found is None else len(found):,} of {count:,} documents")


def compare(found: Rankings, truth: Rankings) -> float:
    """The mean recall."""
    return float(np.mean([recall(one, other) for one, other in zip(found, truth, strict=True)]))


def main() -> None:
    """Print a line for each share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--bits", type=int, default=2, choices=(1, 2, 4))
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--select", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.select:
        with TemporaryDirectory() as temp:
            os.environ["BABELRAY_CACHE"] = f"{temp}/cache"
            time_selecting(arguments.select, Path(temp))
        return
    docs, queries = make_clustered(arguments.docs, arguments.queries)
    rng, options = np.random.default_rng(1), SearchOptions(k=arguments.k)
    print(f"{len(docs)} documents, {len(queries)} queries, k={arguments.k}, {arguments.bits} bits")
    with TemporaryDirectory() as temp:
        vectors = {"vectors": {"en": vectors_artifact(Path(temp) / "vectors", docs, 8)}}
        exact = open_shards(build(Path(temp) / "exact", Exact(), vectors), "en")
        plaid = open_shards(build(Path(temp) / "plaid", Plaid(bits=arguments.bits), vectors), "en")
        for share in (*SHARES, None):
            count = round((share or 1) * len(docs))
            within = None if share is None else np.sort(rng.permutation(len(docs))[:count])
            exact_ms, truth = ask(exact, queries, options, within)
            plaid_ms, found = ask(plaid, queries, options, within)
            whole = SearchOptions(k=arguments.k, candidates=len(docs), decoded=len(docs))
            _, decoded = ask(plaid, queries, whole, np.arange(len(docs)) if within is None else within)
            kept, own = (compare(found, other) for other in (truth, decoded))
            print(
                f"{'all' if share is None else share:>6} {count:>7,} documents   exact {exact_ms:8.2f} ms"
                f"   plaid {plaid_ms:7.2f} ms   recall@{arguments.k} of exact {kept:.4f}, of decoded {own:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
