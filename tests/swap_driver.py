"""A process that starts, replaces and ends servers on a Ray of its own when told to. Tests only send requests."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from artifacts import table_artifact
from cluster.errors import BabelrayError
from conftest import free_port
from pipelines.indexes import Bm25
from pipelines.tables import DOCS
from serving.access import OPEN_TO_ALL
from serving.app import Scale, Served
from serving.messages import Limits
from serving.swap import Server
from serving_apps import build_small_index

LIMITS = Limits(max_query_chars=200, ongoing=4, queued=8)
WORDS = ("copper", "silver", "amber", "linen", "cedar", "olive")


def make_system(root: Path, number: int, documents: int, more: Sequence[str] = ()) -> Served:
    """Build a BM25 system of two shards. A system of another number has other texts, with other scores. ``more`` are
    texts of further documents in each language."""
    docs = {}
    for lang in ("en", "fa"):
        texts = [
            f"{WORDS[n % 6]} {'road ' * ((n + number) % 5)} {WORDS[(n + number) % 6]} of {number}"
            for n in range(documents)
        ]
        texts += more
        rows = [{"doc_id": f"d{n}", "lang": lang, "title": f"{number}", "text": text} for n, text in enumerate(texts)]
        docs[lang] = table_artifact(root / f"docs-{lang}@{number}", DOCS, rows)
    index = build_small_index(root / f"index-bm25@{number}", Bm25(), {"docs": docs}, shard_rows=documents + len(more))
    return Served("tiny", f"bm25-{number}", index, docs, examples=("copper road", "olive"))


@dataclass
class Driver:
    """The process. ``ask`` names a function of ``serving.swap`` and its arguments."""

    connection: Connection
    process: Any
    base: str
    pid: int

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Let the process do something. Returns what it returned; raises what it raised."""
        self.send(verb, *arguments)
        return self.receive()

    def send(self, verb: str, *arguments: Any) -> None:
        """Tell the process to do something, and do not wait for it."""
        self.connection.send((verb, arguments))

    def receive(self) -> Any:
        """Wait until what was sent is done."""
        result = self.connection.recv()
        if isinstance(result, Exception):
            raise result
        return result


@contextmanager
def start_driver(with_front: bool = True) -> Iterator[Driver]:
    """Start Ray and Serve in a process, and end both with it. ``with_front``: its proxy refuses what has no room."""
    context = multiprocessing.get_context("spawn")
    connection, other = context.Pipe()
    port = free_port()
    process = context.Process(target=_drive, args=(other, port, with_front))
    process.start()
    other.close()
    try:
        yield Driver(connection, process, f"http://127.0.0.1:{port}", connection.recv())
    finally:
        connection.close()
        process.join(60)


def small(**changes: Any) -> Server:
    """A server that fits two cores."""
    return replace(Server(scale=Scale(cpus=0.01), limits=LIMITS, check_s=20), **changes)


def _drive(connection: Connection, port: int, with_front: bool = True) -> None:
    import ray
    from ray import serve

    from serving import swap
    from serving.front import make_environment

    verbs: Mapping[str, Any] = {
        "start": lambda server, served, may_replace: swap.start(server, served, may_replace, print),
        "end": swap.end,
        "list": lambda: sorted(serve.status().applications),
        "report": lambda server: [report._asdict() for report in swap.ask_gateways(server.name)],
    }
    if with_front:
        os.environ.update(make_environment(LIMITS, gateways=1))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        connection.send(os.getpid())
        while True:
            verb, arguments = connection.recv()  # EOFError: the test is over
            try:
                connection.send(verbs[verb](*arguments))
            except BabelrayError as error:
                connection.send(error)
    except EOFError:
        pass
    finally:
        serve.shutdown()
        ray.shutdown()


@contextmanager
def start_server(served: Served, port: int) -> Iterator[Any]:
    """Serve by ``serving.__main__.run_server`` in a process of its own. Yields the process."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(served, port))
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join(60)


def _serve(served: Served, port: int) -> None:
    from serving.__main__ import run_server

    os.environ.pop("RAY_ADDRESS", None)
    run_server([served], (Scale(cpus=0.01), LIMITS), ("127.0.0.1", port), OPEN_TO_ALL, replace=False)
