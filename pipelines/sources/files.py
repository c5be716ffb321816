"""Files of a source: found with or without compression, read line by line, and identified by their content.

A line ends at a line feed and nowhere else: texts may hold U+2028, form feeds or a lone carriage return. A carriage
return just before the line feed and a byte order mark at the start of the file belong to the file, not to the text.
Memory holds one block and one line; a truncated archive is an error, never a short collection.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa
from pyarrow import fs

from cluster.errors import RecipeError, StorageError
from cluster.storage import Place

TableName = Literal["docs", "queries", "qrels", "pairs"]

BLOCK = 1 << 20
COMPRESSED = (".gz", ".bz2", ".zst")
BOM = b"\xef\xbb\xbf"


class AbsentFileError(RecipeError):
    """A file that a recipe names does not exist."""


@dataclass(frozen=True)
class File:
    """A file of a source: its name within the source, which messages show, and its place."""

    name: str
    place: Place

    def lines(self) -> Iterator[tuple[str, str | None]]:
        """Each line as (``name:number``, text), the text None where it is not UTF-8.

        Raises:
            StorageError: the archive is damaged.
        """
        for number, line in enumerate(_split_lines(self.blocks()), 1):
            if number == 1:
                line = line.removeprefix(BOM)
            try:
                yield f"{self.name}:{number}", line.removesuffix(b"\r").decode()
            except UnicodeDecodeError:
                yield f"{self.name}:{number}", None

    def blocks(self) -> Iterator[bytes]:
        """The content, decompressed, in pieces of at most 1 MiB. Raises StorageError for a damaged archive."""
        with self.place.stream() as stream:
            while True:
                try:
                    block = stream.read(BLOCK)
                except (OSError, pa.ArrowException) as error:
                    raise StorageError(f"cannot read {self.name} to its end: {error}. Fetch the file again") from error
                if not block:
                    return
                yield block

    def digest(self) -> list[str | int]:
        """Name, size and the SHA-256 of the first and last MiB, which identify a file without reading gigabytes.

        A change that keeps the size and touches only the middle of a file larger than 2 MiB is not seen.
        """
        filesystem, path = self.place.filesystem()
        info = filesystem.get_file_info(path)
        return [self.name, int(info.size or 0), _hash_ends(self.place, int(info.size or 0), info.mtime_ns)]


@runtime_checkable
class FileSource(Protocol):
    """A source that reads files."""

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """The files that decide what this table holds, in the order in which they are read."""

    def ids(self, table: TableName) -> Iterator[str]:
        """The ids of every document (or query) of the source, whatever its language and split; repeats are allowed."""


def identify(source: Any, table: TableName, lang: str, split: str) -> dict[str, Any]:
    """Identify the content that ``source`` gives for one table, beyond what its config says.

    For files: their names, sizes and digests, never where they are, so that a collection may move. A source without
    files is identified by its config alone. Costs two reads of 1 MiB per file and process, about 3 ms.
    """
    files = source.files(table, lang, split) if isinstance(source, FileSource) else []
    return {"files": [file.digest() for file in files]}


def walk(root: Place) -> list[File]:
    """Find all files below ``root`` whose path has no hidden part (``.git``), ordered by their path.

    Raises:
        StorageError: ``root`` cannot be listed.
    """
    filesystem, base = root.filesystem()
    try:
        infos = filesystem.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
    except OSError as error:
        raise StorageError(f"cannot list {root.redacted}: {error}. Check the path and who may read it") from error
    names = (info.path.removeprefix(base).lstrip("/") for info in infos if info.type == fs.FileType.File)
    return [File(name, root / name) for name in sorted(names) if "/." not in f"/{name}"]


def find(root: Place, name: str) -> File:
    """Find the file ``name`` below ``root``, plain or compressed. Raises AbsentFileError that lists what is there."""
    file = find_any(root, name)
    if file is not None:
        return file
    folder, _, _ = name.rpartition("/")
    there = ", ".join(list_names(root, folder)) or "nothing"
    raise AbsentFileError(
        f"expected {name} (or {', '.join(COMPRESSED)} of it) in {root.redacted}, found there: {there}. Set the "
        "source's path to the directory that holds it, or choose another language or split"
    )


def find_any(root: Place, *names: str) -> File | None:
    """Find the first of ``names`` that exists, plain or compressed; None where none does."""
    for name in names:
        for suffix in ("", *COMPRESSED):
            if (root / f"{name}{suffix}").exists():
                return File(f"{name}{suffix}", root / f"{name}{suffix}")
    return None


def list_names(root: Place, folder: str = "") -> list[str]:
    """Names of the files in a folder of ``root``, without the suffix of a compression; each once."""
    listed = (root / folder if folder else root).list()
    return sorted({strip_compression(place.name) for place in listed})


def strip_compression(name: str) -> str:
    """``name`` without the suffix of a compression."""
    return name.rsplit(".", 1)[0] if name.endswith(COMPRESSED) else name


@lru_cache(maxsize=1 << 16)
def _hash_ends(place: Place, size: int, mtime_ns: int) -> str:
    with place.open() as file:
        digest = hashlib.sha256(file.read(BLOCK))
        if size > BLOCK:
            file.seek(max(BLOCK, size - BLOCK))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def _split_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []  # pieces of a line longer than a block, joined once
    for block in blocks:
        first, *others = block.split(b"\n")
        held.append(first)
        if others:
            yield b"".join(held)
            yield from others[:-1]
            held = [others[-1]]
    if any(held):
        yield b"".join(held)
