"""Object stores: schemes and addresses; the store behind fsspec, on fsspec's own store in memory, under leases too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import stores
from cluster.artifact import MANIFEST
from cluster.clouds import FsspecStore, check_version
from cluster.errors import LeaseLostError, StorageError
from cluster.lease import Holder, Lease, Leases
from cluster.retry import is_transient
from cluster.storage import Place, redact_secrets


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    import fsspec

    monkeypatch.setitem(stores.STORES, "memory", lambda: FsspecStore("memory"))
    yield Place.of("memory://bucket/prefix")
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


def test_files_and_directories(place: Place, tmp_path: Path) -> None:
    (place / "a" / "one.txt").write(b"1")
    (place / "a" / "two.txt").write(b"22")
    assert [p.name for p in (place / "a").list()] == ["one.txt", "two.txt"]
    assert ((place / "a" / "two.txt").read(), (place / "a" / "two.txt").size()) == (b"22", 2)
    assert (place / "none").list() == []
    with (place / "a" / "two.txt").open() as file:
        file.seek(1)
        assert file.read() == b"2"
    (place / "a").delete()
    assert not (place / "a" / "one.txt").exists()
    (place / "a").delete()  # nothing there is no error
    with pytest.raises(StorageError, match="no file at memory://bucket/prefix/a"):
        (place / "a").read()


def test_a_tree_is_put_and_fetched_and_fetched_again_when_it_was_made_again(place: Place, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "leaf").write_bytes(b"old")
    (place / "copy").put(tmp_path / "tree")
    assert ((place / "copy").fetch() / "deep" / "leaf").read_bytes() == b"old"
    (tmp_path / "tree" / "deep" / "leaf").write_bytes(b"new")  # as many bytes: the time of the change tells
    (place / "copy").put(tmp_path / "tree")
    assert ((place / "copy").fetch() / "deep" / "leaf").read_bytes() == b"new"


def test_failed_write_leaves_the_old_content(place: Place) -> None:
    (place / "x").write(b"old")
    with pytest.raises(RuntimeError), (place / "x").writing() as file:
        file.write(b"new")
        raise RuntimeError
    assert (place / "x").read() == b"old"


def test_a_file_is_created_once(place: Place) -> None:
    assert (place / "only").create(b"first")
    assert not (place / "only").create(b"second")
    assert (place / "only").read() == b"first"


def test_one_driver_has_the_lease(place: Place) -> None:
    ours, theirs = Leases(), Leases()
    lease = ours.take(place / "artifact")
    assert isinstance(lease, Lease)
    assert isinstance(theirs.take(place / "artifact"), Holder)
    ours.give_back(lease)
    second = theirs.take(place / "artifact")
    assert isinstance(second, Lease)
    with pytest.raises(LeaseLostError, match="taken over"):
        lease.fence.check()
    (place / "artifact" / MANIFEST).write(b"{}")
    with pytest.raises(LeaseLostError, match="completed"):
        second.fence.check()
    theirs.close()


def test_addresses() -> None:
    azure = "abfs://data@mine.dfs.core.windows.net/runs/1?sas_token=hush"
    assert stores.split_address(azure) == ("account_name=mine&sas_token=hush", "data/runs/1")
    assert stores.split_address("gs://bucket/runs?project=p") == ("project=p", "bucket/runs")
    assert stores.split_address("s3://bucket/runs#2/a?region=r") == ("region=r", "bucket/runs#2/a")
    assert (Place.of(azure) / "part").redacted == "abfs://data@mine.dfs.core.windows.net/runs/1/part"
    assert redact_secrets({"root": azure}) == {"root": "abfs://data@mine.dfs.core.windows.net/runs/1"}
    assert not Place.of("gs://bucket/runs").is_local
    assert Place.of("runs").is_local


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("abfs", "azure")])
def test_a_store_whose_client_is_absent_says_what_to_install(scheme: str, extra: str) -> None:
    package = {"gs": "gcsfs", "abfs": "adlfs"}[scheme]
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(StorageError, match=rf"{scheme}:// places need the package {package}.*babelray\[{extra}\]"):
            Place.of(f"{scheme}://bucket/x").exists()


@pytest.mark.parametrize("package", ["gcsfs", "adlfs"])
def test_a_client_that_may_overwrite_a_lease_is_refused(package: str) -> None:
    check_version(package, "2026.8.0")
    check_version(package, "2027.1.0.post1")
    with pytest.raises(StorageError, match=rf"expected {package} 2026.8 or newer, found 2024.6.1.*leases do not hold"):
        check_version(package, "2024.6.1")


def test_unknown_schemes_and_options_are_refused_without_showing_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"begins with s3://, gs://, abfs://, got 'ftp://x/y'") as error:
        Place.of("ftp://x/y?password=hush")
    assert "hush" not in str(error.value)
    with pytest.raises(StorageError, match=r"unknown option \['secret'\] in a gs:// URI") as error:
        FsspecStore("gs").put("secret=hush", "bucket/x", b"")
    assert "hush" not in str(error.value)


def make_error(module: str, name: str, **attributes: object) -> Exception:
    """An error of a package that is not installed, as ``is_transient`` tells it: by its class's module and name."""
    error = type(name, (Exception,), {"__module__": module})("it failed")
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (make_error("gcsfs.retry", "HttpError", code=503), True),
        (make_error("gcsfs.retry", "HttpError", code="429"), True),
        (make_error("gcsfs.retry", "HttpError", code=403), False),
        (make_error("gcsfs.retry", "HttpError", code=None), False),
        (make_error("azure.core.exceptions", "HttpResponseError", status_code=500), True),
        (make_error("azure.core.exceptions", "HttpResponseError", status_code=404), False),
        (make_error("azure.core.exceptions", "ServiceRequestError"), True),
        (make_error("aiohttp.client_exceptions", "ClientPayloadError"), True),
        (make_error("elsewhere", "HttpError", code=503), False),
    ],
)
def test_errors_of_the_clouds_that_pass_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected
