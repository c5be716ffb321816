"""The systems of a plan: what searches the evaluation sets, and how each is measured.

A system is an index and what feeds it: an encoder, or text for BM25. Documents may be translated first (``docs_in``),
a teacher may order again what another system found (``rerank``), and a system may fuse others (``fuse``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import RecipeError
from cluster.step import Step
from cluster.storage import Place
from pipelines.correlation import MEASURES as CORRELATIONS
from pipelines.encode import Encode, EncodeConfig
from pipelines.encoder import EncoderConfig
from pipelines.evaluate import EvaluateConfig, evaluate
from pipelines.fusion import LearntFusion
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Bm25, Exact, FastPlaid, Index, Plaid
from pipelines.indexes.base import SearchOptions
from pipelines.matrix import MatrixConfig, build_matrix
from pipelines.models import Pretrained, find_absent
from pipelines.plan import fusion
from pipelines.plan.fusion import plan_fused, plan_weights
from pipelines.plan.steps import Collection, config_of, make_step, other_student
from pipelines.plan.translation import translate_docs
from pipelines.precision import resolve, with_precision
from pipelines.recipe import BM25, STUDENT, UNTRAINED, ReadyStudent, Recipe, SystemSpec
from pipelines.scorers import Scorer
from pipelines.scoring import Score, ScoreConfig
from pipelines.search import Search, SearchConfig, ShardSearchConfig, search_shards
from pipelines.searcher import ExamplesConfig, find_examples
from pipelines.sources import IrDatasets
from pipelines.survey import example_queries
from pipelines.tables import RANKINGS, VECTORS

if TYPE_CHECKING:
    from pipelines.plan.training import Training

SHOWN = 4  # passages per example query
EXAMPLES = 3  # questions, where the recipe names none


@dataclass(frozen=True)
class System:
    """A way to search: an index, and the encoder that feeds it (none for BM25, which reads text)."""

    name: str
    index: Index | None  # None where it compares sentences alone
    model: Pretrained | None = None  # a ready checkpoint …
    student: Step | None = None  # … or an artifact of students and which of them
    checkpoint: Literal["best", "last", "start"] = "best"
    docs_in: str = ""  # documents are translated into this language
    reranker: Scorer | None = None  # orders again the first ``depth`` documents of the system ``of``
    of: str = ""
    depth: int = 100
    fuse: tuple[str, ...] = ()  # the systems whose rankings become one
    fusion: LearntFusion = LearntFusion()


def plan_systems(recipe: Recipe, training: "Training | None") -> dict[str, System]:
    """The student, the baselines that are measured beside it, and the systems that the recipe names."""
    systems = [_plan_student(recipe, training)]
    if recipe.measure.bm25:
        systems.append(System(BM25, Bm25()))
    if recipe.measure.untrained and training:  # searched exactly: it loses nothing to compression
        systems.append(System(UNTRAINED, Exact(), student=training.start, checkpoint=training.first))
    systems += [_plan_system(recipe, name, spec) for name, spec in recipe.systems.items()]
    return {system.name: system for system in systems}


def _plan_student(recipe: Recipe, training: "Training | None") -> System:
    if training:
        return System(STUDENT, recipe.index, student=training.train)
    ready = recipe.student
    if ready and ready.recipe:
        return System(STUDENT, recipe.index, student=other_student(recipe, ready.recipe), checkpoint=ready.which)
    return System(STUDENT, recipe.index, model=ready)


def _plan_system(recipe: Recipe, name: str, spec: SystemSpec) -> System:
    index = spec.index or recipe.index
    if spec.fuse:
        return System(name, None, fuse=spec.fuse, fusion=spec.fusion)
    if spec.rerank:
        return System(name, index, reranker=spec.rerank, of=spec.of, depth=spec.depth)
    if spec.recipe:
        return System(name, index, student=other_student(recipe, spec.recipe), docs_in=spec.docs_in)
    return System(name, index, model=spec.encoder, docs_in=spec.docs_in)


def encoder_of(recipe: Recipe, system: System) -> EncoderConfig:
    """The encoder of a system, in the precision of the recipe."""
    model = system.model
    return EncoderConfig(
        model=Pretrained(**{name: getattr(model, name) for name in Pretrained.model_fields}) if model else None,
        checkpoint=system.checkpoint,
        per_token=isinstance(system.model, ReadyStudent) and system.model.per_token,
        precision=resolve(recipe.encode.precision, recipe.resources.encode.gpus),
        batch_tokens=recipe.encode.batch_tokens,
    )


def plan_vectors(recipe: Recipe, system: System, name: str, role: Literal["docs", "queries"], rows: Step) -> Step:
    """Vectors of a DOCS or QUERIES step under the encoder of a system."""
    passages: dict[str, Any] = {name: getattr(recipe, name) for name in ("passage_length", "passage_stride")}
    passages["pool"] = recipe.encode.pool
    encoder = encoder_of(recipe, system)
    config = EncodeConfig(role=role, **dict(encoder), **(passages if role == "docs" else {}))
    inputs = {"rows": rows} | ({"student": system.student} if system.student else {})
    return make_step(
        recipe, "encode", f"encode-{system.name}-{name}", Encode, config, inputs, table=VECTORS, rows=("rows",)
    )


def plan_index(recipe: Recipe, system: System, docs: Mapping[str, Step]) -> Step:
    """One index of all languages: of vectors, of text for BM25, or one that is read."""
    assert system.index is not None  # a recipe with documents has one
    if isinstance(system.index, Bm25 | FastPlaid):
        inputs: dict[str, Any] = {"docs": docs}
    else:
        inputs = {"vectors": {lang: plan_vectors(recipe, system, lang, "docs", step) for lang, step in docs.items()}}
    if isinstance(system.index, Plaid) and system.index.recall and (questions := _find_questions(system)):
        inputs["questions"] = plan_vectors(recipe, system, questions.name, "queries", questions)
    config = IndexConfig.of(system.index, recipe.shard_rows)
    return make_step(recipe, "index", f"index-{system.name}", build_index, config, inputs)


def _find_questions(system: System) -> Step | None:
    """The questions by which a wanted recall is measured: those that chose the student's best checkpoint, if any."""
    questions = system.student.inputs.get("dev", {}).get("queries") if system.student else None
    return questions if isinstance(questions, Step) else None


def plan_search(
    recipe: Recipe, name: str, system: System, index: Step, queries: Step, lang: str, options: SearchOptions
) -> Step:
    """Rankings of the documents of one language. Where its shards are too large for one worker, they are searched
    group by group first."""
    lexical = system.index is not None and system.index.kind == "bm25"
    rows = queries if lexical else plan_vectors(recipe, system, queries.name, "queries", queries)
    by_group = ShardSearchConfig(options=options, group_gb=recipe.group_gb)
    inputs = {"rows": rows, "index": index}
    found = make_step(recipe, "search", f"search-{system.name}-shards", search_shards, by_group, inputs)
    config = SearchConfig(lang=lang, options=options)
    inputs = {**inputs, "found": found}
    return make_step(recipe, "search", name, Search, config, inputs, table=RANKINGS, rows=("rows",))


@dataclass(frozen=True)
class Searched:
    """What a system makes of a collection: its index (none where it reranks), and its rankings by language (none where
    the collection has no questions)."""

    index: Step | None
    rankings: Mapping[str, Step]


def plan_searches(recipe: Recipe, systems: Mapping[str, System], collection: Collection) -> dict[str, Searched]:
    """Index and search a collection with each system; where it has no questions, index it for what is served alone."""
    if collection.queries is None:
        served = [STUDENT, *([recipe.serve.hybrid.system] if recipe.serve.hybrid else [])]
        return {
            name: Searched(plan_index(recipe, systems[name], _searched_docs(recipe, systems[name], collection)), {})
            for name in served
        }
    searches: dict[str, Searched] = {}
    for name, system in systems.items():
        if system.fuse:
            weights = plan_weights(recipe, systems, system, partial(plan_searches, recipe))
            searches[name] = Searched(None, plan_fused(recipe, system, searches, weights))
            continue
        if system.reranker:
            found = searches[system.of].rankings.items()
            reranked = {lang: _plan_reranking(recipe, system, collection, lang, rows) for lang, rows in found}
            searches[name] = Searched(None, reranked)
            continue
        index = plan_index(recipe, system, _searched_docs(recipe, system, collection))
        rankings = {
            lang: plan_search(recipe, f"search-{name}-{lang}", system, index, collection.queries, lang, recipe.search)
            for lang in collection.qrels
        }
        searches[name] = Searched(index, rankings)
    return searches


def find_stages(recipe: Recipe, systems: Mapping[str, System], system: System, root: Place) -> dict[str, Any]:
    """What the server does after a search with a system: ``hybrid``, how the student's is fused with an index of words,
    and ``rerank``, what scores results again; None each where it does not. Models of ``recipe`` are pinned."""
    hybrid = fusion.find_hybrid(recipe, systems, partial(plan_searches, recipe), root)
    rerank = recipe.serve.rerank
    if rerank and (absent := find_absent(rerank)):
        raise RecipeError(f"serve.rerank.scorer: {absent[0]}")
    if rerank:
        rerank = rerank.model_copy(update={"scorer": with_precision(rerank.scorer, recipe.resources.encode.gpus)})
    return {"hybrid": hybrid if system.name == STUDENT else None, "rerank": rerank}


def _searched_docs(recipe: Recipe, system: System, collection: Collection) -> Mapping[str, Step]:
    """The documents that a system indexes: as they are, or translated into the system's language."""
    to = system.docs_in
    return {
        lang: step if to in ("", lang) else translate_docs(recipe, step, to) for lang, step in collection.docs.items()
    }


def _plan_reranking(recipe: Recipe, system: System, collection: Collection, lang: str, found: Step) -> Step:
    """The first documents of a ranking in the order of a teacher's scores (retrieve and rerank)."""
    assert system.reranker is not None
    assert collection.queries is not None
    query_lang = config_of(collection.queries).lang
    scorer = with_precision(system.reranker, recipe.resources.score.gpus)
    config = ScoreConfig(scorer=scorer, query_lang=query_lang, doc_lang=lang, depth=system.depth)
    inputs = {"rankings": found, "queries": collection.queries, "docs": collection.docs[lang]}
    name = f"rerank-{system.name}-{lang}"
    return make_step(recipe, "score", name, Score, config, inputs, table=RANKINGS, rows=("rankings",))


def plan_evaluation(
    recipe: Recipe, name: str, system: str, collection: Collection, rankings: Mapping[str, Step]
) -> Step:
    """The measures of one system on one collection, per language and pooled."""
    topics_in = recipe.evaluate[collection.of].topics_in
    measures = tuple(name for name in recipe.measure.measures if name not in CORRELATIONS)  # these are of pairs
    config = EvaluateConfig(name=collection.of, measures=measures, topics_in=topics_in)
    inputs = {"rankings": rankings, "qrels": collection.qrels}
    return Step(f"evaluate-{name}-{system}", evaluate, config, inputs, verb="evaluate")


def plan_matrices(
    collections: Mapping[str, Collection], evaluations: Mapping[tuple[str, str], Step]
) -> dict[tuple[str, str], Step]:
    """Of each set that is asked in several languages, and each system: its evaluations as one matrix."""
    found: dict[tuple[str, str], dict[str, Step]] = {}
    for (name, system), step in evaluations.items():
        collection = collections[name]
        if name != collection.of and collection.queries:
            found.setdefault((collection.of, system), {})[config_of(collection.queries).lang] = step
    return {
        (of, system): Step(
            f"matrix-{of}-{system}", build_matrix, MatrixConfig(name=of), {"evaluations": asked}, verb="evaluate"
        )
        for (of, system), asked in found.items()
    }


def plan_examples(
    recipe: Recipe, student: System, collections: Mapping[str, Collection], indexes: Mapping[tuple[str, str], Step]
) -> Step | None:
    """What the student finds in the first collection for the recipe's example queries, or for some of the collection's
    own questions. None where there are neither."""
    if not collections:
        return None
    name, collection = next(iter(collections.items()))
    queries = recipe.examples or _own_examples(collection)
    if not queries:
        return None
    options = recipe.search.model_copy(update={"k": SHOWN})
    config = ExamplesConfig(queries=queries, options=options, **dict(encoder_of(recipe, student)))
    inputs: dict[str, Any] = {"index": indexes[name, student.name], "docs": collection.docs}
    if student.student:
        inputs["student"] = student.student
    return make_step(recipe, "encode", "examples", find_examples, config, inputs)


def _own_examples(collection: Collection) -> tuple[str, ...]:
    """Some questions of a collection, in the language in which they are asked. None where ir_datasets would have to
    download them first: a plan fetches nothing."""
    if collection.queries is None:
        return ()
    asked = config_of(collection.queries)
    if isinstance(asked.source, IrDatasets):
        return ()
    return tuple(example_queries(asked.source, EXAMPLES, asked.lang))
