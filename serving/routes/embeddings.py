"""``POST /v1/embeddings`` and ``GET /v1/models``, in OpenAI's form, for encoders with one vector for each text.

Beside OpenAI's fields there is ``input_type``, "document" where it is left out: questions must be sent as "query",
since most encoders read the two differently. Texts come as strings, not as numbers of tokens.
"""

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import Field

from serving.backend import Backend
from serving.encoding import EncoderFacts
from serving.messages import Info
from serving.problems import refuse
from serving.routes import (
    ENCODER_ERRORS,
    MODEL,
    TEXTS,
    EncodingFormat,
    InputType,
    Message,
    Texts,
    Usage,
    check_encoder,
    list_models,
    refuse_model,
)

DECIMALS = 8  # of components in JSON: more than float32 has in a unit vector of a hundred dimensions


class EmbeddingRequest(Message):
    """Texts to encode."""

    input: Texts = Field(description="A text or a list of texts.")
    model: str | None = Field(None, description="The served model; the names are those of GET /v1/models.")
    encoding_format: EncodingFormat = Field("float", description="base64 holds float32, little-endian.")
    dimensions: int | None = Field(None, ge=1, description="Cut vectors to so many dimensions, where the model may be.")
    input_type: InputType = Field("document", description="What the texts are.")
    user: str | None = Field(None, description="Not used.")


class Embedding(Message):
    """The vector of a text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(Message):
    """The vectors of the texts, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Model(Message):
    """A name of the served model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "babelray"


class ModelList(Message):
    """The names of the served model."""

    object: Literal["list"] = "list"
    data: list[Model]


EXPECTED = {
    "input": TEXTS,
    "model": MODEL,
    "encoding_format": '"float" or "base64"',
    "dimensions": "a number of dimensions to which the model's vectors may be cut; or null",
    "input_type": '"query" or "document"',
    "user": "a text; or null",
}


def add_routes(app: FastAPI, backend: Backend, info: Info) -> dict[str, Mapping[str, str]]:
    """Add the routes."""

    @app.post(
        "/v1/embeddings", response_model=EmbeddingAnswer, responses=ENCODER_ERRORS, operation_id="create_embeddings"
    )
    async def create_embeddings(request: EmbeddingRequest) -> Response:
        """Encode texts: one vector for each."""
        check_encoder(info, request.model)
        facts = await backend.describe_encoder()
        check_dense(info, facts)
        check_dimensions(facts, request.dimensions)
        encoded = await backend.encode_texts(request.input, request.input_type)
        vectors = [cut_vector(vector, request.dimensions) for vector in encoded.vectors]
        data = (
            {"object": "embedding", "index": index, "embedding": write_vectors(vector, request.encoding_format)}
            for index, vector in enumerate(vectors)
        )
        return await respond_list(
            {"model": request.model or info.recipe, "usage": count_usage(sum(encoded.read))}, data
        )

    @app.get("/v1/models", operation_id="list_models")
    async def list_served() -> ModelList:
        """List the names under which the served model may be asked for."""
        return ModelList(data=[Model(id=name) for name in list_models(info)])

    return {"/v1/embeddings": EXPECTED}


def check_dense(info: Info, facts: EncoderFacts) -> None:
    """Refuse a request for one vector of each text where the encoder has several."""
    if facts.similarity != "dot":
        raise refuse_model(
            info, "one with one vector for each text", "which has a vector for each token: POST /encode gives those"
        )


def check_dimensions(facts: EncoderFacts, dimensions: int | None) -> None:
    """Refuse a number of dimensions that the encoder was not trained for."""
    if dimensions is not None and dimensions not in facts.dims:
        raise refuse(422, "dimensions", f"one of {', '.join(map(str, facts.dims))}; or null", dimensions)


def cut_vector(vectors_1D: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The vector of a text, cut to the first dimensions, to unit length where it is cut."""
    vector: np.ndarray = vectors_1D[0]
    if dimensions is None or dimensions == len(vector):
        return vector
    cut = vector[:dimensions]
    return np.asarray(cut / max(float(np.linalg.norm(cut)), 1e-12), np.float32)


def write_vectors(vectors: np.ndarray, form: EncodingFormat, kind: str = "<f4") -> Any:
    """Vectors in JSON: lists of numbers, or base64 of little-endian numbers of ``kind``."""
    if form == "base64":
        return base64.b64encode(vectors.astype(kind).tobytes()).decode()
    return vectors.astype(np.float64).round(DECIMALS).tolist()


async def respond_list(fields: Mapping[str, Any], data: Iterable[dict[str, Any]]) -> Response:
    """Respond with a list in OpenAI's form. It is written in a thread and item by item, since a megabyte of numbers
    would hold up other requests."""

    def write() -> str:
        head = json.dumps({"object": "list", **fields})
        return f'{head[:-1]}, "data": [{", ".join(map(json.dumps, data))}]}}'

    return Response(await asyncio.to_thread(write), media_type="application/json")


def count_usage(tokens: int) -> dict[str, int]:
    """The usage of a request that made the encoder read so many tokens."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}
