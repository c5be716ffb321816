"""What a search over HTTP is limited to: the ``ids`` and the ``filter`` of a request."""

from typing import Any

from cluster.errors import RecipeError
from pipelines.filters.predicates import check, read_json, write_json
from pipelines.filters.subset import Subset
from serving.messages import Fault, Info, Problem, SearchRequest
from serving.problems import RefusalError, format_value

FILTER = 'a condition such as {"field": "year", "op": ">=", "value": 2020}'


def read_subset(request: SearchRequest) -> Subset | None:
    """The documents that a request is limited to; None for all. Its filter must have been checked."""
    if request.filter is None and request.ids is None:
        return None
    ids = None if request.ids is None else tuple(request.ids)
    return Subset(ids, None if request.filter is None else read_json(request.filter))


def check_filter(body: SearchRequest, info: Info) -> None:
    """Refuse a filter that is none, or that does not fit the fields of the documents that are served."""
    if body.filter is None:
        return
    try:
        check(read_json(body.filter), info.fields)
    except RecipeError as error:
        fault = Fault(field="filter", expected=describe_filter(info), got=format_value(body.filter))
        raise RefusalError(422, Problem(error=f"filter: {error}", fields=[fault])) from error


def describe_filter(info: Info) -> str:
    """Describe the valid values of ``filter``."""
    fields = ", ".join(f"{name} ({kind})" for name, kind in info.fields.items())
    return f"{FILTER}, over {fields}; or null" if fields else "null: the documents have no metadata"


def write_filter(condition: Any) -> Any:
    """The filter of a request, from JSON as it is or from the text form of the command line."""
    if not isinstance(condition, str):
        return condition
    from pipelines.filters.text import parse

    return write_json(parse(condition))
