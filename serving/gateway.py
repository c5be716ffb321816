"""The gateway deployment: receives HTTP requests, and sends each to the parts of one edition.

Gateways are an application of their own, which stays when what is served changes. Their ``user_config`` names the
applications of parts to serve (``serving.slots``), and ``serving.choice`` which of them a request wants. A request that
has begun is answered by the parts that it began with, and the next one by those that serve then.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar

from ray import serve
from ray.serve._private.logging_utils import get_serve_logs_dir
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import OPEN_TO_ALL, Access, guard
from serving.admission import Admission, Readiness, find_path
from serving.choice import check_all, choose, list_all
from serving.generation import Generation, open_generation
from serving.messages import Limits
from serving.observe import Meters, Observer, open_access_log
from serving.problems import RefusalError, respond
from serving.slots import Report, Slots, editions_used
from serving.tracing import RequestSpans, TracedReplica

SERVES = b"x-babelray-serves"  # the header of a response that names the editions that made it
# routes that have a series of their own; all other paths are counted as "other"
ROUTES = (
    *("/", "/search", "/info", "/health", "/livez", "/readyz", "/openapi.json"),
    *("/encode", "/embed", "/rerank", "/v1/embeddings", "/v1/models", "/v1/rerank", "/v2/rerank"),
)
log = logging.getLogger("ray.serve")


@serve.ingress()
class Gateway(TracedReplica):
    """The ingress of the application. ``serving.access`` says who may ask, all where it is left out, and
    ``serving.admission`` which requests it works on."""

    ONGOING: ClassVar = 10_000  # Serve's own limit, above that of admission, which has a form for what it refuses

    def __init__(self, access: Access = OPEN_TO_ALL) -> None:
        super().__init__()
        self.access = access
        self.meters = Meters()
        self.slots = Slots(self._open_parts)
        self.is_ending = False

    def __serve_build_asgi_app__(self) -> ASGIApp:
        admission = Admission(self.respond, self.find_limits, self.find_readiness)
        log = open_access_log(Path(get_serve_logs_dir()), serve.get_replica_context().app_name)
        observed = Observer(guard(admission, self.access), admission.queue, self.meters, log, ROUTES)
        return RequestSpans(observed, ROUTES)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Begin to serve the applications of ``serves``. Returns at once."""
        self.slots.change([[str(name) for name in names] for names in user_config["serves"]])

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by what is served now, from its beginning to its end."""
        if await self._respond_for_all(scope, receive, send):
            return
        try:
            generation, receive = await choose(self.slots, scope, receive)
        except RefusalError as refusal:
            await respond(refusal.status, refusal.problem, refusal.headers)(scope, receive, send)
            return
        editions = [generation.edition]
        editions_used.set(editions)

        async def send_with_editions(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (SERVES, ",".join(editions).encode())]
            await send(message)

        generation.in_flight += 1
        try:
            await generation.app(scope, receive, send_with_editions)
        finally:
            generation.in_flight -= 1

    async def _respond_for_all(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer what is asked about all models together, where there are several. Returns whether it was."""
        if len(self.slots.slots) < 2 or scope["method"] != "GET" or b"model=" in scope.get("query_string", b""):
            return False
        path = find_path(scope)
        if path == "/v1/models":
            answer = JSONResponse(list_all(self.slots))
        elif path == "/health":
            health = await check_all(self.slots)
            answer = JSONResponse(health.model_dump(), status_code=503 if health.missing else 200)
        else:
            return False
        await answer(scope, receive, send)
        return True

    def find_limits(self) -> Limits:
        """The limits of what is served by default now."""
        return self.slots.default.info.limits if self.slots.default else Limits()

    def find_readiness(self) -> Readiness:
        """Whether searches would be answered now by every model, from the last health check of the parts."""
        if self.is_ending:
            return Readiness(False, "the server ends")
        current = self.slots.current
        serves = ",".join(generation.edition for generation in current)
        if not current or len(current) < len(self.slots.slots):
            why = "; ".join(f"{name}: {reason}" for name, reason in self.slots.failures.items())
            return Readiness(False, f"the server starts{f' ({why})' if why else ''}", serves)
        gone = sorted(name for one in current for name, state in one.states.items() if state == "gone")
        reason = f"{', '.join(gone)}: gone, being restarted" if gone else ""
        return Readiness(not gone, reason, serves)

    async def report(self) -> Report:
        """Report what is served, and what is still being answered."""
        return self.slots.report()

    async def end(self) -> None:
        """Answer what has begun, and nothing new."""
        self.is_ending = True

    async def _open_parts(self, name: str, former: Generation | None) -> Generation:
        return await open_generation(name, self.meters, former)
