"""Building PLAID: one codec for all shards, then each shard by itself, on any node (Santhanam et al. 2022, PLAID).

``pipelines.indexes.plaid.shard`` says which files a shard has. Building reads each part once and the codes twice more
for the inverted lists; memory holds a part, a block of vectors, the centroids, and a few numbers per passage.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes.base import ShardPlan
from pipelines.indexes.files import Docs, DocsWriter, NpyAppender, Stack, blocks, load_npy, new_npy, offsets
from pipelines.indexes.plaid.codec import BLOCK, HELDOUT, Codec, Training, train
from pipelines.indexes.plaid.groups import POINTS
from pipelines.indexes.plaid.shard import CODES, LIST_BYTES, LISTS, RESIDUALS, choose_code_type, describe
from pipelines.indexes.sample import draw, take_census
from pipelines.vectors import IntArray, stream_vectors

if TYPE_CHECKING:
    from pipelines.indexes.plaid import Plaid


class PlaidBuilder:
    """Learns the codec from a sample of all languages; compresses each shard with it."""

    role: Literal["vectors"] = "vectors"

    def __init__(self, config: "Plaid"):
        self.config = config

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Train the codec on a worker, into ``codec/``."""
        (facts,) = fan_out("train", TrainCodec, {"config": self.config, "plans": list(plans), "out": out}, [None])
        return facts

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write a shard's files. See ``Builder.write``."""
        codec = Codec.load((out / "codec").fetch())
        codec.save(directory)
        docs = _compress(plan, codec, directory)
        write_lists(directory, len(codec.centroids_CN))
        return {**docs.facts, **describe(directory, type(self.config).version)}

    def merge(self, sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
        """See ``Builder.merge``."""
        docs, codec = Docs(sources), Codec.load(sources[0])
        codec.save(directory)
        with DocsWriter(directory) as written:
            written.copy(docs, kept)
        for name, kind in ((CODES, choose_code_type(len(codec.centroids_CN))), (RESIDUALS, "|u1")):
            rows_T = Stack([load_npy(source / name) for source in sources])
            with NpyAppender(directory / name, kind) as copied:
                copied.append(rows_T.slice(0, 0))  # where nothing is kept, the width is
                for tokens in docs.token_blocks(kept):
                    copied.append(rows_T.take(tokens))
        write_lists(directory, len(codec.centroids_CN))
        return {**written.facts, **describe(directory, type(self.config).version)}


class TrainCodec:
    """Trains the codec that all shards share."""

    def __init__(self, config: "Plaid", plans: list[ShardPlan], out: Place):
        self.config, self.plans, self.out = config, plans, out

    def __call__(self, unit: None) -> dict[str, Any]:
        """Write ``codec/``; returns how much was sampled and how well held-out vectors are kept.

        A sample of 16·√(120·passages) passages, as PLAID-X, or as much of it as k-means sees. The number of centroids
        is 2^⌊log2(16·√tokens)⌋ where the tokens are those of one shard of every language: shards are searched one by
        one, languages share few cells, and with a shard per language this is PLAID's own rule.
        """
        config = self.config
        census = take_census(self.plans, config.seed)
        centroids = config.centroids or 1 << int(np.log2(16 * np.sqrt(census.shard_tokens)))
        most = min(config.sample_tokens, math.ceil(POINTS * centroids / (1 - HELDOUT)))
        sample_TN = draw(census, int(16 * np.sqrt(120 * census.passages)), most, config.seed)
        how = Training(centroids, config.bits, config.kmeans_iterations, config.buckets, config.seed)
        codec = train(sample_TN, how)
        with TemporaryDirectory() as temp:
            codec.save(Path(temp))
            (self.out / "codec").put(Path(temp))
        return {"sampled": len(sample_TN), "centroids": len(codec.centroids_CN), "dim": codec.dim}


def _compress(plan: ShardPlan, codec: Codec, directory: Path) -> DocsWriter:
    from pipelines.indexes.plaid.cells import Cells

    with (
        DocsWriter(directory) as docs,
        NpyAppender(directory / CODES, choose_code_type(len(codec.centroids_CN))) as codes,
        NpyAppender(directory / RESIDUALS, "|u1") as residuals,
    ):
        cells: Cells | None = None
        for rows in stream_vectors(plan.parts):
            docs.append(rows)
            cells = cells or Cells(codec.centroids_CN, vectors=len(rows.vectors_TN) * sum(plan.rows) // len(rows.ids))
            for codes_T, residuals_TW in codec.encode(rows.vectors_TN, cells):
                codes.append(codes_T)
                residuals.append(residuals_TW)
    return docs


def write_lists(directory: Path, centroids: int) -> None:
    """For each centroid the passages that have a token of its cell, ascending: count, then place, then pack."""
    from pipelines.indexes.plaid.lists import count_members, pack_lists, place_members

    counts_C, last_C = np.zeros(centroids, np.int64), np.full(centroids, -1, np.int32)
    for codes_T, starts_P1, first in _codes(directory):
        count_members(codes_T, starts_P1, first, last_C, counts_C)
    starts_C1, last_C[:] = offsets(counts_C), -1
    with TemporaryDirectory() as temp:
        lists, places_C = new_npy(Path(temp) / "lists.npy", "<i4", int(starts_C1[-1])), starts_C1[:-1].copy()
        for codes_T, starts_P1, first in _codes(directory):
            place_members(codes_T, starts_P1, first, last_C, places_C, lists)
        with NpyAppender(directory / LISTS, "|u1") as packed, NpyAppender(directory / LIST_BYTES, "<i4") as sizes:
            for bytes_B, bytes_C in pack_lists(lists, starts_C1):
                packed.append(bytes_B)
                sizes.append(bytes_C)


def _codes(directory: Path) -> Iterator[tuple[IntArray, IntArray, int]]:
    """The codes of a block of passages, where each passage starts among them, and the first passage."""
    codes_T, starts_P1 = load_npy(directory / CODES), offsets(load_npy(directory / "tokens.npy"))
    for first, last in blocks(starts_P1, 16 * BLOCK):
        begin, end = starts_P1[first], starts_P1[last]
        yield codes_T[begin:end].astype(np.int32), starts_P1[first : last + 1] - begin, first
