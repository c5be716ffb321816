"""Places: the same behaviour on a disk and in an object store."""

import errno
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import StorageError
from cluster.retry import is_transient
from cluster.storage import Place, redact_secrets
from slow_store import SlowProxy


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


@pytest.mark.parametrize("size", [5_000_000, 20_000_000], ids=["one request", "parts"])
def test_upload_that_is_interrupted_leaves_the_old_content(size: int, s3_root: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(bytes(size))
    name = f"interrupted-{size}"
    (Place.of(s3_root) / name).write(b"old")
    with SlowProxy(s3_root, rate=5_000_000) as proxy:
        threading.Thread(target=interrupt, args=(proxy,)).start()
        with pytest.raises(KeyboardInterrupt):
            (Place.of(proxy.root) / name).put(tmp_path / "new")
    assert (Place.of(s3_root) / name).read() == b"old" or size < 8 << 20  # a request under way may be finished
    assert (Place.of(s3_root) / name).size() in (3, size)


def interrupt(proxy: SlowProxy) -> None:
    while proxy.sent < 1_000_000:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("size", [5_000_000, 20_000_000], ids=["one request", "parts"])
def test_upload_of_a_killed_process_leaves_nothing(size: int, s3_root: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(bytes(size))
    name = f"killed-{size}"
    send = "import sys; from pathlib import Path; from cluster.storage import Place; " + (
        "(Place.of(sys.argv[1]) / sys.argv[2]).put(Path(sys.argv[3]))"
    )
    with SlowProxy(s3_root, rate=2_000_000) as proxy:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", send, proxy.root, name, str(tmp_path / "new")], env=env)
        while proxy.sent < 1_000_000:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        time.sleep(0.5)
    assert not (Place.of(s3_root) / name).exists()
    assert name not in [place.name for place in Place.of(s3_root).list()]


def test_upload_over_a_connection_that_breaks_is_an_error_and_leaves_nothing(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01)))
    (tmp_path / "new").write_bytes(bytes(1_000_000))
    with SlowProxy(s3_root, rate=50_000_000) as proxy:
        proxy.cutting = True
        with pytest.raises(StorageError, match=r"(?s)cannot use s3://babelray/broken: .*Check the bucket") as broken:
            (Place.of(proxy.root) / "broken").put(tmp_path / "new")
    assert is_transient(broken.value)
    assert not (Place.of(s3_root) / "broken").exists()


def test_of_many_that_create_a_file_one_succeeds(place: Place) -> None:
    assert (place / "deep" / "only").create(b"first")
    assert not (place / "deep" / "only").create(b"second")
    assert (place / "deep" / "only").read() == b"first"
    if place.is_local:  # moto looks and writes in two steps
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n: (place / "race").create(b"%d" % n), range(200)))
        assert made.count(True) == 1
        assert (place / "race").read() == b"%d" % made.index(True)
    assert len((place / "deep").list()) == 1
    assert not place.is_local or not list(place.path.rglob("*.tmp"))


def test_error_that_passes_is_waited_out_by_every_operation(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that answers SlowDown to the first requests, as long as its client's own attempts last."""
    place = Place.of(tmp_path) / "x"
    place.write(b"1")
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    for operation in (
        place.exists,
        place.size,
        place.read,
        place.open,
        place.stream,
        Place.of(tmp_path).list,
        place.delete,
    ):
        errors = [OSError("AWS Error SLOW_DOWN during HeadObject operation: reduce your rate"), OSError(errno.EIO, "")]
        filesystem, _ = place.filesystem()

        def failing(self: Place, errors: list[OSError] = errors, found=filesystem):
            if errors:
                raise errors.pop(0)
            return found, self.uri

        with monkeypatch.context() as patch:
            patch.setattr(Place, "filesystem", failing)
            operation()
        assert not errors
    assert pauses == [1, 5] * 7
    assert "trying again in 5 s: cannot use" in caplog.text


def test_no_key_is_shown(s3_root: str) -> None:
    secret = s3_root.replace("secret_key=test", "secret_key=hush")
    assert "hush" not in repr(Place.of(secret)) + str(Place.of(secret)) + Place.of(secret).redacted
    config = {"root": secret, "docs": [{"path": f"{secret}"}], "n": 1}
    assert redact_secrets(config) == {"root": "s3://babelray", "docs": [{"path": "s3://babelray"}], "n": 1}
    with pytest.raises(StorageError) as error:
        Place.of("gcs://bucket/x?secret_key=hush")
    assert "hush" not in str(error.value)


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


def test_what_was_made_again_is_fetched_again(place: Place) -> None:
    (place / "model" / "deep" / "weights").write(b"old")
    (place / "model" / "extra").write(b"old")
    assert (place / "model").fetch().joinpath("deep/weights").read_bytes() == b"old"
    (place / "model").delete()
    (place / "model" / "deep" / "weights").write(b"newer")
    copy = (place / "model").fetch()
    assert copy.joinpath("deep/weights").read_bytes() == b"newer"
    assert not copy.joinpath("extra").exists()
    (place / "one").write(b"old")
    assert (place / "one").fetch().read_bytes() == b"old"
    (place / "one").write(b"newer")
    assert (place / "one").fetch().read_bytes() == b"newer"


def test_put_over_a_file_leaves_what_a_reader_has_open(tmp_path: Path) -> None:
    """An orphan of a killed run may put a shard again while the new run's index is served from it."""
    draft, place = tmp_path / "draft", Place.of(tmp_path / "shard")
    draft.mkdir()
    np.save(draft / "codes.npy", np.arange(5000))
    place.put(draft)
    mapped = np.load(tmp_path / "shard" / "codes.npy", mmap_mode="r")
    np.save(draft / "codes.npy", np.zeros(5000, int))
    place.put(draft)
    np.testing.assert_array_equal(mapped, np.arange(5000))
    np.testing.assert_array_equal(np.load(tmp_path / "shard" / "codes.npy"), np.zeros(5000, int))
    assert [file.name for file in place.list()] == ["codes.npy"]


def test_missing_file_says_so(place: Place) -> None:
    with pytest.raises(StorageError, match="no file at"):
        (place / "none").read()


def test_uri_keeps_its_endpoint_through_joins() -> None:
    root = Place.of("s3://bucket/prefix?endpoint_override=http://127.0.0.1:1")
    assert (root / "a" / "b").uri == "s3://bucket/prefix/a/b?endpoint_override=http://127.0.0.1:1"
    assert (root / "a").name == "a"
    assert (root / "a").redacted == "s3://bucket/prefix/a"


def test_question_mark_in_a_local_path_is_a_letter(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "who?" / "me?")
    assert (place.name, place.redacted) == ("me?", str(tmp_path / "who?" / "me?"))
    (place / "x").write(b"1")
    assert (tmp_path / "who?" / "me?" / "x").read_bytes() == b"1"


def test_number_sign_is_a_letter_of_a_name(place: Place) -> None:
    (place / "runs" / "x").write(b"1")
    (place / "runs#2" / "x").write(b"2")
    assert Place.of(f"file://{place.uri}" if place.is_local else place.uri) == place
    assert Place.of("file:///data/runs#2").uri == "/data/runs#2"
    assert (place / "runs#2" / "x").read() == b"2"
    (place / "runs#2").delete()
    assert (place / "runs" / "x").read() == b"1"
