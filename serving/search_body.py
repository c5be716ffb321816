"""The body of ``POST /search``: one query or several, with this server's limits in its schema."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, create_model

from serving.messages import MAX_QUERIES, Info, SearchRequest


class SearchBody(SearchRequest):
    """The body of ``POST /search``: a ``query`` or a list of ``queries``, how to search for them, and with which of the
    served models."""

    query: str | None = None  # type: ignore[assignment]  # None where there are queries
    queries: list[str] | None = None
    model: str | None = Field(None, description="The served model; the names are those of GET /v1/models.")

    def list_requests(self) -> list[SearchRequest]:
        """List the searches that the body asks for."""
        common = {name: getattr(self, name) for name in SearchRequest.model_fields if name != "query"}
        return [SearchRequest(query=query, **common) for query in self.queries or filter(None, [self.query])]


def build_request_model(info: Info) -> type[SearchBody]:
    """Build a SearchBody whose schema has this server's query length and languages."""
    text = Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=info.limits.max_query_chars)
    ]
    codes: Any = Literal[tuple(language.code for language in info.languages)]
    fields = SearchRequest.model_fields
    many = "Several questions, in place of `query`; the answer is then a list of `answers`."
    narrowed: dict[str, Any] = {
        "query": (text, Field(None, description=fields["query"].description)),
        "queries": (list[text] | None, Field(None, min_length=1, max_length=MAX_QUERIES, description=many)),
        "languages": (list[codes] | None, Field(None, min_length=1, description=fields["languages"].description)),
    }
    return create_model("SearchRequest", __base__=SearchBody, __doc__=None, **narrowed)
