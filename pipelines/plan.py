"""The whole system on one page: which steps a recipe becomes, and what each reads.

    ingest ─ docs, queries, qrels of every language and split                      (tables)
    translate ─ the training passages, into each language that is read    (tables)
    select ─ the k passages of the training collection that look best per query    (a search)
    score ─ what the teacher thinks of them, in the teacher's languages            (rankings)
    train ─ the student, on the teacher's scores and the translated passages       (a directory)
    encode → index → search → evaluate ─ for the student and for each baseline, on each evaluation set

A step is known by its name and the fingerprint of all that can change it, so two recipes that differ only in the
student share their translations and scores, and a selection is made by the same steps as a search.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cluster.component import Component
from cluster.errors import RecipeError
from cluster.step import Step
from cluster.table import Table
from pipelines.encode import Encode, EncodeConfig
from pipelines.evaluate import EvaluateConfig, evaluate
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Bm25, Exact, Index
from pipelines.indexes.base import SearchOptions
from pipelines.ingest import ABSENT, IngestConfig, IngestDocs, IngestQrels, IngestQueries
from pipelines.recipe import EvaluationSet, Recipe
from pipelines.scoring import Score, ScoreConfig
from pipelines.search import Search, SearchConfig
from pipelines.searcher import ExamplesConfig, find_examples
from pipelines.sources import AnySource
from pipelines.sources.files import TableName
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS, VECTORS
from pipelines.training.config import TrainingRun
from pipelines.training.start import StartConfig, build_start
from pipelines.training.trainer import train
from pipelines.translate import JoinTranslations, Translate, TranslateConfig

SHOWN = 4  # passages per example query
STUDENT, BM25, UNTRAINED = "student", "bm25", "untrained"
VERBS = {  # whose resources a work runs with
    **dict.fromkeys(("IngestDocs", "IngestQueries", "IngestQrels"), "ingest"),
    **dict.fromkeys(("JoinTranslations", "Translate"), "translate"),
    "Encode": "encode",
    "Search": "search",
    "Score": "score",
}


@dataclass(frozen=True)
class System:
    """A way to search: an index, and the encoder that feeds it (none for BM25, which reads text)."""

    name: str
    index: Index
    model: str | None = None  # a ready checkpoint …
    student: Step | None = None  # … or a training artifact and which of its checkpoints
    checkpoint: Literal["best", "last", "start"] = "best"


@dataclass(frozen=True)
class Collection:
    """Documents by language, and the questions asked of them."""

    docs: Mapping[str, Step]
    queries: Step
    qrels: Mapping[str, Step]


@dataclass(frozen=True)
class Plan:
    """The steps of a recipe that other things ask for by name; all others are reached through their inputs."""

    recipe: Recipe
    train: Step
    systems: Mapping[str, System]
    collections: Mapping[str, Collection]  # by evaluation set
    indexes: Mapping[tuple[str, str], Step]  # (evaluation set, system)
    evaluations: Mapping[tuple[str, str], Step]
    examples: Step | None

    @property
    def steps(self) -> list[Step]:
        """Every step once, inputs first: the order in which they are shown."""
        found: dict[str, Step] = {}

        def visit(step: Step) -> None:
            if step.id in found:
                return
            for parent in step.parents.values():
                visit(parent)
            found[step.id] = step

        for target in self.targets:
            visit(target)
        return list(found.values())

    @property
    def targets(self) -> list[Step]:
        """What a run makes; all else is made because these read it."""
        return [self.train, *self.evaluations.values(), *([self.examples] if self.examples else [])]

    @property
    def absent(self) -> list[str]:
        """Which files of the sources are not here: such a plan can be looked at, and not run."""
        contents = [step.config.content for step in self.steps if isinstance(step.config, IngestConfig)]
        return list(dict.fromkeys(c.removeprefix(ABSENT) for c in contents if c.startswith(ABSENT)))

    def with_data(self) -> "Plan":
        """This plan. Raises RecipeError, naming each, when files are absent: their steps would be others."""
        if self.absent:
            raise RecipeError("\n".join(self.absent))
        return self

    def named(self, name: str) -> list[Step]:
        """The steps of this name, or of this name and fingerprint. Raises RecipeError when there is none."""
        steps = [s for s in self.steps if name in (s.name, s.id)]
        if not steps:
            raise RecipeError(
                f"no step {name!r} in recipe {self.recipe.name}; it has {', '.join(s.name for s in self.steps)}"
            )
        return steps


def plan(recipe: Recipe) -> Plan:
    """Turn a recipe into steps. Reading this function is reading the system."""
    if not recipe.evaluate:
        raise RecipeError(f"recipe {recipe.name} names no evaluation set: add a table [evaluate.NAME]")
    docs = {lang: _training_docs(recipe, lang) for lang in _training_languages(recipe)}
    queries = {lang: _training_queries(recipe, lang) for lang in _query_languages(recipe)}
    selection = _selection(recipe, docs, queries)
    scores = _scores(recipe, docs, queries, selection)
    student = _student(recipe, docs, queries, scores)

    sets = {name: _collection(recipe, spec) for name, spec in recipe.evaluate.items()}
    systems = [System(STUDENT, recipe.index, student=student)]
    if recipe.measure.bm25:
        systems.append(System(BM25, Bm25()))
    if recipe.measure.untrained:
        systems.append(System(UNTRAINED, Exact(), student=student.inputs["start"], checkpoint="start"))
    indexes = {(name, s.name): _index(recipe, s, c.docs) for name, c in sets.items() for s in systems}
    evaluations = {
        (name, system.name): _evaluation(recipe, name, system, sets[name], indexes[name, system.name])
        for name in sets
        for system in systems
    }
    examples = _examples(recipe, student, *next((c, indexes[name, STUDENT]) for name, c in sets.items()))
    return Plan(recipe, student, {s.name: s for s in systems}, sets, indexes, evaluations, examples)


def _training_languages(recipe: Recipe) -> list[str]:
    """Those of the student, the selector and the teacher; they may differ (Translate-Distill §3.2)."""
    return list(dict.fromkeys([*recipe.languages.docs, recipe.select.doc_lang, recipe.score.doc_lang]))


def _query_languages(recipe: Recipe) -> list[str]:
    return list(dict.fromkeys([recipe.languages.query, recipe.select.query_lang, recipe.score.query_lang]))


def _ingest(recipe: Recipe, table: TableName, source: AnySource, lang: str, split: str, **inputs: Step) -> Step:
    work, contract = {"docs": (IngestDocs, DOCS), "queries": (IngestQueries, QUERIES), "qrels": (IngestQrels, QRELS)}[
        table
    ]
    size = recipe.run.queries_per_part if table == "queries" else recipe.run.rows_per_part
    config = IngestConfig.of(source, lang, split, size, table)
    return _table(recipe, f"{table}-{lang}", work, config, contract, inputs)


def _table(
    recipe: Recipe, name: str, work: Any, config: Component, table: Table, inputs: Mapping[str, Step], rows: str = ""
) -> Step:
    """A table step with the resources of its verb."""
    resources = getattr(recipe.resources, VERBS[work.__name__])
    return Step(
        name,
        work,
        config,
        inputs,
        table=table,
        rows=(rows,) if rows else (),
        resources=resources,
        max_rejects=recipe.run.max_rejects,
        verb=VERBS[work.__name__],
    )


def _training_docs(recipe: Recipe, lang: str) -> Step:
    """The training passages in one language: the originals, or their translation."""
    original = _ingest(recipe, "docs", recipe.source, recipe.languages.original, recipe.train_split)
    if lang == recipe.languages.original:
        return original
    config = TranslateConfig(source_lang=recipe.languages.original, target_lang=lang, translator=recipe.translate)
    if recipe.translate.kind == "parallel":
        given = _ingest(recipe, "docs", recipe.source, lang, recipe.train_split)
        inputs = {"docs": original, "translations": given}
        return _table(recipe, f"translate-{lang}", JoinTranslations, config, DOCS, inputs, "docs")
    return _table(recipe, f"translate-{lang}", Translate, config, DOCS, {"docs": original}, "docs")


def _training_queries(recipe: Recipe, lang: str) -> Step:
    """The training queries in one language: as the source has them, or translated where translations are made."""
    original = recipe.languages.original
    if lang == original or recipe.translate.kind == "parallel":
        return _ingest(recipe, "queries", recipe.source, lang, recipe.train_split)
    config = TranslateConfig(source_lang=original, target_lang=lang, translator=recipe.translate)
    inputs = {"queries": _training_queries(recipe, original)}
    return _table(recipe, f"translate-queries-{lang}", Translate, config, QUERIES, inputs, "queries")


def _selection(recipe: Recipe, docs: Mapping[str, Step], queries: Mapping[str, Step]) -> Step:
    """The k best passages per training query: a search of the training collection by the selector."""
    select = recipe.select
    system = System("select", select.index, model=select.encoder.model if select.encoder else None)
    index = _index(recipe, system, {select.doc_lang: docs[select.doc_lang]})
    options = select.search.model_copy(update={"k": select.k})
    return _search(recipe, "select", system, index, queries[select.query_lang], select.doc_lang, options)


def _scores(recipe: Recipe, docs: Mapping[str, Step], queries: Mapping[str, Step], selection: Step) -> Step:
    score = recipe.score
    config = ScoreConfig(scorer=score.scorer, query_lang=score.query_lang, doc_lang=score.doc_lang)
    inputs = {"rankings": selection, "queries": queries[score.query_lang], "docs": docs[score.doc_lang]}
    return _table(recipe, "score", Score, config, RANKINGS, inputs, "rankings")


def _student(recipe: Recipe, docs: Mapping[str, Step], queries: Mapping[str, Step], scores: Step) -> Step:
    texts = {"queries": queries[recipe.languages.query], "docs": {lang: docs[lang] for lang in recipe.languages.docs}}
    config = StartConfig(student=recipe.train.student, seed=recipe.train.seed)
    read = {"data": {"main": texts}} if config.student.reads_corpus else {}
    start = Step("start", build_start, config, read, resources=recipe.resources.index)
    inputs: dict[str, Any] = {"start": start, "data": {"main": {**texts, "scores": scores}}}
    if recipe.validate_split:
        spec = EvaluationSet(split=recipe.validate_split, query_lang=recipe.languages.query)
        inputs["dev"] = vars(_collection(recipe, spec))
    return Step("train", train, TrainingRun(train=recipe.train), inputs, resources=recipe.train.resources)


def _collection(recipe: Recipe, spec: EvaluationSet) -> Collection:
    source = spec.source or recipe.source
    codes = spec.languages or recipe.languages.docs
    docs = {lang: _ingest(recipe, "docs", source, lang, spec.docs_split) for lang in codes}
    queries = _ingest(recipe, "queries", source, spec.query_lang, spec.split)
    qrels = {
        lang: _ingest(recipe, "qrels", source, lang, spec.split, docs=docs[lang], queries=queries) for lang in codes
    }
    return Collection(docs, queries, qrels)


def _encode(recipe: Recipe, system: System, name: str, role: Literal["docs", "queries"], rows: Step) -> Step:
    """Vectors of a DOCS or QUERIES step under the encoder of a system."""
    config = EncodeConfig(
        role=role,
        model=system.model,
        checkpoint=system.checkpoint,
        passage_length=recipe.passage_length,
        passage_stride=recipe.passage_stride,
    )
    inputs = {"rows": rows} | ({"student": system.student} if system.student else {})
    return _table(recipe, f"encode-{system.name}-{name}", Encode, config, VECTORS, inputs, "rows")


def _index(recipe: Recipe, system: System, docs: Mapping[str, Step]) -> Step:
    """One index of all languages: of vectors, or of text for BM25."""
    if system.index.kind == "bm25":
        inputs: dict[str, Any] = {"docs": docs}
    else:
        inputs = {"vectors": {lang: _encode(recipe, system, lang, "docs", step) for lang, step in docs.items()}}
    config = IndexConfig(index=system.index, shard_rows=recipe.shard_rows)
    return Step(f"index-{system.name}", build_index, config, inputs, resources=recipe.resources.index)


def _search(
    recipe: Recipe, name: str, system: System, index: Step, queries: Step, lang: str, options: SearchOptions
) -> Step:
    """Rankings of the documents of one language."""
    lexical = system.index.kind == "bm25"
    rows = queries if lexical else _encode(recipe, system, queries.name, "queries", queries)
    config = SearchConfig(lang=lang, options=options)
    return _table(recipe, name, Search, config, RANKINGS, {"rows": rows, "index": index}, "rows")


def _evaluation(recipe: Recipe, name: str, system: System, collection: Collection, index: Step) -> Step:
    """The measures of one system on one set, per language and pooled."""
    rankings = {
        lang: _search(recipe, f"search-{system.name}-{lang}", system, index, collection.queries, lang, recipe.search)
        for lang in collection.qrels
    }
    config = EvaluateConfig(name=name, measures=recipe.measure.measures)
    inputs = {"rankings": rankings, "qrels": collection.qrels}
    return Step(f"evaluate-{name}-{system.name}", evaluate, config, inputs)


def _examples(recipe: Recipe, student: Step, collection: Collection, index: Step) -> Step | None:
    """What the student finds for the recipe's example queries."""
    if not recipe.examples:
        return None
    inputs = {"student": student, "index": index, "docs": collection.docs}
    config = ExamplesConfig(queries=recipe.examples, options=recipe.search.model_copy(update={"k": SHOWN}))
    return Step("examples", find_examples, config, inputs)
