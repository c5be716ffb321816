"""Which requests a gateway works on, which wait, and which it refuses at once, so that overload costs little.

An ASGI middleware in front of the application:

    GET /livez     200 while the process runs: restart it when this does not answer
    GET /readyz    200 when searches would be answered, else 503: send no users here
    GET            passed on: the page and the descriptions are cheap
    POST           its body is read, at most ``body_s`` seconds (408); then it waits for one of ``ongoing`` places, with
                   at most ``queued`` others (429) and no longer than a share of the time that it has (429)

The time limit of a request begins when it arrives here, so that waiting counts. A refused request costs no call to
another process, and a body that never comes takes no place from others.
"""

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.bodies import put_back, read_messages
from serving.messages import Limits, Problem, body_limit
from serving.problems import RefusalError, refuse_for_now, respond

# The header in which Serve's proxy tells a gateway when a request arrived, by time.time().
ARRIVAL = b"x-babelray-arrival"
REQUEST_ID = b"x-request-id"  # it names a request in the logs of everything that it passes
MAX_REQUEST_ID = 128
WAIT_SHARE = 0.4  # of its time limit, what a request may wait for a place; the rest is for the work
# When the request that is being answered arrived, by time.perf_counter().
arrival: ContextVar[float] = ContextVar("arrival")


class Readiness(NamedTuple):
    """Whether searches would be answered, and in a few words why not."""

    is_ready: bool
    reason: str = ""
    serves: str = ""  # the editions


class Queue:
    """Places for requests that are worked on, and those that wait, first come first served."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.mean_s = 0.1  # how long a request lately kept its place

    async def enter(self, limits: Limits, deadline: float) -> None:
        """Take a place, or wait for one until ``deadline``, a time of ``perf_counter``; else raise RefusalError."""
        if self.ongoing < limits.ongoing and not self.waiting:
            self.ongoing += 1
            return
        if len(self.waiting) >= limits.queued:
            raise self._refuse(limits, f"{self.ongoing} requests are being answered and {len(self.waiting)} wait")
        place = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        try:
            # not wait_for: in Python 3.11 it forgets that it was cancelled where the place is given in the same moment
            async with asyncio.timeout(max(deadline - time.perf_counter(), 0)):
                await place
        except TimeoutError:
            self._give_up(place, limits)
            raise self._refuse(limits, "no place became free in the time that a request may wait") from None
        except asyncio.CancelledError:  # the client has gone
            self._give_up(place, limits)
            raise

    def leave(self, limits: Limits, took_s: float) -> None:
        """Give a place back, and to the one that has waited longest."""
        self.mean_s += 0.1 * (took_s - self.mean_s)
        self.ongoing -= 1
        self._admit(limits)

    def _admit(self, limits: Limits) -> None:
        while self.waiting and self.ongoing < limits.ongoing:
            place = self.waiting.popleft()
            if not place.done():
                self.ongoing += 1
                place.set_result(None)

    def _give_up(self, place: "asyncio.Future[None]", limits: Limits) -> None:
        """Leave the queue; give the place back where it was given in the same moment."""
        if place in self.waiting:
            self.waiting.remove(place)
        elif place.done() and not place.cancelled():
            self.ongoing -= 1
            self._admit(limits)

    def _refuse(self, limits: Limits, what: str) -> RefusalError:
        ahead = len(self.waiting) + 1
        retry_after_s = max(1, math.ceil(ahead * self.mean_s / limits.ongoing))
        return refuse_for_now(429, f"the server is busy: {what}; try again after {retry_after_s} s", retry_after_s)


class Admission:
    """The middleware. ``limits`` and ``readiness`` are asked anew by every request, since what is served may change.

    Without ``readiness`` every request is passed on, ``/readyz`` too: something behind this one knows it.
    """

    def __init__(self, app: ASGIApp, limits: Callable[[], Limits], readiness: Callable[[], Readiness] | None = None):
        self.app, self.limits, self.readiness = app, limits, readiness
        self.queue = Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _start_and_end(receive, send)
            return
        path = find_path(scope)
        if path == "/livez":
            await send_json(send, 200, {"status": "alive"})
        elif path == "/readyz" and self.readiness:
            await _send_readiness(self.readiness(), send)
        else:
            arrival.set(_find_arrival(scope))
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits, start = self.limits(), arrival.get()
        try:
            if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                self._check_ready()
                await self.app(scope, receive, send)
                return
            until = time.perf_counter() + limits.body_s
            receive = await _read_body(receive, until, limits, body_limit(find_path(scope)))
            self._check_ready()
            await self.queue.enter(limits, start + WAIT_SHARE * limits.timeout_s)
        except RefusalError as refusal:
            await respond(refusal.status, refusal.problem, refusal.headers)(scope, receive, send)
            return
        entered = time.perf_counter()
        try:
            await self.app(scope, receive, send)
        finally:
            self.queue.leave(limits, time.perf_counter() - entered)

    def _check_ready(self) -> None:
        state = self.readiness() if self.readiness else None
        if state and not state.serves:
            raise refuse_for_now(503, f"not ready: {state.reason}; try again", 1)


def find_path(scope: Scope) -> str:
    """The path of a request below the route prefix of its application."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "").rstrip("/")) or "/"


def read_request_id(scope: Scope) -> str:
    """The request's id, shortened; empty where there is none."""
    return str(dict(scope["headers"]).get(REQUEST_ID, b"").decode("latin-1")[:MAX_REQUEST_ID])


def _find_arrival(scope: Scope) -> float:
    """When a request arrived, by ``perf_counter``: now, or earlier where a proxy says so."""
    said = dict(scope["headers"]).get(ARRIVAL)
    try:
        ago = max(time.time() - float(said), 0) if said else 0.0
    except ValueError:  # a client wrote it
        ago = 0.0
    return time.perf_counter() - ago


async def _send_readiness(state: Readiness, send: Send) -> None:
    if state.is_ready:
        await send_json(send, 200, {"status": "ready", "serves": state.serves})
    else:
        await send_json(send, 503, Problem(error=f"not ready: {state.reason}").model_dump(), retry_after_s=1)


async def _read_body(receive: Receive, deadline: float, limits: Limits, size_limit: int) -> Receive:
    """Read a body, or the first ``size_limit`` bytes of a longer one. Returns a ``receive`` that begins with these.

    Raises:
        RefusalError: 408, the body was not there at ``deadline``, a time of ``perf_counter``.
    """
    size = 0

    async def receive_in_time() -> Message:
        nonlocal size
        try:
            async with asyncio.timeout(max(deadline - time.perf_counter(), 0)):
                message = await receive()
        except TimeoutError:
            raise refuse_for_now(
                408, f"body: expected all of it within {limits.body_s:g} s, got {size:,} bytes; send it again", 1
            ) from None
        size += len(message.get("body", b""))
        return message

    return put_back(await read_messages(receive_in_time, size_limit), receive)


async def _start_and_end(receive: Receive, send: Send) -> None:
    """Answer ASGI's messages of start and end: there is nothing to open or close."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})


async def send_json(send: Send, status: int, body: object, retry_after_s: int | None = None) -> None:
    """Send a response whose body is ``body`` as JSON, in the form that all others have."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
