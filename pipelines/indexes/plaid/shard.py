"""The files of a PLAID shard, and which shards are refused.

    centroids.npy …        the codec (``pipelines.indexes.plaid.codec``), the same in all shards of an index
    docs.arrow tokens.npy  ids, passages per document, tokens per passage
    codes.npy              the cell of each token: 2 bytes where so many suffice, else 4
    residuals.npy          what is left of each token without its centroid, packed
    lists.npy              the passages of each cell, packed (``pipelines.indexes.plaid.lists``)
    list_bytes.npy         how many bytes the list of each cell takes
    shard.json             put last: the version of this layout, the codec's digest, and of each file its size, and the
                           digest of those that are small

Kernels read by address, so what they follow is checked when a shard is opened: sizes, digests of the small files (a
tenth of all bytes), and that codes and lists stay below the numbers of cells and passages. That reads a tenth of the
residuals' bytes again; a residual that was changed on the disk is not noticed, and changes a score.
"""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import StepError
from pipelines.indexes.files import offsets
from pipelines.indexes.plaid.codec import FILES, Codec
from pipelines.vectors import IntArray

CODES, RESIDUALS, LISTS, LIST_BYTES = "codes.npy", "residuals.npy", "lists.npy", "list_bytes.npy"
LARGE = (CODES, RESIDUALS, LISTS)  # no digest of these
BLOCK = 1 << 22  # codes that are looked at at a time
AGAIN = "build the index again"


def describe(directory: Path, version: int) -> dict[str, Any]:
    """What ``shard.json`` says of the files of a shard that is written but for it."""
    files = {file.name: _identify(file) for file in sorted(directory.iterdir())}
    return {"version": version, "codec": _digest_codec(files), "files": files}


def open_files(directory: Path, codec: Codec, passages: int, tokens: int) -> list[np.ndarray]:
    """Codes, residuals, where the list of each cell starts, the lists: memory-mapped, of a shard that was checked.

    Raises:
        StepError: an array has another type or shape than codec and counts ask for, or numbers that nothing has.
    """
    cells = len(codec.centroids_CN)
    code_type = choose_code_type(cells)
    try:
        starts_C1 = offsets(_load(directory / LIST_BYTES, "<i4", (cells,)))
        codes = _load(directory / CODES, code_type, (tokens,))
        residuals = _load(directory / RESIDUALS, "|u1", (tokens, codec.dim * codec.bits // 8))
        lists = _load(directory / LISTS, "|u1", (int(starts_C1[-1]),))
        _check_numbers(codes, cells, lists, starts_C1, passages)
    except ValueError as error:
        raise StepError(f"shard {directory.name} is damaged: {error}: {AGAIN}") from error
    return [codes, residuals, starts_C1, lists]


def check_shards(directories: list[Path], version: int) -> None:
    """Check the files of finished shards that are to be searched together.

    Raises:
        StepError: a shard has another version, another codec than the first, a file that is missing or was changed.
    """
    codecs = {directory: _check_shard(directory, version) for directory in directories}
    for directory, codec in codecs.items():
        if codec != codecs[directories[0]]:
            raise StepError(
                f"shards {directories[0].name} and {directory.name} have different codecs, so their scores cannot be "
                f"compared: expected shards of one index; {AGAIN}"
            )


def choose_code_type(cells: int) -> str:
    """As narrow as the number of cells allows."""
    return "<u2" if cells <= 1 << 16 else "<i4"


def _check_shard(directory: Path, version: int) -> str:
    """Check the files of a shard; the digest of its codec."""
    try:
        facts = json.loads((directory / "shard.json").read_bytes())
        found, files = facts.get("version", 2), facts.get("files", {})
        if found != version:
            raise StepError(f"shard {directory.name} has version {found} of PLAID's files, expected {version}: {AGAIN}")
        wanted = {f"{name}.npy" for name in FILES} | {"docs.arrow", "tokens.npy", LIST_BYTES, *LARGE}
        if set(files) != wanted:
            raise ValueError(f"shard.json lists {sorted(files)}, expected {sorted(wanted)}")
        for name, (size, digest) in files.items():
            is_there = (directory / name).is_file()
            actual = _identify(directory / name) if is_there else [0, ""]
            if not is_there or actual[0] != size:
                raise ValueError(f"{name} has {actual[0]:,} bytes, expected {size:,}")
            if actual[1] != digest:
                raise ValueError(f"{name} is not the file that was written")
        if _digest_codec(files) != facts["codec"]:
            raise ValueError("shard.json names another codec than its files are")
        return str(facts["codec"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"shard {directory.name} is damaged: {error}: {AGAIN}") from error


def _identify(file: Path) -> list[Any]:
    """The bytes of a file, and its digest where it is small."""
    digest = "" if file.name in LARGE else hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return [file.stat().st_size, digest]


def _digest_codec(files: dict[str, list[Any]]) -> str:
    digests = "".join(str(files[f"{name}.npy"][1]) for name in FILES)
    return hashlib.blake2b(digests.encode(), digest_size=8).hexdigest()


def _load(file: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Map an array of this type and shape. Its header must be the one that was written: numpy's reader of headers
    fails in many ways."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    if not np.prod(shape):
        return np.zeros(shape, kind)
    with file.open("rb") as content:
        if content.read(header.tell()) != header.getvalue():
            raise ValueError(f"{file.name} does not begin as an array of {kind} {shape} does")
    return np.asarray(np.memmap(file, kind, "r", header.tell(), shape))


def _check_numbers(codes: IntArray, cells: int, lists: IntArray, starts_C1: IntArray, passages: int) -> None:
    """Raise ValueError where a code names no cell, or a list no passage."""
    from pipelines.indexes.plaid.lists import unpack_lists

    if np.any(np.diff(starts_C1) < 0):
        raise ValueError(f"{LIST_BYTES} has a negative number")
    for start in range(0, len(codes), BLOCK):
        some = codes[start : start + BLOCK]
        if some.max() >= cells or some.min() < 0:
            raise ValueError(f"{CODES} names cell {max(some.max(), -some.min())}, expected cells below {cells}")
    for _ in unpack_lists(lists, starts_C1, passages):
        pass
