"""The messages of the HTTP interface. Unknown fields are refused; descriptions appear in /openapi.json."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

MAX_K = 1000
MAX_BODY = 64 << 10  # bytes of a request body


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Message):
    """Limits of a request: the characters of its query, and the seconds from its arrival until it fails (status 503).

    A gateway works on ``ongoing`` requests at a time; ``queued`` more wait, and any further one gets status 429. A body
    that has not arrived whole after ``body_s`` seconds gets status 408.
    """

    max_query_chars: int = Field(2000, ge=1, le=5000)  # at most 12 bytes each in JSON, so a body holds 5000
    timeout_s: float = Field(10.0, gt=0)
    ongoing: int = Field(8, ge=1)
    queued: int = Field(32, ge=0)
    body_s: float = Field(5.0, gt=0)


class SearchRequest(_Message):
    """A search. ``build_request_model`` narrows ``query`` and ``languages`` to what the server accepts."""

    query: str = Field(description="The question, in any language that the encoder reads.")
    k: int = Field(10, ge=1, le=MAX_K, description="How many results to return.")
    languages: list[str] | None = Field(None, min_length=1, description="Languages to search; all when left out.")
    probes: int | None = Field(
        None,
        ge=1,
        description="How many clusters of the index to search: more clusters find more and take longer. The recipe's "
        "number when left out; an index without clusters ignores it.",
    )
    allow_partial: bool = Field(
        False,
        description="Whether an answer may lack shards that do not answer in time. It then has a `coverage` below 1 "
        "and names them in `missing`; without this, the status is 503.",
    )


class Result(_Message):
    """One document, with its rank from 1 and its score. Scores are comparable only within one answer."""

    rank: int
    doc_id: str
    lang: str
    score: float
    title: str
    text: str


class SearchAnswer(_Message):
    """The results of a search, best first, and the milliseconds that each stage took.

    ``coverage`` is the share of the documents asked for that were searched; it is below 1 only where the request allows
    partial answers, and then ``missing`` names the shards that did not answer.
    """

    query: str
    results: list[Result]
    took_ms: dict[str, float]
    coverage: float = 1.0
    missing: list[str] = []


class LanguageInfo(_Message):
    """A language that can be searched. ``dir`` is the direction of its script, a value of HTML's ``dir`` attribute."""

    code: str
    name: str
    autonym: str
    dir: Literal["ltr", "rtl"]
    documents: int


class ShardInfo(_Message):
    """A shard of the index.

    ``passages`` counts the windows that its documents were split into; ``bytes`` is the size of its files, and
    ``text_bytes`` about the size of its documents' texts, which are not among them.
    """

    name: str
    lang: str
    docs: int
    passages: int
    bytes: int
    text_bytes: int


class Info(_Message):
    """Description of the served system. ``model`` names the student's artifact; it is null for an index of words."""

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


PartStatus = Literal["ok", "busy", "gone"]


class Health(_Message):
    """Status of the server and of each part that a search needs: the encoder and every shard.

    A ``busy`` part has a running replica that did not answer the health check in time; a ``gone`` part has none.
    """

    status: Literal["ok", "busy", "unavailable"]
    parts: dict[str, PartStatus]
    missing: list[str]


class Fault(_Message):
    """A field of a request that is not valid: what was expected and what the request had."""

    field: str
    expected: str
    got: str


class Problem(_Message):
    """The body of every error response. ``missing`` names the parts that did not answer."""

    error: str
    fields: list[Fault] = []
    missing: list[str] = []


def build_request_model(info: Info) -> type[SearchRequest]:
    """Build a SearchRequest whose schema has this server's query length and languages."""
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
