"""The loops that find PLAID's cells and build its lists, against numpy and torch."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.indexes.files import offsets
from pipelines.indexes.plaid.build import write_lists
from pipelines.indexes.plaid.cells import FLAT, Cells
from pipelines.indexes.plaid.lists import unpack_lists
from pipelines.indexes.plaid.products import Products, choose_groups, round_to_bits, take_best, to_float32, widen
from tests.shards import unit


def test_bits_of_bfloat16_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(300, 33)).astype(np.float32) ** 5
    values[0, :4] = [0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8]  # the last two are ties
    halves = np.concatenate([values, values * 1e-6]).astype(np.float16)  # some of them denormal
    for some in (values, halves):
        bits = round_to_bits(some)
        np.testing.assert_array_equal(bits.view(np.int16), torch.from_numpy(some).bfloat16().view(torch.int16).numpy())
        np.testing.assert_array_equal(widen(bits), torch.from_numpy(some).bfloat16().float().numpy())
    np.testing.assert_array_equal(to_float32(halves), halves.astype(np.float32))


@pytest.mark.parametrize("count", [1, 31, 300])
@pytest.mark.parametrize("by_torch", [False, True])
def test_products_are_those_of_the_rounded_vectors(count: int, by_torch: bool) -> None:
    """Also where rows and columns do not fill a product of torch, and rows fill more than one."""
    rng = np.random.default_rng(count)
    left, right = (round_to_bits(rng.normal(size=(n, 24)).astype(np.float32)) for n in (9000, count))
    multiply = Products()
    multiply.by_torch = by_torch  # whatever this processor has
    rows = np.sort(rng.permutation(9000)[:8900]).astype(np.int32)
    made = list(multiply(left, rows, multiply.prepare(right)))
    np.testing.assert_array_equal(np.concatenate([some for some, _ in made]), rows)
    scores = np.concatenate([widen(bits[: len(some), :count].copy().view(np.uint16)) for some, bits in made])
    expected = widen(left[rows]) @ widen(right).T
    np.testing.assert_allclose(scores, expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("visited", [1, 5, 16])
def test_groups_are_those_of_the_highest_scores(visited: int) -> None:
    """Ties, negative scores and columns behind the last group among them."""
    scores = np.random.default_rng(visited).integers(-6, 7, (400, 20)).astype(np.float32) / 8
    near, counts = np.empty((390, visited), np.int32), np.zeros(16, np.int64)
    choose_groups(round_to_bits(scores).view(np.int16), 16, near, counts)
    scores = scores[:390, :16]
    assert all(len(set(row.tolist())) == visited for row in near)
    chosen = np.sort(np.take_along_axis(scores, near, axis=1), axis=1)
    np.testing.assert_array_equal(chosen, np.sort(scores, axis=1)[:, 16 - visited :])
    np.testing.assert_array_equal(counts, np.bincount(near.ravel(), minlength=16))


def test_the_best_cell_is_the_first_of_the_highest() -> None:
    scores = np.array([[-1, -0.5, -0.5, 9], [0.25, 0.125, 0.25, 9], [-2, -3, -4, 9]], np.float32)
    best, cells = round_to_bits(np.array([[-0.75, 0, 0.5, -9]], np.float32))[0].view(np.int16), np.zeros(4, np.int32)
    best = (best ^ ((best >> 15) & 0x7FFF)).astype(np.int16)  # in their order as integers
    take_best(round_to_bits(scores).view(np.int16), np.array([0, 2, 3], np.int32), 10, 13, best, cells)
    assert cells.tolist() == [11, 0, 0, 10]


def test_torch_and_blas_find_the_same_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, centroids = (unit(rng.normal(size=(n, 32))).astype(np.float16) for n in (3000, FLAT))
    by_blas = Cells(centroids.astype(np.float32))
    monkeypatch.setattr("pipelines.indexes.plaid.products.PAYS", 0)
    monkeypatch.setattr("pipelines.indexes.plaid.products.cpu_flags", lambda: frozenset({"amx_bf16"}))
    by_torch = Cells(centroids.astype(np.float32))
    assert (by_blas._multiply.by_torch, by_torch._multiply.by_torch) == (False, True)
    assert np.mean(by_blas.assign(vectors) == by_torch.assign(vectors)) > 0.999


def test_lists_name_each_passage_once(tmp_path: Path) -> None:
    """Of codes that are read in several blocks, with passages that repeat a cell."""
    rng = np.random.default_rng(0)
    lengths, codes = rng.integers(1, 9, 50).astype(np.int32), rng.integers(7, size=400).astype(np.uint16)
    codes = codes[: lengths.sum()]
    np.save(tmp_path / "codes.npy", codes)
    np.save(tmp_path / "tokens.npy", lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.indexes.plaid.build.BLOCK", 1)
        write_lists(tmp_path, 8)
    owner = np.repeat(np.arange(50), lengths)
    ((lists, counts),) = unpack_lists(
        np.load(tmp_path / "lists.npy"), offsets(np.load(tmp_path / "list_bytes.npy")), 50
    )
    expected = [sorted(set(owner[codes == cell].tolist())) for cell in range(8)]
    assert [part.tolist() for part in np.split(lists, np.cumsum(counts)[:-1])] == expected
