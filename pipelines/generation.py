"""Generation: what a language model writes after a prompt, whatever runs it.

Translators, teachers and writers of questions that are language models use this one contract, so that an engine in the
actor (vLLM) and an endpoint over HTTP can take each other's place.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Generated(NamedTuple):
    """What a model wrote. ``ended`` is false where it was cut at its limit; ``failure`` says in a few words why there
    is no text, where there is none."""

    text: str
    ended: bool = True
    failure: str | None = None


class Generator(Protocol):
    """A loaded language model."""

    def generate(self, prompts: Sequence[str], limits: Sequence[int]) -> list[Generated]:
        """Continue each prompt, greedily, by at most its limit of tokens. All prompts of a part come in one call."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
