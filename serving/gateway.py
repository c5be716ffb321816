"""The gateway deployment: receives HTTP requests, and sends each to the parts of one fingerprint.

Gateways are an application of their own, which stays when what is served changes. Their ``user_config`` names the
applications of parts to serve, best first:

    {"serves": ["babelray-1f0c5a2b7d9e", "babelray-93ab04c1de77"]}

A gateway changes to the first one as soon as all its parts answer and it has answered the recipe's example queries. The
change is one assignment: a request that has begun is answered by the parts that it began with, and the next one by the
new ones. What cannot be opened is tried again every second, and the gateway goes on with what it serves.

In the same way it changes to another list of the index's segments, once the parts have opened it beside the one before.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ray import serve
from ray.serve._private.logging_utils import get_serve_logs_dir
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import OPEN_TO_ALL, Access, guard
from serving.admission import Admission, Readiness
from serving.generation import Generation, open_generation
from serving.messages import Limits
from serving.observe import Meters, Observer, open_access_log

SERVES = b"x-babelray-serves"  # the header of a response that names the edition that made it
# those that are counted apart
ROUTES = (
    *("/", "/search", "/info", "/health", "/livez", "/readyz", "/openapi.json"),
    *("/encode", "/embed", "/rerank", "/v1/embeddings", "/v1/models", "/v1/rerank", "/v2/rerank"),
)
RETRY_S = 1.0  # between two tries to open what is to be served
FOLLOW_S = 2.0  # between two looks for a new list of the index's segments
log = logging.getLogger("ray.serve")


class Report(NamedTuple):
    """What a gateway serves, the requests that it works on by application, and why others could not be opened."""

    serves: str | None
    in_flight: Mapping[str, int]
    failures: Mapping[str, str]
    is_ending: bool


@serve.ingress()
class Gateway:
    """The ingress of the application. ``serving.access`` says who may ask, all where it is left out, and
    ``serving.admission`` which requests it works on."""

    ONGOING: ClassVar = 10_000  # Serve's own limit, above that of admission, which has a form for what it refuses

    def __init__(self, access: Access = OPEN_TO_ALL) -> None:
        self.access = access
        self.current: Generation | None = None
        self.former: list[Generation] = []  # those that may still be answering
        self.failures: dict[str, str] = {}
        self.is_ending = False
        self.meters = Meters()
        self.choosing: asyncio.Task[None] | None = None
        self.refreshing: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> ASGIApp:
        admission = Admission(self.respond, self.find_limits, self.find_readiness)
        log = open_access_log(Path(get_serve_logs_dir()), serve.get_replica_context().app_name)
        return Observer(guard(admission, self.access), admission.queue, self.meters, log, ROUTES)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Begin to serve the first application of ``serves`` that can be opened. Returns at once."""
        if self.choosing:
            self.choosing.cancel()
        self.choosing = asyncio.create_task(self._choose([str(name) for name in user_config["serves"]]))

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by what is served now, from its beginning to its end."""
        generation = self.current
        if generation is None:
            raise RuntimeError("a request was admitted before there was anything to answer it")

        async def send_with_edition(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (SERVES, generation.edition.encode())]
            await send(message)

        generation.in_flight += 1
        try:
            await generation.app(scope, receive, send_with_edition)
        finally:
            generation.in_flight -= 1

    def find_limits(self) -> Limits:
        """The limits of what is served now."""
        return self.current.info.limits if self.current else Limits()

    def find_readiness(self) -> Readiness:
        """Whether searches would be answered now, from the last health check of the parts."""
        if self.is_ending:
            return Readiness(False, "the server ends")
        if self.current is None:
            why = "; ".join(f"{name}: {reason}" for name, reason in self.failures.items())
            return Readiness(False, f"the server starts{f' ({why})' if why else ''}")
        gone = sorted(name for name, state in self.current.states.items() if state == "gone")
        reason = f"{', '.join(gone)}: gone, being restarted" if gone else ""
        return Readiness(not gone, reason, self.current.edition)

    async def report(self) -> Report:
        """Report what is served, and what is still being answered."""
        self.former = [generation for generation in self.former if generation.in_flight]
        known = [*self.former, *([self.current] if self.current else [])]
        in_flight = Counter[str]()
        for generation in known:
            in_flight[generation.name] += generation.in_flight
        return Report(self.current.name if self.current else None, in_flight, dict(self.failures), self.is_ending)

    async def end(self) -> None:
        """Answer what has begun, and nothing new."""
        self.is_ending = True

    async def _choose(self, wanted: list[str]) -> None:
        """Serve the first of ``wanted`` that can be opened, and go on until that is the first of them all."""
        while wanted:
            for name in wanted:
                if self.current and self.current.name == name:
                    break
                if await self._open(name):
                    break
            if self.current and self.current.name == wanted[0]:
                await self._follow(self.current)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, current: Generation) -> None:
        """Change to every new list of the index that is served, until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                newest = await current.find_newest()
            except Exception as error:  # a part that does not answer now is seen by the health check
                log.warning("%s did not name its newest list: %s", current.name, error)
                continue
            if newest != current.edition and await self._open(current.name):
                current = self.current or current

    async def _open(self, name: str) -> bool:
        """Serve the application ``name`` when it passes its check. Returns whether it did."""
        try:
            generation = await open_generation(name, self.meters, self.current)
            await generation.check_examples()
        except Exception as error:  # whatever it is, the next try may find the application whole
            self.failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            log.warning("%s is not served yet: %s", name, self.failures[name])
            return False
        if self.refreshing:
            self.refreshing.cancel()
        if self.current:
            self.former.append(self.current)
        self.current = generation
        self.failures.pop(name, None)
        self.refreshing = asyncio.create_task(generation.refresh())
        return True
