"""The HTTP interface, without Ray: what is answered where, and how an error reads.

``build`` makes a FastAPI application around a ``Backend``. Its limits and languages are part of the request's schema,
so /openapi.json says exactly what this server accepts, and one validation gives every 4xx. Errors have one form:

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
    Part,
    Problem,
    SearchAnswer,
    SearchRequest,
    request_model,
)

PAGE = Path(__file__).parent / "page"
MAX_GOT = 200  # characters of a wrong value that an error repeats
# The page loads nothing from elsewhere, and no other site may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
UNUSABLE = {"model": Problem, "description": "The request cannot be used; `fields` says what was expected."}
TOO_LONG = {"model": Problem, "description": f"The body has more than {MAX_BODY:,} bytes."}
FAILED = {"model": Problem, "description": "A fault of the server, told in its log."}
DOWN = {"model": Problem, "description": "Parts of the index do not answer; `missing` names them. Try again."}
log = logging.getLogger("ray.serve")


class UnavailableError(Exception):
    """Parts that are needed for an answer gave none: those that are ``gone``, and those that were ``late``."""

    def __init__(self, gone: list[str], late: list[str]):
        super().__init__(f"no answer from {', '.join([*gone, *late])}")
        self.gone, self.late = gone, late


class Backend(Protocol):
    """What does the work behind the interface."""

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Search. Raises UnavailableError."""

    async def parts(self) -> dict[str, Part]:
        """Ask every part whether it is there."""


def build(backend: Backend, info: Info) -> FastAPI:
    """The application: ``POST /search``, ``GET /health``, ``GET /info``, ``GET /openapi.json``, the page on ``/``."""
    app = FastAPI(
        title=f"babelray: {info.recipe}",
        version=version("babelray"),
        description="Find passages in every language.",
        docs_url=None,  # FastAPI's pages load scripts from other hosts: blank on a closed network
        redoc_url=None,
    )
    _add_errors(app, info)
    _add_page(app)

    async def search(request: Any) -> SearchAnswer:
        """Find the best passages for a query in the languages asked for, ranked together."""
        return await backend.answer(request)

    search.__annotations__["request"] = request_model(info)
    told: dict[int | str, dict[str, Any]] = {413: TOO_LONG, 422: UNUSABLE, 500: FAILED, 503: DOWN}
    app.post("/search", response_model=SearchAnswer, responses=told)(search)

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """200 when the encoder and every shard are there, be it with more work than they can do; otherwise 503."""
        parts = await backend.parts()
        missing = sorted(name for name, state in parts.items() if state == "gone")
        late = "busy" in parts.values()
        state = Health(status="unavailable" if missing else "busy" if late else "ok", parts=parts, missing=missing)
        return JSONResponse(state.model_dump(), status_code=503 if missing else 200)

    @app.get("/info")
    async def about() -> Info:
        """What is served: the model, the index, its languages and shards, and the versions of the software."""
        return info

    return app


def _add_errors(app: FastAPI, info: Info) -> None:
    """Give every error the form of ``Problem``."""
    expected = expectations(info)
    app.add_middleware(_BodyLimit)

    @app.exception_handler(RequestValidationError)
    async def unusable(_: Request, error: RequestValidationError) -> JSONResponse:
        return _unusable(422, [_explain(item, expected) for item in error.errors()])

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 413:
            return _unusable(413, [Fault(field="body", expected=f"at most {MAX_BODY:,} bytes", got="more")])
        if error.status_code == 400:  # FastAPI's word for a body that its JSON parser fell over
            return _unusable(400, [_unreadable(error.__cause__)])
        known = "POST /search, GET /health, GET /info, GET /openapi.json"
        sentence = f"{error.detail}: {request.method} {request.url.path}; there are {known}"
        return _problem(error.status_code, Problem(error=sentence), error.headers)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        late = f"no answer within {info.limits.timeout_s:g} s from {', '.join(error.late)}" if error.late else ""
        gone = f"{', '.join(error.gone)}: gone, being restarted" if error.gone else ""
        problem = Problem(
            error=f"{'; '.join(filter(None, [gone, late]))}; try again", missing=sorted([*error.gone, *error.late])
        )
        return _problem(503, problem, {"Retry-After": "2"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _problem(500, Problem(error="the server failed at this request; its log tells where"))


def _problem(status: int, problem: Problem, headers: Any = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers)


def _unusable(status: int, faults: list[Fault]) -> JSONResponse:
    sentence = "; ".join(f"{fault.field}: expected {fault.expected}, got {fault.got}" for fault in faults)
    return _problem(status, Problem(error=sentence, fields=faults))


class _BodyLimit:
    """ASGI middleware: reads no more than ``MAX_BODY`` bytes of a request. (Starlette's own answers in plain text.)"""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise HTTPException(413)
            return message

        await self.app(scope, limited, send)


def expectations(info: Info) -> dict[str, str]:
    """What each field of a search may hold, as an error says it."""
    codes = ", ".join(language.code for language in info.languages)
    return {
        "query": f"a text of 1 to {info.limits.max_query_chars} characters that is not blank",
        "k": f"an integer from 1 to {MAX_K}",
        "languages": f"a list of one or more of {codes}; or null, for all",
        "probes": "an integer of at least 1; or null, for the recipe's own number",
    }


def _explain(item: dict[str, Any], expected: dict[str, str]) -> Fault:
    """A pydantic error as: which field, what was expected, what came."""
    names = [str(part) for part in item["loc"] if part != "body"]
    if item["type"] == "json_invalid":
        return Fault(field="body", expected="valid JSON", got=f"{item['ctx']['error']} at character {names[0]}")
    if not names:
        return Fault(field="body", expected="a JSON object, sent as application/json", got=_got(item["input"]))
    fields = ", ".join(expected)
    return Fault(
        field=".".join(names),
        expected=expected.get(names[0], f"one of the fields {fields}"),
        got="nothing" if item["type"] == "missing" else _got(item["input"]),
    )


def _unreadable(error: BaseException | None) -> Fault:
    """Why Python's JSON parser gave up on a body that may be correct JSON."""
    if isinstance(error, UnicodeDecodeError):
        return Fault(field="body", expected="JSON in UTF-8", got="bytes that are not")
    if isinstance(error, RecursionError):
        return Fault(field="body", expected="a flat JSON object", got="brackets within brackets, too many to read")
    if isinstance(error, ValueError):
        return Fault(field="body", expected="numbers that fit a search", got="one with too many digits to read")
    return Fault(field="body", expected="a JSON object", got="what could not be read")


def _got(value: Any) -> str:
    """A value as short JSON that can be sent back whatever came: a lone surrogate is escaped, NaN is a word."""
    if value is None:
        return "nothing"
    try:
        text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    except RecursionError:  # writing takes a little more of the stack than parsing did
        return "brackets within brackets"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_GOT else f"{text[:MAX_GOT]}… ({len(text)} characters)"


def _add_page(app: FastAPI) -> None:
    """The search page: three files beside this module."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    def route(file: Path) -> None:
        @app.get(f"/page/{file.name}", include_in_schema=False)
        async def asset() -> FileResponse:
            return FileResponse(file, headers=PAGE_HEADERS)

    for file in sorted(PAGE.iterdir()):
        if file.suffix in (".css", ".js", ".svg"):
            route(file)
