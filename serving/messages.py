"""The messages of the HTTP interface. Unknown fields are refused; descriptions appear in /openapi.json."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.fusion import Fusion, Hybrid

if TYPE_CHECKING:
    from pipelines.recipe.tables import Rerank

MAX_K = 1000  # also of offset + k
MAX_QUERIES = 64  # of one request
MAX_RERANKED_RESULTS = 200  # of one search that are scored again
MAX_EXPLAINED = 100  # passages of one request whose tokens are matched: each is encoded again
MAX_BODY = 64 << 10  # bytes of the body of a search
MAX_TEXTS_BODY = 2 << 20  # bytes of a body with texts, as in text-embeddings-inference


def body_limit(path: str) -> int:
    """The bytes that the body of a request may have: few for a search, more where texts are sent."""
    return MAX_BODY if path.endswith("/search") else MAX_TEXTS_BODY


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
    """A search for one query. ``serving.search_body`` makes of it what the server accepts over HTTP."""

    query: str = Field(description="The question, in any language that the encoder reads.")
    k: int = Field(10, ge=1, le=MAX_K, description="How many results to return.")
    languages: list[str] | None = Field(None, min_length=1, description="Languages to search; all when left out.")
    probes: int | None = Field(
        None,
        ge=1,
        description="How many clusters of the index to search: more clusters find more and take longer. The recipe's "
        "number when left out; an index without clusters ignores it.",
    )
    ids: list[str] | None = Field(None, description="Search only the documents with these ids; all when left out.")
    filter: dict[str, Any] | None = Field(
        None,
        description="Search only the documents whose metadata fulfil this condition: "
        '{"field": "year", "op": ">=", "value": 2020} with ==, !=, <, <=, >, >=, in (a list of values) or exists (no '
        'value), and {"and": […]}, {"or": […]}, {"not": …} of conditions. `fields` of /info are those that there are.',
    )
    allow_partial: bool = Field(
        False,
        description="Whether an answer may lack shards that do not answer in time. It then has a `coverage` below 1 "
        "and names them in `missing`; without this, the status is 503.",
    )
    offset: int = Field(
        0,
        ge=0,
        lt=MAX_K,
        description=f"How many results to skip; offset + k is at most {MAX_K}. An index with clusters may search "
        "deeper for a later page, and then order close results otherwise.",
    )
    min_score: float | None = Field(
        None, allow_inf_nan=False, description="Leave out results that score less. Scores depend on query and model."
    )
    per_language: int | None = Field(
        None, ge=1, le=MAX_K, description="At most so many documents of each language, before they are collapsed."
    )
    collapse: bool = Field(
        False,
        description="One result for each document id, in the language where it scores best; `translations` holds the "
        "same document in the other languages where it was found.",
    )
    explain: bool = Field(
        False,
        description="Add `matches` to each result: the token of the passage that each token of the query matched best. "
        f"For a model with a vector for each token, and at most {MAX_EXPLAINED} results.",
    )
    hybrid: bool | Fusion | None = Field(
        None,
        description="Fuse what the student finds with what an index of words (BM25) finds, where one is served beside "
        "it: true as the recipe says, or how. What the recipe says when left out.",
    )
    rerank: int | None = Field(
        None,
        ge=0,
        le=MAX_RERANKED_RESULTS,
        description="Score so many of the first results again, where the recipe names a scorer for that, and return no "
        "others; 0 for none. What the recipe says when left out.",
    )


class Token(_Message):
    """A token: what it reads, and where that stands, in characters of the query or of the ``field`` of the result.

    A token of the model's own, such as [CLS], stands nowhere: its ``start`` and ``end`` are left out.
    """

    text: str
    start: int | None = None
    end: int | None = None
    field: Literal["query", "title", "text"] | None = None


class Match(_Message):
    """A token of the query, the token of the passage that is most similar to it, and what the pair adds to the score.

    The scores of a result's matches add up to the exact score of its best passage; an index that compresses vectors
    ranks by a score close to it.
    """

    query: Token
    passage: Token
    score: float


class Translation(_Message):
    """The document of a result in another language, with its score there."""

    lang: str
    score: float
    title: str
    text: str


class Result(_Message):
    """One document, with its rank from 1 and its score. Scores are comparable only within one answer.

    ``translations`` is there where results are collapsed, best first; ``matches`` where they are explained; ``ranks``
    where searches are fused: the rank that each system gave the document, of those that found it.
    """

    rank: int
    doc_id: str
    lang: str
    score: float
    title: str
    text: str
    translations: list[Translation] | None = None
    matches: list[Match] | None = None
    ranks: dict[str, int] | None = None


Stage = Literal["search", "fusion", "rerank"]


class SearchAnswer(_Message):
    """The results of a search, best first, and the milliseconds that each stage took.

    ``scored_by`` is the stage that gave the scores: the search of one index, the fusion of two, or a second scoring.

    ``coverage`` is the share of the documents asked for that were searched; it is below 1 only where the request allows
    partial answers, and then ``missing`` names the parts that did not answer.
    """

    query: str
    results: list[Result]
    took_ms: dict[str, float]
    coverage: float = 1.0
    missing: list[str] = []
    scored_by: Stage = "search"


class SearchAnswers(_Message):
    """The answers to the ``queries`` of a request, in their order, and the milliseconds that all took together."""

    answers: list[SearchAnswer]
    took_ms: dict[str, float]


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
    ``text_bytes`` about the size of its documents' texts, which are not among them. ``part`` is the deployment that
    holds it.
    """

    name: str
    part: str = ""
    lang: str
    docs: int
    passages: int
    bytes: int
    text_bytes: int


class RerankInfo(_Message):
    """The stage that scores results again: the kind of its scorer and its model, how many it scores, and whether also
    where a search does not ask for it."""

    kind: str
    model: str
    candidates: int
    default: bool

    @classmethod
    def of(cls, rerank: "Rerank") -> "RerankInfo":
        """The stage of a recipe."""
        scorer: Any = rerank.scorer
        model = scorer.content or scorer.model
        return cls(kind=scorer.kind, model=model, candidates=rerank.candidates, default=rerank.default)


class Info(_Message):
    """Description of the served system. ``model`` names the student's artifact, or is what identifies a
    ready checkpoint; it is null for an index of words.
    ``examples`` are the recipe's example queries, ``fields`` those of the documents' metadata, with their types;
    ``hybrid`` says how searches are fused with those of an index of words, ``rerank`` how many results are scored
    again, and whether they are where a search does not say."""

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
    examples: list[str] = []
    fields: dict[str, Literal["string", "number", "boolean", "strings"]] = {}
    hybrid: Hybrid | None = None
    rerank: RerankInfo | None = None
    passage_length: int = 180  # tokens of the windows in which the encoder reads a document …
    passage_stride: int = 90  # … and from the start of one to the start of the next
    max_k: int = MAX_K
    max_queries: int = MAX_QUERIES
    versions: dict[str, str]


PartStatus = Literal["ok", "busy", "gone"]


class Health(_Message):
    """Status of the server and of each part, which is a deployment: the encoder, each group of shards, the reranker.

    A ``busy`` part has a running replica that did not answer the health check in time; a ``gone`` part has none.
    """

    status: Literal["ok", "busy", "unavailable"]
    parts: dict[str, PartStatus]
    missing: list[str]

    @classmethod
    def of(cls, parts: Mapping[str, PartStatus]) -> "Health":
        """The health of a server with these parts."""
        missing = sorted(name for name, state in parts.items() if state == "gone")
        is_busy = "busy" in parts.values()
        status: Any = "unavailable" if missing else "busy" if is_busy else "ok"
        return cls(status=status, parts=dict(parts), missing=missing)


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
