"""The HTTP interface, without Ray: what may be asked, what is answered, and how an error reads.

``build`` makes a FastAPI application around a ``Backend``. Its limits and languages are part of the request's schema,
so /openapi.json says exactly what this server accepts, and one validation gives every 4xx. Errors have one form:

    {"error": "one sentence", "fields": [{"field": "k", "expected": "…", "got": "…"}], "missing": ["shard-fa-0", …]}
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model
from starlette.exceptions import HTTPException

PAGE = Path(__file__).parent / "page"
MAX_K = 1000
MAX_GOT = 200  # characters of a wrong value that an error repeats
# The page loads nothing from elsewhere, and no other site may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Message):
    """What one request may ask for: characters of a query, and seconds until an answer is given up."""

    max_query_chars: int = Field(2000, ge=1)
    timeout_s: float = Field(10.0, gt=0)


class SearchRequest(_Message):
    """A search. ``build`` narrows ``query`` and ``languages`` to what the server accepts."""

    query: str = Field(description="The question, in any language that the encoder reads.")
    k: int = Field(10, ge=1, le=MAX_K, description="How many results to return.")
    languages: list[str] | None = Field(None, min_length=1, description="Languages to search; all when left out.")
    probes: int | None = Field(
        None,
        ge=1,
        description="How many clusters of the index to look into: more finds more and takes longer. The recipe's own "
        "number when left out; an index without clusters has no use for it.",
    )


class Result(_Message):
    """One document, with its rank from 1 and its score. Scores compare within one answer only."""

    rank: int
    doc_id: str
    lang: str
    score: float
    title: str
    text: str


class SearchAnswer(_Message):
    """Results, best first, and the milliseconds that each part took."""

    query: str
    results: list[Result]
    took_ms: dict[str, float]


class LanguageInfo(_Message):
    """A language that can be searched. ``dir`` is the direction of its script, as HTML has it."""

    code: str
    name: str
    autonym: str
    dir: Literal["ltr", "rtl"]
    documents: int


class ShardInfo(_Message):
    """A shard of the index; ``passages`` counts the windows that its documents were cut into."""

    name: str
    lang: str
    docs: int
    passages: int
    bytes: int


class Info(_Message):
    """What is served. ``model`` names the student's artifact, or is null where words are searched as they are."""

    recipe: str
    system: str
    model: str | None
    index: str
    kind: str
    dim: int | None
    languages: list[LanguageInfo]
    documents: int
    shards: list[ShardInfo]
    limits: Limits
    max_k: int = MAX_K
    versions: dict[str, str]


class Health(_Message):
    """All that is needed to answer a search: each part, and whether it answered just now."""

    status: Literal["ok", "unavailable"]
    parts: dict[str, bool]
    missing: list[str]


class Fault(_Message):
    """A value of a request that cannot be used."""

    field: str
    expected: str
    got: str


class Problem(_Message):
    """Every answer that is not a success."""

    error: str
    fields: list[Fault] = []
    missing: list[str] = []


class UnavailableError(Exception):
    """Parts that are needed for an answer did not answer; ``missing`` names them."""

    def __init__(self, missing: list[str]):
        super().__init__(f"no answer from {', '.join(missing)}")
        self.missing = missing


class Backend(Protocol):
    """What does the work behind the interface."""

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Search. Raises UnavailableError."""

    async def parts(self) -> dict[str, bool]:
        """Ask every part whether it is there."""


def build(backend: Backend, info: Info) -> FastAPI:
    """The application: ``POST /search``, ``GET /health``, ``GET /info``, the page on ``/`` and the API's documents."""
    app = FastAPI(
        title=f"babelray: {info.recipe}",
        version=version("babelray"),
        description="Find passages in every language.",
        responses={
            422: {"model": Problem, "description": "The request cannot be used; `fields` says what was expected."}
        },
    )
    _add_errors(app, info)
    _add_page(app)
    unusable = {"model": Problem, "description": "The request cannot be used; `fields` says what was expected."}
    down = {"model": Problem, "description": "Parts of the index do not answer; `missing` names them. Try again."}

    async def search(request: Any) -> SearchAnswer:
        """Find the best passages for a query in the languages asked for, ranked together."""
        return await backend.answer(request)

    search.__annotations__["request"] = request_model(info)
    app.post("/search", response_model=SearchAnswer, responses={422: unusable, 503: down})(search)

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """200 when the encoder and every shard answer, otherwise 503 and which do not."""
        parts = await backend.parts()
        missing = sorted(name for name, there in parts.items() if not there)
        state = Health(status="unavailable" if missing else "ok", parts=parts, missing=missing)
        return JSONResponse(state.model_dump(), status_code=503 if missing else 200)

    @app.get("/info")
    async def about() -> Info:
        """What is served: the model, the index, its languages and shards, and the versions of the software."""
        return info

    return app


def request_model(info: Info) -> type[SearchRequest]:
    """SearchRequest with this server's longest query and its languages in the schema."""
    text = Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=info.limits.max_query_chars)
    ]
    codes: Any = Literal[tuple(language.code for language in info.languages)]
    fields = SearchRequest.model_fields
    narrowed: dict[str, Any] = {
        "query": (text, Field(description=fields["query"].description)),
        "languages": (list[codes] | None, Field(None, min_length=1, description=fields["languages"].description)),
    }
    return create_model("SearchRequest", __base__=SearchRequest, __doc__=None, **narrowed)


def _add_errors(app: FastAPI, info: Info) -> None:
    """Give every error the form of ``Problem``."""
    expected = expectations(info)

    @app.exception_handler(RequestValidationError)
    async def unusable(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = [_explain(item, expected) for item in error.errors()]
        sentence = "; ".join(f"{f.field}: expected {f.expected}, got {f.got}" for f in fields)
        return _problem(422, Problem(error=sentence, fields=fields))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        known = "POST /search, GET /health, GET /info, GET /docs"
        sentence = f"{error.detail}: {request.method} {request.url.path}; there are {known}"
        if error.status_code == 400:  # all that is left: bytes that are no text
            sentence = "body: expected JSON in UTF-8, got bytes that are not"
        return _problem(error.status_code, Problem(error=sentence), error.headers)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        problem = Problem(error=f"{error}; they are being restarted, try again", missing=error.missing)
        return _problem(503, problem, {"Retry-After": "2"})


def _problem(status: int, problem: Problem, headers: Any = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers)


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


def _got(value: Any) -> str:
    """A value as short JSON that can be sent back whatever came: a lone surrogate is escaped, NaN is a word."""
    if value is None:
        return "nothing"
    text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_GOT else f"{text[:MAX_GOT]}… ({len(value)} characters)"


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
