"""Queries written by a language model: one prompt for a passage, a part in one call, the first line of the answer."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from pipelines import languages
from pipelines.engines.vllm import VllmOptions, load
from pipelines.generation import Generated, Generator
from pipelines.models import Pretrained
from pipelines.synthesis.base import EMPTY, Passage, Wording, Writing, Written
from pipelines.synthesis.phrases import check_prompt, find_prompt
from pipelines.text import join_title

QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "‘": "’", "「": "」", "《": "》"}


class Prompted(Writing):
    """Base class of what asks a language model.

    ``prompt`` replaces that of the package: a text with {text}, where the passage goes, and maybe {language}.
    ``max_output`` is the longest query in tokens; one that is cut there is rejected.
    """

    prompt: Annotated[str, AfterValidator(lambda text: check_prompt(text) if text else text)] = ""
    max_output: int = Field(64, ge=1)

    def wording(self, lang: str) -> Wording:
        """The prompt."""
        return Wording(phrases=(self.prompt,)) if self.prompt else find_prompt(self.task, lang)


class Llm(Prompted, Pretrained):
    """A causal language model that vLLM runs in the actor; ``engine`` says how."""

    may_be_student: ClassVar[bool] = False

    kind: Literal["llm"] = "llm"
    engine: VllmOptions = VllmOptions()

    def build(self, lang: str, wording: Wording) -> "PromptedWriter":
        """A writer of one language; starts the engine in this process, unless it runs."""
        return PromptedWriter(self, lang, wording, load(self, self.engine))


class PromptedWriter:
    """Asks a loaded model."""

    def __init__(self, config: Prompted, lang: str, wording: Wording, generator: Generator) -> None:
        self._limit, self._generator = config.max_output, generator
        self._prompt, self._language = wording.phrases[0], languages.name(lang)

    def write(self, passages: Sequence[Passage]) -> list[Written]:
        """See ``Writer``."""
        texts = [join_title(passage.title, passage.text) for passage in passages]
        prompts = [self._prompt.format(text=text, language=self._language) for text in texts]
        return [_read_answer(answer) for answer in self._generator.generate(prompts, [self._limit] * len(prompts))]


def _read_answer(answer: Generated) -> Written:
    """The query in an answer: its first line, without quotation marks around it."""
    if answer.failure is not None:
        return Written(reject=answer.failure)
    line, _, rest = answer.text.strip().partition("\n")
    if not (answer.ended or rest):
        return Written(reject="query did not end")
    line = line.strip()
    if len(line) > 1 and QUOTES.get(line[0]) == line[-1]:
        line = line[1:-1].strip()
    return Written(line) if line else Written(reject=EMPTY)
