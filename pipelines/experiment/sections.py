"""The sections of an experiment's page, each HTML, and empty where the experiment has nothing of the kind."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from pipelines.evaluate import POOL
from pipelines.experiment import plots, words
from pipelines.experiment.claims import Axis, Grid
from pipelines.experiment.markup import Html, element, frame_table, join, table
from pipelines.experiment.results import Answer, Cell, ExperimentResult, Verdict
from pipelines.experiment.words import name_language, sort_languages, write_interval, write_number, write_signed

MANY = 8  # verdicts that need an overview
PALEST, DARKEST = 6, 62  # percent of colour in a heat map


def describe(result: ExperimentResult) -> str:
    """How many variants, languages, measures, questions and seeds there are."""
    variants, measures = ({getattr(c, of) for c in result.cells} for of in ("variant", "measure"))
    counts = [
        (len(variants), "variant"),
        (len({c.lang for c in result.cells} - {POOL}), "language"),
        (len(measures), "measure"),
        (max((c.questions for c in result.cells), default=0), "question"),
        (max((c.seeds for c in result.cells), default=0), "seed"),
    ]
    return " · ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in counts if n)


def show_claims(result: ExperimentResult) -> Html:
    """An overview where there are many verdicts, and each claim with its verdicts in words."""
    cards = [_overview(result)] if len(result.verdicts) > MANY else []
    for claim in result.claims:
        verdicts = [v for v in result.verdicts if v.claim == claim.name]
        parts = [element("h3", claim.claim or claim.name)]
        parts.append(element("p", f"{claim.name}: {words.describe_test(claim)}", class_="quiet"))
        for measure in dict.fromkeys(v.measure for v in verdicts):
            of = words.sort_found([v for v in verdicts if v.measure == measure])
            parts.append(element("h4", f"{measure}: {words.count_answers(of)}"))
            parts.append(_list_verdicts([(v.answer, words.write_sentence(v)) for v in of]))
        cards.append(element("article", parts, class_="claim"))
    for axis_claim in result.axis_claims:
        contrasts = result.list_contrasts(axis_claim)
        heading = [element("h3", axis_claim.title), element("h4", words.count_answers(contrasts))] if contrasts else []
        of_axes = _list_verdicts([(c.answer, words.write_contrast(c)) for c in words.sort_found(contrasts)])
        cards.append(element("article", heading, of_axes, class_="claim"))
    return join(cards)


def show_differences(result: ExperimentResult) -> Html:
    """A forest plot of each claim by each measure."""
    figures = []
    for claim in result.claims:
        verdicts = [v for v in result.verdicts if v.claim == claim.name]
        for measure in dict.fromkeys(v.measure for v in verdicts):
            plot = plots.plot_differences([v for v in verdicts if v.measure == measure])
            figures.append(_figure(f"{claim.name}, {measure}", plot))
    legend = (
        "Dots are mean differences, lines 95 % intervals; green and round holds, red crosses fail, grey diamonds are "
    )
    legend += "undecided. The band is the bound of equivalence, a tick the difference that a margin asks for."
    return join(element("p", legend, class_="quiet"), _grid(figures)) if figures else join()


def show_means(result: ExperimentResult) -> Html:
    """A plot and a table of the means of each measure."""
    figures, tables = [], []
    for measure in dict.fromkeys(c.measure for c in result.cells):
        cells = [c for c in result.cells if c.measure == measure]
        figures.append(_figure(f"{measure}, with 95 % intervals over questions", plots.plot_means(cells)))
        langs = sort_languages(c.lang for c in cells)
        found = {(c.variant, c.lang): c for c in cells}
        best = {lang: max(c.mean for c in cells if c.lang == lang) for lang in langs}
        rows = [
            [variant, *(_write_cell(found.get((variant, lang)), best[lang]) for lang in langs)]
            for variant in dict.fromkeys(c.variant for c in cells)
        ]
        caption = f"{measure}: mean, 95 % interval over questions, and ± the standard deviation over seeds"
        tables.append(table(["variant", *map(name_language, langs)], rows, caption))
    return join(_grid(figures), tables) if figures else join()


def show_grid(result: ExperimentResult) -> Html:
    """Heat maps of pairs of axes, the effects of the axes, and their plots."""
    grid = result.grid
    if grid is None:
        return join()
    axes, parts, figures, rows = {axis.name: axis for axis in grid.axes}, [], [], []
    shown = {POOL} & {c.lang for c in result.cells} or {c.lang for c in result.cells}
    for measure in dict.fromkeys(c.measure for c in result.cells):
        for lang in sort_languages(shown):
            means = {c.variant: c.mean for c in result.cells if (c.measure, c.lang) == (measure, lang)}
            for one, other in combinations(grid.axes, 2):
                parts.append(_heat_map(grid, (one, other), means, f"{measure}, {name_language(lang)}"))
    for effect in result.effects:
        fit = next((f.explained for f in result.fits if (f.lang, f.measure) == (effect.lang, effect.measure)), None)
        rows.append([effect.axis, name_language(effect.lang), effect.measure, words.write_effect(effect),
                     words.NONE if fit is None else f"{100 * fit:.0f} %"])  # fmt: skip
        if effect.lang in shown and effect.axis in axes:
            label = f"{effect.measure} by {effect.axis}, {name_language(effect.lang)}"
            figures.append(_figure(label, plots.plot_levels(effect, axes[effect.axis])))
    head = ["axis", "language", "measure", "effect, 95 % bootstrap interval", "explained by all axes"]
    effects = [table(head, rows, "Main effects")] if rows else []
    return join(parts, effects, _grid(figures))


def show_curves(result: ExperimentResult) -> Html:
    """Learning curves by measure."""
    measures = dict.fromkeys(c.measure for c in result.curves)
    return _grid(
        [_figure(f"{m}: thin lines are trainings, thick ones the mean over folds and seeds",
                 plots.plot_curves([c for c in result.curves if c.measure == m])) for m in measures]
    )  # fmt: skip


def show_comparisons(result: ExperimentResult) -> Html:
    """A table of all comparisons by each measure."""
    head = ["comparison", "language", "claim", "verdict", "questions", "means", "difference", "ratio", "t", "p",
            "corrected", "opposite, corrected", "flips of sign", "d_z", "found from", "would decide",
            "± seeds"]  # fmt: skip
    return join(
        table(
            head,
            [_write_row(v) for v in words.sort_found([v for v in result.verdicts if v.measure == measure])],
            measure,
            "all",
        )
        for measure in dict.fromkeys(v.measure for v in result.verdicts)
    )


def show_power(result: ExperimentResult) -> Html:
    """What each family of comparisons could have found."""
    return _lines(words.describe_power(result))


def show_method(result: ExperimentResult) -> Html:
    """Tests, corrections and notes."""
    return _lines([*words.describe_method(result), *result.notes])


def show_commands(result: ExperimentResult) -> Html:
    """The commands, one a line."""
    return element("pre", element("code", "\n".join(result.commands))) if result.commands else join()


def _overview(result: ExperimentResult) -> Html:
    """How many comparisons of each claim hold, by measure."""
    measures = list(dict.fromkeys(v.measure for v in result.verdicts))
    rows = []
    for claim in result.claims:
        of = [[v for v in result.verdicts if (v.claim, v.measure) == (claim.name, measure)] for measure in measures]
        rows.append([claim.claim or claim.name, *(words.count_answers(found) if found else words.NONE for found in of)])
    return table(["claim", *measures], rows, "Overview: comparisons that hold, fail, or cannot be told", "overview")


def _list_verdicts(found: Sequence[tuple[Answer, str]]) -> Html:
    return element("ul", _items(found), class_="verdicts")


def _items(found: Sequence[tuple[Answer, str]]) -> Iterator[Html]:
    for answer, sentence in found:
        badge = element("span", answer, class_=f"badge {answer.split()[0]}")
        yield element("li", badge, element("span", sentence))


def _write_cell(cell: Cell | None, best: float) -> Html:
    if cell is None:
        return join(words.NONE)
    mean = write_number(cell.mean)
    shown = element("b", mean) if mean == write_number(best) else join(mean)
    deviation = f"± {write_number(cell.seed_deviation, 4)}" if cell.seed_deviation is not None else ""
    notes = [element("small", note) for note in (write_interval(cell.low, cell.high), deviation) if note]
    return join(shown, notes)


def _write_row(v: Verdict) -> list[str]:
    ratio = join(write_number(v.ratio), element("small", write_interval(v.ratio_low, v.ratio_high)))
    difference = join(write_signed(v.difference, 4), element("small", write_interval(v.low, v.high, 4)))
    p_values = [words.write_chance(p) for p in (v.p, v.p_corrected, v.p_against, v.p_permutation)]
    return [
        f"{v.a} − {v.b}", name_language(v.lang), v.claim, v.answer, f"{v.n:,}",
        f"{write_number(v.mean_a)}, {write_number(v.mean_b)}", difference, ratio, write_number(v.statistic, 2),
        *p_values, write_number(v.effect), write_number(v.detectable, 4),
        words.NONE if v.n_to_decide is None else f"{v.n_to_decide:,}", write_number(v.seed_deviation, 4),
    ]  # fmt: skip


def _heat_map(grid: Grid, axes: tuple[Axis, Axis], means: dict[str, float], where: str) -> Html:
    """The mean of the variants at each pair of levels, as a table with coloured cells."""
    down, across = axes
    found: dict[tuple[str, str], list[float]] = {}
    for point in grid.points:
        if point.variant in means:
            found.setdefault((point.levels[down.name], point.levels[across.name]), []).append(means[point.variant])
    values = {key: sum(of) / len(of) for key, of in found.items()}
    if not values:
        return join()
    low, high = min(values.values()), max(values.values())
    rows = []
    for level in down.levels:
        cells = []
        for other in across.levels:
            value = values.get((level, other))
            share = 0.0 if value is None or high == low else (value - low) / (high - low)
            percent = 0.0 if value is None else PALEST + (DARKEST - PALEST) * share
            cells.append(element("td", write_number(value), style=f"--share: {percent:.0f}%"))
        rows.append(element("tr", element("th", level, scope="row"), cells))
    caption = f"{where}: {down.name} (down) × {across.name} (across)"
    head = element(
        "tr", element("th", f"{down.name} \\ {across.name}"), [element("th", x, scope="col") for x in across.levels]
    )
    return frame_table(head, rows, caption, "heat")


def _figure(caption: str, plot: Html) -> Html:
    return element("figure", element("figcaption", caption), plot)


def _grid(figures: Sequence[Html]) -> Html:
    return element("div", figures, class_="figures") if figures else join()


def _lines(lines: Sequence[str]) -> Html:
    return element("ul", [element("li", line) for line in lines], class_="lines") if lines else join()
