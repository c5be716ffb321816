"""Translation by a language model behind an OpenAI-compatible endpoint.

Cost: what the endpoint takes for the tokens of prompts and translations; each row is paid for once.
"""

from typing import Literal

from pipelines.engines.endpoint import Endpoint, EndpointGenerator
from pipelines.translators.prompted import Prompted, PromptedTranslator


class OpenAi(Prompted, Endpoint):
    """A model that a server runs."""

    kind: Literal["openai"] = "openai"

    def build(self, source_lang: str, target_lang: str) -> PromptedTranslator:
        """Connect with nothing yet; raises RecipeError where the key is not in the environment."""
        return PromptedTranslator(self, EndpointGenerator(self), source_lang, target_lang)
