"""Translation by a language model: one prompt per text, and as many tokens for the answer as a translation may need."""

from math import ceil
from typing import Self

from pydantic import Field, field_validator, model_validator

from cluster.component import Component, Resources
from pipelines import languages
from pipelines.generation import Generated, Generator
from pipelines.prompts import fill_prompt, read_prompt

PLACEHOLDERS = ("source_language", "target_language", "text")
SPARE_TOKENS = 32  # of a short text the translation may be many times as long


class Prompted(Component):
    """Fields of every translator that is a language model.

    Attributes:
        prompt: the name of a prompt in ``pipelines/translators/prompts``, the path of a file, or a text, with
            {source_language}, {target_language} (English names) and {text}.
        max_ratio: the longest translation, in tokens per token of its source, and 32 more. One that is cut off there
            is rejected.
        max_ratios: the same for some pairs of languages: ``{"en-th" = 6}``.
        resources: of the actors of this stage; None is ``resources.translate``.
    """

    prompt: str = "translate"
    max_ratio: float = Field(3.0, gt=0)
    max_ratios: dict[str, float] = {}
    resources: Resources | None = None

    @field_validator("prompt")
    @classmethod
    def _read_prompt(cls, value: str) -> str:
        return read_prompt(value, "pipelines.translators", PLACEHOLDERS)

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        for pair, ratio in self.max_ratios.items():
            if not _is_pair(pair) or ratio <= 0:
                raise ValueError(
                    f"max_ratios: expected pairs of languages and numbers, as en-th = 6, got {pair} = {ratio}"
                )
        return self


class PromptedTranslator:
    """Translates from one language to another by a loaded language model."""

    def __init__(self, config: Prompted, generator: Generator, source_lang: str, target_lang: str) -> None:
        self._prompt = config.prompt
        self._languages = {
            "source_language": languages.name(source_lang),
            "target_language": languages.name(target_lang),
        }
        self._ratio = config.max_ratios.get(f"{source_lang}-{target_lang}", config.max_ratio)
        self._generator = generator

    def translate(self, texts: list[str]) -> list[Generated]:
        """Translate each text."""
        prompts = [fill_prompt(self._prompt, text=text, **self._languages) for text in texts]
        limits = [ceil(self._ratio * count) + SPARE_TOKENS for count in self._generator.count_tokens(texts)]
        answers = self._generator.generate(prompts, limits)
        return [answer._replace(text=answer.text.strip()) for answer in answers]


def _is_pair(text: str) -> bool:
    """Whether a text is two codes of languages with a hyphen between; a code may have one itself (zh-Hant)."""
    words = text.split("-")
    return any(
        languages.is_known("-".join(words[:i])) and languages.is_known("-".join(words[i:]))
        for i in range(1, len(words))
    )
