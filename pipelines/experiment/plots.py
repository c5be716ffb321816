"""The plots of an experiment as inline SVG, whose colours are variables of the page's style sheet.

Text stays text, in the page's fonts. A plot is drawn about 420 pixels wide, so that it can be read on a phone.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.experiment.claims import Axis
from pipelines.experiment.markup import Html, element
from pipelines.experiment.results import Cell, Curve, Effect, Verdict
from pipelines.experiment.words import name_language, sort_languages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.4  # inches, of 96 pixels
ROW = 0.24  # inches that a line of a plot takes
SHORTEST = 1.0
LETTERS = 72  # of a legend that go side by side
LONGEST = 42  # letters of a name
INK, QUIET, GRID, BAND = "#010101", "#010102", "#010103", "#010104"  # stand for variables of the style sheet
SERIES = tuple(f"#0202{i:02x}" for i in range(8))
ANSWERS = {"holds": "#030301", "fails": "#030302", "cannot tell": QUIET}
MARKERS = {"holds": "o", "fails": "X", "cannot tell": "D"}
SHAPES = "osD^vPX*"
VARIABLES = {
    INK: "--ink", QUIET: "--quiet", GRID: "--line", BAND: "--tint",
    ANSWERS["holds"]: "--holds", ANSWERS["fails"]: "--fails",
    **{colour: f"--series-{i}" for i, colour in enumerate(SERIES)},
}  # fmt: skip
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "babelray",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
}


def plot_differences(verdicts: Sequence[Verdict]) -> Html:
    """A forest plot: the difference of each comparison of a claim by one measure, with its interval; the bound of
    equivalence as a band, the difference that a margin asks for as a tick."""
    several = len({(v.a, v.b) for v in verdicts}) > 1
    langs = sort_languages(v.lang for v in verdicts)
    rows = sorted(verdicts, key=lambda v: (langs.index(v.lang), v.a, v.b))
    names = [f"{v.a} − {v.b}, {name_language(v.lang)}" if several else name_language(v.lang) for v in rows]
    with _settings():
        figure, axes = _draw(ROW * len(rows))
        if bound := rows[0].bound:
            axes.axvspan(-bound, bound, color=BAND, zorder=0)
        axes.axvline(0, color=QUIET, linewidth=0.8)
        for y, verdict in enumerate(rows):
            colour = ANSWERS[verdict.answer]
            if verdict.low is not None:
                axes.plot([verdict.low, verdict.high], [y, y], color=colour, linewidth=1.6)
            axes.plot(verdict.difference, y, MARKERS[verdict.answer], color=colour, markersize=5)
            if verdict.margin:
                axes.plot(verdict.margin * verdict.mean_b, y, "|", color=INK, markersize=11)
        label = f"difference in {rows[0].measure}" + ("" if several else f"\n{rows[0].a} − {rows[0].b}")
        _name_rows(axes, names, label)
        return _write(figure, f"{rows[0].claim}: {label}".replace("\n", ", "))


def plot_means(cells: Sequence[Cell]) -> Html:
    """Dots with intervals: the mean of each variant in each language by one measure."""
    variants, langs = list(dict.fromkeys(c.variant for c in cells)), sort_languages(c.lang for c in cells)
    step = 0.8 / len(variants)
    with _settings():
        figure, axes = _draw(ROW * len(langs) * max(1.0, 0.45 * len(variants)) + 0.2 * len(variants))
        for i, variant in enumerate(variants):
            found = [(langs.index(c.lang) - 0.4 + step * (i + 0.5), c) for c in cells if c.variant == variant]
            colour = SERIES[i % len(SERIES)]
            for y, cell in found:
                if cell.low is not None:
                    axes.plot([cell.low, cell.high], [y, y], color=colour, linewidth=1.2)
            shape = SHAPES[(i + i // len(SERIES)) % len(SHAPES)]
            axes.plot(
                [c.mean for _, c in found],
                [y for y, _ in found],
                shape,
                color=colour,
                markersize=4,
                label=_shorten(variant),
            )
        for y in range(1, len(langs)):
            axes.axhline(y - 0.5, color=GRID, linewidth=0.6)
        _name_rows(axes, [name_language(lang) for lang in langs], cells[0].measure)
        _add_legend(figure, variants)
        return _write(figure, f"means of {cells[0].measure}")


def plot_curves(curves: Sequence[Curve]) -> Html:
    """Learning curves by one measure: every training thin, and where all have been measured after the same steps, the
    mean of a variant."""
    variants = list(dict.fromkeys(c.variant for c in curves))
    with _settings():
        figure, axes = _draw(2.4 + 0.1 * len(variants))
        for i, variant in enumerate(variants):
            runs, colour = [c for c in curves if c.variant == variant], SERIES[i % len(SERIES)]
            style = ("-", "--", ":")[i // len(SERIES) % 3]
            for run in runs:
                axes.plot(run.steps, run.values, style, color=colour, linewidth=0.7, alpha=0.35 if len(runs) > 1 else 1)
            shared = [step for step in runs[0].steps if all(step in run.steps for run in runs)]
            means = [sum(run.values[run.steps.index(step)] for run in runs) / len(runs) for step in shared]
            axes.plot(shared, means, style, color=colour, linewidth=1.8, label=_shorten(variant))
        axes.set(xlabel="steps", ylabel=curves[0].measure)
        axes.grid(color=GRID, linewidth=0.5)
        _add_legend(figure, variants)
        return _write(figure, f"{curves[0].measure} after so many steps")


def plot_levels(effect: Effect, axis: Axis) -> Html:
    """The mean at each level of an axis of a grid, with its interval, over the logarithm of the axis's numbers."""
    with _settings():
        figure, axes = _draw(2.0)
        places = list(axis.numbers or range(len(axis.levels)))
        means, lows, highs = zip(*[(level.mean, level.low, level.high) for level in effect.levels], strict=True)
        axes.vlines(places, lows, highs, color=SERIES[0], linewidth=1.6)
        axes.plot(places, means, "o-" if axis.numbers else "o", color=SERIES[0], markersize=5, linewidth=0.8)
        if axis.numbers:
            axes.set_xscale("log", base=2)
        labels = [f"{number:g}" for number in axis.numbers] if axis.numbers else list(axis.levels)
        axes.set_xticks(places, labels=labels)
        axes.minorticks_off()
        axes.set(xlabel=axis.name, ylabel=effect.measure)
        axes.margins(x=0.15)
        axes.grid(axis="y", color=GRID, linewidth=0.5)
        return _write(figure, f"{effect.measure} by {axis.name}, {name_language(effect.lang)}")


def _settings() -> Any:
    from matplotlib import rc_context

    return rc_context(SETTINGS)


def _draw(height: float) -> "tuple[Figure, Any]":
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, max(SHORTEST, height + 0.55)), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _name_rows(axes: Any, names: Sequence[str], label: str) -> None:
    axes.set_yticks(range(len(names)), labels=[_shorten(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)


def _shorten(name: str) -> str:
    """A long name without its middle: a plot must have room beside it, and the tables have it whole."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 + 1 :]}"


def _add_legend(figure: "Figure", names: Sequence[str]) -> None:
    columns = LETTERS // (max(len(_shorten(name)) for name in names) + 7)
    figure.legend(
        loc="outside upper left", ncols=max(1, min(columns, len(names))), frameon=False, fontsize=8, handlelength=1.4
    )


def _write(figure: "Figure", title: str) -> Html:
    """The figure as an SVG element without prologue, metadata or fixed size; its colours are variables, and its ids its
    own."""
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a font that measures text; the page's fonts show it
        figure.savefig(
            file, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None}
        )
    text = file.getvalue()
    size = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index("</metadata>") + len("</metadata>") : text.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL).replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    for colour, name in VARIABLES.items():
        body = body.replace(colour, f"var({name})")
    used, prefix = set(re.findall(r'(?<=[("])#([\w-]+)', body)), hashlib.sha256((title + body).encode()).hexdigest()[:8]
    body = re.sub(r'\sid="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(?<=[("])#([\w-]+)', rf"#{prefix}-\1", body)
    return Html(f'<svg {size[0] if size else ""} role="img">{element("title", title)}{body}</svg>')
