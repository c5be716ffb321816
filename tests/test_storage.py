"""Places: the same behaviour on a disk and in an object store."""

import gzip
from pathlib import Path

import pytest

from cluster.errors import StorageError
from cluster.storage import Place


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_root: str) -> Place:
    return Place.of(tmp_path) if request.param == "disk" else Place.of(s3_root) / tmp_path.name


def test_write_read_list_delete(place: Place) -> None:
    (place / "a" / "one.txt").write(b"1")
    (place / "a" / "two.txt").write(b"22")
    assert [p.name for p in (place / "a").list()] == ["one.txt", "two.txt"]
    assert (place / "a" / "two.txt").read() == b"22"
    assert (place / "a" / "two.txt").size() == 2
    (place / "a").delete()
    assert not (place / "a" / "one.txt").exists()
    assert (place / "a").list() == []
    (place / "a").delete()  # nothing there is no error


def test_failed_write_leaves_nothing(place: Place) -> None:
    with pytest.raises(RuntimeError), (place / "x").writing() as file:
        file.write(b"half")
        raise RuntimeError
    assert not (place / "x").exists()
    assert place.list() == []


def test_failed_rewrite_keeps_the_old_content(place: Place) -> None:
    (place / "x").write(b"old")
    with pytest.raises(RuntimeError), (place / "x").writing() as file:
        file.write(b"new")
        raise RuntimeError
    assert (place / "x").read() == b"old"


def test_stream_decompresses_by_name(place: Place) -> None:
    (place / "x.gz").write(gzip.compress(b"many words"))
    with (place / "x.gz").stream() as file:
        assert file.read() == b"many words"


def test_put_and_fetch_move_a_tree(place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "top.bin").write_bytes(b"t")
    (tree / "deep" / "leaf.bin").write_bytes(b"l")
    (place / "copy").put(tree)
    local = (place / "copy").fetch()
    assert sorted(p.relative_to(local).as_posix() for p in local.rglob("*.bin")) == ["deep/leaf.bin", "top.bin"]
    assert (local / "deep" / "leaf.bin").read_bytes() == b"l"
    assert (place / "copy").fetch() == local


def test_missing_file_says_so(place: Place) -> None:
    with pytest.raises(StorageError, match="no file at"):
        (place / "none").read()


def test_uri_keeps_its_endpoint_through_joins() -> None:
    root = Place.of("s3://bucket/prefix?endpoint_override=http://127.0.0.1:1")
    assert (root / "a" / "b").uri == "s3://bucket/prefix/a/b?endpoint_override=http://127.0.0.1:1"
    assert (root / "a").name == "a"


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://bucket/x?colour=red"])
def test_what_is_not_supported_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="expected|unknown option"):
        Place.of(uri).exists()
