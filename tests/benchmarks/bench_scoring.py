"""Pairs per second of the scoring step against ``CrossEncoder.predict`` on the same pairs, in one process.

    python tests/benchmarks/bench_scoring.py [--queries 24] [--depth 32] [--threads 2]

The model has MiniLM's shape (6 layers, 384 dimensions) and its tokenizer; what the weights are does not matter to the
time. Lengths are log-normal around 60 words, as MS MARCO's passages are. The step is expected at 0.95 or more.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from cluster.artifact import MANIFEST, Artifact, Manifest, Part, write_part
from cluster.storage import Place
from cluster.table import Table
from pipelines.models import resolve
from pipelines.scorers import CrossEncoderScorer
from pipelines.scoring import Score, ScoreConfig
from pipelines.tables import DOCS, QUERIES, RANKINGS

Rows = list[dict[str, object]]


def artifact(directory: Path, table: Table, rows: Rows) -> Artifact:
    """A table artifact of one part."""
    place = Place.of(directory)
    write_part(place / "part-0.parquet", table.conform(table.of(rows)))
    manifest = Manifest(
        step=table.name,
        fingerprint="0" * 12,
        version=1,
        config={},
        inputs={},
        table=table.name,
        parts=(Part(file="part-0.parquet", rows=len(rows)),),
        rows=len(rows),
        seconds=0,
        created=str(time.time_ns()),
        software={},
    )
    (place / MANIFEST).write(manifest.model_dump_json().encode())
    return Artifact(place)


def model(directory: Path) -> str:
    """MiniLM's body under a random head with one output."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(resolve("minilm"), num_labels=1).save_pretrained(directory)
    AutoTokenizer.from_pretrained(resolve("minilm")).save_pretrained(directory)
    return str(directory)


def collection(queries: int, depth: int) -> tuple[Rows, Rows, Rows]:
    """Docs, queries and rankings of random words; every query has documents of its own."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5000)]

    def words(n: int) -> str:
        return " ".join(rng.choices(vocabulary, k=n))

    ids = [f"d{i}" for i in range(queries * depth)]
    docs: Rows = [
        {"doc_id": i, "lang": "en", "text": words(max(5, min(200, int(rng.lognormvariate(4.0, 0.5)))) // 2)}
        for i in ids
    ]
    asked: Rows = [{"query_id": f"q{i}", "lang": "en", "text": words(rng.randint(3, 9))} for i in range(queries)]
    ranked: Rows = [
        {"query_id": f"q{i}", "doc_ids": ids[i * depth : (i + 1) * depth], "scores": [0.0] * depth}
        for i in range(queries)
    ]
    return docs, asked, ranked


def main() -> None:
    """Run both, interleaved, and print pairs/s of each and their ratio (the median of the rounds)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 24), ("depth", 32), ("threads", 2), ("rounds", 3), ("batch-tokens", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        docs, queries, ranked = collection(options.queries, options.depth)
        inputs = {"docs": artifact(root / "docs", DOCS, docs), "queries": artifact(root / "queries", QUERIES, queries)}
        budget = {"batch_tokens": options.batch_tokens} if options.batch_tokens else {}
        scorer = CrossEncoderScorer(model=model(root / "model"), **budget)
        work = Score(ScoreConfig(scorer=scorer, query_lang="en", doc_lang="en"), inputs)
        texts = {row["doc_id"]: row["text"] for row in docs}
        pairs = [(q["text"], texts[d]) for q, row in zip(queries, ranked, strict=True) for d in row["doc_ids"]]
        oracle = CrossEncoder(scorer.model)
        step, alone = [], []
        for _ in range(options.rounds):
            start = time.perf_counter()
            oracle.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
            middle = time.perf_counter()
            work(RANKINGS.of(ranked))
            alone.append(len(pairs) / (middle - start))
            step.append(len(pairs) / (time.perf_counter() - middle))
        ratio = np.median(np.array(step) / np.array(alone))
        print(f"{len(pairs)} pairs: predict {np.median(alone):.1f}/s, step {np.median(step):.1f}/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
