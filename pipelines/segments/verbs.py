"""Adding to, deleting from and compacting the index of a recipe, and what is printed of it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.errors import RecipeError
from cluster.prune import is_artifact_name
from cluster.storage import Place
from pipelines import languages
from pipelines.indexes.fast_plaid import FastPlaid
from pipelines.plan import Plan
from pipelines.plan.systems import plan_vectors
from pipelines.segments.documents import read_documents, read_ids
from pipelines.segments.drift import TOO_FAR
from pipelines.segments.growing import Change, GrowingIndex, Progress
from pipelines.segments.lists import clean, live_place
from pipelines.verbs import Report, load_plan

SHOWN = 10  # ids in a message
LIVE = ".live"


def add(name: str, files: Sequence[str], lang: str, system: str, sets: Sequence[str], console: Any) -> Report:
    """Add the documents of files, or replace those whose ids are there.

    Raises:
        RecipeError: the recipe has no such system, or a file holds a line that is no document.
        StepError: the recipe is not finished.
    """
    from rich.progress import Progress as Bar

    growing = find_index(name, system, sets)
    if lang:
        languages.check(lang)
    with TemporaryDirectory() as temp:
        snapshot = growing.snapshot()
        parts = read_documents(files, lang, snapshot.langs, Path(temp), snapshot.fields)
        with Bar(console=console, transient=True) as bar:
            change = growing.add(parts, _advance(bar))
    return _report(growing, change)


def delete(name: str, ids: Sequence[str], file: str, langs: Sequence[str], system: str, sets: Sequence[str]) -> Report:
    """Delete documents by their ids. Raises as ``add`` does."""
    if not ids and not file:
        raise RecipeError("expected the ids of documents, or --file with a file of them")
    growing = find_index(name, system, sets)
    if unknown := set(langs) - set(growing.snapshot().langs):
        raise RecipeError(f"no documents in {sorted(unknown)}; the index has {', '.join(growing.snapshot().langs)}")
    return _report(growing, growing.delete([*ids, *(read_ids(file) if file else [])], langs))


def compact(name: str, system: str, sets: Sequence[str]) -> Report:
    """Put the segments of an index into one. Raises as ``add`` does."""
    growing = find_index(name, system, sets)
    return _report(growing, growing.compact())


def find_index(name: str, system: str, sets: Sequence[str]) -> GrowingIndex:
    """The index of a system of a finished recipe, on its first evaluation set: that which is searched and served."""
    plan, root = load_plan(name, sets)
    return open_index(plan, root, system)


def open_index(plan: Plan, root: Place, system: str) -> GrowingIndex:
    """As ``find_index``, of a plan."""
    first, collection = next(iter(plan.collections.items()), ("", None))
    if collection is None:
        raise RecipeError(f"recipe {plan.name} indexes nothing: expected an evaluation set with documents")
    indexes = {of: step for (on, of), step in plan.indexes.items() if on == first}
    if system not in indexes:
        raise RecipeError(f"recipe {plan.name} has the systems {', '.join(indexes)}, not {system!r}")
    if plan.systems[system].docs_in:
        raise RecipeError(
            f"system {system} searches documents translated into {plan.systems[system].docs_in}: add them to the "
            "recipe's source, and run it"
        )
    step = indexes[system]
    index = step.artifact(root)
    _ = index.manifest  # it is complete, or this raises and says what to run
    docs = {lang: ingested.artifact(root) for lang, ingested in collection.docs.items()}
    encoded = step.inputs.get("vectors", {})
    if isinstance(plan.systems[system].index, FastPlaid):  # it was read: what is added is encoded all the same
        made = collection.docs.items()
        encoded = {lang: plan_vectors(plan.recipe, plan.systems[system], lang, "docs", docs) for lang, docs in made}

    def open_encoders() -> dict[str, Any]:
        from pipelines.encode import Encode

        opened: dict[Any, Encode] = {}  # one of each config: the languages share theirs
        for encoding in encoded.values():
            if encoding.config not in opened:
                inputs = {role: value for role, value in encoding.input_artifacts(root).items() if role != "rows"}
                opened[encoding.config] = Encode(encoding.config, inputs)
        return {lang: opened[encoding.config] for lang, encoding in encoded.items()}

    vectors = {lang: encoding.artifact(root) for lang, encoding in encoded.items()}
    parts = {
        lang: [part.uri for part in a.parts] for lang, a in vectors.items() if (a.place / "manifest.json").exists()
    }
    return GrowingIndex(index.place, docs, open_encoders, parts, plan.recipe.shard_rows)


def prune_segments(root: Place, needed: Collection[str], is_dry: bool) -> list[tuple[str, int]]:
    """Remove what was added to indexes that are not needed, and return its names and bytes; of the other indexes what
    no list names any more."""
    removed = []
    for place in root.list():
        index = place.name.removesuffix(LIVE)
        if not place.name.endswith(LIVE) or not is_artifact_name(index):
            continue
        if index not in needed:
            removed.append((place.name, sum(size for _, size, _ in place.files())))
            if not is_dry:
                place.delete()
        elif not is_dry:
            clean(root / index)
    return removed


def _advance(bar: Any) -> Progress:
    task = bar.add_task("encoding", total=None)

    def advance(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)

    return advance


def _report(growing: GrowingIndex, change: Change) -> Report:
    data = {**vars(change), "list": live_place(growing.index).redacted}
    return Report(data, "\n".join(_tell(change)))


def _tell(change: Change) -> list[str]:
    """What a change did, in lines."""
    done = {name: getattr(change, name) for name in ("added", "replaced", "deleted", "unchanged")}
    counts = [f"{count:,} {name}" for name, count in done.items() if count]
    if change.merged:
        counts.append(f"{change.merged} segments put into one")
    lines = [", ".join(counts) or "nothing was changed"]
    if change.absent:
        lines.append(f"{len(change.absent):,} ids that the index does not have: {_some(change.absent)}")
    for reason, names in change.left_out.items():
        lines.append(f"{len(names):,} left as they were ({reason}): {_some(names)}")
    for lang, cosine in change.cosines.items():
        if cosine["first"] - cosine["new"] > TOO_FAR:
            lines.append(
                f"the new documents in {lang} lie far from the cells of the index (mean cosine {cosine['new']:.3f}, "
                f"of the first documents {cosine['first']:.3f}) and are found less well: put all documents into the "
                "recipe's source and run it, so that the index learns new cells"
            )
    held = ", ".join(f"{lang} {count:,}" for lang, count in change.documents.items())
    return [*lines, f"the index has {held} documents (list {change.number})"]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
