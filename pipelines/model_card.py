"""A trained student as a directory to give away: an ordinary sentence-transformers model, and a card made of manifests.

    babelray export RECIPE train DIR

``DIR/README.md`` is the card, as model hubs read it: what the student is, how it is used, from which files it was
trained and under which licences, how, what was measured of it and beside what, and what was not. Every number in it
stands in a manifest. A licence is what a ``README.md`` beside the files says in a line that begins with "Licence:" or
"License:".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.artifact import MANIFEST
from cluster.errors import RecipeError
from cluster.step import Step, list_steps
from cluster.storage import Place
from pipelines.evaluate import POOL
from pipelines.ingest import IngestConfig
from pipelines.plan import Plan
from pipelines.recipe import STUDENT

CARD = "README.md"
BEST = "best"
UNKNOWN = "not stated"
LIBRARIES = ("torch", "transformers", "sentence-transformers")  # whose versions a card names
LONGEST = 200  # characters of a licence
_LICENCE = re.compile(r"^\W*licen[cs]e\W*:[\s*_]*(.+)$", re.IGNORECASE | re.MULTILINE)


def export_model(plan: Plan, root: Place, target: Place) -> int:
    """Copy the best student of a plan to ``target``, with its card in the place of any other. Returns the bytes.

    Raises:
        RecipeError: the recipe trains nothing.
    """
    if plan.training is None:
        raise RecipeError(f"recipe {plan.name} trains no student: the model that it uses is already a directory")
    trained = plan.training.train.artifact(root)
    source = (trained.place / BEST).fetch()
    target.put(source)
    (target / CARD).write(write_card(plan, root).encode())
    return sum(file.stat().st_size for file in source.rglob("*") if file.is_file())


def write_card(plan: Plan, root: Place) -> str:
    """The card, in Markdown."""
    assert plan.training is not None
    train = plan.training.train
    manifest = train.artifact(root).manifest
    config: Any = train.config
    sources = list(find_sources(train))
    langs = sorted({str(step.config.lang) for step in sources})  # type: ignore[attr-defined]
    sections = [
        _write_front_matter(config.train.student, langs),
        f"# {plan.name}\n\n{plan.recipe.about}".rstrip(),
        _write_usage(config.train.student),
        "## Training data\n\n" + _write_data_table(sources, root),
        "## Training\n\n" + _write_training(config.train, manifest),
        *_write_measures(plan, root),
        "## Limits\n\n" + _write_limits(config.train, langs),
    ]
    return "\n\n".join(sections) + "\n"


def find_sources(train: Step) -> Iterable[Step]:
    """The steps that ingest passages, questions or pairs for a training, those it is chosen by left out."""
    read = [step for role, step in train.parents.items() if role.partition(".")[0] in ("data", "start")]
    for step in list_steps(read):
        if isinstance(step.config, IngestConfig) and not step.name.startswith("qrels"):
            yield step


def find_licences(source: Any) -> dict[str, str]:
    """The directories of a source's files, and the licence that is stated beside each."""
    path = str(getattr(source, "path", ""))
    if not path:
        return {source.kind: "part of the program"}
    folders = sorted({name.rpartition("/")[0] for name in getattr(source, "names", ())} or {""})
    found: dict[str, str] = {}
    for folder in folders:
        name = folder.partition("/")[0] or Path(path).name
        found[name] = _read_licence(Place.of(path), folder) or found.get(name, UNKNOWN)
    return found


def _read_licence(root: Place, folder: str) -> str:
    """What the README of a directory says, else that of the one above it, as far as the first below ``root``."""
    names = folder.split("/")
    for depth in range(len(names), 0, -1):
        place = root
        for name in filter(None, names[:depth]):
            place = place / name
        readme = place / CARD
        if readme.exists() and (match := _LICENCE.search(readme.read().decode("utf-8", "replace"))):
            return match[1].strip()[:LONGEST]
    return ""


def _write_front_matter(student: Any, langs: Sequence[str]) -> str:
    task = "sentence-similarity" if student.kind == "dense" else "feature-extraction"
    lines = [
        "---",
        f"language: [{', '.join(langs)}]",
        "library_name: sentence-transformers",
        f"pipeline_tag: {task}",
        "tags: [sentence-transformers, multilingual, retrieval]",
        "license: other",
        *([f"base_model: {base}"] if (base := getattr(getattr(student, "base", None), "model", "")) else []),
        "---",
    ]
    return "\n".join(lines)


def _write_usage(student: Any) -> str:
    name = "SentenceTransformer" if student.kind == "dense" else "MultiVectorEncoder"
    own = ", trust_remote_code=True" if student.kind == "lexical" else ""  # its modules are this package's
    needs = "sentence-transformers and babelray" if own else "sentence-transformers"
    return f"""## Use

With {needs} installed:

```python
from sentence_transformers import {name}

model = {name}("DIRECTORY"{own})
questions = model.encode_query(["Which currency is used in Iran?"])
passages = model.encode_document(["واحد پول ایران ریال است."])
print(model.similarity(questions, passages))
```"""


def _write_data_table(sources: Iterable[Step], root: Place) -> str:
    """A row for each directory: the tables that were read from it. What is read from several stands in each row."""
    rows: dict[tuple[str, str], set[str]] = {}
    for step in sources:
        artifact = step.artifact(root)
        counted = f"{step.name} ({artifact.rows:,})" if (artifact.place / MANIFEST).exists() else step.name
        for row in find_licences(step.config.source).items():  # type: ignore[attr-defined]
            rows.setdefault(row, set()).add(counted)
    lines = [
        f"| {name} | {', '.join(sorted(tables))} | {_escape(how)} |" for (name, how), tables in sorted(rows.items())
    ]
    return "\n".join(["| files in | tables (rows) | licence |", "|---|---|---|", *lines])


def _write_training(config: Any, manifest: Any) -> str:
    facts = manifest.facts
    software = manifest.software[0] if manifest.software else {}
    chosen = {key: value for key, value in facts.items() if key.startswith("best_")}
    lines = [
        f"* {facts['steps']:,} steps of {config.batch}, learning rate {config.lr:g}, {config.precision}, "
        f"loss `{config.loss.kind}`, seed {config.seed}; {facts['training_seconds'] / 60:.0f} min",
        f"* The student of step {chosen.pop('best_step', facts['steps'])}"
        + "".join(f", dev {key.removeprefix('best_')} {value:.3f}" for key, value in chosen.items()),
        f"* Made by step `{manifest.step}@{manifest.fingerprint}`, with "
        + ", ".join(
            f"{name} {software[name]}"
            for name in ("torch", "transformers", "sentence-transformers")
            if name in software
        ),
    ]
    return "\n".join(lines)


def _write_measures(plan: Plan, root: Place) -> list[str]:
    """A table for each evaluation set: the first measure by language and system."""
    sets: dict[str, dict[str, Mapping[str, Any]]] = {}
    for (name, system), step in plan.measured.items():
        artifact = step.artifact(root)
        if (artifact.place / MANIFEST).exists():
            sets.setdefault(name, {})[system] = artifact.manifest.facts
    return (
        ["## Measures", *(_write_measure_table(name, of) for name, of in sets.items() if STUDENT in of)] if sets else []
    )


def _write_measure_table(name: str, facts: Mapping[str, Mapping[str, Any]]) -> str:
    systems = [STUDENT, *(system for system in facts if system != STUDENT)]
    measures = facts[STUDENT]["measures"]
    first = next(iter(next(iter(measures.values()))))
    langs = sorted(measures, key=lambda lang: (lang != POOL, list(measures).index(lang)))
    asked = facts[STUDENT].get("queries", {}).get(POOL)
    lines = [f"**{name}**, {first}" + (f", {asked:,} questions" if asked else "") + ":", ""]
    lines += [f"| | {' | '.join(systems)} |", "|---|" + "---|" * len(systems)]
    for lang in langs:
        values = [facts[system]["measures"].get(lang, {}).get(first) for system in systems]
        lines.append(f"| {lang} | {' | '.join('–' if v is None else f'{v:.3f}' for v in values)} |")
    return "\n".join(lines)


def _write_limits(config: Any, langs: Sequence[str]) -> str:
    lengths = [getattr(config.student, key, None) for key in ("query_length", "doc_length")]
    lines = [f"* It was trained on {', '.join(langs)}; of other languages nothing is promised."]
    if all(lengths):
        lines.append(
            f"* Questions are cut after {lengths[0]} tokens, texts after {lengths[1]}: cut long texts into passages."
        )
    lines.append("* What was measured is above: one training, with one seed. Nothing else was.")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
