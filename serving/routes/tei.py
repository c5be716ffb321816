"""``POST /embed``, ``POST /rerank`` and ``GET /info`` in the form of text-embeddings-inference.

``GET /info`` says what is served, and adds the fields by which that server's clients size their batches. As there,
``truncate`` is false where it is left out, and a longer text is refused with 413. ``prompt_name`` is "query" or
"document", the latter where it is left out.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import Field

from serving.backend import Backend, UnavailableError
from serving.encoding import Encoded, EncoderFacts
from serving.messages import Info
from serving.problems import Phrase, refuse
from serving.routes import (
    ENCODER_ERRORS,
    MAX_RERANKED,
    MAX_TEXTS,
    MODEL,
    TEXTS,
    InputType,
    Message,
    Text,
    Texts,
    check_encoder,
)
from serving.routes.embeddings import check_dense, check_dimensions, cut_vector, write_vectors
from serving.routes.rerank import normalise, order

log = logging.getLogger("ray.serve")


class EmbedRequest(Message):
    """Texts to encode. Vectors are of unit length where the encoder makes them so, whatever ``normalize`` says."""

    inputs: Texts = Field(description="A text or a list of texts.")
    truncate: bool | None = Field(False, description="Read the beginning of a text that is too long.")
    truncation_direction: Literal["Right", "right"] = Field("Right", description="Texts are cut at their end.")
    prompt_name: InputType | None = Field(None, description="What the texts are; documents when left out.")
    normalize: bool = Field(True, description="Not used: vectors have unit length where the encoder makes them so.")
    dimensions: int | None = Field(None, ge=1, description="Cut vectors to so many dimensions, where the model may be.")
    model: str | None = Field(None, description="The served model; the names are those of GET /v1/models.")


class RankRequest(Message):
    """A query, and the texts to order by it."""

    query: Text
    texts: list[str] = Field(min_length=1, max_length=MAX_RERANKED)
    raw_scores: bool = Field(False, description="The scores of a search, in place of mean cosines.")
    return_text: bool = Field(False, description="Repeat the text in each result.")
    truncate: bool | None = Field(False, description="Not used: a text is read whole, in windows.")
    truncation_direction: Literal["Right", "right"] = "Right"
    model: str | None = Field(None, description="The served model; the names are those of GET /v1/models.")


class Rank(Message):
    """A text by its ``index`` in the request."""

    index: int
    score: float
    text: str | None = None


class AboutServer(Info):
    """Description of the served system, with the fields of text-embeddings-inference.

    ``max_input_length`` and ``model_type`` are null where there is no encoder, or none that answers.
    """

    model_id: str
    model_sha: str | None = None
    model_dtype: str = "float32"
    model_type: dict[str, dict[str, Any]] | None = None
    max_input_length: int | None = None
    max_query_length: int | None = None
    max_client_batch_size: int = MAX_TEXTS
    auto_truncate: bool = False
    version: str


EXPECTED_EMBED = {
    "inputs": TEXTS,
    "truncate": "true or false",
    "truncation_direction": '"Right"',
    "prompt_name": '"query" or "document"; or null',
    "normalize": "true or false",
    "dimensions": "a number of dimensions to which the model's vectors may be cut; or null",
    "model": MODEL,
}
EXPECTED_RANK = {
    "query": "a text that is not empty",
    "texts": f"a list of 1 to {MAX_RERANKED} texts",
    "raw_scores": "true or false",
    "return_text": "true or false",
    "truncate": "true or false",
    "truncation_direction": '"Right"',
    "model": MODEL,
}


def add_routes(app: FastAPI, backend: Backend, info: Info) -> dict[str, Mapping[str, str]]:
    """Add the routes."""

    @app.post("/embed", response_model=list[list[float]], responses=ENCODER_ERRORS, operation_id="embed")
    async def embed(request: EmbedRequest) -> JSONResponse:
        """Encode texts: one vector for each."""
        check_encoder(info, request.model)
        facts = await backend.describe_encoder()
        check_dense(info, facts)
        check_dimensions(facts, request.dimensions)
        encoded = await backend.encode_texts(request.inputs, request.prompt_name or "document")
        if not request.truncate:
            check_lengths(encoded)
        vectors = [cut_vector(vector, request.dimensions) for vector in encoded.vectors]
        return JSONResponse([write_vectors(vector, "float") for vector in vectors])

    @app.post(
        "/rerank",
        response_model=list[Rank],
        response_model_exclude_none=True,
        responses=ENCODER_ERRORS,
        operation_id="rerank",
    )
    async def rerank(request: RankRequest) -> list[Rank]:
        """Order texts by how well they answer a query."""
        check_encoder(info, request.model)
        scored = await backend.score_texts(request.query, request.texts)
        scores = scored.scores if request.raw_scores else normalise(scored)
        texts: Sequence[str | None] = request.texts if request.return_text else [None] * len(scores)
        return [Rank(index=index, score=scores[index], text=texts[index]) for index in order(scores)]

    @app.get("/info", operation_id="describe")
    async def describe() -> AboutServer:
        """Describe the served system: model, index, languages, shards, limits, and the versions of the software."""
        facts = None
        if info.kind != "bm25":
            try:
                facts = await backend.describe_encoder()
            except UnavailableError as error:  # what is served can be told without it
                log.warning("GET /info: %s", error)
        return AboutServer(**dict(info), **_describe_model(info, facts))

    return {"/embed": EXPECTED_EMBED, "/rerank": EXPECTED_RANK}


def check_lengths(encoded: Encoded) -> None:
    """Refuse texts of which the encoder read the beginning only."""
    for index, (tokens, read) in enumerate(zip(encoded.tokens, encoded.read, strict=True)):
        if tokens > read:
            expected = f"texts of at most {read} tokens, or truncate: true"
            raise refuse(413, f"inputs.{index}", expected, Phrase(f"{tokens} tokens"))


def _describe_model(info: Info, facts: EncoderFacts | None) -> dict[str, Any]:
    """The fields of text-embeddings-inference."""
    named = {"model_id": info.model or f"{info.recipe}/{info.system}", "version": info.versions["babelray"]}
    if facts is None:
        return named
    kind = {"embedding": {"pooling": facts.pooling or "last"}}
    if facts.similarity == "maxsim":  # which that server knows as one that orders texts
        kind = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}  # type: ignore[dict-item]
    lengths = {"max_input_length": facts.max_tokens["document"], "max_query_length": facts.max_tokens["query"]}
    return named | {"model_type": kind} | lengths
