"""Pages about languages: sets that are asked in several, and how a pooled ranking treats each language.

Functions return what rich prints; none of them prints.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.cells import best_bold, language, line, number, table
from pipelines.evaluate import OVER_LANGUAGES, POOL
from pipelines.matrix import Matrix, column_means, split_means

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Interval = tuple[float | None, float | None]
ROWS = {"own": "own language", "across": "other languages"}  # means of the cells of a matrix
FAIR = "× 1: as much of the first documents as of the relevant ones; bold: 1 is outside the 95 % interval over queries"
PEER = "PEER: about 0.5 for a random order, near 0 for a biased one; – where each language has one relevant document"


def questions_page(set_name: str, matrices: Mapping[str, Mapping[str, Any]], system: str) -> "RenderableType":
    """A set that is asked in several languages. ``matrices`` holds the content of matrix.json by system.

    Of all systems the first measure over the pool, by language of the question, and the means; of ``system`` the matrix
    of languages, and what its pools hold of each language.
    """
    from rich.console import Group

    measure = next(iter(matrices[system]["measures"]))
    firsts: dict[str, Matrix] = {name: content["measures"][measure] for name, content in matrices.items()}
    main = table(f"{set_name}: {measure} of the pool", "question", list(firsts))
    for asked in firsts[system]:
        main.add_row(language(asked), *best_bold([matrix[asked].get(POOL) for matrix in firsts.values()]))
    means = [split_means(matrix) for matrix in firsts.values()]
    main.add_row("mean", *best_bold([mean["pool"] for mean in means]), end_section=True)
    for name, row in ROWS.items():
        main.add_row(row, *best_bold([mean[name] for mean in means]))
    matrix = _matrix(f"{set_name}, {system}: {measure}", firsts[system])
    return Group(main, "", matrix, "", _ratios(system, matrices[system]["fairness"]), "")


def correlation_page(
    set_name: str,
    systems: Mapping[str, Mapping[str, Mapping[str, float]]],
    intervals: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    system: str,
) -> "RenderableType":
    """A set of sentence pairs: of all systems each correlation, the first measure with its 95 % interval, over and in
    each language; of ``system`` the matrix of languages. ``systems`` is system → row → measure → value."""
    from rich.console import Group

    rows = systems[system]
    first, *others = next(iter(rows.values()))
    main = table(f"{set_name}: {first}, with 95 % bootstrap intervals over pairs", "sentences", list(systems))
    langs = [row for row in rows if row not in OVER_LANGUAGES and "/" not in row]
    for row in [row for row in rows if row in OVER_LANGUAGES] + langs:
        cells = zip(best_bold([of[row][first] for of in systems.values()]), intervals.values(), strict=True)
        main.add_row(language(row), *(value + _interval(of[row][first]) for value, of in cells))
    pages: list[Any] = [main, ""]
    for measure in others:
        shown = table(f"{set_name}: {measure}", "sentences", list(systems))
        for row in (row for row in rows if row in OVER_LANGUAGES):
            shown.add_row(language(row), *best_bold([of[row][measure] for of in systems.values()]))
        pages += [shown, ""]
    if len(langs) > 1:
        matrix = {a: {b: rows[a if a == b else f"{a}/{b}"][first] for b in langs} for a in langs}
        pages += [_matrix(f"{set_name}, {system}: {first}", matrix, ("left sentence", "right")), ""]
    return Group(*pages)


def _interval(ends: Interval) -> "Text":
    low, high = ends
    return line(("", "") if low is None or high is None else (f" [{low:.3f}, {high:.3f}]", ""))


def _matrix(title: str, matrix: Matrix, axes: tuple[str, str] = ("question", "documents")) -> Any:
    """Languages of rows by languages of columns, which ``axes`` name; the row's own is bold."""
    means = column_means(matrix)
    shown = table(f"{title}, {axes[0]} by {axes[1]}", axes[0], list(means))
    for asked, row in matrix.items():
        cells = [line((number(row.get(lang)), "bold" if lang == asked else "")) for lang in means]
        shown.add_row(language(asked), *cells)
    shown.add_row("mean", *map(number, means.values()))
    return shown


def _ratios(system: str, fairness: Mapping[str, Mapping[str, Any]]) -> Any:
    """What the pools of each question language hold of each document language, against its share of the relevant."""
    from rich.console import Group

    langs = list(dict.fromkeys(lang for of in fairness.values() for lang in of["languages"]))
    k = next(iter(fairness.values()))["k"]
    shown = table(f"{system}: share of the first {k} / share of the relevant", "question", [*langs, "PEER"])
    for asked, of in fairness.items():
        cells = [_ratio(of["languages"].get(lang)) for lang in langs]
        shown.add_row(language(asked), *cells, number(of["peer"]))
    return Group(shown, line((FAIR, "dim")), line((PEER, "dim")))


def fairness_page(set_name: str, systems: Mapping[str, Mapping[str, Any]]) -> "RenderableType":
    """How the pools of each system treat each language. ``systems`` holds the content of fairness.json by system."""
    from rich.console import Group

    first = next(iter(systems.values()))
    langs = list(dict.fromkeys(lang for of in systems.values() for lang in of["languages"]))
    shown = table(f"{set_name}: languages of the first {first['k']} of the pool", "language", ["relevant", *systems])
    for lang in langs:
        shares = [of["languages"].get(lang) for of in systems.values()]
        relevant = next(share["relevant"] for share in shares if share)
        shown.add_row(language(lang), number(relevant), *map(_share, shares))
    shown.add_row("PEER", "", *(number(of["peer"]) for of in systems.values()))
    return Group(shown, line((FAIR, "dim")), line((PEER, "dim")), "")


def _share(share: Mapping[str, float | None] | None) -> "Text":
    """A share, and beside it its ratio to that of the relevant documents."""
    if share is None:
        return line(("–", ""))
    return line((f"{number(share['found'])}  × ", "")) + _ratio(share)


def _ratio(share: Mapping[str, float | None] | None) -> "Text":
    """The ratio of a share to that of the relevant documents; bold where 1 is outside its interval."""
    if share is None or share["ratio"] is None:
        return line(("–", ""))
    low, high = share["low"], share["high"]
    is_unlike = low is not None and high is not None and not low <= 1 <= high
    return line((f"{share['ratio']:.2f}", "bold" if is_unlike else ""))
