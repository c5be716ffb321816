"""Pairs per second of the scoring step, through Ray Data, against ``CrossEncoder.predict`` in one process.

    python tests/benchmarks/bench_scoring.py [--queries 128] [--depth 32] [--rounds 2] [--actors 2]   # 5 minutes
    python tests/benchmarks/bench_scoring.py --teacher --queries 16 --depth 16 --rounds 3             # 2 minutes

The step's time is all of it: the start of the pool of actors, the load of the model, reading and writing parts. Ray
itself is started before, as it is once per run; the peer's model is loaded before, too. Both have all cores. The model
has MiniLM's shape (6 layers, 384 dimensions) and its tokenizer; what the weights are does not matter to the time.
Lengths are log-normal around 30 words, about as many tokens as MS MARCO's passages have, since words of random letters
are cut into several. Exits with an error below a ratio of 0.95.

``--teacher`` leaves out Ray and measures the teacher alone, in fp32 and in bf16, by the seconds of the processor on one
thread, which a busy machine disturbs least; and Kendall's tau of bf16 with ``predict``, a mean over queries. Exits with
an error where fp32 is slower than ``predict``, or tau is below 0.99.
"""

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster import executor, session
from cluster.artifact import Artifact
from cluster.component import Component, Resources
from cluster.progress import Progress
from cluster.step import Step
from cluster.storage import Place
from cluster.table import Table
from pipelines.models import resolve
from pipelines.scorers import CrossEncoderScorer
from pipelines.scoring import Score, ScoreConfig
from pipelines.tables import DOCS, QUERIES, RANKINGS
from tests.artifacts import table_artifact

LEAST, LEAST_TAU = 0.95, 0.99
PARTS = 8
HEAD_PAIRS = 512  # to which the head of the model is fitted
Rows = list[dict[str, object]]


class Given(Component):
    """A table that is there already."""


def given(root: Place, table: Table, *parts: Rows) -> Step:
    """A finished step with these rows."""
    step = Step(table.name, Given, Given(), table=table)
    table_artifact((root / step.id).path, table, *parts)
    return step


def model(directory: Path, pairs: Sequence[tuple[str, str]]) -> str:
    """MiniLM's body under a head with one output, which a ridge regression fits to the number of words that a query and
    a document of these pairs share: a random head would give all documents almost the same score."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    classifier = AutoModelForSequenceClassification.from_pretrained(resolve("minilm"), num_labels=1).eval()
    shared_P = torch.tensor([float(len(set(q.split()) & set(d.split()))) for q, d in pairs])
    pooled = []
    with torch.inference_mode():
        for start in range(0, len(pairs), 32):
            batch = [list(texts) for texts in zip(*pairs[start : start + 32], strict=True)]
            features = tokenizer(*batch, truncation=True, padding=True, return_tensors="pt")
            pooled.append(classifier.bert(**features).pooler_output)
    pooled_PD = torch.cat(pooled).clone()
    centred_PD = pooled_PD - pooled_PD.mean(0)
    ridge_DD = centred_PD.T @ centred_PD + 0.1 * torch.eye(centred_PD.shape[1])
    weights_D = torch.linalg.solve(ridge_DD, centred_PD.T @ (shared_P - shared_P.mean()))
    with torch.no_grad():
        classifier.classifier.weight.copy_(weights_D[None])
        classifier.classifier.bias.copy_((shared_P.mean() - pooled_PD.mean(0) @ weights_D)[None])
    classifier.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def collection(queries: int, depth: int) -> tuple[Rows, Rows, Rows]:
    """Docs, queries and rankings of random words; every query has documents of its own, with 0 to 3 of its words."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5000)]

    def words(n: int) -> str:
        return " ".join(rng.choices(vocabulary, k=n))

    def answer(query: str) -> str:
        known = rng.sample(query.split(), rng.randint(0, 3))
        return f"{' '.join(known)} {words(max(5, min(200, int(rng.lognormvariate(4.0, 0.5)))) // 2)}"

    ids = [f"d{i}" for i in range(queries * depth)]
    asked: Rows = [{"query_id": f"q{i}", "lang": "en", "text": words(rng.randint(3, 9))} for i in range(queries)]
    docs: Rows = [
        {"doc_id": i, "lang": "en", "text": answer(str(asked[n // depth]["text"]))} for n, i in enumerate(ids)
    ]
    ranked: Rows = [
        {"query_id": f"q{i}", "doc_ids": ids[i * depth : (i + 1) * depth], "scores": [0.0] * depth}
        for i in range(queries)
    ]
    return docs, asked, ranked


def same_scores(made: Artifact, ranked: Rows, alone: np.ndarray) -> None:
    """Fail unless the step's scores are the peer's."""
    rows = {row["query_id"]: dict(zip(row["doc_ids"], row["scores"], strict=True)) for row in made.read().to_pylist()}
    ours = [rows[row["query_id"]][doc_id] for row in ranked for doc_id in row["doc_ids"]]
    np.testing.assert_allclose(ours, alone, atol=1e-3)


def compare_teachers(queries: int, depth: int, rounds: int) -> None:
    """Measure the teacher against ``predict`` in turns; print the medians of the ratios, and tau."""
    import torch
    from scipy.stats import kendalltau
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(1)
    docs, asked, _ = collection(queries, depth)
    doc_texts, query_texts = ([str(row["text"]) for row in rows] for rows in (docs, asked))
    pairs_P2 = np.array([(i // depth, i) for i in range(len(docs))])
    texts = [(query_texts[i], doc_texts[j]) for i, j in pairs_P2]
    with tempfile.TemporaryDirectory() as folder:
        name = model(Path(folder), texts[:HEAD_PAIRS])
        oracle = CrossEncoder(name)
        scorers = {p: CrossEncoderScorer.model_validate({"model": name, "precision": p}) for p in ("fp32", "bf16")}
        # a teacher reads nothing of the collection that it is given
        teachers = {precision: scorer.build(None) for precision, scorer in scorers.items()}  # type: ignore[arg-type]
    seconds: dict[str, list[float]] = {"predict": [], "fp32": [], "bf16": []}
    for _ in range(rounds):
        start = time.process_time()
        alone = oracle.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        seconds["predict"].append(time.process_time() - start)
        for precision, teacher in teachers.items():
            start = time.process_time()
            scores = teacher.score(query_texts, doc_texts, pairs_P2)
            seconds[precision].append(time.process_time() - start)
    taus = [
        kendalltau(*both).statistic for both in zip(alone.reshape(-1, depth), scores.reshape(-1, depth), strict=True)
    ]
    ratio = {p: float(np.median(np.divide(seconds["predict"], seconds[p]))) for p in seconds}
    for precision, spent in seconds.items():
        print(f"{precision}: {len(texts) / float(np.median(spent)):.1f} pairs/s, ratio {ratio[precision]:.2f}")
    print(f"tau of bf16 {np.mean(taus):.4f}")
    if ratio["fp32"] < 1 or np.mean(taus) < LEAST_TAU:
        raise SystemExit(f"expected fp32 not slower than predict, and tau of at least {LEAST_TAU}")


def main() -> None:
    """Run both, in turns, and print pairs/s of each and the median of the rounds' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 128), ("depth", 32), ("rounds", 2), ("actors", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--teacher", action="store_true")
    options = parser.parse_args()
    if options.teacher:
        compare_teachers(options.queries, options.depth, options.rounds)
        return
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    logging.disable(logging.WARNING)
    session.connect()
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(int(session.capacity()["CPU"]))
    with tempfile.TemporaryDirectory() as folder:
        root = Place.of(Path(folder))
        docs, queries, ranked = collection(options.queries, options.depth)
        size = -(-len(ranked) // PARTS)
        text = {row["doc_id"]: str(row["text"]) for row in docs}
        pairs = [(str(q["text"]), text[d]) for q, row in zip(queries, ranked, strict=True) for d in row["doc_ids"]]
        name = model(root.path / "model", pairs[:HEAD_PAIRS])
        step = Step(
            "score",
            Score,
            ScoreConfig(scorer=CrossEncoderScorer(model=name), query_lang="en", doc_lang="en"),
            {
                "docs": given(root, DOCS, docs),
                "queries": given(root, QUERIES, queries),
                "rankings": given(root, RANKINGS, *[ranked[i : i + size] for i in range(0, len(ranked), size)]),
            },
            RANKINGS,
            ("rankings",),
            resources=Resources(cpus=session.capacity()["CPU"] / options.actors, actors=options.actors),
        )
        oracle = CrossEncoder(step.config.scorer.model)
        rates = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            alone = oracle.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
            middle = time.perf_counter()
            (made,) = executor.run([step], root, Progress())
            rates.append((len(pairs) / (middle - start), len(pairs) / (time.perf_counter() - middle)))
            print(f"{len(pairs)} pairs: predict {rates[-1][0]:.1f}/s, step {rates[-1][1]:.1f}/s", flush=True)
            same_scores(made, ranked, alone)
            made.place.delete()
    ratio = float(np.median([step_rate / peer for peer, step_rate in rates]))
    print(f"ratio {ratio:.2f}")
    if ratio < LEAST:
        raise SystemExit(f"expected a ratio of at least {LEAST}")


if __name__ == "__main__":
    main()
