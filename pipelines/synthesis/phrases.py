"""The phrases of synthetic queries, one file of package data per language: templates, and prompts for a model.

A template stands around words of the passage: {words}, {title} or {sentence}. A prompt holds the passage, {text}, and
may name the {language} to write in.
"""

import tomllib
from functools import lru_cache
from importlib.resources import files
from string import Formatter
from typing import Any

from cluster.errors import RecipeError
from pipelines.synthesis.base import Task, Wording

FALLBACK = "en"  # its prompts name the language to write in
# these need no words around the passage's own, so they work in every language
VERBATIM = {
    "keywords": Wording(phrases=("{words}",), separator=" "),
    "title": Wording(phrases=("{title}",)),
    "claim": Wording(phrases=("{sentence}",)),
}


def list_languages() -> list[str]:
    """The languages that have phrases."""
    names = (file.name for file in (files("pipelines.synthesis") / "phrases").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def find_templates(task: Task, lang: str) -> Wording:
    """The templates of a task in a language. Raises RecipeError where the language has none."""
    if task in VERBATIM:
        return VERBATIM[task]
    if lang not in list_languages():
        raise RecipeError(
            f"synthesis.kind = templates has no phrases for synthesis.task = {task!r} in {lang!r}; it has "
            f"{', '.join(list_languages())}. Choose the task {', '.join(sorted(VERBATIM))}, or synthesis.kind = llm"
        )
    phrases = _read(lang)
    return Wording(phrases=tuple(phrases["templates"][task]), separator=phrases["separator"])


def find_prompt(task: Task, lang: str) -> Wording:
    """The prompt of a task in a language, or the English one."""
    return Wording(phrases=(_read(lang if lang in list_languages() else FALLBACK)["prompts"][task].strip(),))


def check_prompt(prompt: str) -> str:
    """A prompt that holds {text} and no placeholder but this and {language}.

    Raises:
        ValueError: it does not.
    """
    try:
        found = {name for _, name, _, _ in Formatter().parse(prompt) if name is not None}
    except ValueError as error:
        raise ValueError(f"{error}; write a brace that is meant as {{{{ or }}}}") from error
    if "text" not in found or found - {"text", "language"}:
        raise ValueError(
            "expected the placeholder {text}, and maybe {language}, "
            f"got {', '.join(sorted('{' + name + '}' for name in found)) or 'none'}"
        )
    return prompt


@lru_cache(maxsize=64)
def _read(lang: str) -> dict[str, Any]:
    return tomllib.loads((files("pipelines.synthesis") / "phrases" / f"{lang}.toml").read_text("utf-8"))
