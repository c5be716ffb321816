"""The files of a model directory: whether all are there, and the digest that identifies them."""

import hashlib
import json
from pathlib import Path

from cluster.nodecache import cached

CONFIGS = ("config.json", "modules.json")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.pt")


def digest(directory: Path) -> str:
    """``sha256:`` and the digest of every file's relative name, size and bytes: the same wherever the directory is.

    Hidden files are left out: download tools keep times there. Reading takes about 1 s per GB, once per node: a
    directory is read again when a name, size or time of change in it is another.
    """
    directory = directory.resolve()
    listing = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in _files(directory)]
    key = repr((str(directory), listing))
    return cached("digests", key, lambda out: _write_digest(directory, out)).read_text("utf-8")


def find_missing(directory: Path) -> str:
    """What a directory lacks to be a model, in words that follow "it has"; "" where it seems whole."""
    if not directory.is_dir():
        return "nothing: no such directory"
    if not any((directory / name).is_file() for name in CONFIGS):
        return f"no {' or '.join(CONFIGS)}"
    if not any(next(directory.rglob(pattern), None) for pattern in WEIGHTS):
        return f"no weights ({', '.join(WEIGHTS)})"
    for index in sorted(directory.rglob("*.index.json")):
        try:
            shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError):
            return f"{index.name} damaged"
        if absent := [shard for shard in shards if not (index.parent / shard).is_file()]:
            return f"not all {len(shards)} weight files that {index.name} lists; absent: {', '.join(absent[:3])}"
    return ""


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _files(directory: Path) -> list[tuple[str, Path]]:
    files = ((path.relative_to(directory), path) for path in directory.rglob("*") if path.is_file())
    return sorted(
        (name.as_posix(), path) for name, path in files if not any(part.startswith(".") for part in name.parts)
    )


def _write_digest(directory: Path, out: Path) -> None:
    lines = [[name, path.stat().st_size, sha256(path)] for name, path in _files(directory)]
    out.write_text("sha256:" + hashlib.sha256(json.dumps(lines).encode()).hexdigest(), "utf-8")
