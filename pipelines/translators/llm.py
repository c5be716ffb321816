"""Translation by a language model that vLLM runs in the actor.

Cost: the model's time for the prompt's tokens and the translation's; a part is one call, so that the engine is full.
"""

from typing import ClassVar, Literal

from pipelines.engines.vllm import VllmOptions, load
from pipelines.models import Pretrained
from pipelines.translators.prompted import Prompted, PromptedTranslator


class Llm(Prompted, Pretrained):
    """A causal language model; ``engine`` says how vLLM runs it."""

    may_be_student: ClassVar[bool] = False

    kind: Literal["llm"] = "llm"
    engine: VllmOptions = VllmOptions()

    def build(self, source_lang: str, target_lang: str) -> PromptedTranslator:
        """Start the engine in this process, unless it runs: half a minute, and the time to load the weights."""
        return PromptedTranslator(self, load(self, self.engine), source_lang, target_lang)
