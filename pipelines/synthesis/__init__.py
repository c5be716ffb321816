"""Questions that are written for passages that have none. The union below is the registry of what writes them."""

from typing import Annotated

from pydantic import Field

from pipelines.synthesis.llm import Llm
from pipelines.synthesis.templates import Templates

Synthesis = Annotated[Templates | Llm, Field(discriminator="kind")]
