"""What the HTTP interface asks of the system behind it, and what that may refuse. Without Ray."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from serving.encoding import Encoded, EncoderFacts, Scored, Task, TokenMatch
from serving.messages import PartStatus, Result, SearchAnswer, SearchRequest


class UnavailableError(Exception):
    """Parts that a search needs did not answer.

    ``gone`` names those without a running replica, ``late`` those that did not answer within the ``waited_s`` seconds
    that their stage had.
    """

    def __init__(self, gone: list[str], late: list[str], waited_s: float):
        super().__init__(f"no answer from {', '.join([*gone, *late])}")
        self.gone, self.late, self.waited_s = gone, late, waited_s


Answering = Callable[[SearchRequest], Awaitable[SearchAnswer]]


class Backend(Protocol):
    """The system behind the HTTP interface. Each method may raise UnavailableError: a part did not answer.

    ``words`` answers a search by an index of words of the same documents, where one is served beside this.
    """

    words: Answering | None

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Answer a search, without its explanation."""

    async def score_again(self, query: str, results: Sequence[Result]) -> list[float]:
        """Score the texts of results by the recipe's scorer for that. Only where there is one."""

    async def check_parts(self) -> dict[str, PartStatus]:
        """The status of each part by its name, as of the last health check."""

    async def describe_encoder(self) -> EncoderFacts:
        """Describe the encoder. Only where there is one, as for the methods below."""

    async def encode_texts(self, texts: Sequence[str], task: Task) -> Encoded:
        """Encode texts, as queries or as documents."""

    async def score_texts(self, query: str, texts: Sequence[str]) -> Scored:
        """Score texts against a query, each by its best passage."""

    async def match_tokens(self, query: str, texts: Sequence[str]) -> list[list[TokenMatch]]:
        """Find the token of each text's best passage that each token of the query matched."""
