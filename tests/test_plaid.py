"""PLAID: the codec, the build, the search, and the files that fast-plaid reads."""

import itertools
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import RecipeError, StepError
from cluster.step import Step
from cluster.storage import Place
from pipelines.formats import _choose_writer
from pipelines.index import IndexConfig, build_index
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.indexes.files import offsets
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.codec import KEPT, Codec, Training, learn_buckets, pack, train, unpack
from pipelines.indexes.plaid.depth import Depth
from pipelines.indexes.plaid.interchange import write_fast_plaid
from pipelines.indexes.plaid.lists import unpack_lists
from pipelines.search import merge, open_shards, search
from pipelines.tables import VECTORS
from tests.artifacts import directory_artifact, table_artifact
from tests.shards import build, find, make_docs, make_queries, oracle, recall, unit, vector_rows, vectors_artifact


def sample(count: int = 4000, dim: int = 32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(60, dim))
    return unit(topics[rng.integers(60, size=count)] + 0.5 * rng.normal(size=(count, dim))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(bits=st.sampled_from([1, 2, 4]), rows=st.integers(1, 20), width=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_packing_round_trip(bits: int, rows: int, width: int, seed: int) -> None:
    buckets = np.random.default_rng(seed).integers(0, 1 << bits, (rows, 8 * width)).astype(np.uint8)
    packed = pack(buckets, bits)
    assert packed.shape == (rows, bits * width)
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack(packed, bits), buckets)


def test_bit_order_is_fast_plaids() -> None:
    """Written out by hand: buckets 1, 2, 3, 0 at two bits are 10 01 11 00, each lowest bit first."""
    assert pack(np.array([[1, 2, 3, 0]], np.uint8), 2).tolist() == [[0b10011100]]
    assert pack(np.array([[1, 14]], np.uint8), 4).tolist() == [[0b10000111]]
    assert pack(np.array([[1, 0, 0, 0, 0, 0, 1, 1]], np.uint8), 1).tolist() == [[0b10000011]]


def test_error_falls_with_bits() -> None:
    vectors = sample()
    errors = []
    for bits in (1, 2, 4):
        codec = train(vectors, Training(centroids=64, bits=bits))
        codes, residuals = (np.concatenate(x) for x in zip(*codec.encode(vectors), strict=True))
        decoded = codec.decode(codes, residuals)
        np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-5)
        errors.append(float(np.linalg.norm(decoded - vectors, axis=1).mean()))
    centroids_only = float(np.linalg.norm(codec.centroids_CN[codes] - vectors, axis=1).mean())
    assert centroids_only > errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.2 * centroids_only


def test_encode_is_nearest_centroid_and_digitized_residual() -> None:
    vectors = sample(500)
    codec = train(vectors, Training(centroids=32))
    ((codes, residuals),) = codec.encode(vectors)
    np.testing.assert_array_equal(codes, (vectors @ codec.centroids_CN.T).argmax(axis=1))
    differences = vectors - codec.centroids_CN[codes]
    np.testing.assert_array_equal(unpack(residuals, 2), np.digitize(differences, codec.cutoffs, right=True))
    assert codec.bits == 2
    assert np.all(np.diff(codec.cutoffs) > 0)
    assert np.all(np.diff(codec.weights) > 0)


def test_buckets_are_filled_evenly_by_unseen_vectors() -> None:
    codec = train(sample(20_000), Training(centroids=64, buckets="quantiles"))
    ((_, residuals),) = codec.encode(sample(3000, seed=0)[:2000])
    shares = np.bincount(unpack(residuals, 2).ravel(), minlength=4) / residuals.size / 4
    assert np.all(np.abs(shares - 0.25) < 0.03)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_lloyd_buckets_are_the_best_known_for_a_normal_variable(bits: int) -> None:
    """Max 1960, table I: the squared error of the best 2, 4 and 16 levels for a normal variable of variance 1."""
    values = np.random.default_rng(0).normal(size=400_000)
    errors = {}
    for rule in ("lloyd", "quantiles"):
        cutoffs, weights = learn_buckets(values, bits, rule)
        errors[rule] = float(np.mean((weights[np.digitize(values, cutoffs, right=True)] - values) ** 2))
    assert errors["lloyd"] == pytest.approx({1: 0.3634, 2: 0.1175, 4: 0.009497}[bits], rel=0.05)
    assert errors["lloyd"] < errors["quantiles"]


def test_a_search_finds_k_though_cells_are_small(tmp_path: Path) -> None:
    docs = make_docs(300, tokens=3, passages=1)
    place = build(tmp_path / "i", Plaid(centroids=256), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    query = make_queries(docs, 1, tokens=1)[0]
    assert len(find(place, [query], k=300)[0]) == 300
    assert len(find(place, [query], k=300, probes=1)[0]) < 50


def test_training_is_seeded() -> None:
    one, same, other = (train(sample(), Training(centroids=32, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.centroids_CN, same.centroids_CN)
    assert not np.array_equal(one.centroids_CN, other.centroids_CN)


def test_codec_files_round_trip(tmp_path: Path) -> None:
    codec = train(sample(), Training(centroids=32, bits=4))
    codec.save(tmp_path)
    again = Codec.load(tmp_path)
    for name in ("centroids_CN", "cutoffs", "weights", "avg_residual_N"):
        np.testing.assert_array_equal(getattr(again, name), getattr(codec, name))


def test_vectors_that_plaid_cannot_keep_are_refused() -> None:
    with pytest.raises(StepError, match="unit vectors, got document vectors of norm 2.000"):
        train(2 * sample(100), Training(centroids=8))
    with pytest.raises(StepError, match="does not fill whole bytes"):
        train(sample(100, dim=6), Training(centroids=8))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_full_search_scores_the_decoded_vectors(bits: int, tmp_path: Path) -> None:
    """With everything probed and kept, PLAID is exact search over what its codec kept."""
    docs = make_docs(60)
    place = build(
        tmp_path / "i", Plaid(bits=bits, centroids=64), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}}
    )
    codec = Codec.load((place / "codec").path)
    kept = []
    for name, passages in docs:
        coded = [next(codec.encode(p.astype(np.float32))) for p in passages]
        kept.append((name, [codec.decode(*c) for c in coded]))
    queries = make_queries(docs, 8)
    for query, found in zip(queries, find(place, queries, k=30, probes=64, candidates=10**6), strict=True):
        truth = oracle(query, kept, 30)
        assert [n for n, _ in found] == [n for n, _ in truth]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in truth], rtol=1e-5)


def test_weighted_queries_find_what_their_directions_find(tmp_path: Path) -> None:
    """A norm of the whole query scales every score; the threshold of the pruning is a cosine and must not see it."""
    docs = make_docs(300)
    place = build(tmp_path / "i", Plaid(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    query = make_queries(docs, 1)[0]
    for candidates in (20, 100, 10_000):
        plain, weighted = find(place, [query, 16 * query], k=10, candidates=candidates)
        assert [n for n, _ in plain] == [n for n, _ in weighted]
        np.testing.assert_allclose([16 * s for _, s in plain], [s for _, s in weighted], rtol=1e-5)


def test_equal_documents_tie(tmp_path: Path) -> None:
    docs = make_docs(50)
    mixed = [("z", docs[7][1]), *docs, ("a", docs[7][1])]
    index = Plaid(centroids=32)
    place = build(tmp_path / "i", index, {"vectors": {"en": vectors_artifact(tmp_path / "v", mixed, 5)}}, 12)
    (found,) = find(place, [docs[7][1][0].astype(np.float32)], k=3, probes=32, candidates=1000)
    assert [n for n, _ in found] == sorted(["a", docs[7][0], "z"])
    assert len({s for _, s in found}) == 1


def test_depth_and_probes_are_the_users(tmp_path: Path) -> None:
    docs = make_docs(400)
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}}
    exact, plaid = build(tmp_path / "e", Exact(), vectors), build(tmp_path / "p", Plaid(bits=4, centroids=128), vectors)
    queries = make_queries(docs, 20)
    truth = find(exact, queries, k=20)
    recalls = [
        np.mean([recall(f, t) for f, t in zip(find(plaid, queries, k=20, **options), truth, strict=True)])
        for options in (
            {"probes": 1, "candidates": 20},
            {"probes": 4, "candidates": 200},
            {"probes": 128, "candidates": 4000},
        )
    ]
    assert recalls[0] < recalls[1] < recalls[2]
    assert recalls[2] > 0.85


def test_a_query_is_scored_once_for_all_who_ask_at_once() -> None:
    """Threads get one array; what is kept is bounded, and what is gone from it is scored anew, to the same bits."""
    codec = train(sample(), Training(64))
    queries = [sample(8, seed=seed).T.copy() for seed in range(KEPT + 1)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(codec.score, [queries[0]] * 20))
    assert all(scores is found[0] for scores in found)
    np.testing.assert_array_equal(found[0], codec.centroids_CN @ queries[0])
    for query in queries[1:]:
        np.testing.assert_array_equal(codec.score(query), codec.centroids_CN @ query)
    again = codec.score(queries[0])
    assert again is not found[0]
    np.testing.assert_array_equal(again, found[0])


def test_threshold_that_nothing_reaches_still_answers(tmp_path: Path) -> None:
    docs = make_docs(200)
    place = build(tmp_path / "i", Plaid(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    (found,) = find(place, make_queries(docs, 1), k=10, probes=4, candidates=40, threshold=1.0)
    assert len(found) == 10


def test_inverted_lists_hold_each_passage_once_per_cell(tmp_path: Path) -> None:
    docs = make_docs(80)
    place = build(tmp_path / "i", Plaid(centroids=32), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 3)}})
    shard = (place / "shards" / "en-00000").path
    codes, lengths = np.load(shard / "codes.npy"), np.load(shard / "tokens.npy")
    owner = np.repeat(np.arange(len(lengths)), lengths)
    expected = [sorted(set(owner[codes == cell].tolist())) for cell in range(32)]
    packed, sizes = np.load(shard / "lists.npy"), np.load(shard / "list_bytes.npy")
    ((lists, counts),) = unpack_lists(packed, offsets(sizes), len(lengths))
    assert [part.tolist() for part in np.split(lists, np.cumsum(counts)[:-1])] == expected


def test_groups_of_an_index_share_one_codec(tmp_path: Path) -> None:
    docs = make_docs(60)
    vectors = {lang: vectors_artifact(tmp_path / lang, docs, 3) for lang in ("de", "en")}
    place = build(tmp_path / "i", Plaid(centroids=32), {"vectors": vectors}, 20)
    other = build(tmp_path / "o", Plaid(centroids=16), {"vectors": vectors})
    assert open_shards(place, "en").codec is open_shards(place, "de").codec
    assert open_shards(other, "en").codec is not open_shards(place, "en").codec


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    options=st.fixed_dictionaries(
        {"k": st.integers(1, 40)},
        optional={"probes": st.integers(1, 8), "candidates": st.integers(5, 100), "threshold": st.floats(0, 1)},
    ),
    seed=st.integers(0, 1000),
)
def test_shards_rank_as_one_at_any_depth(
    rows: list[int], options: dict, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ids and scores are those of one shard of all documents, also where the prunings cut."""
    path = tmp_path_factory.mktemp("group")
    docs = make_docs(sum(rows), seed=seed)
    cuts = np.cumsum([0, *rows])
    vectors = table_artifact(path / "v", VECTORS, *(vector_rows(docs[a:b]) for a, b in itertools.pairwise(cuts)))
    whole, cut = (build(path / f"i{n}", Plaid(centroids=16), {"vectors": {"en": vectors}}, n) for n in (10**6, 1))
    assert len((cut / "shards").list()) == len(rows)
    queries = make_queries(docs, 4, seed=seed)
    assert find(cut, queries, **options) == find(whole, queries, **options)


def test_a_shard_by_itself_keeps_its_share_of_the_candidates_and_k(tmp_path: Path) -> None:
    docs = make_docs(800, passages=1)
    place = build(tmp_path / "i", Plaid(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 8)}}, 100)
    shard = open_shards(place, "en", ["en-00003"])
    assert shard.share == 1 / 8
    for options, kept in (({"k": 10, "candidates": 400}, 100), ({"k": 150, "candidates": 400}, 150)):
        assert Depth.of(SearchOptions(**options), 100, 100, shard.share).candidates == kept
        assert Depth.of(SearchOptions(**options), 800, 800, 1.0).candidates == 400
    assert len(search(shard, make_queries(docs, 1), SearchOptions(k=90))[0]) == 90


def test_shards_by_themselves_find_as_much_as_the_group(tmp_path: Path) -> None:
    docs = make_docs(1600, passages=1)
    place = build(tmp_path / "i", Plaid(), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 16)}}, 100)
    queries, options = make_queries(docs, 20), SearchOptions(k=10, candidates=200)
    alone = [search(open_shards(place, "en", [f"en-{number:05d}"]), queries, options) for number in range(16)]
    merged = [merge(rankings, 10) for rankings in zip(*alone, strict=True)]
    together = search(open_shards(place, "en"), queries, options)
    truth = [oracle(query, docs, 10) for query in queries]
    apart, one = (np.mean([recall(*pair) for pair in zip(found, truth, strict=True)]) for found in (merged, together))
    assert apart > one - 0.02


def test_exported_lists_and_codes_are_those_of_the_shard(tmp_path: Path) -> None:
    docs = make_docs(50, passages=2)
    place = build(tmp_path / "i", Plaid(centroids=16), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    (tmp_path / "f").mkdir()
    assert write_fast_plaid((place / "shards" / "en-00000").path, tmp_path / "f") == sum(len(p) for _, p in docs)
    read = {name: np.load(tmp_path / "f" / f"{name}.npy") for name in ("0.codes", "0.residuals", "ivf", "ivf_lengths")}
    lengths = json.loads((tmp_path / "f" / "doclens.0.json").read_text())
    assert lengths == [len(passage) for _, passages in docs for passage in passages]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    expected = [sorted(set(owner[read["0.codes"] == cell].tolist())) for cell in range(16)]
    assert [p.tolist() for p in np.split(read["ivf"], np.cumsum(read["ivf_lengths"])[:-1])] == expected
    assert len(read["0.residuals"]) == sum(lengths)
    names = (tmp_path / "f" / "passages.tsv").read_text().splitlines()
    assert names == [name for name, passages in docs for _ in passages]


def test_an_index_is_exported_shard_by_shard(tmp_path: Path) -> None:
    docs = make_docs(60, passages=1)
    build(tmp_path / "i", Plaid(centroids=16), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs, 3)}}, 20)
    form, write = _choose_writer(Step("index", build_index, IndexConfig(index=Plaid()), {}), "")
    assert form == "fast-plaid"
    assert write(directory_artifact(tmp_path / "i"), Place.of(tmp_path / "out")) == 60
    assert sorted(place.name for place in Place.of(tmp_path / "out").list()) == ["en-00000", "en-00001", "en-00002"]
    assert (tmp_path / "out" / "en-00002" / "ivf.npy").is_file()
    with pytest.raises(RecipeError, match="no format"):
        _choose_writer(Step("index", build_index, IndexConfig(index=Exact()), {}), "")
    with pytest.raises(RecipeError, match="no format"):
        _choose_writer(Step("index", build_index, IndexConfig(index=Plaid()), {}), "trec")


def test_fast_plaid_opens_our_shards(tmp_path: Path) -> None:
    """Theirs reads what we export and finds the same. Skipped where no environment has it: it pins another torch."""
    if not (python := os.environ.get("BABELRAY_FAST_PLAID_PYTHON")):
        pytest.skip("BABELRAY_FAST_PLAID_PYTHON names no Python with fast-plaid: see tests/fast_plaid_environment.py")
    docs = make_docs(300, dim=32, passages=1)
    place = build(tmp_path / "i", Plaid(centroids=64), {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    queries = [unit(q).astype(np.float32) for q in make_queries(docs, 5)]
    np.save(tmp_path / "queries.npy", np.stack(queries))
    ours = find(place, queries, k=5, probes=64, candidates=4096)
    (tmp_path / "f").mkdir()
    write_fast_plaid((place / "shards" / "en-00000").path, tmp_path / "f")
    script = (
        "import sys, json, numpy, torch; from fast_plaid import search\n"
        "index = search.FastPlaid(index=sys.argv[1], device='cpu')\n"
        "found = index.search(torch.from_numpy(numpy.load(sys.argv[2])), top_k=5, n_ivf_probe=64, n_full_scores=4096)\n"
        "print(json.dumps(found))"
    )
    command = [python, "-c", script, str(tmp_path / "f"), str(tmp_path / "queries.npy")]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    for one, other in zip(ours, theirs, strict=True):
        assert [n for n, _ in one] == [docs[number][0] for number, _ in other]
        np.testing.assert_allclose([s for _, s in one], [s for _, s in other], rtol=5e-3)
