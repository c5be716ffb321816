"""Things made once per node and found again: copies of artifacts, converted models, statistics of a collection.

They are derived from what never changes, named by a hash of it, and may be deleted at any time. The first process on a
node makes the thing under a lock; the others wait and find it. ``BABELRAY_CACHE`` names the directory.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the path ``<cache>/<kind>/<hash of key>``; when it is not there, ``make(path)`` writes it first.

    ``make`` gets a path where nothing is yet and writes a file or a directory there; it is renamed into place when
    done, so a killed process leaves nothing half made.
    """
    cache = Path(os.environ.get("BABELRAY_CACHE") or Path(tempfile.gettempdir()) / f"babelray-{os.getuid()}")
    target = cache / kind / hashlib.sha256(key.encode()).hexdigest()[:16]
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            draft = target.with_suffix(".tmp")
            shutil.rmtree(draft, ignore_errors=True)
            draft.unlink(missing_ok=True)
            make(draft)
            os.replace(draft, target)
    return target
