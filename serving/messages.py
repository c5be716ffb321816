"""What travels over HTTP: the messages of the interface, each closed, and described for /openapi.json."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

MAX_K = 1000
MAX_BODY = 64 << 10  # bytes of a request


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Message):
    """What one request may ask for: characters of a query, and seconds until an answer is given up."""

    max_query_chars: int = Field(2000, ge=1, le=5000)  # of 12 bytes at most in JSON, which a body still holds
    timeout_s: float = Field(10.0, gt=0)


class SearchRequest(_Message):
    """A search. ``request_model`` narrows ``query`` and ``languages`` to what the server accepts."""

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
    """A shard of the index; ``passages`` counts the windows that its documents were cut into. ``text_bytes`` is what
    their texts take beside the shard's own ``bytes``, about."""

    name: str
    lang: str
    docs: int
    passages: int
    bytes: int
    text_bytes: int


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


Part = Literal["ok", "busy", "gone"]


class Health(_Message):
    """All that is needed to answer a search, part by part. ``busy`` is one that runs and has no time to say so."""

    status: Literal["ok", "busy", "unavailable"]
    parts: dict[str, Part]
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
