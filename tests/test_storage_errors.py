"""Storage that fails: each error says what to check, and those that pass are told from those that stay."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from cluster.errors import StorageError
from cluster.retry import is_transient
from cluster.storage import Place


@pytest.fixture
def strict_s3(s3_root: str) -> Iterator[str]:
    """The bucket on a server that knows no access key."""
    endpoint = parse_qs(urlsplit(s3_root).query)["endpoint_override"][0]
    requests.post(f"{endpoint}/moto-api/reset-auth", data="0", timeout=5).raise_for_status()
    yield s3_root
    requests.post(f"{endpoint}/moto-api/reset-auth", data="inf", timeout=5).raise_for_status()


def test_refused_keys_are_an_error_that_says_what_to_check(strict_s3: str) -> None:
    place = Place.of(strict_s3) / "x"
    for ask in (place.exists, place.size, place.list, place.read, place.stream, place.fetch, place.delete):
        with pytest.raises(StorageError, match=r"(?s)cannot use s3://babelray/x: .*Check the bucket.*AWS profile"):
            ask()
    with pytest.raises(StorageError, match=r"(?s)InvalidAccessKeyId.*Check the bucket") as refused:
        place.write(b"x")
    assert "secret" not in str(refused.value)


def test_missing_bucket_is_an_error_that_says_what_to_check(s3_root: str) -> None:
    with pytest.raises(StorageError, match=r"(?s)cannot use s3://nowhere/x: .*NoSuchBucket.*Check the bucket"):
        (Place.of(s3_root.replace("//babelray", "//nowhere")) / "x").write(b"x")


def test_path_that_cannot_be_used_says_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"(?s)cannot use .*file.*Check the path, its owner"):
        (Place.of(tmp_path / "file") / "x").write(b"x")
    with pytest.raises(StorageError, match="cannot use"):
        Place.of(tmp_path).read()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("When reading … : AWS Error SLOW_DOWN during GetObject operation: reduce your rate"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during PutObject operation: "), True),
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28"), True),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), False),
        (OSError("AWS Error UNKNOWN (HTTP status 403) during PutObject operation: "), False),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ETIMEDOUT, "timed out"), True),
        (OSError(errno.ECONNRESET, "reset"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (FileNotFoundError(errno.ENOENT, "none"), False),
        (OSError("Can't load the tokenizer"), False),
        (ValueError("AWS Error SLOW_DOWN"), False),
    ],
)
def test_errors_that_pass_are_told_from_those_that_stay(error: Exception, expected: bool) -> None:
    assert is_transient(error) == expected
    wrapped = StorageError("cannot use it")
    wrapped.__cause__ = error
    assert is_transient(wrapped) == expected


def test_a_full_disk_is_an_error_that_says_what_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    place = Place.of(tmp_path / "x")
    with pytest.raises(StorageError, match="x: OSError: .*No space left(?s:.*)the disk's free space"):
        place.write(b"1")
    with pytest.raises(StorageError, match="No space left"), place.writing() as file:
        file.write(b"1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["ftp://bucket/x", "s3://bucket/x?colour=red"])
def test_what_is_not_supported_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="expected|unknown option"):
        Place.of(uri).exists()
