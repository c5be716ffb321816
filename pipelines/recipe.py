"""Recipes: one TOML file names everything about one experiment.

A recipe is a name in ``pipelines/recipes/`` or a path. It may say ``extends = "other"`` and hold only what differs.
``--set section.key=value`` reaches every key; the value is TOML, and a bare word is a string. Setting a ``kind`` to
another one starts that component afresh, since the keys of the old kind do not fit the new one.

Loading a recipe imports neither torch, transformers nor ray.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from cluster.component import Component, Resources
from cluster.errors import RecipeError
from pipelines import languages
from pipelines.indexes import Bm25, Index
from pipelines.indexes.base import SearchOptions
from pipelines.models import OptionalModel
from pipelines.scorers import Scorer
from pipelines.sources import AnySource
from pipelines.training.config import TrainConfig
from pipelines.translators import Parallel, Translator

RECIPES = Path(__file__).parent / "recipes"

LanguageCode = Annotated[str, Field(min_length=2)]


class Languages(Component):
    """The languages of training: of the text, of the questions, and those in which the student reads passages."""

    original: LanguageCode = "en"
    query: LanguageCode = "en"
    docs: tuple[LanguageCode, ...] = Field(min_length=1)

    @field_validator("original", "query")
    @classmethod
    def _known(cls, code: str) -> str:
        return languages.check(code)

    @field_validator("docs")
    @classmethod
    def _all_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(codes)) != len(codes):
            raise ValueError(f"each language once, got {list(codes)}")
        return tuple(languages.check(code) for code in codes)


class Select(Component):
    """Which ``k`` passages of the training collection a teacher scores for each query: a search by any system, with
    options of its own, so that another depth of the student's search keeps the teacher's scores."""

    index: Index = Bm25()
    encoder: OptionalModel = None
    search: SearchOptions = SearchOptions()
    k: int = Field(50, ge=2)
    query_lang: LanguageCode = "en"
    doc_lang: LanguageCode = "en"

    @model_validator(mode="after")
    def _reads(self) -> "Select":
        reads_text = self.index.kind == "bm25"
        if reads_text and self.encoder:
            raise ValueError("select.index.kind = bm25 reads text: leave out select.encoder, or choose another index")
        if not reads_text and not self.encoder:
            raise ValueError(f"select.index.kind = {self.index.kind} searches vectors: add select.encoder.model")
        return self


class Score(Component):
    """The teacher, and the languages in which it reads queries and passages (English in both papers)."""

    scorer: Scorer
    query_lang: LanguageCode = "en"
    doc_lang: LanguageCode = "en"


class EvaluationSet(Component):
    """Where a student is measured: documents of each language as they are, questions, judgements."""

    source: AnySource | None = None  # None: the recipe's own source
    split: str = "all"  # which questions
    docs_split: str = "all"  # which documents are in the pool
    languages: tuple[LanguageCode, ...] | None = None  # None: those that the student reads
    query_lang: LanguageCode = "en"


class Measures(Component):
    """What is measured (ir_measures names), and beside which baselines."""

    measures: tuple[str, ...] = ("nDCG@20", "AP", "R@100", "RR@10")
    bm25: bool = True
    untrained: bool = True


class Run(Component):
    """How a run is cut up and when it gives up. A part is the unit of resume: what a killed worker does again. Cut
    otherwise, a table is another table: changing these makes all tables anew."""

    rows_per_part: int = Field(4096, ge=1)  # documents: minutes of translating
    queries_per_part: int = Field(256, ge=1)  # questions: minutes of a teacher's time, or of a search of many shards
    max_rejects: float = Field(0.0, ge=0, le=1)  # share of the records of a step


class StepResources(Component):
    """Resources of the steps, each per actor; training has its own. They change the speed, never the result."""

    ingest: Resources = Resources()
    translate: Resources = Resources()
    encode: Resources = Resources()
    index: Resources = Resources()
    search: Resources = Resources()
    score: Resources = Resources()


class Recipe(Component):
    """One experiment. See ``pipelines.plan.plan`` for what becomes of it."""

    name: str
    about: str = ""
    root: str = "artifacts"
    source: AnySource
    train_split: str = "train"
    languages: Languages
    translate: Translator = Parallel()
    select: Select = Select()
    score: Score
    train: TrainConfig
    validate_split: str | None = None  # questions that choose the best checkpoint; None keeps the last as the best
    passage_length: int = Field(180, ge=8)  # MTD §4: documents are read in windows of 180 tokens …
    passage_stride: int = Field(90, ge=1)  # … that begin every 90
    index: Index
    shard_rows: int = Field(100_000, ge=1)  # documents per shard: what one replica serves
    search: SearchOptions = SearchOptions()
    evaluate: dict[str, EvaluationSet] = {}
    measure: Measures = Measures()
    examples: tuple[str, ...] = ()  # queries shown at the end of a run
    run: Run = Run()
    resources: StepResources = StepResources()

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        """What would otherwise be found after hours, by the step that fails."""
        if (ways := self.train.draw.ways) > self.select.k:
            raise ValueError(f"train.ways = {ways} passages cannot be drawn from select.k = {self.select.k}")
        if self.passage_stride > self.passage_length:
            raise ValueError(
                f"passage_stride = {self.passage_stride} beyond passage_length = {self.passage_length} leaves text out"
            )
        dense = self.train.student.kind == "dense"
        if self.index.kind == "bm25" or (self.index.kind == "faiss" and not dense):
            raise ValueError(
                f"index.kind = {self.index.kind} cannot hold the vectors of a {self.train.student.kind} student: "
                f"choose {'exact, plaid or faiss' if dense else 'plaid or exact'}"
            )
        return self


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or path and apply ``key=value`` overrides in their order.

    Raises:
        RecipeError: no such recipe, an unknown key, a value that does not fit; the message names the key.
    """
    tree = _read(name)
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(_explain(name, tree, error)) from error


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    path = RECIPES / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RecipeError(f"no recipe {name!r}: {hint}expected one of {', '.join(names())} or the path of a TOML file")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    tree.setdefault("name", path.stem)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if parent not in names():
        parent = str(path.parent / parent)  # beside the file that extends it
    if parent in above:
        raise RecipeError(f"recipes extend each other in a circle: {' → '.join((*above, parent))}")
    return _merge(_read(parent, (*above, parent)), tree)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, table by table; a table of another kind replaces the one below."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind"):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"expected --set section.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word: --set source.path=data/xquad
    *path, last = key.strip().split(".")
    table = tree
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {key}: {name} is a value, not a table with keys below it")
    if last == "kind" and table.get("kind") not in (None, value):
        table.clear()
    table[last] = value


def _explain(name: str, tree: Mapping[str, Any], error: ValidationError) -> str:
    lines = [f"recipe {name}:"]
    for item in error.errors():
        if item["type"] == "default_factory_not_called":
            continue  # a default that follows from a key which is wrong and told
        key = ".".join(_path(tree, item["loc"]))
        if item["type"] == "extra_forbidden":
            lines.append(f"  unknown key {key}{_suggest(item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"  {key} is missing: add it to the file, or --set {key}=…")
        else:
            got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"  # a rule over several keys
            where = f"{key}: " if key else ""
            lines.append(f"  {where}{item['msg'].removeprefix('Value error, ')}{got}")
    return "\n".join(lines)


def _path(tree: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Where an error stands, as a key of the file: pydantic also names the kind that it took a table for."""
    path = []
    for part in loc:
        if isinstance(tree, dict) and tree.get("kind") == part and part not in tree:
            continue
        path.append(str(part))
        tree = tree.get(part) if isinstance(tree, dict) else None
    return path


def _suggest(loc: tuple[int | str, ...]) -> str:
    known = sorted(_keys(Recipe))
    close = difflib.get_close_matches(str(loc[-1]), known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _keys(model: type[Component]) -> set[str]:
    """All key names that occur anywhere in a recipe, for suggestions."""
    schema = TypeAdapter(model).json_schema()
    tables = [schema, *schema.get("$defs", {}).values()]
    return {key for table in tables for key in table.get("properties", {})}
