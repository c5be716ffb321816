"""An index that was damaged, or is of another version or codec, is refused by name, or answers; it never crashes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import StepError
from cluster.storage import Place
from pipelines.indexes import open_group
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.plaid import Plaid
from pipelines.search import open_shards
from tests.shards import build, make_docs, make_queries, vectors_artifact

DOCS = make_docs(120, tokens=8)
QUERIES = make_queries(DOCS, 2)
OPTIONS = SearchOptions(k=5, probes=4)
FILES = [
    *(f"{name}.npy" for name in ("avg_residual", "bucket_cutoffs", "bucket_weights", "centroids", "cluster_threshold")),
    *("codes.npy", "docs.arrow", "list_bytes.npy", "lists.npy", "residuals.npy", "shard.json", "tokens.npy"),
]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    vectors = {"vectors": {"en": vectors_artifact(path / "v", DOCS)}}
    return (build(path / "i", Plaid(centroids=16), vectors) / "shards" / "en-00000").path


@pytest.fixture
def copy(shard: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shard, tmp_path / "en-00000"))


def answer(*shards: Path) -> list:
    return open_group(shards).search(QUERIES, OPTIONS)


def cut(content: bytes, random: np.random.Generator) -> bytes:
    return content[: random.integers(len(content))]


def lengthen(content: bytes, random: np.random.Generator) -> bytes:
    return content + random.bytes(random.integers(1, 100))


def empty(content: bytes, random: np.random.Generator) -> bytes:
    return b""


def flip(content: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in random.integers(len(content), size=random.integers(1, 4)):
        changed[place] ^= 1 << random.integers(8)
    return bytes(changed)


def scramble(content: bytes, random: np.random.Generator) -> bytes:
    start = random.integers(len(content))
    return content[:start] + random.bytes(len(content) - start)


def test_the_files_of_a_shard_are_those_that_are_damaged_here(shard: Path) -> None:
    assert sorted(file.name for file in shard.iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, lengthen, empty])
def test_a_file_of_another_size_is_refused_by_name(
    name: str, damage: Callable[[bytes, np.random.Generator], bytes], copy: Path
) -> None:
    content, random = (copy / name).read_bytes(), np.random.default_rng(0)
    for _ in range(1 if damage is empty else 8):
        (copy / name).write_bytes(damage(content, random))
        with pytest.raises(StepError, match=r"(?s)en-00000.*build the index again") as raised:
            answer(copy)
        assert name in str(raised.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, scramble])
def test_changed_bytes_are_refused_or_answered(
    name: str, damage: Callable[[bytes, np.random.Generator], bytes], copy: Path
) -> None:
    """Only residuals, and codes and lists that still name cells and passages, may be answered with other scores."""
    content, random, answered = (copy / name).read_bytes(), np.random.default_rng(1), 0
    whole = answer(copy)
    for _ in range(30):
        (copy / name).write_bytes(damage(content, random))
        try:
            found = answer(copy)
        except StepError:
            continue
        answered += found != whole
        ids = {name for name, _ in DOCS}
        assert all({name for name, _ in ranking} <= ids for ranking in found)
    assert not answered or name in ("codes.npy", "lists.npy", "residuals.npy")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises((StepError, FileNotFoundError), match=name):
        answer(copy)


def test_another_version_is_refused(copy: Path) -> None:
    facts = json.loads((copy / "shard.json").read_text())
    for version in (Plaid.version - 1, Plaid.version + 1):
        (copy / "shard.json").write_text(json.dumps({**facts, "version": version}))
        with pytest.raises(StepError, match=rf"version {version} of PLAID's files, expected {Plaid.version}"):
            answer(copy)
    old = {key: facts[key] for key in ("index", "name", "lang", "docs")}  # as they were before they said so
    (copy / "shard.json").write_text(json.dumps(old))
    with pytest.raises(StepError, match="version 2 of PLAID's files"):
        answer(copy)


def test_shards_of_two_codecs_are_not_one_group(shard: Path, tmp_path: Path) -> None:
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", DOCS)}}
    other = (build(tmp_path / "o", Plaid(centroids=16, seed=3), vectors) / "shards" / "en-00000").path
    with pytest.raises(StepError, match="have different codecs"):
        answer(shard, other)


def test_a_codec_of_another_index_is_refused(copy: Path, tmp_path: Path) -> None:
    vectors = {"vectors": {"en": vectors_artifact(tmp_path / "v", DOCS)}}
    other = build(tmp_path / "o", Plaid(centroids=16, seed=3), vectors)
    for file in (other / "codec").path.iterdir():
        shutil.copy(file, copy / file.name)
    with pytest.raises(StepError, match="is not the file that was written"):
        answer(copy)


def test_an_index_without_damage_is_opened(shard: Path) -> None:
    assert open_shards(Place.of(shard.parent.parent), "en").search(QUERIES, OPTIONS) == answer(shard)
