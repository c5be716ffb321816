"""The residual codec: a unit vector becomes the number of its nearest centroid and a few bits per dimension.

    code      argmax_c  v · centroid_c, among the cells that ``pipelines.indexes.plaid.cells`` compares
    residual  v − centroid, each component as one of 2^bits buckets (ColBERTv2, Santhanam et al. 2022, section 3.3)
    decoded   normalise(centroid + weights of the buckets)

Cut-offs and weights are learnt from vectors that k-means did not see: in the papers as quantiles, here by default as
the buckets of least squared error (Lloyd 1982), which keep more of the exact ranking (docs/results.md).
Takes dim·bits/8 bytes per token and 2 for its code, 4 where there are more than 65,536 cells. Bits of a bucket are
packed lowest first, eight bits to a byte highest first, as PLAID and fast-plaid do. Legend: C centroids, T tokens,
N dim, W bytes per vector.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal
from weakref import WeakValueDictionary

import numpy as np

from cluster.errors import StepError
from pipelines.vectors import FloatArray, IntArray

if TYPE_CHECKING:
    from pipelines.indexes.plaid.cells import Cells

BucketRule = Literal["lloyd", "quantiles"]

FILES = ("centroids", "bucket_cutoffs", "bucket_weights", "avg_residual", "cluster_threshold")
BLOCK = 1 << 15  # vectors encoded at a time: 16 MB at dim 128
HELDOUT = 0.05  # share of the sample that k-means does not see, at most MAX_HELDOUT vectors
MAX_HELDOUT = 50_000
LLOYD_VALUES, LLOYD_ROUNDS = 1 << 19, 50
KEPT = 4  # queries whose scores of all centroids are kept
SPREAD = 0.75  # fast-plaid adds a centroid for vectors farther from theirs than this quantile of the distances


@dataclass(frozen=True, eq=False)
class Codec:
    """Centroids (C, N), bucket cut-offs (2^bits − 1) and weights (2^bits), all float32.

    ``centroids_CN`` are rounded to float16, the type of the file. Codecs are compared by identity.
    """

    centroids_CN: FloatArray
    cutoffs: FloatArray
    weights: FloatArray
    avg_residual_N: FloatArray
    spread: float
    _scores: dict[bytes, "Future[FloatArray]"] = field(default_factory=dict, init=False, repr=False)
    _scoring: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def bits(self) -> int:
        """Bits per component."""
        return int(np.log2(len(self.weights)))

    @property
    def dim(self) -> int:
        """Components per vector."""
        return self.centroids_CN.shape[1]

    def encode(self, vectors_TN: FloatArray, cells: "Cells | None" = None) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield (codes int32 (t,), residuals uint8 (t, W)) of consecutive blocks of the vectors.

        ``cells`` are those of this codec, prepared for more vectors than these.
        """
        from pipelines.indexes.plaid.cells import Cells
        from pipelines.indexes.plaid.kernels import compress
        from pipelines.indexes.plaid.products import to_float32

        cells = cells or Cells(self.centroids_CN, vectors=len(vectors_TN))
        for start in range(0, len(vectors_TN), BLOCK):
            block_TN = to_float32(vectors_TN[start : start + BLOCK])
            codes_T = cells.assign(block_TN)
            residuals_TW = np.empty((len(block_TN), self.dim * self.bits // 8), np.uint8)
            compress(block_TN, codes_T, self.centroids_CN, self.cutoffs, residuals_TW)
            yield codes_T, residuals_TW

    def decode(self, codes_T: IntArray, residuals_TW: IntArray) -> FloatArray:
        """Return the unit vectors (T, N) that the codes stand for, float32."""
        vectors_TN = self.weights_of_byte.take(residuals_TW, axis=0).reshape(len(codes_T), self.dim)
        vectors_TN += self.centroids_CN.take(codes_T, axis=0)
        vectors_TN /= np.maximum(np.sqrt(np.einsum("tn,tn->t", vectors_TN, vectors_TN)), 1e-12)[:, None]
        return vectors_TN

    def save(self, directory: Path) -> None:
        """Write the five arrays under fast-plaid's names and types."""
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "centroids.npy", self.centroids_CN.astype(np.float16))
        np.save(directory / "bucket_cutoffs.npy", self.cutoffs)
        np.save(directory / "bucket_weights.npy", self.weights)
        np.save(directory / "avg_residual.npy", self.avg_residual_N)
        np.save(directory / "cluster_threshold.npy", np.array([self.spread], np.float32))

    @classmethod
    def load(cls, directory: Path) -> "Codec":
        """Read what ``save`` wrote. Equal files give one object per process: each shard has a copy of its index's codec
        on disk (fast-plaid's layout), and the groups of an index's languages share one in memory."""
        files = [(directory / f"{name}.npy").read_bytes() for name in FILES]
        content = hashlib.sha256(b"".join(files)).digest()
        with _loading:
            if (codec := _loaded.get(content)) is None:
                centroids_CN, cutoffs, weights, avg_residual_N, spread = (np.load(BytesIO(file)) for file in files)
                codec = cls(centroids_CN.astype(np.float32), cutoffs, weights, avg_residual_N, float(spread[0]))
                _loaded[content] = codec
        return codec

    def score(self, query_NL: FloatArray) -> FloatArray:
        """The scores of all centroids: (C, L). Those of the last queries are kept, since languages that share a codec
        are asked the same query one after another; threads that ask for the same at once wait for the first."""
        key = query_NL.tobytes()
        with self._scoring:
            kept = self._scores.get(key)
            if is_first := kept is None:
                kept = self._scores[key] = Future()
                while len(self._scores) > KEPT:
                    del self._scores[next(iter(self._scores))]
        if is_first:
            try:
                kept.set_result(self.centroids_CN @ query_NL)
            except BaseException as error:
                kept.set_exception(error)
        return kept.result()

    @cached_property
    def weights_of_byte(self) -> FloatArray:
        """(256, 8 / bits): the weights that each packed byte stands for."""
        every_byte = np.arange(256, dtype=np.uint8)[:, None]
        return self.weights[unpack(every_byte, self.bits)]


_loading = Lock()
_loaded: WeakValueDictionary[bytes, Codec] = WeakValueDictionary()


def pack(buckets_TN: IntArray, bits: int) -> IntArray:
    """Pack buckets (T, N), each below 2^bits, into bytes (T, N·bits/8)."""
    flags = (buckets_TN[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(flags.reshape(len(buckets_TN), -1), axis=1)


def unpack(packed_TW: IntArray, bits: int) -> IntArray:
    """Undo ``pack``: (T, W) bytes to (T, 8·W/bits) buckets."""
    flags = np.unpackbits(packed_TW.astype(np.uint8, copy=False), axis=1).reshape(len(packed_TW), -1, bits)
    return (flags << np.arange(bits, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)


@dataclass(frozen=True)
class Training:
    """Parameters of codec training: see ``Plaid`` for the fields."""

    centroids: int
    bits: int = 2
    iterations: int = 4
    buckets: BucketRule = "lloyd"
    seed: int = 0


def train(sample_TN: FloatArray, how: Training) -> Codec:
    """Learn a codec from unit vectors (float16 or float32, in random order): k-means, then buckets from those held out.

    A small sample gives fewer centroids: at most one per vector, a power of two.

    Raises:
        StepError: the vectors have not norm 1, or their width cannot be packed.
    """
    from pipelines.indexes.plaid.cells import Cells, learn_centroids
    from pipelines.indexes.plaid.products import to_float32

    _check(sample_TN, how.bits)
    held = min(int(len(sample_TN) * HELDOUT), MAX_HELDOUT)
    heldout_TN, seen_TN = (sample_TN[:held], sample_TN[held:]) if held else (sample_TN, sample_TN)
    count = min(how.centroids, 1 << (len(seen_TN).bit_length() - 1))
    centroids_CN = learn_centroids(seen_TN, count, how.iterations, how.seed)
    heldout_TN = to_float32(heldout_TN)
    residuals_TN = heldout_TN - centroids_CN[Cells(centroids_CN).assign(heldout_TN)]
    cutoffs, weights = learn_buckets(residuals_TN.ravel(), how.bits, how.buckets)
    return Codec(
        centroids_CN,
        cutoffs,
        weights,
        np.abs(residuals_TN).mean(axis=0).astype(np.float32),
        float(np.quantile(np.linalg.norm(residuals_TN, axis=1), SPREAD)),
    )


def learn_buckets(values: FloatArray, bits: int, rule: BucketRule) -> tuple[FloatArray, FloatArray]:
    """The cut-offs (2^bits − 1) and weights (2^bits), both rising, of buckets for ``values``."""
    steps = np.arange(1 << bits)
    cutoffs = np.quantile(values, steps[1:] / len(steps))
    weights = np.quantile(values, (steps + 0.5) / len(steps))
    if rule == "lloyd":
        some = np.sort(values[:: -(-len(values) // LLOYD_VALUES)].astype(np.float64))
        for _ in range(LLOYD_ROUNDS):
            cutoffs = (weights[1:] + weights[:-1]) / 2
            groups = np.split(some, np.searchsorted(some, cutoffs, side="right"))
            weights = np.array([group.mean() if len(group) else w for group, w in zip(groups, weights, strict=True)])
    return cutoffs.astype(np.float32), weights.astype(np.float32)


def _check(sample_TN: FloatArray, bits: int) -> None:
    from pipelines.indexes.plaid.products import to_float32

    norms = np.concatenate(
        [np.linalg.norm(to_float32(sample_TN[i : i + BLOCK]), axis=1) for i in range(0, len(sample_TN), BLOCK)]
    )
    if np.abs(norms - 1).max() > 0.02:
        raise StepError(
            f"plaid stores unit vectors, got document vectors of norm {norms.min():.3f} to {norms.max():.3f}: "
            "normalise them in the student, or use index kind exact or faiss"
        )
    if sample_TN.shape[1] * bits % 8:
        raise StepError(
            f"dim {sample_TN.shape[1]} at {bits} bits does not fill whole bytes: choose another dim or bits"
        )
