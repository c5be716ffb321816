"""The HTTP interface, without Ray: routes, validation and the form of errors.

``build_app`` builds a FastAPI application around a ``Backend``. The server's limits and languages are part of the
request's schema, so /openapi.json states exactly what is accepted. Every error response has the same form, that of
``problems``. The routes are in ``routes``, a module for each service that they speak like; this one adds what all of
them share.
"""

import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.backend import Backend, UnavailableError
from serving.messages import Fault, Health, Info, Problem, body_limit
from serving.problems import RefusalError, describe_faults, explain_fault, explain_parser_error, respond
from serving.routes import embeddings, encode, rerank, search, tei

__all__ = ["Backend", "UnavailableError", "build_app"]

PAGE = Path(__file__).parent / "page"
# The page loads nothing from elsewhere, and no other site may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
ROUTES = (search, embeddings, encode, rerank, tei)
log = logging.getLogger("ray.serve")


def build_app(backend: Backend, info: Info) -> FastAPI:
    """Build the application: the routes of ``routes``, ``GET /health``, ``GET /openapi.json``, page on ``/``."""
    app = FastAPI(
        title=f"babelray: {info.recipe}",
        version=version("babelray"),
        description="Find passages in every language.",
        docs_url=None,  # FastAPI's documentation pages load scripts from other hosts, which a closed network blocks
        redoc_url=None,
    )
    _add_page(app)
    expected: dict[str, Mapping[str, str]] = {}
    for module in ROUTES:
        expected |= module.add_routes(app, backend, info)
    _add_error_handlers(app, expected)
    app.add_middleware(_BodyLimit)

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """200 when the encoder and every shard have a running replica, even an overloaded one; otherwise 503."""
        body = Health.of(await backend.check_parts())
        return JSONResponse(body.model_dump(), status_code=503 if body.missing else 200)

    return app


def _list_routes(app: FastAPI) -> str:
    """Name the routes of the application, for who asked for another."""
    routes = [f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods]
    return ", ".join([*routes, "GET /openapi.json"])


def _add_error_handlers(app: FastAPI, expected: Mapping[str, Mapping[str, str]]) -> None:
    """Make every error response a ``Problem``. ``expected`` describes the valid fields of each route's body."""

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        fields = expected.get(request.scope["route"].path, {})
        return respond(422, describe_faults([explain_fault(item, fields) for item in error.errors()]))

    @app.exception_handler(RefusalError)
    async def handle_refusal(_: Request, error: RefusalError) -> JSONResponse:
        return respond(error.status, error.problem, error.headers)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 413:
            limit = body_limit(request.url.path)
            return respond(413, describe_faults([Fault(field="body", expected=f"at most {limit:,} bytes", got="more")]))
        if error.status_code == 400:  # FastAPI's status for a body on which the JSON parser raised
            return respond(400, describe_faults([explain_parser_error(error.__cause__)]))
        sentence = f"{error.detail}: {request.method} {request.url.path}; there are {_list_routes(app)}"
        return respond(error.status_code, Problem(error=sentence), error.headers)

    @app.exception_handler(UnavailableError)
    async def handle_unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        late = f"no answer within {error.waited_s:.1f} s from {', '.join(error.late)}" if error.late else ""
        gone = f"{', '.join(error.gone)}: gone, being restarted" if error.gone else ""
        problem = Problem(
            error=f"{'; '.join(filter(None, [gone, late]))}; try again", missing=sorted([*error.gone, *error.late])
        )
        return respond(503, problem, {"Retry-After": "2"})

    @app.exception_handler(Exception)
    async def handle_exception(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return respond(500, Problem(error="the server failed on this request; its log has the details"))


class _BodyLimit:
    """ASGI middleware that refuses request bodies of more than ``body_limit`` bytes.

    Starlette's own limit answers in plain text, not with a ``Problem``.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # Serve starts the application with an event of its own
            return await self.app(scope, receive, send)
        read, limit = 0, body_limit(scope["path"])

        async def receive_limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise HTTPException(413)
            return message

        return await self.app(scope, receive_limited, send)


def _add_page(app: FastAPI) -> None:
    """Add the search page: the files in ``page`` beside this module."""

    @app.get("/", include_in_schema=False)
    async def send_page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    def add_file(file: Path) -> None:
        @app.get(f"/page/{file.name}", include_in_schema=False)
        async def send_asset() -> FileResponse:
            return FileResponse(file, headers=PAGE_HEADERS)

    for file in sorted(PAGE.iterdir()):
        if file.suffix in (".css", ".js", ".svg"):
            add_file(file)
