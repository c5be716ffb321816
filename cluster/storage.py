"""Places: one way to name, read and write files, on a disk or in an object store.

A ``Place`` is a URI and nothing else, so it travels to any actor by value. Local writes go to a temporary name, reach
the disk and are renamed; an object store shows an object only when its upload is complete. A reader sees all of a file
or none. An error that passes is waited out by every operation (``cluster.retry``).

An object store is named as ``s3://bucket/prefix``, ``gs://…`` or ``abfs://…`` (``cluster.stores``); one other than AWS
by its endpoint in the query: ``s3://bucket/prefix?endpoint_override=http://127.0.0.1:9000&region=us-east-1``.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from cluster import stores
from cluster.errors import StorageError
from cluster.nodecache import cached
from cluster.retry import patiently

Result = TypeVar("Result")
COPY_BYTES = 4 << 20
CLIENTS = ("boto3", "botocore", "gcsfs", "google", "azure", "aiohttp")  # packages whose errors are the store's


@dataclass(frozen=True, order=True)
class Place:
    """A file or directory by its URI. ``place / "name"`` is a child of it."""

    uri: str

    @staticmethod
    def of(where: "str | Path | Place") -> "Place":
        """Make a place from a path (taken absolute: workers run elsewhere) or from a store's URI."""
        if isinstance(where, Place):
            return where
        text = str(where)
        if "://" not in text:
            return Place(str(Path(text).expanduser().absolute()))
        scheme = urlsplit(text).scheme
        if scheme == "file":
            return Place(urlsplit(text, allow_fragments=False).path)
        stores.check_scheme(scheme, text.partition("?")[0])
        return Place(text)

    def __truediv__(self, name: str) -> "Place":
        base = self.redacted
        return Place(f"{base.rstrip('/')}/{name}{self.uri.removeprefix(base)}")

    def __repr__(self) -> str:
        return f"Place({self.redacted!r})"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.redacted.rstrip("/").rsplit("/", 1)[-1]

    @property
    def redacted(self) -> str:
        """The URI without its query, which may hold keys: for messages, logs and manifests."""
        return self.uri if self.is_local else self.uri.partition("?")[0]

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine's file system."""
        return not stores.is_remote(self.uri)

    @property
    def path(self) -> Path:
        """The local path. Raises StorageError for an object store: use ``fetch`` there."""
        if not self.is_local:
            raise StorageError(f"{self.redacted} is not a local path; call fetch() to get a local copy")
        return Path(self.uri)

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow file system and the path in it, for libraries that take the two apart."""
        if self.is_local:
            return _local(), self.uri
        query, path = stores.split_address(self.uri)
        return self._store.filesystem(query), path

    def exists(self) -> bool:
        """Whether a file or directory is there."""
        return self._use(lambda filesystem, path: filesystem.get_file_info(path).type != fs.FileType.NotFound)

    def size(self) -> int:
        """Bytes of this file."""
        return self._use(lambda filesystem, path: int(filesystem.get_file_info(path).size or 0))

    def list(self) -> "list[Place]":
        """The files and directories directly below, sorted by name; empty where nothing is there."""
        infos = self._use(
            lambda filesystem, path: filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        )
        return sorted(self / i.base_name for i in infos if not i.base_name.endswith(".tmp"))

    def files(self) -> tuple[tuple[str, int, int], ...]:
        """Path, bytes and time of change (ns) of this file, or of every file below."""
        return self._use(_list_files)

    def open(self) -> pa.NativeFile:
        """Open for random reading."""
        return self._use(lambda filesystem, path: filesystem.open_input_file(path))

    def stream(self) -> pa.NativeFile:
        """Open for reading from front to back; ``.gz``, ``.bz2`` and ``.zst`` names are decompressed."""
        return self._use(lambda filesystem, path: filesystem.open_input_stream(path, compression="detect"))

    def read(self) -> bytes:
        """The whole file."""

        def read_all(filesystem: fs.FileSystem, path: str) -> bytes:
            with filesystem.open_input_file(path) as file:
                return bytes(file.read())

        return self._use(read_all)

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Open a new file for writing; it appears, whole, when the block ends without an error."""
        if not self.is_local:
            with tempfile.NamedTemporaryFile() as draft:  # written beside, then sent
                yield draft
                draft.flush()
                self._try(lambda: self._upload(Path(draft.name)))
            return
        draft_path = self._draft()
        with self._explained_errors():
            draft_path.parent.mkdir(parents=True, exist_ok=True)
            local_file = draft_path.open("wb")
        try:
            with local_file as file:
                yield file
                with self._explained_errors():
                    _flush_to_disk(file)
            with self._explained_errors():
                os.replace(draft_path, self.path)
        finally:
            draft_path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Write the whole file at once."""
        if self.is_local:
            self._try(lambda: self._write_local(data))
        else:
            self._try(lambda: self._store.put(*stores.split_address(self.uri), data))

    def create(self, data: bytes) -> bool:
        """Write the whole file at once where there is none; returns whether it was written.

        Of several processes that create one file at once, on whatever machines, one succeeds. If the store's answer is
        lost, the process that created the file may be told False: write something by which it knows its own file.
        """
        if not self.is_local:
            return self._try(lambda: self._store.put(*stores.split_address(self.uri), data, only_new=True))
        return self._try(lambda: self._create_local(data))

    def delete(self) -> None:
        """Remove a file or a directory with all below it; nothing there is no error."""

        def delete(filesystem: fs.FileSystem, path: str) -> None:
            kind = filesystem.get_file_info(path).type
            if kind == fs.FileType.Directory:
                filesystem.delete_dir(path)
            elif kind == fs.FileType.File:
                filesystem.delete_file(path)

        self._use(delete)

    def put(self, source: Path) -> None:
        """Copy a local file or directory here, each file whole: what a reader has open of an older one stays."""
        for file in sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]:
            target = self / file.relative_to(source).as_posix() if source.is_dir() else self
            if not target.is_local:
                target._try(partial(target._upload, file))
                continue
            with target.writing() as out, file.open("rb") as data:
                shutil.copyfileobj(data, out, COPY_BYTES)

    def fetch(self) -> Path:
        """Return a local path with this content: itself, or a copy made once per node.

        The copy is found again by the URI and by what a listing says of the files (names, sizes, times): an artifact
        that was deleted and made again is copied again. Costs one recursive listing.
        """
        if self.is_local:
            return self.path
        files = self.files()
        if not files:
            raise StorageError(f"nothing at {self.redacted} to fetch")
        return cached("copies", repr((self.uri, files)), self._copy_into) / self.name

    @property
    def _store(self) -> stores.Store:
        return stores.find_store(self.uri)

    def _upload(self, source: Path) -> None:
        self._store.upload(*stores.split_address(self.uri), source)

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        """Turn an error of the file system into one that says what to check."""
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(f"no file at {self.redacted}: check the path") from error
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in CLIENTS:
                raise
            check = "the path, its owner and the disk's free space" if self.is_local else self._store.CHECK
            raise StorageError(f"cannot use {self.redacted}: {type(error).__name__}: {error}\nCheck {check}") from error

    def _try(self, operation: Callable[[], Result]) -> Result:
        """Do something with the file, patiently; an error comes out as one that says what to check."""

        def once() -> Result:
            with self._explained_errors():
                return operation()

        return patiently(once)

    def _use(self, operation: Callable[[fs.FileSystem, str], Result]) -> Result:
        """Do something with pyarrow's file system and the path in it."""
        return self._try(lambda: operation(*self.filesystem()))

    def _draft(self) -> Path:
        return self.path.with_name(f"{self.name}.{uuid.uuid4().hex}.tmp")

    def _write_local(self, data: bytes) -> None:
        with self.writing() as file:
            file.write(data)

    def _create_local(self, data: bytes) -> bool:
        """A hard link is made whole and only where nothing is, on NFS too."""
        draft = self._draft()
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(data)
                _flush_to_disk(file)
            os.link(draft, self.path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _copy_into(self, directory: Path) -> None:
        def copy(filesystem: fs.FileSystem, path: str) -> None:
            shutil.rmtree(directory, ignore_errors=True)  # of an attempt that failed
            ends = {"source_filesystem": filesystem, "destination_filesystem": _local()}
            if filesystem.get_file_info(path).type == fs.FileType.File:
                directory.mkdir()
                fs.copy_files(path, str(directory / self.name), **ends)
            else:
                (directory / self.name).mkdir(parents=True)
                # use_threads=False: pyarrow's threaded S3 copy can deadlock on small pools
                fs.copy_files(path, str(directory / self.name), **ends, use_threads=False)

        self._use(copy)


def redact_secrets(config: Any) -> Any:
    """A config as it may be shown: each URI of a store without its query, which may hold keys."""
    if isinstance(config, dict):
        return {key: redact_secrets(value) for key, value in config.items()}
    if isinstance(config, list):
        return [redact_secrets(value) for value in config]
    return Place(config).redacted if isinstance(config, str) and stores.is_remote(config) else config


def _list_files(filesystem: fs.FileSystem, path: str) -> tuple[tuple[str, int, int], ...]:
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return ((info.path, info.size, info.mtime_ns),)
    below = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    return tuple(sorted((i.path, i.size, i.mtime_ns) for i in below if i.type == fs.FileType.File))


def _flush_to_disk(file: Any) -> None:
    """Bytes first, then the name: else a power loss may leave an empty file under a receipt."""
    file.flush()
    os.fsync(file.fileno())


@lru_cache(maxsize=1)
def _local() -> fs.FileSystem:
    return fs.LocalFileSystem()
