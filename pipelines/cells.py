"""What the pages of results are built from: tables, lines, names of languages, numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines import languages
from pipelines.evaluate import CROSS, MONO, POOL

if TYPE_CHECKING:
    from rich.text import Text

OVER = {POOL: "all languages", MONO: "within a language", CROSS: "across languages"}


def table(title: str, first: str, columns: Sequence[str]) -> Any:
    """A table with a title, whose columns after the first stand to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    made.add_column(first)
    for column in columns:
        made.add_column(column, justify="right")
    return made


def line(*parts: tuple[str, str]) -> "Text":
    """A line of styled text. Text, not markup: brackets in a passage are brackets."""
    from rich.text import Text

    return Text.assemble(*parts)


def language(lang: str) -> str:
    """A language with its name; the two of a sentence pair (``de/fr``); what is measured over several."""
    if lang in OVER:
        return OVER[lang]
    return f"{lang}  {' / '.join(map(languages.name, lang.split('/')))}"


def best_bold(values: Sequence[float | None]) -> "list[Text]":
    """The values with three digits, the greatest (as shown) in bold."""
    shown = [number(value) for value in values]
    best = max((text for text in shown if text != "–"), default=None, key=float)
    return [line((text, "bold" if text == best else "")) for text in shown]


def number(value: float | None) -> str:
    """A value with three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"
