"""Which of the served models answers a request: the one that it names, as ``model`` in its body or its address.

A gateway that serves one model leaves a name in a body to the route that reads it. Where there are several, the name is
looked for before a route reads the body: a body that is no JSON, or a name that is no text, goes to the default
model, whose route answers with the error. ``GET /v1/models`` and ``GET /health`` are answered for all models together.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope

from serving.bodies import put_back, read_messages
from serving.messages import Health, PartStatus, body_limit
from serving.problems import RefusalError, refuse, refuse_for_now
from serving.slots import Slots

if TYPE_CHECKING:
    from serving.generation import Generation


async def choose(slots: Slots, scope: Scope, receive: Receive) -> "tuple[Generation, Receive]":
    """Choose what answers a request. Returns it, and a ``receive`` that begins with what was read of the body.

    Raises:
        RefusalError: 404, the model is not served; 503, the default is not served yet.
    """
    named = _find_in_address(scope)
    if named is None and scope["method"] == "POST" and len(slots.slots) > 1:
        named, receive = await _read_model(scope, receive)
    if named is not None:
        served = slots.list_models()
        if named not in served:
            raise refuse_name(served, named)
        return served[named], receive
    if slots.default is None:
        raise refuse_for_now(503, "not ready: the default model starts; try again", 1)
    return slots.default, receive


def refuse_name(served: Iterable[str], named: str) -> RefusalError:
    """The refusal of a model that is not served."""
    return refuse(404, "model", f"one that is served: {', '.join(served)}", named)


def list_all(slots: Slots) -> dict[str, Any]:
    """The body of ``GET /v1/models`` for all models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "babelray"} for name in slots.list_models()]
    return {"object": "list", "data": data}


async def check_all(slots: Slots) -> Health:
    """The health of all models: the parts of each under ``recipe/system/part``, and the status of the worst."""
    parts: dict[str, PartStatus] = {}
    for generation in slots.current:
        name = f"{generation.info.recipe}/{generation.info.system}"
        parts |= {f"{name}/{part}": state for part, state in (await generation.check_parts()).items()}
    return Health.of(parts)


def _find_in_address(scope: Scope) -> str | None:
    found = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get("model")
    return found[0] if found else None


async def _read_model(scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
    """Read the name of the model from a body. Returns it, and a ``receive`` that begins with what was read."""
    messages = await read_messages(receive, body_limit(scope["path"]))
    body = b"".join(message.get("body", b"") for message in messages)
    return _parse_model(body), put_back(messages, receive)


def _parse_model(body: bytes) -> str | None:
    if b'"model"' not in body:  # most have none, and a body of texts takes a while to parse
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    named = parsed.get("model") if isinstance(parsed, dict) else None
    return named if isinstance(named, str) else None
