"""Reading an index directory of fast-plaid 1.7, as fast-plaid has built it or as ``interchange`` has written it.

    metadata.json            nbits, num_chunks, num_documents, num_embeddings
    doclens.<n>.json         tokens of each of its documents, which are passages here
    <n>.codes.npy            cells, and <n>.residuals.npy, packed; or, once fast-plaid has opened the index, all of them
                             in merged_codes.npy and merged_residuals.npy, with rows behind the last that mean nothing
    centroids.npy …          the codec, of float16 or float32
    passages.tsv             not fast-plaid's: the document of each passage, a line for each

Its inverted lists are not read: they are made again from the codes. Everything else is checked before it is used.
Arrays are memory-mapped; memory holds a few numbers and the name of each passage.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import StepError
from pipelines.indexes.files import Stack
from pipelines.indexes.plaid.codec import Codec
from pipelines.indexes.plaid.interchange import PASSAGES
from pipelines.vectors import FloatArray, IntArray

BLOCK = 1 << 22  # codes that are looked at at a time
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<|][fiu][1248])',\s*'fortran_order':\s*False,\s*'shape':\s*\(([0-9, ]*)\),?\s*\}\s*"
)


@dataclass(frozen=True)
class FastPlaidIndex:
    """What an index directory holds: the codec, and of each passage its document, tokens, codes and residuals."""

    codec: Codec
    names: list[str]
    tokens_P: IntArray
    codes_T: Stack
    residuals_TW: Stack


def read_fast_plaid(directory: Path) -> FastPlaidIndex:
    """Open and check an index directory. Raises StepError, with the file and what was expected of it."""
    try:
        facts = _read_json(directory / "metadata.json", dict)
        bits, chunks = _read_count(facts, "nbits"), _read_count(facts, "num_chunks")
        if bits not in (1, 2, 4):
            raise ValueError(f"metadata.json: expected nbits of 1, 2 or 4, got {bits}")
        if not chunks:
            raise ValueError("metadata.json: expected at least 1 of num_chunks")
        lengths = [_read_lengths(directory / f"doclens.{number}.json") for number in range(chunks)]
        tokens_P = np.concatenate([np.zeros(0, np.int64), *lengths])
        codec = _read_codec(directory, bits)
        counts = [int(some.sum()) for some in lengths]
        codes = _read_rows(directory, "codes", counts, ())
        residuals = _read_rows(directory, "residuals", counts, (codec.dim * bits // 8,))
        for name, found in (("num_documents", len(tokens_P)), ("num_embeddings", int(tokens_P.sum()))):
            if _read_count(facts, name) != found:
                raise ValueError(f"metadata.json: {name} is {facts[name]}, expected {found} as in doclens")
        for array in codes:
            _check_codes(array, len(codec.centroids_CN))
        return FastPlaidIndex(
            codec, _read_names(directory / PASSAGES, len(tokens_P)), tokens_P, Stack(codes), Stack(residuals)
        )
    except (ValueError, OSError, RecursionError) as error:
        raise StepError(
            f"{directory.name} is not an index of fast-plaid 1.7 that can be read, or is damaged: {error}. "
            "Build it again, or export it again"
        ) from error


def _read_codec(directory: Path, bits: int) -> Codec:
    centroids_CN = _read_numbers(directory / "centroids.npy")
    cutoffs, weights = (_read_numbers(directory / f"bucket_{name}.npy") for name in ("cutoffs", "weights"))
    if centroids_CN.ndim != 2 or not centroids_CN.size or centroids_CN.shape[1] * bits % 8:
        raise ValueError(f"centroids.npy: expected cells × dim of whole bytes, got {centroids_CN.shape} at {bits} bits")
    for name, values, count in (("cutoffs", cutoffs, (1 << bits) - 1), ("weights", weights, 1 << bits)):
        if values.shape != (count,) or np.any(np.diff(values) < 0):
            raise ValueError(f"bucket_{name}.npy: expected {count} rising numbers, got {values.shape}")
    dim = centroids_CN.shape[1]
    average = _read_numbers(directory / "avg_residual.npy")
    if average.size not in (1, dim):
        raise ValueError(f"avg_residual.npy: expected 1 or {dim} numbers, got {average.shape}")
    spread = _read_numbers(directory / "cluster_threshold.npy")
    if spread.size != 1:
        raise ValueError(f"cluster_threshold.npy: expected 1 number, got {spread.shape}")
    return Codec(
        centroids_CN.astype(np.float16).astype(np.float32),
        cutoffs,
        weights,
        np.broadcast_to(average.ravel(), (dim,)).copy(),
        float(spread.ravel()[0]),
    )


def _read_rows(directory: Path, name: str, counts: list[int], width: tuple[int, ...]) -> list[np.ndarray]:
    """The rows of all chunks, of files for each or of the one into which fast-plaid has moved them."""
    merged = directory / f"merged_{name}.npy"
    files = [directory / f"{number}.{name}.npy" for number in range(len(counts))]
    if merged.is_file():
        if any(file.is_file() for file in files):
            raise ValueError(f"{merged.name} and {name} of chunks: let fast-plaid open the index once, to merge them")
        files, counts = [merged], [sum(counts)]
    arrays = [_map(file) for file in files]
    for file, array, count in zip(files, arrays, counts, strict=True):
        enough = len(array) >= count if file == merged else len(array) == count
        if array.dtype.kind not in "iu" or array.shape[1:] != width or not enough:
            raise ValueError(f"{file.name}: expected integers of {(count, *width)}, got {array.dtype} {array.shape}")
        if name == "residuals" and array.dtype != np.uint8:
            raise ValueError(f"{file.name}: expected bytes, got {array.dtype}")
    return [array[:count] for array, count in zip(arrays, counts, strict=True)]


def _check_codes(codes_T: IntArray, cells: int) -> None:
    for start in range(0, len(codes_T), BLOCK):
        some = codes_T[start : start + BLOCK]
        if some.min() < 0 or some.max() >= cells:
            raise ValueError(f"codes name cells {some.min()} to {some.max()}, expected 0 to {cells - 1}")


def _read_names(file: Path, passages: int) -> list[str]:
    if not file.is_file():
        raise ValueError(
            f"{file.name} is missing: fast-plaid keeps no ids; write the document of each of its {passages} documents "
            "there, in the order in which they were indexed, a line for each"
        )
    names = file.read_bytes().decode().removesuffix("\n").split("\n") if passages else []
    if len(names) != passages or "" in names:
        raise ValueError(f"{file.name}: expected {passages} lines, none of them empty, got {len(names)}")
    ends = [name for name, after in zip(names, [*names[1:], None], strict=True) if name != after]
    if len(ends) != len(set(ends)):
        raise ValueError(f"{file.name}: passages of one document are not one after another")
    return names


def _read_lengths(file: Path) -> IntArray:
    lengths = _read_json(file, list)
    if not all(isinstance(length, int) and 0 < length < 1 << 31 for length in lengths):
        raise ValueError(f"{file.name}: expected a list of numbers of tokens, each at least 1")
    return np.array(lengths, np.int64)


def _read_json(file: Path, kind: type) -> Any:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{file.name}: expected a {kind.__name__}, got a {type(content).__name__}")
    return content


def _read_count(facts: dict[str, Any], name: str) -> int:
    if not isinstance(count := facts.get(name), int) or not 0 <= count < 1 << 48:
        raise ValueError(f"metadata.json: expected a number {name}, got {count!r}")
    return count


def _read_numbers(file: Path) -> FloatArray:
    """A small array of finite floats, as float32."""
    array = _map(file)
    if array.dtype.kind != "f" or not np.isfinite(array.astype(np.float32)).all():
        raise ValueError(f"{file.name}: expected finite floats, got {array.dtype}")
    return array.astype(np.float32)


def _map(file: Path) -> np.ndarray:
    """Map a ``.npy`` file of numbers. Its header must be a plain one that gives the file's own size: numpy's reader
    evaluates headers, and fails in many ways."""
    with file.open("rb") as content:
        start = content.read(12)
        wide = start[6:7] == b"\x02"
        length = int.from_bytes(start[8 : 12 if wide else 10], "little")
        begin = (12 if wide else 10) + length
        content.seek(begin - length)
        header = _HEADER.fullmatch(content.read(min(length, 1 << 16)))
    if start[:6] != b"\x93NUMPY" or not header:
        raise ValueError(f"{file.name} does not begin as an array of numbers")
    kind = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[2].decode().replace(" ", "").split(",") if size)
    size = kind.itemsize
    for count in shape:
        size *= count
    if file.stat().st_size != begin + size:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes, expected {begin + size:,}")
    return np.asarray(np.memmap(file, kind, "r", begin, shape)) if size else np.zeros(shape, kind)
