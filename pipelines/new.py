"""Make a recipe for a collection of one's own: look at a directory, say what it holds, write a file that runs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.compose import compose
from pipelines.filters.fields import list_types
from pipelines.sources.metadata import list_kept
from pipelines.sources.splits import describe_splits
from pipelines.survey import LOOK, Survey, survey

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LARGE = 200_000  # documents, beyond which the lexical student is too small: see translate-distill


@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was written: ``data`` is JSON, ``page`` is anything that rich prints."""

    data: Any
    page: Any


def write_recipe(name: str, source: str, lang: str = "en", force: bool = False) -> NewRecipe:
    """Survey the directory ``source`` and write ``<name>.toml`` here. ``lang`` is that of texts which name none.

    Raises:
        RecipeError: the name cannot be used, the file exists and ``force`` is not set, or no collection is recognised.
    """
    from pipelines.recipe import names

    if not NAME.fullmatch(name) or name in names():
        raise RecipeError(
            f"cannot call a recipe {name!r}: expected letters, digits, - and _, and none of {', '.join(names())}"
        )
    path = Path(f"{name}.toml")
    if path.exists() and not force:
        raise RecipeError(f"{path} exists: choose another name, or replace it with --force")
    root = Place.of(source)
    if not root.exists():
        raise RecipeError(f"nothing at {root.redacted}: set --source to the directory of your collection")
    found = survey(root, languages.check(lang))
    if not found.docs[found.original]:
        raise RecipeError(f"no document in {root.redacted} can be read: {_list_counts(found.rejects) or 'it is empty'}")
    path.write_text(compose(name, found), encoding="utf-8")
    return NewRecipe(_describe(path, found), _page(path, found))


def find_gaps(found: Survey) -> list[str]:
    """What the collection lacks, and what that means, a sentence each."""
    gaps = []
    if not any(found.queries.values()):
        gaps.append("no questions: it can be searched and served, not measured, and trains nothing")
    elif not any(found.judgements.values()):
        gaps.append("no judgements: it can be searched and served, not measured")
    if len(found.docs) == 1:
        gaps.append("one language: nothing is translated, so the recipe serves a ready encoder and trains nothing")
    elif not found.translations:
        gaps.append("its languages share no document ids: they are no translations of each other to train on")
    gaps += [
        f"{languages.name(lang)} lacks {1 - found.shared[lang]:.1%} of the documents: they count as rejects"
        for lang in found.translations
        if found.shared[lang] < 1
    ]
    if found.queries and (note := describe_splits(found.layout.source)):
        gaps.append(note)
    empty = [split for split in ("dev", "test") if found.queries and split in found.splits and not found.splits[split]]
    gaps += [f"no {split} questions" for split in empty]
    if found.rejects:
        gaps.append(f"records that cannot be read: {_list_counts(found.rejects)}")
    if found.original != "en" or (not found.is_trainable and set(found.docs) != {"en"}):
        gaps.append("the built-in encoder reads English: choose another for the other languages, in the recipe")
    if found.is_trainable and found.docs[found.original] > LARGE:
        gaps.append(
            "large: the recipe translate-distill trains a transformer on such a collection; this one is a start"
        )
    if not found.is_whole:
        gaps.append(f"counting ended at {LOOK:,} records of a table")
    return gaps


def _list_counts(rejects: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(rejects.items()))


def _describe(path: Path, found: Survey) -> dict[str, Any]:
    return {
        "recipe": str(path),
        "layout": found.layout.name,
        "kind": found.layout.source.kind,
        "documents": found.docs,
        "questions": found.queries,
        "judgements": found.judgements,
        "splits": found.splits,
        "fields": dict(list_kept(found.layout.source)),
        "trains": found.is_trainable,
        "notes": find_gaps(found),
    }


def _page(path: Path, found: Survey) -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table("language", title=found.layout.name, title_justify="left")
    for column in ("documents", "questions", "judgements"):
        table.add_column(column, justify="right")
    for lang in dict.fromkeys([*found.docs, *found.queries]):
        counts = (part.get(lang, 0) for part in (found.docs, found.queries, found.judgements))
        table.add_row(f"{languages.name(lang)} ({lang})", *(f"{count:,}" if count else "–" for count in counts))
    splits = ", ".join(f"{split} {count:,}" for split, count in found.splits.items())
    verbs = "indexes, measures and serves" if found.is_judged else "indexes and serves"
    form = "trains and measures a student" if found.is_trainable else f"{verbs} a ready encoder"
    lines = [
        *([f"questions by split: {splits}"] if splits else []),
        *([f"fields of documents: {escape(fields)}"] if (fields := list_types(list_kept(found.layout.source))) else []),
        *(f"[yellow]•[/yellow] {escape(gap)}" for gap in find_gaps(found)),
        f"\nwrote [bold]{escape(str(path))}[/bold], which {form}. Read it, then",
        f"  babelray run {escape(str(path))}",
    ]
    return Group(table, *lines)
