"""Pages of results for a terminal. Functions return what rich prints; none of them prints.

Passages in several scripts are set below each other, never in columns: a terminal reorders right-to-left text within
its line, which would break the columns of a table.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.cells import best_bold as _best_bold
from pipelines.cells import language as _language
from pipelines.cells import line as _line
from pipelines.cells import table as _table
from pipelines.evaluate import POOL
from pipelines.significance import Comparison, SystemResult

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

PASSAGE = 280  # characters of a passage that are shown
SIGNIFICANT = 0.05
POOLS_DIFFER = "the pools are not compared: the two have different languages, and a larger pool is harder to search"

Systems = Mapping[str, Mapping[str, Mapping[str, float]]]  # system → language → measure → value


def measures_page(set_name: str, systems: Systems) -> "RenderableType":
    """The first measure per language, and all measures over the pool of languages; the best system is bold."""
    from rich.console import Group

    names = list(systems)
    first = next(iter(systems.values()))
    measures = list(next(iter(first.values())))
    langs = sorted(first, key=lambda lang: (lang != POOL, list(first).index(lang)))
    main = _table(f"{set_name}: {measures[0]}", "language", names)
    for lang in langs:
        main.add_row(_language(lang), *_best_bold([_value(systems[s], lang, measures[0]) for s in names]))
    every = _table(f"{set_name}: all languages as one pool", "measure", names)
    for measure in measures:
        every.add_row(measure, *_best_bold([_value(systems[s], POOL, measure) for s in names]))
    return Group(main, "", every, "")


def examples_page(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> "RenderableType":
    """Queries, each with the passages found for it: a line with rank, language, score and id, and the text below.

    A result has ``lang``, ``doc_id``, ``score`` and ``text``, and may have a ``title``.
    """
    from rich.console import Group

    lines: list[RenderableType] = []
    for query, found in results.items():
        lines.append(_line((query, "bold cyan")))
        lines += [part for rank, result in enumerate(found, 1) for part in _passage(rank, result)]
        lines += [] if found else [_line(("  nothing found", "dim"))]
        lines.append("")
    return Group(*lines)


def comparison_page(set_name: str, a: str, b: str, rows: Sequence[Comparison]) -> "RenderableType":
    """Two systems: the means, their difference with its 95 % interval, and whether it is more than chance."""
    from rich.console import Group

    table = _table(
        f"{set_name}: {a} against {b}", "language", ["measure", a, b, "difference", "95 %", "+/=/−", "p", "p (Holm)"]
    )
    for row in rows:
        table.add_row(
            _language(row.lang),
            row.measure,
            f"{row.a:.3f}",
            f"{row.b:.3f}",
            _line((f"{row.difference:+.3f}", "bold" if _is_significant(row) else "")),
            "–" if row.low is None else f"{row.low:+.3f} … {row.high:+.3f}",
            f"{row.wins}/{row.ties}/{row.losses}",
            _p(row.p),
            _p(row.p_holm),
        )
    note = f"+ queries where {a} is better; bold: p (Holm) below {SIGNIFICANT}, by a paired two-sided test over queries"
    notes = [note] if POOL in {row.lang for row in rows} else [note, POOLS_DIFFER]
    return Group(table, *(_line((note, "dim")) for note in notes), "")


def systems_page(set_name: str, results: Sequence[SystemResult], measure: str | None = None) -> "RenderableType":
    """Several systems on one set by one measure (None: the first): each mean with its 95 % interval, and below them
    the differences to the first system, with p as Holm corrects it, significant ones bold."""
    from rich.console import Group

    measure = measure or results[0].estimate.measure
    cells = {(r.system, r.estimate.lang): r for r in results if r.estimate.measure == measure}
    systems = list(dict.fromkeys(system for system, _ in cells))
    langs = sorted({lang for _, lang in cells}, key=lambda lang: (lang != POOL, lang))
    means = _table(f"{set_name}: {measure}, with 95 % intervals over queries", "language", systems)
    differences = _table(f"{set_name}: {measure}, difference to {systems[0]} and p (Holm)", "language", systems[1:])
    for lang in langs:
        row = [cells.get((system, lang)) for system in systems]
        means.add_row(_language(lang), *(_mean(result) for result in row))
        differences.add_row(_language(lang), *(_difference(result) for result in row[1:]))
    note = _line((f"bold: p (Holm) below {SIGNIFICANT}, by a paired two-sided test over queries", "dim"))
    return Group(means, "", *([differences, note, ""] if len(systems) > 1 else []))


def calibration_page(measured: Mapping[str, Any]) -> "RenderableType":
    """A calibration (``pipelines.calibration``): teachers by temperature, and the agreement of pairs."""
    from rich.console import Group

    teachers, ways = measured["teachers"], measured["ways"]
    temperatures = sorted({t for teacher in teachers.values() for t in teacher["temperatures"]}, key=float)
    half = f"T of {ways / 2:g}"
    sharp = _table(
        f"Effective passages of {ways}, by temperature",
        "teacher",
        [*(f"T = {t}" for t in temperatures), half, "queries"],
    )
    for name, teacher in teachers.items():
        passages = [f"{teacher['temperatures'][t]['passages']:.2f}" for t in temperatures]
        sharp.add_row(name, *passages, _number(teacher["half_temperature"]), f"{teacher['queries']:,}")
    teacher_pairs = {name: {**pair, "kl": None} for name, pair in measured["tau"].items()}  # their scales may differ
    pairs = teacher_pairs | {f"teacher and student, {lang}": of for lang, of in measured["students"].items()}
    if not pairs:
        return sharp
    agree = _table("Agreement on the same documents, means over queries", "pair", ["tau", "KL", "queries"])
    for name, pair in pairs.items():
        agree.add_row(name, _number(pair["tau"]), _number(pair["kl"]), f"{pair['queries']:,}")
    return Group(sharp, agree)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _mean(result: SystemResult | None) -> str:
    if result is None:
        return "–"
    estimate = result.estimate
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.mean:.3f}{interval}"


def _difference(result: SystemResult | None) -> "Text":
    row = result.difference if result else None
    if row is None:
        return _line(("–", ""))
    return _line((f"{row.difference:+.3f}", "bold" if _is_significant(row) else ""), (f"  {_p(row.p_holm)}", ""))


def _is_significant(row: Comparison) -> bool:
    return row.p_holm is not None and row.p_holm < SIGNIFICANT


def next_page(command: str, recipe: str) -> "RenderableType":
    """What to type next."""
    from rich.console import Group

    return Group(_line((f"{recipe} is ready. Serve it:  ", ""), (command, "bold green")))


def gates_page(gated: Mapping[str, tuple[int, int]], command: str) -> "RenderableType":
    """How many translations the gates rejected: (rejected, rows) by step; and the command that shows which."""
    from rich.console import Group

    rejected, rows = (sum(column) for column in zip(*gated.values(), strict=True))
    each = ", ".join(f"{name} {count:,}" for name, (count, _) in gated.items())
    summary = _line((f"Gates rejected {rejected:,} of {rows:,} translations ({each}):", ""))
    return Group(summary, _line((f"  {command}", "bold green")), "")


def rejects_page(rejected: Mapping[str, Mapping[str, Any]], records: int) -> "RenderableType":
    """What a step rejected of so many records: each reason with its count, and below it samples, the translation under
    its source, or where some records stand if there are no texts. See ``pipelines.rejects.split_samples``."""
    from rich.console import Group
    from rich.padding import Padding

    if not rejected:
        return _line((f"none of {records:,} rejected", "dim"))
    total = sum(found["count"] for found in rejected.values())
    lines: list[RenderableType] = [_line((f"{total:,} of {records:,} rejected", "bold"))]
    for reason, found in rejected.items():
        lines += ["", _line((reason, "bold yellow"), (f"  {found['count']:,}", ""))]
        if samples := found.get("samples"):
            lines += [_sample(sample) for sample in samples]
        else:
            lines += [Padding(_line((example, "dim")), (0, 0, 0, 2)) for example in found["examples"]]
    return Group(*lines)


def _sample(sample: Mapping[str, str]) -> "RenderableType":
    """A rejected row: its id, and below it the two texts, each behind what it is. Nothing stands behind a text: it may
    run from right to left."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    texts = Table.grid(padding=(0, 2))
    for name, text in sample.items():
        if name != "id":
            texts.add_row(_line((name, "dim")), _line((" ".join(text.split()) or "–", "")))
    return Group(Padding(_line((sample["id"], "dim")), (0, 0, 0, 2)), Padding(texts, (0, 0, 0, 4)))


def _passage(rank: int, result: Mapping[str, Any]) -> "list[RenderableType]":
    from rich.padding import Padding

    title, text = result.get("title") or "", " ".join(result["text"].split())
    shown = text if len(text) <= PASSAGE else text[: PASSAGE - 1].rstrip() + "…"
    head = _line(
        (f"  {rank}. ", "dim"), (f"[{result['lang']}]", "yellow"), (f" {result['score']:.3f} {result['doc_id']}", "dim")
    )
    body = [_line((title, "bold"))] if title else []
    return [head, *(Padding(part, (0, 0, 0, 5)) for part in [*body, _line((shown, ""))])]


def _value(of_system: Mapping[str, Mapping[str, float]], lang: str, measure: str) -> float | None:
    return of_system.get(lang, {}).get(measure)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"
