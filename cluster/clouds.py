"""Clients for the object stores of Google and Azure: fsspec's, which are installed where they are used.

    pip install 'babelray[gcs]'      gs://bucket/prefix
    pip install 'babelray[azure]'    abfs://container@account.dfs.core.windows.net/prefix

Keys are found as the clouds' own tools find them: the account of the machine or the pod, the variable
GOOGLE_APPLICATION_CREDENTIALS, AZURE_ variables. Both stores show an object whole or not at all: Google's when its
upload ends, Azure's when its blocks are committed. ``mode="create"`` is a condition that the store itself checks
(``ifGenerationMatch=0``, ``If-None-Match``). Clients older than ``OLDEST`` are refused, since they may write without
asking the condition: two drivers would then both take a lease. Listings are never cached: what other machines write is
seen.
"""

from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pyarrow import fs

from cluster.errors import StorageError

OLDEST = {"gcsfs": (2026, 8), "adlfs": (2026, 8)}
OPTIONS = {
    "gs": frozenset({"project", "endpoint_url", "token", "requester_pays"}),
    "abfs": frozenset({"account_name", "account_key", "sas_token", "connection_string", "account_host"}),
}
ACCOUNTS = {
    "gs": "the account of the machine or GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "the identity of the machine or the AZURE_ variables",
}
# Azure asks the identity of the machine or the pod only when it is told that it need not be anonymous
DEFAULTS: dict[str, dict[str, Any]] = {"abfs": {"anon": False}}


class FsspecStore:
    """An object store behind fsspec's client for ``scheme``."""

    def __init__(self, scheme: str):
        self.scheme = scheme
        account = ACCOUNTS.get(scheme, "your account")
        self.CHECK = f"the bucket's or container's name, and that {account} may read, write, list and delete there"

    def filesystem(self, query: str) -> fs.FileSystem:
        """pyarrow's file system around the client."""
        return _filesystem(self.scheme, query)

    def upload(self, query: str, path: str, source: Path) -> None:
        """Write an object from a local file; it appears when all of it has arrived."""
        _client(self.scheme, query).put_file(str(source), path)

    def put(self, query: str, path: str, data: bytes, only_new: bool = False) -> bool:
        """Write a small object, or only where there is none; returns whether it was written."""
        try:
            _client(self.scheme, query).pipe_file(path, data, mode="create" if only_new else "overwrite")
        except FileExistsError:
            return False
        return True


def find_google() -> FsspecStore:
    """The store of ``gs://``. Raises StorageError where gcsfs is absent or too old."""
    return _find("gs", "gcsfs", "gcs")


def find_azure() -> FsspecStore:
    """The store of ``abfs://``. Raises StorageError where adlfs is absent or too old."""
    return _find("abfs", "adlfs", "azure")


@lru_cache(maxsize=4)
def _find(scheme: str, package: str, extra: str) -> FsspecStore:
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise StorageError(
            f"{scheme}:// places need the package {package}: pip install 'babelray[{extra}]', on every node"
        ) from error
    check_version(package, found)
    return FsspecStore(scheme)


def check_version(package: str, found: str) -> None:
    """Raise StorageError for a client that may not ask the store whether an object is new."""
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST[package]:
        needed = ".".join(map(str, OLDEST[package]))
        raise StorageError(
            f"expected {package} {needed} or newer, found {found}: an older one may overwrite what another driver "
            f"created, so leases do not hold. pip install --upgrade {package}"
        )


@lru_cache(maxsize=16)
def _client(scheme: str, query: str) -> Any:
    import fsspec

    options: dict[str, Any] = dict(parse_qsl(query))
    if scheme in OPTIONS and (unknown := set(options) - OPTIONS[scheme]):
        raise StorageError(
            f"unknown option {sorted(unknown)} in a {scheme}:// URI; known are {sorted(OPTIONS[scheme])}"
        )
    return fsspec.filesystem(scheme, use_listings_cache=False, **DEFAULTS.get(scheme, {}), **options)


@lru_cache(maxsize=16)
def _filesystem(scheme: str, query: str) -> fs.FileSystem:
    return fs.PyFileSystem(_Handler(_client(scheme, query)))


class _Handler(fs.FSSpecHandler):
    """pyarrow's handler, which finds the time of a change under the names that these clients give it, and names without
    the slash that some put before the bucket."""

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> fs.FileInfo:
        changed = info.get("mtime") or info.get("last_modified") or info.get("created")
        return fs.FSSpecHandler._create_file_info(path.lstrip("/"), {**info, "mtime": changed})
