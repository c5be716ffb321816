"""Progress: one line per step, with rows, rows/s, rejects and time left. Plain in a log; on a terminal what is finished
scrolls away above a few live lines of what runs. Steps run in several threads, so every method locks.

A step that is one long piece of work writes to ``progress.json`` below its directory how far it is: training
``{"done": 120, "total": 400, "note": "loss 0.31"}``, ingest ``{"rows": 20000, "rejects": 3}``. A thread reads it while
the step runs, and ``status`` after a run was stopped.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.artifact import Manifest
from cluster.errors import StorageError
from cluster.storage import Place

log = logging.getLogger("babelray")
PROGRESS = "progress.json"
POLL_SECONDS = 1.0
LOG_SECONDS = 15.0  # between two lines of a running step in a log


@dataclass
class _Line:
    place: Place
    total: int | None
    first: int
    done: int
    rejects: int = 0
    note: str = ""
    seconds: float | None = None
    started: float = field(default_factory=time.monotonic)
    logged: float = field(default_factory=time.monotonic)


class Progress:
    """Shows the steps of a run as they go. Use ``with progress.plan(names)`` around the run."""

    def __init__(self, console: Any = None):
        self.console = console  # a rich Console on a terminal; None writes plain log lines
        self.lines: dict[str, _Line] = {}
        self.waiting: dict[str, None] = {}  # an ordered set
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._live: Any = None

    @contextmanager
    def plan(self, names: Sequence[str]) -> Iterator[None]:
        """Show these steps until the block ends."""
        self.lines, self.waiting = {}, dict.fromkeys(names)
        if not names:
            yield
            return
        self._stop.clear()
        watcher = threading.Thread(target=self._watch, daemon=True, name="progress")
        if self.console is not None and self.console.is_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        watcher.start()
        try:
            yield
        finally:
            self._stop.set()
            watcher.join()
            if self._live is not None:
                self._live.stop()
                self._live = None

    def start(self, step: str, total: int | None, done: int, place: Place) -> None:
        """A step begins, with ``done`` rows of an earlier run."""
        with self._lock:
            self.waiting.pop(step, None)
            self.lines[step] = _Line(place, total, done, done)
        if done:
            self._log(f"{step}: goes on, {done:,} rows are there")

    def advance(self, step: str, rows: int, rejects: int) -> None:
        """More rows of a step are written."""
        with self._lock:
            line = self.lines[step]
            line.done += rows
            line.rejects += rejects
            self._maybe_log(step, line)

    def note(self, step: str, text: str) -> None:
        """Say what a step without rows is doing."""
        with self._lock:
            self.lines[step].note = text
            self._maybe_log(step, self.lines[step])

    def skip(self, step: str) -> None:
        """Another driver has completed a step."""
        with self._lock:
            self.waiting.pop(step, None)
            self.lines.pop(step, None)
        self._log(f"{step}: done by another run")

    def say(self, text: str) -> None:
        """A line of its own that the user must see at once."""
        if self._live is None:
            log.warning(text)
        else:
            self._live.console.print(text, style="yellow", markup=False, highlight=False)

    def finish(self, step: str, manifest: Manifest) -> None:
        """A step's artifact is complete."""
        with self._lock:
            line = self.lines[step]
            line.seconds = time.monotonic() - line.started
            line.done, line.total = manifest.rows, manifest.rows or None
            line.rejects = sum(r.count for r in manifest.rejects.values())
            line.note = str(manifest.facts.get("summary", ""))
        if self._live is None:
            log.info(f"{step}: done{_text(line)}")
        else:
            from rich.text import Text

            said = Text.assemble(("✓ ", "green"), self._named(step), _text(line))
            self._live.console.print(said, highlight=False)

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            with self._lock:
                running = [(s, line) for s, line in self.lines.items() if line.seconds is None and line.total is None]
            for step, line in running:
                self._show_file(step, line)

    def _show_file(self, step: str, line: _Line) -> None:
        """Take over what the step has written about itself."""
        written = read_progress(line.place)
        with self._lock:
            if not written or line.seconds is not None:
                return
            if "rows" in written:
                line.done, line.rejects = written["rows"], written["rejects"]
            else:
                left = written.get("seconds_left")
                counts = f"{written['done']:,}/{written['total']:,}" if "done" in written else ""
                note = f"{counts} {written.get('note', '')}"
                line.note = (note + (f", {span(left)} left" if left is not None else "")).strip()
            self._maybe_log(step, line)

    def _maybe_log(self, step: str, line: _Line) -> None:
        if line.done != line.total and time.monotonic() - line.logged >= LOG_SECONDS:
            line.logged = time.monotonic()
            self._log(f"{step}:{_text(line)}")

    def _log(self, text: str) -> None:
        if self._live is None:
            log.info(text)

    def _table(self) -> Any:
        """The running steps, as many as the terminal has lines for."""
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        with self._lock:
            running = [(step, line) for step, line in self.lines.items() if line.seconds is None]
        shown = running[: max(1, self.console.height - 3)]
        for step, line in shown:
            table.add_row(Spinner("dots"), self._named(step), Text(_text(line).strip()))
        if more := len(running) - len(shown) + len(self.waiting):
            table.add_row("", Text(f"{more} more to come", style="dim"), "")
        return table

    @staticmethod
    def _named(step: str) -> Any:
        from rich.text import Text

        name, _, digits = step.partition("@")
        return Text.assemble(name, (f"@{digits}", "dim"))


def read_progress(place: Place) -> dict[str, Any]:
    """What a step last wrote to its ``progress.json``; empty where it wrote none, or it cannot be read just now."""
    try:
        written: dict[str, Any] = json.loads((place / PROGRESS).read())
    except (StorageError, ValueError):  # a step need not write any; it may be replaced while it is read
        return {}
    return written


def _text(line: _Line) -> str:
    """`` 1,200/8,000 rows, 310 rows/s, 2 rejected, 0:22 left``."""
    spent = line.seconds if line.seconds is not None else time.monotonic() - line.started
    parts = []
    if line.total is not None or line.done:
        of = f"/{line.total:,}" if line.total is not None and line.seconds is None else ""
        parts.append(f"{line.done:,}{of} rows")
        rate = (line.done - line.first) / max(spent, 1e-9)
        if rate > 0:
            parts.append(f"{rate:,.0f} rows/s")
        if line.rejects:
            parts.append(f"{line.rejects:,} rejected")
        if line.seconds is None and line.total is not None and rate > 0:
            parts.append(f"{span((line.total - line.done) / rate)} left")
    if line.note:
        parts.append(line.note)
    parts.append(span(spent))
    return " " + ", ".join(parts)


def span(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:04:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
