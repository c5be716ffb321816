"""What ``babelray plan`` shows: a row per step, equal steps of several languages as one, totals, assumptions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.costs import gpu_memory, operations, prices, sizes
from pipelines.costs.estimate import Estimate, StepEstimate
from pipelines.costs.quantities import work_name
from pipelines.costs.rates import strip_languages
from pipelines.costs.schedule import Turn

if TYPE_CHECKING:
    from rich.console import RenderableType

NAMED = 6  # steps in a line
COLUMNS = ("step", "rows", "tokens", "from", "actors", "GPU-hours", "time", "storage", "requests", "cost")


def group(estimate: Estimate, languages: set[str]) -> list[tuple[str, list[StepEstimate]]]:
    """Steps that differ in their language alone, in the order of the plan."""
    groups: dict[tuple[str, ...], list[StepEstimate]] = {}
    for one in estimate.steps:
        key = (strip_languages(one.step.name, languages), work_name(one.step), one.state, one.rate.origin)
        groups.setdefault(key, []).append(one)
    named: dict[str, list[StepEstimate]] = {}
    for (name, *_), members in groups.items():
        langs = list(dict.fromkeys(m.step.name for m in members))
        shown = langs[0] if len(langs) == 1 else name
        named[shown if shown not in named else f"{shown} ({len(named)})"] = members
    return [(f"{name} ×{len(m)}" if len(m) > 1 else name, m) for name, m in named.items()]


def cost_page(title: str, estimate: Estimate, languages: set[str], notes: Sequence[str]) -> "RenderableType":
    """The table, the totals and the assumptions."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("step", "from") else "right", no_wrap=name != "step")
    for name, members in group(estimate, languages):
        style = "" if members[0].state == "to do" else "dim" if members[0].state == "done" else "yellow"
        table.add_row(*_row(name, members), style=style)
    table.add_section()
    table.add_row(*_total(estimate), style="bold")
    listed = Table.grid(padding=(0, 1, 0, 0))
    for note in notes:
        listed.add_row("•", Text(note))
    lines = [*totals(estimate), *gpu_memory.describe_gpu_memory(group(estimate, languages))]
    return Group(table, *(Text(line) for line in lines), *([""] if lines else []), listed)


def _row(name: str, members: Sequence[StepEstimate]) -> list[str]:
    first = members[0]
    dollars = [m.dollars for m in members]
    asked = sum(m.asked for m in members)
    requests = sum(m.requests.puts + m.requests.gets for m in members)
    is_known = first.state in ("to do", "done")
    cells = [
        number(sum(m.amount.rows for m in members)),
        number(sum(m.amount.read + m.amount.written for m in members)),
        first.rate.origin if first.state == "to do" else first.state,
    ]
    if first.state != "to do":
        return [name, *cells, "", "", "", size(sum(m.bytes for m in members)) if is_known else "?", "", ""]
    return [
        name,
        *cells,
        str(first.actors),
        hours(sum(m.gpu_hours for m in members)),
        span(sum(m.seconds for m in members)),
        size(sum(m.bytes for m in members)),
        number(requests) + (f" + {number(asked)}" if asked else ""),
        money(None if None in dollars else sum(d or 0.0 for d in dollars)),
    ]


def _total(estimate: Estimate) -> list[str]:
    requests = sum(s.requests.puts + s.requests.gets for s in estimate.steps)
    gpu = sum(s.gpu_hours for s in estimate.steps)
    dollars = estimate.machine_dollars
    return [
        "all, side by side where they fit", "", "", "", "", hours(gpu), span(estimate.seconds),
        size(estimate.stored_bytes), number(requests), money(dollars and dollars + estimate.request_dollars),
    ]  # fmt: skip


def totals(estimate: Estimate) -> list[str]:
    """The machines' hours and prices, and what storing and asking cost."""
    lines = []
    for node, used in estimate.machine_hours.items():
        if not estimate.cluster.is_local and node.count:  # 0: it stands for a machine that the cluster lacks
            spot = ", spot" if node.is_spot else ""
            price = "price not known: --price" if node.price is None else f"at ${node.price:.4g} an hour{spot}"
            lines.append(f"{node.name}: {used:,.1f} machine hours of {node.instance} (at most {node.count}) {price}")
    head = estimate.cluster.head
    if head and not head.cpus and head.price is not None:
        lines.append(f"head: {estimate.seconds / 3600:,.1f} hours of {head.instance} at ${head.price:.4g} an hour")
    if not estimate.cluster.is_local:
        lines.append(
            f"object store: {money(estimate.request_dollars)} for requests, {money(estimate.storage_dollars)} a month "
            f"for {size(estimate.stored_bytes)} (S3 in {prices.REGION})"
        )
    return [*lines, *_left_out(estimate)]


def _left_out(estimate: Estimate) -> list[str]:
    """The steps that are not in the totals, and what they ask of a machine."""
    found: dict[str, list[str]] = {}
    for one in estimate.steps:
        asked = one.step.resources
        if one.state == "fits no machine":
            memory = f" and {asked.memory_gb:g} GB" if asked.memory_gb else ""
            why = f"no machine has {asked.cpus:g} CPUs, {asked.gpus:g} GPUs{memory} for a worker"
        elif one.state.startswith("not known"):
            why = f"what they take is {one.state}"
        else:
            continue
        found.setdefault(why, []).append(one.step.name)
    distinct = {why: list(dict.fromkeys(names)) for why, names in found.items()}
    return [
        f"not in the totals: {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''} ({why})"
        for why, names in distinct.items()
    ]


def assumptions(estimate: Estimate, languages: set[str], calibration: Any) -> list[str]:
    """What the numbers rest on, in words."""
    cluster = estimate.cluster
    origins = {s.rate.origin for s in estimate.steps if s.state == "to do"}
    lines = sizes.describe_origins((strip_languages(name, languages), size) for name, size in estimate.sizes)
    lines.append("a row in is a row out; a translation has as many tokens as its source, and nothing is rejected")
    if any(work_name(one.step) == "Synthesise" for one in estimate.steps):
        lines.append("of the questions that are written as many are kept as synthesis.most allows")
    if "calibration" in origins and calibration:
        with_gpu = f" with {calibration.accelerator}" if calibration.accelerator else ""
        lines.append(
            f"calibration: measured {calibration.measured} on {calibration.rows} questions, on "
            f"{calibration.cpu}{with_gpu}; for other processors these rates are taken as they are"
        )
    if "run" in origins:
        lines.append("run: seconds of finished steps of the same kind, by their manifests")
    if "estimate" in origins:
        lines.append(operations.describe())
        lines.append(
            "steps without a model: CPU seconds per row as measured elsewhere, some assumed; --calibrate measures them"
        )
    if any(s.gpu_memory for s in estimate.steps):
        lines.append(gpu_memory.describe())
    notes = [s.rate.note for s in estimate.steps if s.rate.note]
    if notes:
        lines.append(
            "a training on several GPUs adds up float32 gradients while it computes, and the longer of the two counts: "
            "10 GB/s over PCIe, more over NVLink, and between machines the bandwidth that these keep for hours"
        )
    lines += notes
    if not cluster.is_local:
        lines.append(
            f"a machine is paid from the first step that needs it until {cluster.idle_minutes:g} minutes after the "
            "last, and used again in between; the head all the time; the time to boot is not counted"
        )
        lines.append(
            f"prices: list prices on demand in {prices.REGION}, noted in {prices.NOTED}; they change (--price). Spot "
            "machines at a share of them (--price spot=0.35); work lost with a spot machine is not counted"
        )
    return [*lines, *cluster.notes]


def data_of(estimate: Estimate, languages: set[str], notes: Sequence[str]) -> dict[str, Any]:
    """The estimate as JSON: seconds, bytes, dollars."""
    dollars = estimate.machine_dollars
    return {
        "steps": [_data(one) for one in estimate.steps],
        "turns": [_turn(turn) for turn in estimate.turns],
        "total": {
            "seconds": estimate.seconds,
            "gpu_hours": sum(s.gpu_hours for s in estimate.steps),
            "bytes": estimate.stored_bytes,
            "machine_hours": {node.name: used for node, used in estimate.machine_hours.items()},
            "dollars": None if dollars is None else dollars + estimate.request_dollars,
            "storage_dollars_per_month": estimate.storage_dollars,
        },
        "assumptions": list(notes),
    }


def _turn(turn: Turn) -> Mapping[str, Any]:
    return {
        "steps": [step.id for step in turn.steps],
        "start": turn.start_s,
        "end": turn.end_s,
        "actors": turn.actors,
        "machines": {turn.node.name: turn.machines},
    }


def _data(one: StepEstimate) -> Mapping[str, Any]:
    amount = one.amount
    return {
        "step": one.step.id, "state": one.state, "from": one.rate.origin, "rows": amount.rows, "units": amount.units,
        "unit": amount.unit, "tokens_read": amount.read, "tokens_written": amount.written, "actors": one.actors,
        "seconds": one.seconds, "work_seconds": one.rate.seconds(amount) if one.state == "to do" else 0.0,
        "fixed_seconds": one.rate.fixed_s, "gpu_hours": one.gpu_hours, "bytes": one.bytes,
        "puts": one.requests.puts, "gets": one.requests.gets, "endpoint_requests": one.asked, "dollars": one.dollars,
        "gpu_memory_bytes": one.gpu_memory.total if one.gpu_memory else 0.0,
        "gpu_free_bytes": gpu_memory.free_memory(one),
    }  # fmt: skip


def number(value: float) -> str:
    """``8.84 M``, with three digits; small ones whole."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= limit:
            scale = {" k": 1e3}.get(unit, limit)
            return f"{value / scale:.3g}{unit}" if value / scale < 1000 else f"{value / scale:,.0f}{unit}"
    return f"{value:,.0f}" if value else ""


def size(value: float) -> str:
    """Bytes: ``1.13 TB``."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B" if value else ""


def span(seconds: float) -> str:
    """``42 s``, ``3.5 min``, ``11.6 h``, ``3.2 d``."""
    for limit, unit, scale in ((72 * 3600, "d", 86400), (3600, "h", 3600), (120, "min", 60)):
        if seconds >= limit:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def hours(value: float) -> str:
    """Hours of accelerators; empty where there are none."""
    return f"{value:,.1f}" if value >= 0.05 else "<0.1" if value else ""


def money(value: float | None) -> str:
    """Dollars; a dash where a price is not known."""
    if value is None:
        return "–"
    return f"${value:,.0f}" if value >= 100 else f"${value:,.2f}"
