"""What a transplant reads before any training, beside the English model that it is made from.

    python tests/benchmarks/bench_transplant.py DIR [--pieces 30000] [--steps 40]

``--steps 0`` leaves the vectors of new pieces as means of their translations; more fit them to sentences. DIR has the
layout that the recipe ``small`` names. The student is built from the translated sentences of Tatoeba, TICO-19 and
LibreOffice's help; XQuAD and the test sentences are in none of it. Measured are:

    XQuAD     nDCG@20 of the English dev questions of fold 0 among the first 400 characters (Chinese: 150) of 100
              paragraphs of each language, the relevant ones among them; by language, and in one pool
    Tatoeba   the share of 250 English test sentences of which the nearest of 250 is their translation
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from artifacts import table_artifact
from pipelines.precision import resolve
from pipelines.recipe import load
from pipelines.sources import Bitext, Parallel
from pipelines.students import Corpus, Dense, load_encoder
from pipelines.students.base import Encoder
from pipelines.students.transplant import Transplant
from pipelines.tables import DOCS
from pipelines.training.validate import ndcg

LANGS = ("en", "de", "es", "ru", "zh", "ar", "tr")  # of the paragraphs; Turkish is in no training
PAIRED = ("de", "fr", "fa", "ru", "zh")
PARAGRAPHS, SENTENCES = 100, 250
CHARACTERS = 400
CHINESE_CHARACTERS = 150


def read(source: Any, table: str, lang: str, split: str) -> Iterator[dict[str, str]]:
    return (entry.row for entry in getattr(source, table)(lang, split) if entry.row)


def build(data: str, pieces: int, steps: int) -> Encoder:
    """The student of the recipe ``small`` before its first step, from the translated sentences alone."""
    recipe = load("small-bitext", [f"data={data}"])
    base = Transplant(model="minilm", pieces=pieces, steps=steps)
    with tempfile.TemporaryDirectory() as directory:
        docs = {}
        for lang in recipe.languages.docs:
            rows = {row["doc_id"]: row for row in read(recipe.source, "docs", lang, "train")}
            docs[lang] = table_artifact(Path(directory) / f"docs-{lang}@0", DOCS, list(rows.values()))
        corpus = Corpus.open({"bitext": {"docs": docs}})
        encoder: Any = Dense(base=base, query_prefix="", doc_prefix="").build(corpus, seed=1)
    encoder.precision = resolve("auto", gpus=0)
    return encoder


def measure_xquad(encoder: Encoder, data: str) -> dict[str, float]:
    """nDCG@20 by language of the paragraphs, and of all languages in one pool."""
    source = Parallel(path=f"{data}/xquad")
    relevant = {row["query_id"]: row["doc_id"] for row in read(source, "qrels", "en", "dev")}
    asked = sorted(read(source, "queries", "en", "dev"), key=lambda row: row["query_id"])
    needed = {relevant[row["query_id"]] for row in asked}
    others = sorted({row["doc_id"] for row in read(source, "docs", "en", "test")} - needed)
    kept = [*sorted(needed), *others[: PARAGRAPHS - len(needed)]]
    queries = np.concatenate(encoder.encode_queries([row["text"] for row in asked]))
    target_Q = np.array([kept.index(relevant[row["query_id"]]) for row in asked])
    scores = {}
    for lang in LANGS:
        texts = {row["doc_id"]: row["text"] for row in read(source, "docs", lang, "test")}
        most = CHINESE_CHARACTERS if lang == "zh" else CHARACTERS
        scores[lang] = queries @ np.concatenate(encoder.encode_docs([texts[doc_id][:most] for doc_id in kept])).T
    measured = {lang: _mean_ndcg([of_lang], target_Q) for lang, of_lang in scores.items()}
    return {"pool": _mean_ndcg(list(scores.values()), target_Q), **measured}


def _mean_ndcg(scores: list[np.ndarray], target_Q: np.ndarray) -> float:
    """The mean over questions; one document of each language is relevant."""
    every = np.concatenate(scores, axis=1)
    size = scores[0].shape[1]
    values = []
    for row, target in zip(every, target_Q, strict=True):
        gains = [int(place % size == target) for place in np.argsort(-row, kind="stable")]
        values.append(ndcg(gains, [1] * len(scores)))
    return float(np.mean(values))


def measure_tatoeba(encoder: Encoder, data: str) -> dict[str, float]:
    """The share of English sentences that find their translation, by language."""
    source = Bitext(path=data, names=("tatoeba/en-{lang}.tsv",))
    english = {row["doc_id"]: row["text"] for row in read(source, "docs", "en", "test")}
    shares = {}
    for lang in PAIRED:
        rows = list(read(source, "docs", lang, "test"))[:SENTENCES]
        left = np.concatenate(encoder.encode_queries([english[row["doc_id"]] for row in rows]))
        right = np.concatenate(encoder.encode_queries([row["text"] for row in rows]))
        shares[lang] = float(np.mean((left @ right.T).argmax(1) == np.arange(len(rows))))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--pieces", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=Transplant.model_fields["steps"].default)
    arguments = parser.parse_args()
    start = time.process_time()
    student = build(arguments.data, arguments.pieces, arguments.steps)
    print(f"built in {time.process_time() - start:.0f} s of CPU time")
    for name, encoder in (("minilm", load_encoder("minilm", "cpu", resolve("auto", gpus=0))), ("transplant", student)):
        for what, values in (
            ("XQuAD nDCG@20", measure_xquad(encoder, arguments.data)),
            ("Tatoeba accuracy", measure_tatoeba(encoder, arguments.data)),
        ):
            print(f"{name:11} {what:17}", " ".join(f"{key} {value:.3f}" for key, value in values.items()), flush=True)


if __name__ == "__main__":
    main()
