"""The HTTP interface, without Ray: routes, validation and the form of errors.

``build_app`` builds a FastAPI application around a ``Backend``. The server's limits and languages are part of the
request's schema, so /openapi.json states exactly what is accepted. Every error response has the same form:

    {"error": "one sentence", "fields": [{"field": "k", "expected": "…", "got": "…"}], "missing": ["shard-fa-0", …]}
"""

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.messages import (
    MAX_BODY,
    MAX_K,
    Fault,
    Health,
    Info,
    PartStatus,
    Problem,
    SearchAnswer,
    SearchRequest,
    build_request_model,
)

PAGE = Path(__file__).parent / "page"
MAX_GOT = 200  # characters of an invalid value that an error repeats
# The page loads nothing from elsewhere, and no other site may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
INVALID = {"model": Problem, "description": "The request is not valid; `fields` states what was expected."}
TOO_LONG = {"model": Problem, "description": f"The body has more than {MAX_BODY:,} bytes."}
FAILED = {"model": Problem, "description": "An error of the server; its log has the details."}
TOO_SLOW = {"model": Problem, "description": "The body did not arrive in time."}
BUSY = {"model": Problem, "description": "Too many requests wait; `Retry-After` says when to try again."}
UNAVAILABLE = {"model": Problem, "description": "Parts of the system do not answer; `missing` names them. Try again."}
log = logging.getLogger("ray.serve")


class UnavailableError(Exception):
    """Parts that a search needs did not answer.

    ``gone`` names those without a running replica, ``late`` those that did not answer within the ``waited_s`` seconds
    that their stage had.
    """

    def __init__(self, gone: list[str], late: list[str], waited_s: float):
        super().__init__(f"no answer from {', '.join([*gone, *late])}")
        self.gone, self.late, self.waited_s = gone, late, waited_s


class Backend(Protocol):
    """The system behind the HTTP interface."""

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Answer a search.

        Raises:
            UnavailableError: a part did not answer.
        """

    async def check_parts(self) -> dict[str, PartStatus]:
        """Check the encoder and every shard. Returns their status by name."""


def build_app(backend: Backend, info: Info) -> FastAPI:
    """Build the application: ``POST /search``, ``GET /health``, ``GET /info``, ``GET /openapi.json``, page on ``/``."""
    app = FastAPI(
        title=f"babelray: {info.recipe}",
        version=version("babelray"),
        description="Find passages in every language.",
        docs_url=None,  # FastAPI's documentation pages load scripts from other hosts, which a closed network blocks
        redoc_url=None,
    )
    _add_error_handlers(app, info)
    _add_page(app)

    async def search(request: Any) -> SearchAnswer:
        """Find the best passages for a query in the languages asked for, ranked together."""
        return await backend.answer(request)

    search.__annotations__["request"] = build_request_model(info)
    errors: dict[int | str, dict[str, Any]] = {408: TOO_SLOW, 413: TOO_LONG, 422: INVALID, 429: BUSY}
    errors |= {500: FAILED, 503: UNAVAILABLE}
    app.post("/search", response_model=SearchAnswer, responses=errors)(search)

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """200 when the encoder and every shard have a running replica, even an overloaded one; otherwise 503."""
        parts = await backend.check_parts()
        missing = sorted(name for name, state in parts.items() if state == "gone")
        is_busy = "busy" in parts.values()
        body = Health(status="unavailable" if missing else "busy" if is_busy else "ok", parts=parts, missing=missing)
        return JSONResponse(body.model_dump(), status_code=503 if missing else 200)

    @app.get("/info")
    async def about() -> Info:
        """Describe the served system: model, index, languages, shards, limits, and the versions of the software."""
        return info

    return app


def _add_error_handlers(app: FastAPI, info: Info) -> None:
    """Make every error response a ``Problem``."""
    expected = describe_fields(info)
    app.add_middleware(_BodyLimit)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        return _respond_invalid(422, [_explain_fault(item, expected) for item in error.errors()])

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 413:
            return _respond_invalid(413, [Fault(field="body", expected=f"at most {MAX_BODY:,} bytes", got="more")])
        if error.status_code == 400:  # FastAPI's status for a body on which the JSON parser raised
            return _respond_invalid(400, [_explain_parser_error(error.__cause__)])
        routes = "POST /search, GET /health, GET /info, GET /openapi.json"
        sentence = f"{error.detail}: {request.method} {request.url.path}; there are {routes}"
        return _respond(error.status_code, Problem(error=sentence), error.headers)

    @app.exception_handler(UnavailableError)
    async def handle_unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        late = f"no answer within {error.waited_s:.1f} s from {', '.join(error.late)}" if error.late else ""
        gone = f"{', '.join(error.gone)}: gone, being restarted" if error.gone else ""
        problem = Problem(
            error=f"{'; '.join(filter(None, [gone, late]))}; try again", missing=sorted([*error.gone, *error.late])
        )
        return _respond(503, problem, {"Retry-After": "2"})

    @app.exception_handler(Exception)
    async def handle_exception(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _respond(500, Problem(error="the server failed on this request; its log has the details"))


def _respond(status: int, problem: Problem, headers: Any = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers)


def _respond_invalid(status: int, faults: list[Fault]) -> JSONResponse:
    sentence = "; ".join(f"{fault.field}: expected {fault.expected}, got {fault.got}" for fault in faults)
    return _respond(status, Problem(error=sentence, fields=faults))


class _BodyLimit:
    """ASGI middleware that refuses request bodies of more than ``MAX_BODY`` bytes.

    Starlette's own limit answers in plain text, not with a ``Problem``.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def receive_limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise HTTPException(413)
            return message

        await self.app(scope, receive_limited, send)


def describe_fields(info: Info) -> dict[str, str]:
    """Describe the valid values of each field of a search, as phrases for error messages."""
    codes = ", ".join(language.code for language in info.languages)
    return {
        "query": f"a text of 1 to {info.limits.max_query_chars} characters that is not blank",
        "k": f"an integer from 1 to {MAX_K}",
        "languages": f"a list of one or more of {codes}; or null, for all",
        "probes": "an integer of at least 1; or null, for the recipe's own number",
        "allow_partial": "true or false",
    }


def _explain_fault(item: dict[str, Any], expected: dict[str, str]) -> Fault:
    """Translate a pydantic error into the field, what was expected and what the request had."""
    names = [str(part) for part in item["loc"] if part != "body"]
    if item["type"] == "json_invalid":
        return Fault(field="body", expected="valid JSON", got=f"{item['ctx']['error']} at character {names[0]}")
    if not names:
        return Fault(field="body", expected="a JSON object, sent as application/json", got=_format_value(item["input"]))
    fields = ", ".join(expected)
    return Fault(
        field=".".join(names),
        expected=expected.get(names[0], f"one of the fields {fields}"),
        got="nothing" if item["type"] == "missing" else _format_value(item["input"]),
    )


def _explain_parser_error(error: BaseException | None) -> Fault:
    """Explain why Python's JSON parser refused a body, which may still be correct JSON."""
    if isinstance(error, UnicodeDecodeError):
        return Fault(field="body", expected="JSON in UTF-8", got="bytes that are not UTF-8")
    if isinstance(error, RecursionError):
        return Fault(field="body", expected="a flat JSON object", got="brackets within brackets, too deep to parse")
    if isinstance(error, ValueError):
        return Fault(field="body", expected="numbers that fit a search", got="a number with too many digits to parse")
    return Fault(field="body", expected="a JSON object", got="a body that cannot be parsed")


def _format_value(value: Any) -> str:
    """Format an invalid value as short JSON for an error message.

    Every value can be sent: a lone surrogate is escaped, and NaN, which JSON lacks, is written as a word.
    """
    if value is None:
        return "nothing"
    try:
        text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    except RecursionError:  # writing needs more of the stack than parsing did
        return "brackets within brackets"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_GOT else f"{text[:MAX_GOT]}… ({len(text)} characters)"


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
