"""PLAID by torch on a device: the rankings of the compiled loops, at every depth."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from cluster.errors import StepError
from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.depth import Depth
from pipelines.indexes.plaid.on_device import DeviceShards
from pipelines.search import open_shards
from tests.shards import build, make_docs, make_queries, vectors_artifact

DOCS = make_docs(300)
QUERIES = [*make_queries(DOCS, 6), np.zeros((0, 16), np.float32)]
DEPTHS = [
    {"k": 10},
    {"k": 5, "probes": 1, "candidates": 10_000, "decoded": 40},
    {"k": 20, "probes": 4, "candidates": 10_000, "threshold": 0.6},
    {"k": 250, "candidates": 300, "decoded": 260},
]  # where the first pruning cuts, many passages tie: see the test of it


@pytest.fixture(scope="module", params=[(1, "one"), (2, "several"), (4, "one")], ids=["1 bit", "2 bits", "4 bits"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    path, (bits, shards) = tmp_path_factory.mktemp("device"), request.param
    vectors = {"vectors": {"en": vectors_artifact(path / "v", DOCS, 3)}}
    return build(path / "i", Plaid(bits=bits, centroids=64), vectors, 100 if shards == "several" else 10**6)


def compare(index: Place, device: str, hidden: list[str], options: dict) -> None:
    group = open_shards(index, "en")
    if hidden:
        group.hide([pa.array(hidden)] * len((index / "shards").list()))
    ours = group.search(QUERIES, SearchOptions(**options))
    theirs = group.search(QUERIES, SearchOptions(**options, device=device))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose([s for _, s in one], [s for _, s in other], rtol=1e-5)
        mine, its = dict(one), dict(other)
        assert len(mine.keys() - its.keys()) <= 1  # ties may be cut in two ways
        both = sorted(mine.keys() & its.keys())
        np.testing.assert_allclose([mine[name] for name in both], [its[name] for name in both], rtol=1e-5)
    assert theirs[-1] == []


@pytest.mark.parametrize("hidden", [[], [name for name, _ in DOCS[::3]]], ids=["all", "a third hidden"])
@pytest.mark.parametrize("options", DEPTHS)
def test_rankings_are_those_of_the_loops(index: Place, options: dict, hidden: list[str]) -> None:
    compare(index, "cpu", hidden, options)


@pytest.mark.gpu
@pytest.mark.parametrize("options", DEPTHS)
def test_rankings_are_the_same_on_a_gpu(index: Place, options: dict) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    compare(index, "cuda", [], options)


@pytest.mark.parametrize("options", [{"probes": 1}, {"probes": 6}, {"probes": 9, "threshold": 0.5}, {"k": 150}])
def test_the_first_pruning_keeps_passages_of_the_same_scores(index: Place, options: dict) -> None:
    group = open_shards(index, "en")
    shards = DeviceShards(group, "cpu")
    for query in QUERIES[:-1]:
        living = group.living
        depth = Depth.of(SearchOptions(**{"k": 5, "candidates": 60, **options}), living.passages, living.docs, 1.0)
        passages, scores = group._find(query, group._score_centroids(query), depth, living)
        first = dict(zip(passages.tolist(), scores.tolist(), strict=True))
        kept = shards._find(torch.from_numpy(group.codec.centroids_CN @ query.T), query, depth, living).tolist()
        best = sorted(scores.tolist(), reverse=True)[: depth.candidates]
        np.testing.assert_allclose(sorted((first[p] for p in kept), reverse=True), best, rtol=1e-5, atol=1e-5)


def test_passages_are_scored_in_blocks(index: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.indexes.plaid.on_device.TOKENS", 50)
    compare(index, "cpu", [], DEPTHS[1])


def test_a_device_that_is_not_there_is_an_error(tmp_path: Path, index: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(StepError, match=r'search.device = "cuda": this process sees no GPU'):
        open_shards(index, "en").search(QUERIES, SearchOptions(device="cuda"))
    with pytest.raises(ValidationError, match="device"):
        SearchOptions(device="tpu")
