"""Places: one way to name, read and write files, on a disk or in an object store.

A ``Place`` is a URI and nothing else, so it travels to any actor by value. Local writes go to a temporary name and
are renamed; an object store shows an object only when its upload is complete. A reader sees all of a file or none.

An object store is named as ``s3://bucket/prefix``; a store other than AWS by its endpoint in the query:
``s3://bucket/prefix?endpoint_override=http://127.0.0.1:9000&region=us-east-1``.
"""

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from cluster.errors import StorageError
from cluster.nodecache import made_once

COPY_BYTES = 4 << 20
S3_ATTEMPTS = 10  # pyarrow's default is 3; AWS advises more under SlowDown answers
S3_CHECK = (
    "the bucket's name, its region and the endpoint, and that the AWS profile, the AWS_ variables or the instance's "
    "role may read, write, list and delete there"
)
PASSING_ERRNO = frozenset({errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH})
PASSING_S3 = re.compile(  # pyarrow tells the kind of an S3 error in its text alone
    r"AWS Error (SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT|NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE"
    r"|UNKNOWN \(HTTP status 5\d\d\))"
)


@dataclass(frozen=True, order=True)
class Place:
    """A file or directory by its URI. ``place / "name"`` is a child of it."""

    uri: str

    @staticmethod
    def of(where: "str | Path | Place") -> "Place":
        """Make a place from a path (taken absolute: workers run elsewhere) or from an ``s3://`` URI."""
        if isinstance(where, Place):
            return where
        text = str(where)
        if "://" not in text:
            return Place(str(Path(text).expanduser().absolute()))
        scheme = urlsplit(text).scheme
        if scheme not in ("s3", "file"):
            raise StorageError(f"expected a path or an s3:// URI, got {text!r}")
        return Place(urlsplit(text).path if scheme == "file" else text)

    def __truediv__(self, name: str) -> "Place":
        base = self.shown
        return Place(f"{base.rstrip('/')}/{name}{self.uri.removeprefix(base)}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.shown.rstrip("/").rsplit("/", 1)[-1]

    @property
    def shown(self) -> str:
        """The URI without its query, which may hold keys: for messages and manifests."""
        return self.uri if self.is_local else self.uri.partition("?")[0]

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine's file system."""
        return not self.uri.startswith("s3://")

    @property
    def path(self) -> Path:
        """The local path. Raises StorageError for an object store: use ``fetch`` there."""
        if not self.is_local:
            raise StorageError(f"{self.shown} is not a local path; call fetch() to get a local copy")
        return Path(self.uri)

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow file system and the path in it, for libraries that take the two apart."""
        if self.is_local:
            return _local(), self.uri
        parts = urlsplit(self.uri)
        return _s3(parts.query), f"{parts.netloc}{parts.path}"

    @contextmanager
    def _asked(self) -> Iterator[tuple[fs.FileSystem, str]]:
        """The file system and the path in it; an error of theirs comes out as one that says what to check."""
        try:
            yield self.filesystem()
        except FileNotFoundError as error:
            raise StorageError(f"no file at {self.shown}: check the path") from error
        except OSError as error:
            check = "the path, its owner and the disk's free space" if self.is_local else S3_CHECK
            raise StorageError(f"cannot use {self.shown}: {type(error).__name__}: {error}\nCheck {check}") from error

    def exists(self) -> bool:
        """Whether a file or directory is there."""
        with self._asked() as (filesystem, path):
            return filesystem.get_file_info(path).type != fs.FileType.NotFound

    def size(self) -> int:
        """Bytes of this file."""
        with self._asked() as (filesystem, path):
            return int(filesystem.get_file_info(path).size or 0)

    def list(self) -> "list[Place]":
        """The files and directories directly below, sorted by name; empty where nothing is there."""
        with self._asked() as (filesystem, path):
            infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(self / i.base_name for i in infos if not i.base_name.endswith(".tmp"))

    def open(self) -> pa.NativeFile:
        """Open for random reading."""
        with self._asked() as (filesystem, path):
            return filesystem.open_input_file(path)

    def stream(self, compression: str | None = "detect") -> pa.NativeFile:
        """Open for reading from front to back; ``.gz``, ``.bz2`` and ``.zst`` names are decompressed."""
        with self._asked() as (filesystem, path):
            return filesystem.open_input_stream(path, compression=compression)

    def read(self) -> bytes:
        """The whole file."""
        with self._asked(), self.open() as file:
            return bytes(file.read())

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Open a new file for writing; it appears, whole, when the block ends without an error."""
        if not self.is_local:
            # written beside, then sent: an upload cut short by an error would be retried for minutes, and completed
            with tempfile.TemporaryFile() as draft:
                yield draft
                draft.seek(0)
                with (
                    self._asked() as (filesystem, path),
                    filesystem.open_output_stream(path, compression=None) as out,  # "detect" would gzip a .gz again
                ):
                    shutil.copyfileobj(draft, out, COPY_BYTES)
            return
        unfinished = self.path.with_name(f"{self.name}.{uuid.uuid4().hex}.tmp")
        with self._asked():
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            file = unfinished.open("wb")
        try:
            with file:
                yield file
            os.replace(unfinished, self.path)
        finally:
            unfinished.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Write the whole file at once."""
        with self.writing() as file:
            file.write(data)

    def delete(self) -> None:
        """Remove a file or a directory with all below it; nothing there is no error."""
        with self._asked() as (filesystem, path):
            kind = filesystem.get_file_info(path).type
            if kind == fs.FileType.Directory:
                filesystem.delete_dir(path)
            elif kind == fs.FileType.File:
                filesystem.delete_file(path)

    def put(self, source: Path) -> None:
        """Copy a local file or directory here, each file whole: what a reader has open of an older one stays."""
        for file in sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]:
            target = self / file.relative_to(source).as_posix() if source.is_dir() else self
            with target.writing() as out, file.open("rb") as data:
                shutil.copyfileobj(data, out, COPY_BYTES)

    def fetch(self) -> Path:
        """Return a local path with this content: itself, or a copy made once per node.

        The copy is found again by the URI and by what a listing tells of the files (names, sizes, times): an artifact
        that was deleted and made again is copied again. Costs one recursive listing.
        """
        if self.is_local:
            return self.path
        files = self._files()
        if not files:
            raise StorageError(f"nothing at {self.shown} to fetch")
        return made_once("copies", repr((self.uri, files)), self._copy_into) / self.name

    def _files(self) -> tuple[tuple[str, int, int], ...]:
        """Path, bytes and time of change (ns) of this file, or of every file below."""
        with self._asked() as (filesystem, path):
            info = filesystem.get_file_info(path)
            if info.type != fs.FileType.File:
                below = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
                return tuple(sorted((i.path, i.size, i.mtime_ns) for i in below if i.type == fs.FileType.File))
            return ((info.path, info.size, info.mtime_ns),)

    def _copy_into(self, directory: Path) -> None:
        with self._asked() as (filesystem, path):
            there = {"source_filesystem": filesystem, "destination_filesystem": _local()}
            if filesystem.get_file_info(path).type == fs.FileType.File:
                directory.mkdir()
                fs.copy_files(path, str(directory / self.name), **there)
            else:
                (directory / self.name).mkdir(parents=True)
                # use_threads=False: pyarrow's threaded S3 copy can deadlock on small pools
                fs.copy_files(path, str(directory / self.name), **there, use_threads=False)


def passing(error: BaseException) -> bool:
    """Whether an error of a disk or a store may be gone a moment later (throttling, a lost connection)."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if isinstance(cause, (ConnectionError, TimeoutError)):
        return True
    return isinstance(cause, OSError) and (cause.errno in PASSING_ERRNO or bool(PASSING_S3.search(str(cause))))


@lru_cache(maxsize=1)
def _local() -> fs.FileSystem:
    return fs.LocalFileSystem()


@lru_cache(maxsize=16)
def _s3(query: str) -> fs.FileSystem:
    options = dict(parse_qsl(query))
    known = {"endpoint_override", "region", "scheme", "access_key", "secret_key"}
    if unknown := set(options) - known:
        raise StorageError(f"unknown option {sorted(unknown)} in an s3:// URI; known are {sorted(known)}")
    endpoint = options.get("endpoint_override", "")
    if endpoint.startswith("http://"):
        options["scheme"], options["endpoint_override"] = "http", endpoint.removeprefix("http://")
    return fs.S3FileSystem(
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS), background_writes=True, **options
    )
