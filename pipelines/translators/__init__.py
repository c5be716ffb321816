"""Translators: how the text of one language becomes text of another. The union below is their registry."""

from typing import Annotated

from pydantic import Field

from pipelines.translators.llm import Llm
from pipelines.translators.nmt import Nmt
from pipelines.translators.openai import OpenAi
from pipelines.translators.parallel import Parallel

Translator = Annotated[Parallel | Nmt | Llm | OpenAi, Field(discriminator="kind")]
