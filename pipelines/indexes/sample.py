"""Seeded samples of a collection's passages, for training codecs and quantizers.

At most ``PARTS`` parts of a collection are read, chosen at random. Memory holds one part and the sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from cluster.artifact import read_part
from cluster.errors import StepError
from cluster.storage import Place
from cluster.table import good
from pipelines.indexes.base import ShardPlan
from pipelines.indexes.files import offsets, ranges
from pipelines.vectors import FloatArray, IntArray, stream_vectors

PARTS = 256


@dataclass(frozen=True)
class Census:
    """Size of a collection, estimated from ``parts``, which a sample is also drawn from.

    ``passages`` and ``tokens`` count the whole collection; ``shard_tokens`` is the sum over languages of the tokens of
    an average shard; ``passages_seen`` counts the passages of ``parts``.
    """

    parts: tuple[str, ...]
    passages: int
    tokens: int
    shard_tokens: int
    passages_seen: int


def take_census(plans: Sequence[ShardPlan], seed: int) -> Census:
    """Count the passages and tokens of up to ``PARTS`` parts and scale them by the rows of all languages together.

    Raises StepError when there is no row to learn from.
    """
    parts = [(plan.lang, part, rows) for plan in plans for part, rows in zip(plan.parts, plan.rows, strict=True)]
    if len(parts) > PARTS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(parts), PARTS, replace=False))
        parts = [parts[i] for i in chosen]
    counts = np.array([_count(part) for _, part, _ in parts]).reshape(-1, 2)
    passages, tokens = counts.sum(axis=0)
    if not tokens:
        raise StepError("no document to learn the index from: all rows are rejected or there are none")
    shards_of = {lang: sum(p.lang == lang for p in plans) for lang in {p.lang for p in plans}}
    rows_seen, rows_all = sum(rows for *_, rows in parts), sum(sum(p.rows) for p in plans)
    scale = rows_all / rows_seen
    slices = sum(sum(p.rows) / shards_of[p.lang] for p in plans)
    return Census(
        parts=tuple(part for _, part, _ in parts),
        passages=round(passages * scale),
        tokens=round(tokens * scale),
        shard_tokens=round(tokens / rows_seen * slices),
        passages_seen=int(passages),
    )


def _count(part: str) -> tuple[int, int]:
    tokens = good(read_part(Place(part), ["tokens"]))["tokens"]
    flat = pc.list_flatten(tokens)
    return len(flat), pc.sum(flat).as_py() or 0


def draw(census: Census, passages: int, max_tokens: int, seed: int) -> FloatArray:
    """Draw about ``passages`` passages (at most ``max_tokens`` tokens) without replacement: their vectors, float16,
    shuffled (tokens, dim)."""
    share = min(
        1.0, passages / census.passages_seen, max_tokens * census.passages / census.tokens / census.passages_seen
    )
    drawn: list[FloatArray] = []
    for number, part in enumerate(census.parts):
        rng = np.random.default_rng([seed, number])
        for rows in stream_vectors([part]):
            starts = offsets(rows.tokens_P)
            chosen = _choose(len(rows.tokens_P), share, rng)
            drawn.append(rows.vectors_TN.take(ranges(starts[chosen], rows.tokens_P[chosen].astype(np.int64)), axis=0))
    sample_TN = np.concatenate(drawn)
    return sample_TN.take(np.random.default_rng(seed).permutation(len(sample_TN)), axis=0)


def _choose(size: int, share: float, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.choice(size, max(1, round(size * share)), replace=False))
