"""Answers that were paid for, kept on this node until their part is done.

A part whose worker dies, or of which one row ends the run, is done again; what was answered before is found here and
not asked for a second time. A file holds the answers to the questions of one part, a line each, and goes when the next
part begins. One that nobody comes back for goes after a week.
"""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.nodecache import cache_directory
from pipelines.generation import Generated

Question = tuple[str, int]  # a prompt and its limit of tokens
KEPT_S = 7 * 24 * 3600


class Answers:
    """The answers so far to the questions of one part; ``asker`` identifies the model and its options."""

    def __init__(self, asker: str, questions: Sequence[Question]) -> None:
        folder = cache_directory() / "answers"
        folder.mkdir(parents=True, exist_ok=True)
        _drop_old(folder)
        self._file = folder / f"{_digest([asker, *questions])[:32]}.jsonl"
        self._answers: dict[str, Generated] = {}
        self._lock = threading.Lock()
        if self._file.exists():
            self._read()

    def get(self, question: Question) -> Generated | None:
        """The answer, where there is one."""
        return self._answers.get(_digest(question))

    def keep(self, question: Question, answer: Generated) -> None:
        """Add an answer, for this process and those after it."""
        digest = _digest(question)
        line = json.dumps([digest, *answer]) + "\n"
        with self._lock:
            self._answers[digest] = answer
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)

    def is_of(self, other: "Answers") -> bool:
        """Whether both are of the same part."""
        return self._file == other._file

    def drop(self) -> None:
        """Delete the file: the part is done."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> None:
        lines = self._file.read_text("utf-8").split("\n")
        if lines[-1]:  # a process was killed while it wrote this line
            self._file.write_text("\n".join([*lines[:-1], ""]), "utf-8")
        for line in lines[:-1]:
            digest, *answer = json.loads(line)
            self._answers[digest] = Generated(*answer)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _drop_old(folder: Path) -> None:
    for file in folder.glob("*.jsonl"):
        try:
            if time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()
        except FileNotFoundError:  # another process was faster
            continue
