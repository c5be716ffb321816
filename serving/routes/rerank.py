"""``POST /v1/rerank`` and ``POST /v2/rerank``: order given texts by a query, in the forms of Jina and Cohere.

A text is scored as a document of the index is: in windows, by the best of them. ``relevance_score`` is the score of a
search divided by the largest that the query allows, which is a mean cosine of at most 1.
"""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BeforeValidator, Field, WithJsonSchema

from serving.backend import Backend
from serving.encoding import Scored
from serving.messages import Info
from serving.routes import ENCODER_ERRORS, MAX_RERANKED, MODEL, Message, Text, check_encoder


def _read_text(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and set(value) == {"text"} else value


Document = Annotated[
    str,
    BeforeValidator(_read_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
            ]
        }
    ),
]


class RerankRequest(Message):
    """A query, and the texts to order by it."""

    query: Text
    documents: list[Document] = Field(min_length=1, max_length=MAX_RERANKED, description='Texts, or {"text": …}.')
    model: str | None = Field(None, description="The served model; the names are those of GET /v1/models.")
    top_n: int | None = Field(None, ge=1, description="How many results to return; all when left out.")
    return_documents: bool = Field(False, description="Repeat the text in each result.")
    max_tokens_per_doc: int | None = Field(None, ge=1, description="Not used: a text is read whole, in windows.")
    priority: int | None = Field(None, description="Not used.")


class Reranked(Message):
    """A text by its ``index`` in the request."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class TotalUsage(Message):
    """The tokens of the query, once, and of the texts."""

    total_tokens: int


class RerankAnswer(Message):
    """The texts, best first; equal ones in their order."""

    id: str
    model: str
    results: list[Reranked]
    usage: TotalUsage
    meta: dict[str, Any]


EXPECTED = {
    "query": "a text that is not empty",
    "documents": f'a list of 1 to {MAX_RERANKED} texts, or of objects {{"text": …}}',
    "model": MODEL,
    "top_n": "an integer of at least 1; or null, for all",
    "return_documents": "true or false",
    "max_tokens_per_doc": "an integer of at least 1; or null",
    "priority": "an integer; or null",
}


def add_routes(app: FastAPI, backend: Backend, info: Info) -> dict[str, Mapping[str, str]]:
    """Add the routes."""

    async def rerank(request: RerankRequest) -> RerankAnswer:
        """Order texts by how well they answer a query."""
        check_encoder(info, request.model)
        scored = await backend.score_texts(request.query, request.documents)
        scores = normalise(scored)
        results = [
            Reranked(
                index=index,
                relevance_score=scores[index],
                document={"text": request.documents[index]} if request.return_documents else None,
            )
            for index in order(scores)[: request.top_n]
        ]
        return RerankAnswer(
            id=str(uuid.uuid4()),
            model=request.model or info.recipe,
            results=results,
            usage=TotalUsage(total_tokens=scored.tokens),
            meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        )

    for number in (1, 2):
        app.post(
            f"/v{number}/rerank",
            response_model=RerankAnswer,
            response_model_exclude_none=True,
            responses=ENCODER_ERRORS,
            operation_id=f"rerank_v{number}",
        )(rerank)
    return {"/v1/rerank": EXPECTED, "/v2/rerank": EXPECTED}


def normalise(scored: Scored) -> list[float]:
    """Scores divided by the largest that the query allows; zeros of a query without a vector."""
    return [score / scored.largest if scored.largest else 0.0 for score in scored.scores]


def order(scores: list[float]) -> list[int]:
    """Positions of the scores, highest first, equal ones in their order."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
