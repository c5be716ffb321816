"""What operators see of a gateway: metrics in Ray's Prometheus format, and an access log of JSON lines.

    ray_babelray_requests_total              by route and status: one for each request
    ray_babelray_request_seconds_*           by route: from the arrival to the last byte
    ray_babelray_stage_seconds_*             by stage: encode, search, texts, and total
    ray_babelray_searches_total              by language that was searched
    ray_babelray_results_*                   results of a search
    ray_babelray_ongoing, _waiting           requests that have a place, and that wait for one, now

A line of the access log has ``time``, ``request_id``, ``method``, ``path``, ``status``, ``ms``, ``bytes`` and
``serves``; queries are not in it. What Serve's proxy refuses never comes here: ``serving.front`` counts it by status in
``ray_babelray_refused_total``.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ray.serve import metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.admission import Queue, find_path, read_request_id

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
RESULTS = [0.5, 1.5, 10.5, 100.5, 1000.5]
OTHER = "other"  # the label of all paths that are no route, so that clients cannot make series without end
LOG_BYTES, LOG_FILES = 64 << 20, 3


class Meters:
    """The series of one gateway."""

    def __init__(self) -> None:
        self.requests = metrics.Counter("babelray_requests", "Requests.", ("route", "status"))  # type: ignore[arg-type]
        self.seconds = metrics.Histogram("babelray_request_seconds", "Time of a request.", SECONDS, ("route",))
        self.stages = metrics.Histogram("babelray_stage_seconds", "Time of a stage of a search.", SECONDS, ("stage",))
        self.searches = metrics.Counter("babelray_searches", "Searches of a language.", ("language",))
        self.results = metrics.Histogram("babelray_results", "Results of a search.", RESULTS)
        self.ongoing = metrics.Gauge("babelray_ongoing", "Requests that are being answered.")
        self.waiting = metrics.Gauge("babelray_waiting", "Requests that wait for a place.")

    def count_search(self, took_ms: Mapping[str, float], languages: Iterable[str], results: int) -> None:
        """Count a search that was answered."""
        for stage, ms in took_ms.items():
            self.stages.observe(ms / 1000, {"stage": stage})
        for language in languages:
            self.searches.inc(1, {"language": language})
        self.results.observe(results)

    def count_request(self, route: str, status: int, seconds: float, queue: Queue) -> None:
        """Count a request whose response was sent."""
        self.requests.inc(1, {"route": route, "status": str(status)})
        self.seconds.observe(seconds, {"route": route})
        self.ongoing.set(queue.ongoing)
        self.waiting.set(len(queue.waiting))


def open_access_log(directory: Path, name: str) -> logging.Logger:
    """Open the access log of this process in ``directory``: at most 256 MiB, in four files."""
    logger = logging.getLogger(f"babelray.access.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        file = directory / f"access_{name}_{os.getpid()}.jsonl"
        logger.addHandler(RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"))
    return logger


class Observer:
    """ASGI middleware that counts every request and writes its line."""

    def __init__(self, app: ASGIApp, queue: Queue, meters: Meters, log: logging.Logger, routes: Iterable[str]):
        self.app, self.queue, self.meters, self.log = app, queue, meters, log
        self.routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, size, serves = time.perf_counter(), 499, 0, ""  # 499: the client left before the response

        async def send_counted(message: Message) -> None:
            nonlocal status, size, serves
            if message["type"] == "http.response.start":
                status = message["status"]
                serves = dict(message.get("headers", ())).get(b"x-babelray-serves", b"").decode()
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_counted)
        finally:
            path = find_path(scope)
            seconds = time.perf_counter() - start
            self.meters.count_request(path if path in self.routes else OTHER, status, seconds, self.queue)
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": read_request_id(scope),
                "method": scope["method"],
                "path": path,
                "status": status,
                "ms": round(1000 * seconds, 2),
                "bytes": size,
                "serves": serves,
            }
            self.log.info(json.dumps(line, ensure_ascii=False))
