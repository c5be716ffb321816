"""What the verbs do. Each returns a ``Report``: data for ``--json`` and a page for people."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster import executor
from cluster.artifact import MANIFEST, Artifact, read_part
from cluster.errors import RecipeError
from cluster.progress import Progress, read_progress, span
from cluster.prune import prune as remove_unneeded
from cluster.receipt import RECEIPTS, merge_facts, merge_rejects, read_receipts
from cluster.step import Step
from cluster.storage import Place, redact_secrets
from pipelines import plan as planning
from pipelines.keys import check_keys, find_lacking_keys
from pipelines.plan import STUDENT, Plan, encoder_of
from pipelines.recipe import load
from pipelines.rejects import count_gated, split_samples

if TYPE_CHECKING:
    from pipelines.experiment.plan import ExperimentPlan
    from pipelines.filters.subset import Subset

SHOWN_ROWS = 3


@dataclass(frozen=True)
class Report:
    """A result twice: ``data`` is JSON, ``page`` is anything that rich prints."""

    data: Any
    page: Any


def load_plan(name: str, sets: Sequence[str], data_needed: bool = True) -> tuple[Plan, Place]:
    """The plan and its root. Only where no data are needed, to show a plan, may files and models be absent."""
    recipe = load(name, sets)
    plan = planning.plan(recipe)
    return plan.check_data() if data_needed else plan, Place.of(recipe.root)


def load_steps(name: str, sets: Sequence[str], data_needed: bool = True) -> "tuple[Plan | ExperimentPlan, Place]":
    """The plan of a recipe or of an experiment, and its root."""
    from pipelines.experiment.config import is_experiment, load_experiment
    from pipelines.experiment.plan import plan_experiment

    if not is_experiment(name):
        return load_plan(name, sets, data_needed)
    plan = plan_experiment(load_experiment(name), sets, name)
    if data_needed and plan.absent:
        raise RecipeError("\n".join(plan.absent))
    return plan, plan.root


def make(plan: "Plan | ExperimentPlan", targets: Sequence[Step], root: Place, console: Any) -> None:
    """Run what is missing of some targets of a plan.

    Raises:
        RecipeError: a step that is missing asks an endpoint, and its key is not in the environment.
    """
    if lacking := find_lacking_keys(plan.steps, plan.environments):
        check_keys(executor.find_missing(targets, root), lacking)
    executor.run(targets, root, Progress(console), environments=plan.environments)


def run(name: str, steps: Sequence[str], sets: Sequence[str], console: Any) -> Report:
    """Make the named steps and what they need, or all; end with the measures and some examples."""
    plan, root = load_plan(name, sets)
    for note in plan.notes:
        console.print(note, style="dim")
    if steps:
        make(plan, [step for wanted in steps for step in plan.find_steps(wanted)], root, console)
        return status(name, sets)
    make(plan, plan.targets, root, console)
    from rich.console import Group

    from pipelines import report
    from pipelines.comparison import build_pages, collect_results

    pages = build_pages(plan, root, STUDENT)
    if plan.examples:
        pages.append(report.examples_page(json.loads((root / plan.examples.id / "examples.json").read())))
    if gated := count_gated(plan, root):
        strictest = max(gated, key=lambda gate: gated[gate][0])
        pages.append(report.gates_page(gated, _command(["show", name, strictest], sets)))
    if plan.collections:
        pages.append(report.next_page(_serve_command(name, sets), name))
    return Report(collect_results(plan, root, STUDENT), Group(*pages))


def _serve_command(name: str, sets: Sequence[str]) -> str:
    """The command that serves this recipe, as the user would type it here."""
    if (name, list(sets)) == ("atlas", []) and Path("Makefile").is_file():
        return "make serve"
    return _command(["serve", name], sets)


def _command(words: Sequence[str], sets: Sequence[str]) -> str:
    """A command line of babelray, with the overrides of this one."""
    own = Path(sys.executable).with_name("babelray")
    own = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else Path("babelray")
    return shlex.join([str(own), *words, *(word for s in sets for word in ("--set", _redact(s)))])


def _redact(override: str) -> str:
    """An override as it may be printed: an s3:// URI without its query, which may hold keys."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}{redact_secrets(value)}"


def search(
    name: str, query: str, k: int, langs: Sequence[str], sets: Sequence[str], subset: "Subset | None" = None
) -> Report:
    """Search the student's index, all documents or those of ``subset``."""
    plan, root = load_plan(name, sets)
    from pipelines import report

    hits = _hits(plan, root, Asked(query, k, langs, subset))
    data = {"query": query, "results": hits}
    if subset and not hits:
        return Report(data, "nothing found: none of the documents that the search was limited to matches the query")
    return Report(data, report.examples_page({query: hits}))


class Asked(NamedTuple):
    """A search: the query, how many passages, in which languages and among which documents, None being all."""

    query: str
    k: int
    langs: Sequence[str]
    subset: "Subset | None"


def _hits(plan: Plan, root: Place, asked: Asked) -> list[dict[str, Any]]:
    """Search the first evaluation set's collection, which is also what is served, with what was added to it."""
    from pipelines.searcher import Searcher, open_encoder
    from pipelines.segments.snapshot import Snapshot

    name, collection = next(iter(plan.collections.items()), ("", None))
    if collection is None:
        raise RecipeError(f"recipe {plan.name} indexes nothing: expected an evaluation set with documents")
    if unknown := set(asked.langs) - set(collection.docs):
        raise RecipeError(f"no passages in {sorted(unknown)}; the index has {', '.join(collection.docs)}")
    docs = {lang: step.artifact(root) for lang, step in collection.docs.items()}
    student = plan.systems[STUDENT]
    inputs = {"student": student.student.artifact(root)} if student.student else {}
    index = plan.indexes[name, STUDENT].artifact(root)
    encoder = open_encoder(encoder_of(plan.recipe, student), inputs)
    _ = index.manifest  # it is complete, or this raises and says what to run
    searcher = Searcher(index, docs, encoder, Snapshot.newest(index.place, docs))
    options = plan.recipe.search.model_copy(update={"k": asked.k})
    return searcher.search(asked.query, asked.langs or list(docs), options, asked.subset)


def status(name: str, sets: Sequence[str]) -> Report:
    """Every step of the plan with what is there of it. Needs no data: a plan can be read before they are fetched."""
    plan, root = load_steps(name, sets, data_needed=False)
    from rich.console import Group
    from rich.table import Table

    rows = [_state(step, root) for step in plan.steps]
    table = Table(
        "step", "state", "rows", "rejects", "time", title=f"{plan.name} in {root.redacted}", title_justify="left"
    )
    for row in rows:
        style = {"done": "green", "going on": "yellow"}.get(row["state"], "dim")
        name_, _, digits = row["step"].partition("@")
        table.add_row(
            f"{name_}[dim]@{digits}[/dim]",
            f"[{style}]{row['state']}[/{style}]",
            _count(row),
            f"{row['rejects']:,}" if row["rejects"] else "",
            span(row["seconds"]) if row["seconds"] else "",
        )
    return Report(rows, Group(table, *plan.notes, *(f"not here: {absent}" for absent in plan.absent)))


def _count(row: Mapping[str, Any]) -> str:
    """The steps of a training that goes on, or the rows of a table, for people."""
    if "steps" in row:
        return f"{row['steps']:,} of {row['steps_in_all']:,} steps"
    return f"{row['rows']:,}" if row["rows"] else ""


def _state(step: Step, root: Place) -> dict[str, Any]:
    place = root / step.id
    row: dict[str, Any] = {"step": step.id, "place": place.redacted}
    if (place / MANIFEST).exists():
        manifest = Artifact(place).manifest
        rejects = sum(r.count for r in manifest.rejects.values())
        return {**row, "state": "done", "rows": manifest.rows, "rejects": rejects, "seconds": manifest.seconds}
    receipts = read_receipts(place / RECEIPTS) if step.table else {}
    begun = "going on" if place.exists() else "to come"
    said = read_progress(place) if begun == "going on" and not receipts else {}  # ingest has one receipt, at its end
    rows = sum(r.rows for r in receipts.values()) or said.get("rows", 0)
    rejects = sum(r.rejected for r in receipts.values()) or said.get("rejects", 0)
    if "done" in said:  # a training
        row |= {"steps": said["done"], "steps_in_all": said["total"]}
    return {
        **row,
        "state": begun,
        "rows": rows,
        "rejects": rejects,
        "seconds": sum(r.seconds for r in receipts.values()),
    }


def show(name: str, wanted: str, sets: Sequence[str]) -> Report:
    """One step, or those that share its name."""
    plan, root = load_steps(name, sets)
    from rich.console import Group

    found = [_show_step(step, root) for step in plan.find_steps(wanted)]
    return Report([s.data for s in found], Group(*(s.page for s in found)))


def _show_step(step: Step, root: Place) -> Report:
    from rich.console import Group
    from rich.json import JSON
    from rich.panel import Panel

    from pipelines import report

    data: dict[str, Any] = {**_state(step, root), "config": redact_secrets(step.config.model_dump(mode="json"))}
    data["inputs"] = {role: parent.id for role, parent in step.parents.items()}
    if data["state"] == "done":
        artifact = Artifact(root / step.id)
        manifest = artifact.manifest.model_dump(mode="json")
        data |= {"created": manifest["created"], "software": manifest["software"]}
        data["facts"], data["rejected"] = split_samples(artifact.manifest.facts, artifact.manifest.rejects)
        if artifact.parts:
            head = read_part(artifact.parts[0]).slice(0, SHOWN_ROWS)
            data["first rows"] = [{k: _brief(v) for k, v in row.items()} for row in head.to_pylist()]
        else:
            data["files"] = [place.name for place in artifact.place.list()]
    elif step.table:
        receipts = [receipt for _, receipt in sorted(read_receipts(root / step.id / RECEIPTS).items())]
        facts = merge_facts(receipt.facts for receipt in receipts)
        data["facts"], data["rejected"] = split_samples(facts, merge_rejects(receipts))
    shown = JSON.from_data({k: v for k, v in data.items() if k != "rejected"}, ensure_ascii=False)
    pages: list[Any] = [Panel(shown, title=step.id, title_align="left")]
    if data.get("rejected") or (data["state"] == "done" and step.table):
        records = data["rows"] if step.rows else data["rows"] + data["rejects"]  # a source's rejects are no rows
        pages.append(report.rejects_page(data["rejected"], records))
    return Report(data, Group(*pages))


def _brief(value: Any) -> Any:
    """A cell short enough to read."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list) and len(value) > 5:
        return [*value[:5], f"… {len(value)} in all"]
    if isinstance(value, str) and len(value) > 200:
        return value[:200] + "…"
    return value


def prune(names: Sequence[str], sets: Sequence[str], is_dry: bool) -> Report:
    """Remove the artifacts below the recipes' root that none of these recipes needs, with what was added to such
    indexes; ``is_dry`` only lists them."""
    from rich.console import Group
    from rich.table import Table

    from pipelines.segments.verbs import prune_segments

    plans = [load_plan(name, sets) for name in names]
    roots = {root for _, root in plans}
    if len(roots) > 1:
        raise RecipeError(
            f"the recipes have several roots ({', '.join(sorted(r.redacted for r in roots))}): prune one root at a "
            "time, or give all of them the same one with --set root=…"
        )
    needed = {step.id for plan, _ in plans for step in plan.steps}
    root = roots.pop()
    removed = [(a.name, a.size) for a in remove_unneeded(root, needed, is_dry)] + prune_segments(root, needed, is_dry)
    table = Table("artifact", "size")
    for artifact, size in removed:
        table.add_row(artifact, f"{size / 1e6:,.1f} MB")
    total = f"{sum(size for _, size in removed) / 1e6:,.1f} MB in {len(removed)} artifacts"
    line = f"{total} would be removed; leave out --dry-run to remove them" if is_dry else f"removed {total}"
    data = [{"artifact": artifact, "bytes": size} for artifact, size in removed]
    return Report(data, Group(*([table] if removed else []), line))
