"""The one form of every error response, and the sentences in it.

{"error": "one sentence", "fields": [{"field": "k", "expected": "…", "got": "…"}], "missing": ["shards-0", …]}
"""

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from serving.messages import Fault, Problem

MAX_GOT = 200  # characters of an invalid value that an error repeats


class RefusalError(Exception):
    """A request that is refused with this status and problem."""

    def __init__(self, status: int, problem: Problem, headers: Mapping[str, str] | None = None):
        super().__init__(problem.error)
        self.status, self.problem, self.headers = status, problem, headers


def refuse(status: int, field: str, expected: str, got: Any) -> RefusalError:
    """Make the refusal of one field. ``got`` is a value of the request, or a ``Phrase`` about it."""
    fault = Fault(field=field, expected=expected, got=got if isinstance(got, Phrase) else format_value(got))
    return RefusalError(status, describe_faults([fault]))


def refuse_for_now(status: int, sentence: str, retry_after_s: int) -> RefusalError:
    """Make the refusal of a request that may be sent again after so many seconds."""
    return RefusalError(status, Problem(error=sentence), {"Retry-After": str(retry_after_s)})


class Phrase(str):
    """Words about what a request had, where they say more than its value."""


def describe_faults(faults: list[Fault]) -> Problem:
    """Make the problem of a request with these faults."""
    sentence = "; ".join(f"{fault.field}: expected {fault.expected}, got {fault.got}" for fault in faults)
    return Problem(error=sentence, fields=faults)


def respond(status: int, problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the response."""
    return JSONResponse(problem.model_dump(), status_code=status, headers=dict(headers) if headers else None)


def explain_fault(item: Mapping[str, Any], expected: Mapping[str, str]) -> Fault:
    """Translate a pydantic error into the field, what was expected and what the request had.

    ``expected`` describes the valid values of each field of the route.
    """
    names = [str(part) for part in item["loc"] if part != "body"]
    if item["type"] == "json_invalid":
        return Fault(field="body", expected="valid JSON", got=f"{item['ctx']['error']} at character {names[0]}")
    if not names:
        return Fault(field="body", expected="a JSON object, sent as application/json", got=format_value(item["input"]))
    fields = ", ".join(expected)
    return Fault(
        field=".".join(name or '""' for name in names),
        expected=expected.get(names[0], f"one of the fields {fields}"),
        got="nothing" if item["type"] == "missing" else format_value(item["input"]),
    )


def explain_parser_error(error: BaseException | None) -> Fault:
    """Explain why Python's JSON parser refused a body, which may still be correct JSON."""
    if isinstance(error, UnicodeDecodeError):
        return Fault(field="body", expected="JSON in UTF-8", got="bytes that are not UTF-8")
    if isinstance(error, RecursionError):
        return Fault(field="body", expected="a flat JSON object", got="brackets within brackets, too deep to parse")
    if isinstance(error, ValueError):
        return Fault(field="body", expected="numbers that fit a search", got="a number with too many digits to parse")
    return Fault(field="body", expected="a JSON object", got="a body that cannot be parsed")


def format_value(value: Any) -> str:
    """Format an invalid value as short JSON for an error message.

    Every value can be sent: a lone surrogate is escaped, and NaN, which JSON lacks, is written as a word.
    """
    if value is None:
        return "nothing"
    try:
        text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    except RecursionError:  # writing needs more of the stack than parsing did
        return "brackets within brackets"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_GOT else f"{text[:MAX_GOT]}… ({len(text)} characters)"
