"""Object stores by the scheme of their URIs: what each can do, and how a URI is taken apart.

    s3://bucket/prefix                                      AWS and what speaks its protocol (``cluster.s3``)
    gs://bucket/prefix                                      Google Cloud Storage (``cluster.clouds``)
    abfs://container@account.dfs.core.windows.net/prefix    Azure Blob Storage (``cluster.clouds``)

Each shows an object only when all of it has arrived, and can create one only where there is none, on which leases rest.
The query of a URI gives options of the client; it may hold keys, and is shown nowhere.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from pyarrow import fs

from cluster import clouds, s3
from cluster.errors import StorageError


class Store(Protocol):
    """An object store. ``query`` is that of the URI, ``path`` is ``bucket/key``."""

    CHECK: str  # what to check when the store refuses

    def filesystem(self, query: str) -> fs.FileSystem:
        """pyarrow's file system, to read, list and delete."""

    def upload(self, query: str, path: str, source: Path) -> None:
        """Write an object from a local file. Nothing of it is to be seen before all has arrived."""

    def put(self, query: str, path: str, data: bytes, only_new: bool = False) -> bool:
        """Write a small object, or only where there is none; returns whether it was written."""


def _find_s3() -> Store:
    return s3


STORES: dict[str, Callable[[], Store]] = {"s3": _find_s3, "gs": clouds.find_google, "abfs": clouds.find_azure}


def is_remote(uri: str) -> bool:
    """Whether this is the URI of an object store; else it is a path of this machine's file system."""
    scheme, separator, _ = uri.partition("://")
    return bool(separator) and scheme in STORES


def check_scheme(scheme: str, shown: str) -> None:
    """Raise StorageError for a scheme that no store has; ``shown`` is the URI as it may be printed."""
    if scheme not in STORES:
        expected = ", ".join(f"{name}://" for name in STORES)
        raise StorageError(f"expected a path or a URI that begins with {expected}, got {shown!r}")


def find_store(uri: str) -> Store:
    """The store of a URI. Raises StorageError where its client is not installed, or is too old."""
    return STORES[uri.partition("://")[0]]()


def split_address(uri: str) -> tuple[str, str]:
    """The options of the store, as a query, and ``bucket/key``. Azure's account may stand in the host's name."""
    parts = urlsplit(uri, allow_fragments=False)  # a "#" is a letter of a key
    bucket, at, host = parts.netloc.partition("@")
    options: Mapping[str, str] = {"account_name": host.partition(".")[0]} if at else {}
    return "&".join(filter(None, [urlencode(options), parts.query])), f"{bucket}{parts.path}"
