"""``POST /encode``: the vectors of each text's tokens, for those who index in another engine.

Any encoder answers; one with one vector for each text gives that. ``input_type`` must be said: a late-interaction
encoder reads questions and documents differently. A text is cut at what the encoder reads (``max_input_length`` of
``GET /info``): whoever indexes long documents cuts them into passages before.
"""

from collections.abc import Mapping
from typing import Literal

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import Field

from serving.backend import Backend
from serving.messages import Info
from serving.routes import ENCODER_ERRORS, MODEL, TEXTS, EncodingFormat, InputType, Message, Texts, Usage, check_encoder
from serving.routes.embeddings import count_usage, respond_list, write_vectors


class EncodeRequest(Message):
    """Texts to encode, and what they are."""

    input: Texts = Field(description="A text or a list of texts.")
    input_type: InputType = Field(description="What the texts are.")
    model: str | None = Field(None, description="The served model; the names are those of GET /v1/models.")
    encoding_format: EncodingFormat = Field(
        "float", description="base64 holds tokens × dim numbers of float16, little-endian: a tenth of the length."
    )


class EncodedText(Message):
    """The vectors of one text: as many as ``vectors`` says, of ``dim`` numbers each. Punctuation may have none."""

    index: int
    vectors: int
    embedding: list[list[float]] | str


class EncodeAnswer(Message):
    """The vectors of the texts, in their order, and how they are to be compared."""

    object: Literal["list"]
    model: str
    dim: int
    similarity: Literal["maxsim", "dot"]
    data: list[EncodedText]
    usage: Usage


EXPECTED = {
    "input": TEXTS,
    "input_type": '"query" or "document"',
    "model": MODEL,
    "encoding_format": '"float" or "base64"',
}


def add_routes(app: FastAPI, backend: Backend, info: Info) -> dict[str, Mapping[str, str]]:
    """Add the route."""

    @app.post("/encode", response_model=EncodeAnswer, responses=ENCODER_ERRORS, operation_id="encode")
    async def encode(request: EncodeRequest) -> Response:
        """Encode texts: a vector for each token of a late-interaction encoder."""
        check_encoder(info, request.model)
        facts = await backend.describe_encoder()
        encoded = await backend.encode_texts(request.input, request.input_type)
        data = (
            {"index": index, "vectors": len(found), "embedding": write_vectors(found, request.encoding_format, "<f2")}
            for index, found in enumerate(encoded.vectors)
        )
        named = {"model": request.model or info.recipe, "dim": facts.dim, "similarity": facts.similarity}
        return await respond_list(named | {"usage": count_usage(sum(encoded.read))}, data)

    return {"/encode": EXPECTED}
