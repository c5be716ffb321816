"""Source files for tests: written by name, compressed by their suffix, and read back as rows and rejects."""

import bz2
import gzip


def write(root, files):
    """Write the files below ``root`` and return it as a string."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        raw = content if isinstance(content, bytes) else content.encode()
        raw = gzip.compress(raw) if name.endswith(".gz") else raw
        file.write_bytes(bz2.compress(raw) if name.endswith(".bz2") else raw)
    return str(root)


def rows(entries):
    """The rows of the good entries."""
    return [entry.row for entry in entries if not entry.reject]


def rejects(entries):
    """Where and why, of the others."""
    return [(entry.where, entry.reject) for entry in entries if entry.reject]
