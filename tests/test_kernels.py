"""The compiled loops of PLAID against numpy: each kernel by itself, on shards of several sizes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.indexes.base import SearchOptions
from pipelines.indexes.compiled import addresses, count_threads, kernel
from pipelines.indexes.files import offsets
from pipelines.indexes.maxsim import maxsim
from pipelines.indexes.plaid import Plaid, kernels
from pipelines.indexes.plaid.cells import FLAT, Cells, learn_centroids
from pipelines.indexes.plaid.codec import Codec, pack
from pipelines.indexes.plaid.lists import pack_lists, unpack_lists
from pipelines.search import open_shards, search
from tests.shards import build, find, make_docs, make_queries, unit, vectors_artifact


class Made:
    """Random shards: codes, residuals, lists, as one sequence of passages and as the kernels' table of addresses."""

    def __init__(self, sizes: list[int], bits: int, code_type: str, cells: int = 40, dim: int = 16):
        rng = np.random.default_rng(len(sizes) + bits)
        centroids = unit(rng.normal(size=(cells, dim))).astype(np.float16).astype(np.float32)
        weights = np.sort(rng.normal(size=1 << bits)).astype(np.float32) / 4
        self.codec = Codec(centroids, (weights[1:] + weights[:-1]) / 2, weights, np.zeros(dim, np.float32), 0.0)
        self.tokens_P = rng.integers(1, 30, sum(sizes))
        self.starts_P1, self.firsts_S1 = offsets(self.tokens_P), offsets(np.array(sizes))
        self.codes_T = rng.integers(cells, size=self.starts_P1[-1]).astype(code_type)
        self.residuals_TW = rng.integers(256, size=(self.starts_P1[-1], dim * bits // 8)).astype(np.uint8)
        cuts = self.starts_P1[self.firsts_S1]
        self.files = [self.shard(shard, cuts[shard], cuts[shard + 1]) for shard in range(len(sizes))]
        self.shards = kernels.Shards(
            np.array([addresses(files) for files in self.files]),
            self.firsts_S1,
            self.starts_P1,
            self.codes_T.itemsize,
            self.residuals_TW.shape[1],
        )
        self.tables = kernels.CodecTables(centroids, self.codec.weights_of_byte.view(np.float64))

    def shard(self, shard: int, first: int, last: int) -> list[np.ndarray]:
        own = range(self.firsts_S1[shard], self.firsts_S1[shard + 1])
        cells = [np.unique(self.codes_T[self.starts_P1[p] : self.starts_P1[p + 1]]) for p in own]
        lists = [[i for i, held in enumerate(cells) if cell in held] for cell in range(len(self.codec.centroids_CN))]
        starts = offsets(np.array([len(passages) for passages in lists]))
        flat = np.array([passage for passages in lists for passage in passages], np.int32)
        packed, sizes = (np.concatenate(some) for some in zip(*pack_lists(flat, starts), strict=True))
        return [self.codes_T[first:last].copy(), self.residuals_TW[first:last].copy(), offsets(sizes), packed]


def padded(query_QN: np.ndarray) -> np.ndarray:
    return np.pad(query_QN, ((0, -len(query_QN) % kernels.LANES), (0, 0))).T.copy()


MADE = pytest.mark.parametrize(
    ("sizes", "bits", "code_type"), [([12], 2, "<u2"), ([5, 0, 9, 1], 1, "<u2"), ([7, 30], 4, "<i4")]
)


@MADE
@pytest.mark.parametrize("tokens", [1, 16, 37])
def test_scores_are_those_of_numpy(sizes: list[int], bits: int, code_type: str, tokens: int) -> None:
    made = Made(sizes, bits, code_type)
    rng = np.random.default_rng(tokens)
    query = rng.normal(size=(tokens, 16)).astype(np.float32)
    passages = rng.permutation(sum(sizes)).astype(np.int32)
    scores_CL = made.codec.centroids_CN @ padded(query)
    by_cells, decoded = np.empty((2, len(passages)), np.float32)
    kernels.score_cells(passages, made.shards, scores_CL, tokens, by_cells)
    kernels.score_decoded(passages, made.shards, made.tables, padded(query), tokens, decoded)
    cells = maxsim(query, made.codec.centroids_CN[made.codes_T], made.starts_P1)
    vectors = maxsim(query, made.codec.decode(made.codes_T, made.residuals_TW), made.starts_P1)
    np.testing.assert_allclose(by_cells, cells[passages], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decoded, vectors[passages], rtol=1e-5, atol=1e-5)


@MADE
@pytest.mark.parametrize("probes", [1, 3, 40])
def test_passages_are_found_by_their_best_probed_cells(
    sizes: list[int], bits: int, code_type: str, probes: int
) -> None:
    made, tokens = Made(sizes, bits, code_type), 6
    rng = np.random.default_rng(probes)
    cells = np.array([rng.permutation(40)[:probes] for _ in range(tokens)])
    gains = np.sort(rng.uniform(size=(tokens, probes)).astype(np.float32), axis=1)[:, ::-1].copy()
    scores, seen = np.zeros(sum(sizes), np.float32), np.zeros(sum(sizes), np.int32)
    found = np.empty(sum(sizes), np.int32)
    count = kernels.score_lists(cells, gains, made.shards, scores, seen, found)
    expected = {}
    for passage in range(sum(sizes)):
        held = set(made.codes_T[made.starts_P1[passage] : made.starts_P1[passage + 1]].tolist())
        best = [[g for c, g in zip(*row, strict=True) if c in held][:1] for row in zip(cells, gains, strict=True)]
        if any(best):
            expected[passage] = sum(gain for some in best for gain in some)
    assert sorted(found[:count].tolist()) == list(expected)
    np.testing.assert_allclose(scores[list(expected)], list(expected.values()), rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(cells=st.integers(1, 90), tokens=st.integers(1, 20), probes=st.integers(1, 90), seed=st.integers(0, 10**6))
def test_nearest_cells_are_the_filled_ones_of_the_highest_scores(
    cells: int, tokens: int, probes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores_CL = np.zeros((cells, 32), np.float32)
    scores_CL[:, :tokens] = rng.normal(size=(cells, tokens)) - 2  # below the padding's zeros
    is_filled = rng.uniform(size=cells) < 0.7
    found, best = np.full((tokens, probes), -1, np.int64), np.full((tokens, probes), -np.inf, np.float32)
    kernels.find_cells(scores_CL, is_filled, found, best)
    filled = np.flatnonzero(is_filled)
    for q in range(tokens):
        order = filled[np.argsort(-scores_CL[filled, q])][:probes]
        assert found[q].tolist() == [*order.tolist(), *[-1] * (probes - len(order))]
        np.testing.assert_array_equal(best[q, : len(order)], scores_CL[order, q])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_compressed_residuals_are_the_packed_buckets(bits: int) -> None:
    rng = np.random.default_rng(bits)
    vectors, centroids = rng.normal(size=(200, 24)).astype(np.float32), rng.normal(size=(9, 24)).astype(np.float32)
    codes = rng.integers(9, size=200).astype(np.int32)
    cutoffs = np.sort(rng.normal(size=(1 << bits) - 1)).astype(np.float32)
    packed = np.empty((200, 24 * bits // 8), np.uint8)
    kernels.compress(vectors, codes, centroids, cutoffs, packed)
    buckets = np.digitize(vectors - centroids[codes], cutoffs, right=True).astype(np.uint8)
    np.testing.assert_array_equal(packed, pack(buckets, bits))


@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 1 << 30), unique=True, max_size=12).map(sorted), min_size=1, max_size=9),
    size=st.sampled_from([1, 7, 1 << 20]),
)
def test_packed_lists_are_unpacked(lists: list[list[int]], size: int) -> None:
    starts = offsets(np.array([len(passages) for passages in lists]))
    flat = np.array([passage for passages in lists for passage in passages], np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.indexes.plaid.lists.ENTRIES", size)
        packed, sizes = (np.concatenate(some) for some in zip(*pack_lists(flat, starts), strict=True))
        limit = max([0, *flat.tolist()]) + 1
        found, counts = (np.concatenate(p) for p in zip(*unpack_lists(packed, offsets(sizes), limit), strict=True))
    assert found.tolist() == flat.tolist()
    assert counts.tolist() == [len(passages) for passages in lists]
    if len(flat):
        with pytest.raises(ValueError, match="below"):
            list(unpack_lists(packed, offsets(sizes), limit - 1))


@pytest.mark.parametrize("damaged", [[0x80], [0x05, 0xFF], [0xFF] * 9])
def test_a_list_that_does_not_end_is_refused(damaged: list[int]) -> None:
    with pytest.raises(ValueError, match="expected lists of passages"):
        list(unpack_lists(np.array(damaged, np.uint8), np.array([0, len(damaged)]), 1 << 40))


def test_gaps_take_one_byte_below_128_and_two_below_16384() -> None:
    """Written out by hand: passages 0, 128, 1000 are gaps 0, 127, 871 = 0b110_1100111."""
    ((packed, sizes),) = pack_lists(np.array([0, 128, 1000], np.int32), np.array([0, 3]))
    assert packed.tolist() == [0, 127, 0b11100111, 0b110]
    assert sizes.tolist() == [4]


def test_two_levels_find_almost_the_cells_that_all_products_find() -> None:
    """Few vectors get another cell than their nearest, and those one that is nearly as near."""
    rng = np.random.default_rng(0)
    topics = unit(rng.normal(size=(3000, 32)))
    vectors = unit(topics[rng.integers(3000, size=30_000)] + 0.1 * rng.normal(size=(30_000, 32))).astype(np.float32)
    centroids = learn_centroids(vectors, FLAT, 3, seed=0)
    codes, nearest = Cells(centroids).assign(vectors), (vectors @ centroids.T).argmax(axis=1)
    assert np.mean(codes == nearest) > 0.95
    kept = np.einsum("tn,tn->t", vectors, centroids[codes])
    assert kept.mean() > 0.995 * np.einsum("tn,tn->t", vectors, centroids[nearest]).mean()


def test_threads_change_nothing(tmp_path: Path) -> None:
    docs = make_docs(300)
    place = build(tmp_path / "i", Plaid(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 3)}}, 110)
    queries, group = make_queries(docs, 9), open_shards(place, "en")
    options = SearchOptions(k=40, probes=6)
    group.threads = 1
    alone = [search(group, [query], options)[0] for query in queries]
    assert search(group, queries, options) == alone
    group.threads = 3
    assert search(group, queries, options) == alone
    assert [search(group, [query], options)[0] for query in queries] == alone


def test_small_collections_are_scored_whole_unless_probes_are_set(tmp_path: Path) -> None:
    docs = make_docs(200, passages=1)
    place = build(tmp_path / "i", Plaid(centroids=64), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    queries = make_queries(docs, 10, tokens=3)
    everything = find(place, queries, k=10, probes=10**6, candidates=10**6)
    assert find(place, queries, k=10) == everything
    assert find(place, queries, k=10, probes=1) != everything


def test_nothing_is_left_to_compile_for_the_first_query() -> None:
    """A replica imports the kernels when it opens its shard; a call of other types is refused, not compiled."""
    for made in (kernels.find_cells, kernels.score_lists, kernels.score_cells, kernels.score_decoded, kernels.compress):
        assert len(made.signatures) == 1
        with pytest.raises(TypeError, match="No matching definition"):
            made(*[None] * made.py_func.__code__.co_argcount)


def test_threads_are_those_that_blas_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, expected in (("3", 3), ("4,2", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
        assert count_threads() == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert count_threads() >= 1


def test_a_kernel_that_cannot_be_cached_is_compiled_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """A function without a file stands for a file that nothing can be written beside."""
    made: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x\n", made)
    with caplog.at_level(logging.WARNING):
        twice = kernel("int64(int64)")(made["twice"])
    assert twice(21) == 42
    assert "Set NUMBA_CACHE_DIR" in caplog.text


def test_arrays_without_one_address_are_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        addresses([np.zeros((4, 4))[:, ::2]])
