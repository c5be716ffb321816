"""An index of fast-plaid in the place of a built one: what was exported ranks as before; what is damaged is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cluster.component import Location
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.index import IndexConfig
from pipelines.indexes.fast_plaid import FastPlaid
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.foreign import read_fast_plaid
from pipelines.indexes.plaid.interchange import write_fast_plaid
from pipelines.ingest import ABSENT
from pipelines.search import open_shards
from tests.shards import build, docs_artifact, find, make_docs, make_queries, vectors_artifact

DOCS = {lang: make_docs(90, tokens=8, passages=2, seed=seed) for seed, lang in enumerate(("de", "en"))}
QUERIES = make_queries(DOCS["en"], 6)
FILES = [
    *("0.codes.npy", "0.metadata.json", "0.residuals.npy", "avg_residual.npy", "bucket_cutoffs.npy"),
    *("bucket_weights.npy", "centroids.npy", "cluster_threshold.npy", "doclens.0.json", "ivf.npy", "ivf_lengths.npy"),
    *("metadata.json", "passages.tsv", "plan.json"),
]
NOT_READ = ("0.metadata.json", "ivf.npy", "ivf_lengths.npy", "plan.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    path = tmp_path_factory.mktemp("built")
    vectors = {"vectors": {lang: vectors_artifact(path / lang, docs, 3) for lang, docs in DOCS.items()}}
    return build(path / "index", Plaid(centroids=32), vectors, 40)


@pytest.fixture
def exported(built: Place, tmp_path: Path) -> Path:
    for shard in (built / "shards").list():
        (tmp_path / "out" / shard.name).mkdir(parents=True)
        write_fast_plaid(shard.path, tmp_path / "out" / shard.name)
    return tmp_path / "out"


def read_back(exported: Path, directory: Path, shard_rows: int = 10**6, **others: list[str]) -> Place:
    texts = {lang: [name for name, _ in docs] + others.get(lang, []) for lang, docs in DOCS.items()}
    docs = {lang: docs_artifact(directory / lang, dict.fromkeys(ids, "-"), lang, 4) for lang, ids in texts.items()}
    return build(directory / "index", FastPlaid(path=Location(exported)), {"docs": docs}, shard_rows)


@pytest.mark.parametrize("shard_rows", [25, 10**6])
def test_an_exported_index_ranks_as_before(built: Place, exported: Path, shard_rows: int, tmp_path: Path) -> None:
    again = read_back(exported, tmp_path, shard_rows)
    assert len((again / "shards").list()) == (8 if shard_rows == 25 else 2)
    for lang in DOCS:
        for options in ({"k": 10}, {"k": 5, "probes": 2, "candidates": 20}):
            assert find(again, QUERIES, lang=lang, **options) == find(built, QUERIES, lang=lang, **options)
    facts = json.loads((again / "index.json").read())
    assert (facts["kind"], facts["dim"], facts["missing"]) == ("plaid", 16, {})


def test_files_that_fast_plaid_has_merged_are_read(exported: Path) -> None:
    """As it leaves an index that it has opened: no chunks, one file of each with a row more."""
    directory = exported / "en-00000"
    before = read_fast_plaid(directory)
    for name, kind in (("codes", np.int64), ("residuals", np.uint8)):
        rows = np.load(directory / f"0.{name}.npy")
        np.save(directory / f"merged_{name}.npy", np.concatenate([rows, rows[:1] + 100]).astype(kind))
    with pytest.raises(StepError, match="let fast-plaid open the index once"):
        read_fast_plaid(directory)
    (directory / "0.codes.npy").unlink()
    (directory / "0.residuals.npy").unlink()
    after, every = read_fast_plaid(directory), np.arange(len(np.load(directory / "merged_codes.npy")) - 1)
    np.testing.assert_array_equal(after.codes_T.take(every), before.codes_T.take(every))
    np.testing.assert_array_equal(after.residuals_TW.take(every), before.residuals_TW.take(every))


def test_documents_that_the_index_lacks_are_counted(exported: Path, tmp_path: Path) -> None:
    place = read_back(exported, tmp_path, en=["new-1", "new-2"])
    assert json.loads((place / "index.json").read())["missing"] == {"en": 2}
    assert len(open_shards(place, "en").docs) == len(DOCS["en"])


def test_documents_that_the_recipe_lacks_are_refused(exported: Path, tmp_path: Path) -> None:
    names = (exported / "en-00001" / "passages.tsv").read_text()
    (exported / "en-00001" / "passages.tsv").write_text(names.replace(names.split("\n")[0], "stranger"))
    with pytest.raises(StepError, match=r"en-00001 has 1 documents that the recipe lacks: stranger"):
        read_back(exported, tmp_path)


def test_a_document_in_two_directories_is_refused(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "en-00000", exported / "en-00009")
    with pytest.raises(StepError, match="en-00009 has .* that another directory has too"):
        read_back(exported, tmp_path)


def test_a_language_without_an_index_is_refused(exported: Path, tmp_path: Path) -> None:
    for directory in exported.glob("de-*"):
        shutil.rmtree(directory)
    with pytest.raises(StepError, match="no index of de: expected de/ or de-00000/"):
        read_back(exported, tmp_path)


@pytest.mark.parametrize("changed", ["de-00001", "en"])
def test_indexes_of_different_codecs_are_refused(changed: str, exported: Path, tmp_path: Path) -> None:
    for directory in exported.glob(f"{changed}*"):
        weights = np.load(directory / "bucket_weights.npy")
        np.save(directory / "bucket_weights.npy", weights * 2)
    with pytest.raises(StepError, match=r"of de(, en)? have different codecs"):
        read_back(exported, tmp_path)


def test_an_index_without_names_says_how_to_write_them(exported: Path) -> None:
    (exported / "en-00000" / "passages.tsv").unlink()
    with pytest.raises(StepError, match="write the document of each of its .* a line for each"):
        read_fast_plaid(exported / "en-00000")


def test_the_content_is_in_the_config_and_the_path_is_not(exported: Path, tmp_path: Path) -> None:
    def content(path: Path) -> str:
        return IndexConfig.of(FastPlaid(path=Location(path)), 100).content

    moved = Path(shutil.copytree(exported, tmp_path / "moved"))
    assert content(moved) == content(exported)
    np.save(moved / "en-00000" / "bucket_weights.npy", np.zeros(4, np.float32))
    assert content(moved) != content(exported)
    assert content(tmp_path / "nowhere").startswith(ABSENT)
    assert IndexConfig.of(Plaid(), 100) == IndexConfig(index=Plaid(), shard_rows=100)


def test_the_files_are_those_that_are_damaged_here(exported: Path) -> None:
    assert sorted(file.name for file in (exported / "en-00000").iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_or_read_within_its_bounds(name: str, exported: Path) -> None:
    """No damage ends in anything but a StepError, or in codes, residuals and lengths that fit one another."""
    directory, random = exported / "en-00000", np.random.default_rng(0)
    content = (directory / name).read_bytes()
    for trial in range(60):
        changed = bytearray(content)
        if trial % 3 == 0:
            changed = changed[: random.integers(len(content))]
        elif trial % 3 == 1:
            for place in random.integers(min(len(content), 200), size=random.integers(1, 4)):
                changed[place] ^= 1 << random.integers(8)
        else:
            changed[random.integers(len(content)) :] = random.bytes(random.integers(1, 50))
        (directory / name).write_bytes(changed)
        refused = ""
        try:
            index = read_fast_plaid(directory)
        except StepError as error:
            refused = str(error)
        if refused:
            assert name not in NOT_READ
            assert refused.startswith("en-00000 is not an index of fast-plaid")
            continue
        tokens = int(index.tokens_P.sum())
        assert len(index.names) == len(index.tokens_P)
        assert index.codes_T.shape == (tokens,)
        assert index.residuals_TW.shape == (tokens, 4)
        assert index.codes_T.take(np.arange(tokens)).min() >= 0
        assert index.codes_T.take(np.arange(tokens)).max() < len(index.codec.centroids_CN)
    (directory / name).unlink()
    if name not in NOT_READ:
        with pytest.raises(StepError, match=name.replace(".", r"\.")):
            read_fast_plaid(directory)
