"""The routes, a module for each service whose clients they serve, and what the modules share.

Each module has ``add_routes(app, backend, info)``, which returns the valid values of the fields of each path's body, as
phrases for error messages.

    search      /search
    embeddings  /v1/embeddings, /v1/models: OpenAI
    encode      /encode: the vectors of tokens, for those who index elsewhere
    rerank      /v1/rerank, /v2/rerank: Jina and Cohere
    tei         /embed, /rerank, /info: text-embeddings-inference
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel as _BaseModel
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from serving.messages import MAX_BODY, Info, Problem
from serving.problems import Phrase, RefusalError, refuse

MAX_TEXTS = 256  # to encode in one request
MAX_RERANKED = 1000  # texts of one request, as Cohere advises
INVALID = {"model": Problem, "description": "The request is not valid; `fields` states what was expected."}
UNREADABLE = {"model": Problem, "description": "The body is not JSON."}
TOO_LONG = {"model": Problem, "description": f"The body is too long: {MAX_BODY:,} bytes of a search, else 2 MiB."}
NOT_SERVED = {"model": Problem, "description": "The model is not served, or has no vectors of the kind asked for."}
FAILED = {"model": Problem, "description": "An error of the server; its log has the details."}
TOO_SLOW = {"model": Problem, "description": "The body did not arrive in time."}
BUSY = {"model": Problem, "description": "Too many requests wait; `Retry-After` says when to try again."}
UNAVAILABLE = {"model": Problem, "description": "Parts of the system do not answer; `missing` names them. Try again."}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: UNREADABLE,
    408: TOO_SLOW,
    413: TOO_LONG,
    422: INVALID,
    429: BUSY,
    500: FAILED,
    503: UNAVAILABLE,
}
ENCODER_ERRORS = ERRORS | {404: NOT_SERVED}


class Message(_BaseModel):
    """A message of a route. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Text = Annotated[str, Field(min_length=1)]
InputType = Literal["query", "document"]
EncodingFormat = Literal["float", "base64"]


def _list_texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# one text, or a list of texts
Texts = Annotated[
    list[Text],
    BeforeValidator(_list_texts),
    Field(min_length=1, max_length=MAX_TEXTS),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                    "maxItems": MAX_TEXTS,
                },
            ]
        }
    ),
]
TEXTS = f"a text that is not empty, or a list of 1 to {MAX_TEXTS} of them"
MODEL = "the name of the model that is served; or null"


class Usage(Message):
    """The tokens that the encoder read, its own ([CLS], a prompt) among them."""

    prompt_tokens: int
    total_tokens: int


def list_models(info: Info) -> list[str]:
    """The names under which the served model may be asked for: the recipe, recipe/system, what identifies it."""
    return list(dict.fromkeys(filter(None, [info.recipe, f"{info.recipe}/{info.system}", info.model])))


def check_model(info: Info, model: str | None) -> None:
    """Refuse a request for a model that is not served. (Where there are several, ``serving.choice`` comes before.)"""
    if model is not None and model not in list_models(info):
        raise refuse(404, "model", f"one that is served: {', '.join(list_models(info))}", model)


def check_encoder(info: Info, model: str | None = None) -> None:
    """Refuse a request where the server has no encoder, or not the model that is asked for."""
    check_model(info, model)
    if info.kind == "bm25":
        raise RefusalError(
            404,
            Problem(
                error=f"system {info.system} of recipe {info.recipe} is an index of words and has no encoder: "
                "serve a system with one, such as student"
            ),
        )


def refuse_model(info: Info, needed: str, found: str) -> RefusalError:
    """The refusal of a request that the served encoder cannot answer."""
    return refuse(422, "model", needed, Phrase(f"{info.recipe}, {found}"))
