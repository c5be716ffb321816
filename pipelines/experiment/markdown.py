"""What an experiment found, as a Markdown page for a repository: verdicts, means, effects, power, commands."""

import re
from collections.abc import Iterable, Iterator, Sequence

from pipelines.experiment import words
from pipelines.experiment.results import Cell, Contrast, ExperimentResult, Verdict
from pipelines.experiment.words import name_language, sort_languages, write_number


def write_markdown(result: ExperimentResult) -> str:
    """The page. Numbers and words are those of the terminal and of report.html."""
    head = (f"# {_escape(result.name)}", "", _escape(result.about))
    return "\n".join([*head, *_verdicts(result), *_means(result), *_rest(result)]) + "\n"


def _verdicts(result: ExperimentResult) -> Iterator[str]:
    yield from ("", "## Verdicts")
    for claim in result.claims:
        of_claim = words.sort_found([v for v in result.verdicts if v.claim == claim.name])
        yield from _claim(claim.claim or claim.name, of_claim, words.describe_test(claim))
        yield from _items((verdict.answer, words.write_sentence(verdict)) for verdict in of_claim)
    for axes in result.axis_claims:
        of_axes = result.list_contrasts(axes)
        yield from _claim(axes.title, of_axes, "bootstrap interval of the difference of the two effects")
        contrasts = words.sort_found(of_axes)
        yield from _items((contrast.answer, words.write_contrast(contrast)) for contrast in contrasts)


def _claim(text: str, found: Sequence[Verdict | Contrast], test: str) -> Iterator[str]:
    yield from ("", f"**{words.count_answers(found)}**: {_escape(text)}  ", f"({_escape(test)})", "")


def _escape(text: str) -> str:
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)  # else it would begin an element


def _items(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from (f"* {answer}: {_escape(sentence)}" for answer, sentence in found)


def _means(result: ExperimentResult) -> Iterator[str]:
    yield from ("", "## Means", "", "± reaches to the ends of the 95 % interval over questions.")
    for measure in dict.fromkeys(cell.measure for cell in result.cells):
        cells = [cell for cell in result.cells if cell.measure == measure]
        langs, found = sort_languages(cell.lang for cell in cells), {(cell.variant, cell.lang): cell for cell in cells}
        yield from ("", f"{measure}, {max(cell.questions for cell in cells):,} questions:", "")
        yield from _row("variant", *map(name_language, langs))
        yield from _row("---", *("---:" for _ in langs))
        for variant in dict.fromkeys(cell.variant for cell in cells):
            yield from _row(variant, *(_mean(found.get((variant, lang))) for lang in langs))


def _row(*values: str) -> Iterator[str]:
    yield f"| {' | '.join(_escape(value).replace('|', '&#124;') for value in values)} |"


def _mean(cell: Cell | None) -> str:
    if cell is None:
        return words.NONE
    return write_number(cell.mean) + ("" if cell.high is None else f" ± {write_number(cell.high - cell.mean)}")


def _rest(result: ExperimentResult) -> Iterator[str]:
    """The effects of a grid, what could have been found, what the data cannot show, and the commands."""
    if result.effects:
        yield from ("", "## Effects of the grid", "", "| axis | language | measure | effect | explained |")
        yield from _row("---", "---", "---", "---:", "---:")
        explained = {(fit.measure, fit.lang): fit.explained for fit in result.fits}
        for effect in result.effects:
            share = explained.get((effect.measure, effect.lang))
            percent = words.NONE if share is None else f"{100 * share:.0f} %"
            yield from _row(
                effect.axis, name_language(effect.lang), effect.measure, words.write_effect(effect), percent
            )
    yield from ("", "## What these data can show", "")
    yield from (f"* {_escape(line)}" for line in [*words.describe_power(result), *result.notes])
    if result.commands:
        yield from ("", "## Commands", "", "The first makes all of it, the others one trial of each variant.", "")
        yield from (f"    {command}" for command in result.commands)
