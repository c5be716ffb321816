"""Admission in Serve's HTTP proxy, the process that clients connect to, so that what is refused costs least.

A gateway refuses what it has no room for, but by then a request has passed two processes: measured, ten times the load
left a twentieth of the answers (``tests/benchmarks/bench_serving.py --without-front``). Here a refusal costs one.
Serve's proxies use this when Ray is started with

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.front:list_middlewares

in the environment, as ``python -m serving`` does where it starts Ray itself, with ``SHORT_PATH``. It holds for all
applications of the cluster. ``BABELRAY_IN_FLIGHT`` is how many requests each proxy lets in at a time,
``BABELRAY_BODY_S`` how many seconds a body may take.
"""

import os
import time
import uuid

from ray.util import metrics
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.admission import ARRIVAL, REQUEST_ID, Admission, read_request_id
from serving.messages import Limits

IMPORT_PATH = "serving.front:list_middlewares"
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IN_FLIGHT = "BABELRAY_IN_FLIGHT"
BODY_S = "BABELRAY_BODY_S"
# Serve's own settings. Its proxy calls a gateway by gRPC and not as an actor of Ray, and a replica answers on the loop
# that receives the call and not in a second thread: one client waits 11 to 22 % less (docs/serving.md). The last is the
# size of a message, in bytes: gRPC's default of 4 MiB is less than a thousand long documents.
SHORT_PATH = {
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(1 << 30),
}


def list_middlewares() -> list[Middleware]:
    """List what Serve's proxy puts in front of all applications."""
    in_flight = int(os.environ.get(IN_FLIGHT) or count_in_flight(Limits(), 1))
    body_s = float(os.environ.get(BODY_S) or Limits().body_s)
    return [Middleware(Front, limits=Limits(ongoing=in_flight, queued=0, body_s=body_s))]


def count_in_flight(limits: Limits, gateways: int) -> int:
    """How many requests ``gateways`` hold at a time, those that wait among them."""
    return gateways * (limits.ongoing + limits.queued)


def make_environment(limits: Limits, gateways: int) -> dict[str, str]:
    """What the environment of Ray must have so that its proxies let in what the gateways hold, and send it by
    ``SHORT_PATH``, of which it keeps what it has."""
    chosen = {name: os.environ[name] for name in SHORT_PATH if name in os.environ}
    in_flight = str(count_in_flight(limits, gateways))
    return {CALLBACK: IMPORT_PATH, IN_FLIGHT: in_flight, BODY_S: str(limits.body_s), **SHORT_PATH, **chosen}


class Front:
    """The middleware: reads bodies, lets in as many requests as gateways hold, names each, and says when it arrived."""

    def __init__(self, app: ASGIApp, limits: Limits):
        self.app = app
        self.admission = Admission(self._pass_on, lambda: limits)
        self.refused = metrics.Counter("babelray_refused", "Requests that Serve's proxy refused.", ("status",))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in (ARRIVAL, REQUEST_ID)]
        named = (REQUEST_ID, (read_request_id(scope) or uuid.uuid4().hex).encode("latin-1"))
        arrived = (ARRIVAL, repr(time.time()).encode())

        async def send_named(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            if is_start and not any(name.lower() == REQUEST_ID for name, _ in message["headers"]):  # not Serve's answer
                message["headers"] = [*message["headers"], named]
                if message["status"] >= 400:
                    self.refused.inc(1, {"status": str(message["status"])})
            await send(message)

        await self.admission({**scope, "headers": [*headers, named, arrived]}, receive, send_named)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
