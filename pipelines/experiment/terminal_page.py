"""What an experiment found, for a terminal: verdicts, means and the effects of a grid. Nothing here prints."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines.experiment import words
from pipelines.experiment.results import Answer, Cell, ExperimentResult
from pipelines.experiment.words import name_language, sort_languages, write_number

if TYPE_CHECKING:
    from rich.console import RenderableType

STYLES: dict[Answer, str] = {"holds": "bold green", "fails": "bold red", "cannot tell": "yellow"}


def experiment_page(result: ExperimentResult) -> "RenderableType":
    """The verdicts in words, the means by each measure, the effects of the grid, and what could have been found."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text.assemble((result.name, "bold"), (f"  {result.about}", "dim"))]
    for claim in result.claims:
        verdicts = [v for v in result.verdicts if v.claim == claim.name]
        parts += ["", Text(claim.claim or claim.name, "bold"), Text(words.describe_test(claim), "dim")]
        for measure in dict.fromkeys(v.measure for v in verdicts):
            of = words.sort_found([v for v in verdicts if v.measure == measure])
            parts.append(_list_verdicts((v.answer, words.write_sentence(v)) for v in of))
    for axis_claim in result.axis_claims:
        contrasts = result.list_contrasts(axis_claim)
        parts += ["", Text(axis_claim.title, "bold")]
        parts.append(_list_verdicts((c.answer, words.write_contrast(c)) for c in words.sort_found(contrasts)))
    for measure in dict.fromkeys(c.measure for c in result.cells):
        parts += ["", _tabulate_means(measure, [c for c in result.cells if c.measure == measure])]
    if result.effects:
        parts += ["", _tabulate_effects(result)]
    parts += [Text(line, "dim") for line in words.describe_power(result)]
    return Group(*parts)


def _list_verdicts(found: Iterable[tuple[Answer, str]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    listed = Table.grid(padding=(0, 1))
    listed.add_column(min_width=len("cannot tell"))
    for answer, sentence in found:
        listed.add_row(Text(answer, STYLES[answer]), Text(sentence))
    return listed


def _tabulate_means(measure: str, cells: list[Cell]) -> "RenderableType":
    """Variants down, languages across: the mean, and how far its interval reaches."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    variants, found = list(dict.fromkeys(c.variant for c in cells)), {(c.variant, c.lang): c for c in cells}
    langs = sort_languages(c.lang for c in cells)
    means = Table(title=f"{measure}: mean, ± to the ends of the 95 % interval over questions", box=box.SIMPLE_HEAD)
    means.title_justify, means.title_style = "left", "bold"
    means.add_column("variant")
    for lang in langs:
        means.add_column(Text(name_language(lang)), justify="right")
    for variant in variants:
        means.add_row(Text(variant), *(_write_mean(found.get((variant, lang))) for lang in langs))
    return means


def _write_mean(cell: Cell | None) -> str:
    if cell is None:
        return words.NONE
    return write_number(cell.mean) + ("" if cell.high is None else f" ±{write_number(cell.high - cell.mean)}")


def _tabulate_effects(result: ExperimentResult) -> "RenderableType":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    effects = Table(title="Main effects, 95 % bootstrap intervals", box=box.SIMPLE_HEAD)
    effects.title_justify, effects.title_style = "left", "bold"
    for name in ("axis", "language", "measure", "effect"):
        effects.add_column(name)
    for effect in result.effects:
        cells = (effect.axis, name_language(effect.lang), effect.measure, words.write_effect(effect))
        effects.add_row(*map(Text, cells))
    return effects
