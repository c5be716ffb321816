"""The tables of a recipe file, each a frozen component: selection, teacher, systems, mixture, evaluation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from cluster.component import Component, Resources, Speed
from pipelines.evaluate import MEASURES
from pipelines.fusion import AnyFusion, Hybrid, LearntFusion
from pipelines.indexes import Bm25, Index
from pipelines.indexes.base import SearchOptions
from pipelines.models import OptionalModel, Pretrained
from pipelines.precision import Wanted
from pipelines.recipe.languages import (
    EACH_LANGUAGE,
    LanguageCodes,
    Languages,
    OptionalLanguage,
    QuestionLanguages,
    Reading,
    check_codes_or_each,
)
from pipelines.score_file import ScoreFile
from pipelines.scorers import EnsembleScorer, LlmScorer, Scorer
from pipelines.sources import AnySource


class Select(Reading):
    """Which ``k`` passages of the training collection a teacher scores for each query: a search by any system, with
    options of its own, so that another depth of the student's search keeps the teacher's scores."""

    index: Index = Bm25()
    encoder: OptionalModel = None
    search: SearchOptions = SearchOptions()
    k: int = Field(50, ge=2)

    @model_validator(mode="after")
    def _check_encoder(self) -> "Select":
        _check_encoder("select.", self.index, self.encoder)
        return self


class Score(Reading):
    """The teacher, and the languages in which it reads queries and passages (English in both papers)."""

    kind: Literal["teacher"] = "teacher"
    scorer: Scorer


def _kind_of_score(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "file" if kind == "file" else "teacher"


Teacher = Annotated[
    Annotated[Score, Tag("teacher")] | Annotated[ScoreFile, Tag("file")], Discriminator(_kind_of_score)
]  # [score] of a recipe


class ReadyStudent(Pretrained):
    """A checkpoint that is indexed and served as it is: of sentence-transformers, PyLate or Stanford ColBERT, or the
    student of another recipe. ``per_token`` compares token vectors by MaxSim also where the checkpoint was trained to
    give one vector per text."""

    per_token: bool = False


class MixMember(Component):
    """One member of a mixture: a recipe with overrides, of which the training data are used and the training is not.

    ``over`` holds values for some keys; the member stands for each element of their product. ``tied`` sets a key to the
    value of another: ``{"languages.docs" = "languages.original"}``. ``share`` weighs each element when batches are
    drawn. ``query_prompt`` and ``doc_prompt`` stand before its texts in training, in the place of the student's own
    prefixes; "" for none.
    """

    recipe: str
    over: dict[str, tuple[Any, ...]] = {}
    tied: dict[str, str] = {}
    share: float = Field(1.0, gt=0)
    query_prompt: str | None = None
    doc_prompt: str | None = None


def _leave_out_none(members: Any) -> Any:
    if not isinstance(members, dict):
        return members
    return {name: member for name, member in members.items() if member != "none"}


class Mix(Component):
    """A training on several data sets, each batch from one of them, drawn in proportion to
    share · size^(1/temperature). How Retrofitting (arXiv 2510.14274) draws its batches is not known."""

    temperature: float = Field(1.0, gt=0)
    # a member of the recipe that is extended is left out by its name = "none"
    of: Annotated[dict[str, MixMember], BeforeValidator(_leave_out_none)] = Field(min_length=1)


class SystemSpec(Component):
    """Something else that searches the evaluation sets, beside the student.

    ``recipe``  the student of another recipe, with this recipe's index unless ``index`` is given
    ``encoder`` a ready checkpoint, or none for BM25
    ``docs_in`` the documents are translated into this language by the recipe's translator, and then indexed
    ``rerank``  a teacher orders the first ``depth`` documents that the system ``of`` found
    ``fuse``    the rankings of these systems become one, as ``fusion`` says
    """

    recipe: str = ""
    index: Index | None = None
    encoder: OptionalModel = None
    docs_in: OptionalLanguage = ""
    rerank: Scorer | None = None
    of: str = "student"
    depth: int = Field(100, ge=1)
    fuse: tuple[str, ...] = ()
    fusion: AnyFusion = LearntFusion()

    @model_validator(mode="after")
    def _check_fusion(self) -> "SystemSpec":
        if not self.fuse:
            if self.fusion != LearntFusion():
                raise ValueError("fusion says how the systems of fuse become one: add fuse")
            return self
        if self.rerank or self.recipe or self.index or self.encoder or self.docs_in:
            raise ValueError("a system with fuse takes the rankings of other systems: leave out the other keys")
        if len(set(self.fuse)) < max(2, len(self.fuse)):
            raise ValueError(f"fuse = {list(self.fuse)}: expected two different systems or more")
        self.fusion.check_count(self.fuse)
        return self

    @model_validator(mode="after")
    def _check_kind(self) -> "SystemSpec":
        if self.fuse:
            return self
        if self.rerank and (self.recipe or self.index or self.encoder or self.docs_in):
            raise ValueError("a system with rerank takes its rankings from the system `of`: leave out the other keys")
        if isinstance(self.rerank, EnsembleScorer) and sum(isinstance(of, LlmScorer) for of in self.rerank.of) > 1:
            raise ValueError(
                "rerank: all teachers of an ensemble are loaded in one actor, which runs one language model: leave one "
                "of kind llm in rerank.of. As a recipe's teacher ([score]) each has actors of its own"
            )
        if not self.rerank and not self.recipe and self.index is None:
            raise ValueError(
                "say what searches: recipe = the recipe of a student, index (with encoder), rerank, or fuse"
            )
        if not self.rerank and not self.recipe and self.index is not None:
            _check_encoder("", self.index, self.encoder)
        if self.recipe and self.encoder:
            raise ValueError("recipe names a student, encoder a ready checkpoint: give one of the two")
        return self


def _check_encoder(table: str, index: Index, encoder: Pretrained | None) -> None:
    reads_text = index.kind == "bm25"
    if reads_text and encoder:
        raise ValueError(f"{table}index.kind = bm25 reads text: leave out {table}encoder, or choose another index")
    if not reads_text and not encoder:
        raise ValueError(f"{table}index.kind = {index.kind} searches vectors: add {table}encoder.model")


class Rerank(Component):
    """A second scoring of a search's first ``candidates`` results, each with its title and text, by a scorer. It reads
    them as they are, in the language of the question and of the document. ``default``: also where a search does not ask
    for it."""

    scorer: Scorer
    candidates: int = Field(20, ge=1, le=200)
    default: bool = True

    @model_validator(mode="after")
    def _check_scorer(self) -> "Rerank":
        if self.scorer.kind in ("bm25", "llm") or isinstance(self.scorer, EnsembleScorer):
            raise ValueError(
                f"rerank.scorer.kind = {self.scorer.kind}: expected cross_encoder, monot5 or dense, which read a "
                "question and a text and nothing else"
            )
        if getattr(self.scorer, "recipe", ""):
            raise ValueError("rerank.scorer.recipe: the server loads a model by its place: give model, the directory")
        return self


class Serve(Component):
    """What the server does beyond searching one index, and what is made for that.

    ``hybrid``  an index of words is served beside the student, and searches of both are fused
    ``rerank``  the first ``candidates`` results are scored again
    """

    hybrid: Hybrid | None = None
    rerank: Rerank | None = None


class EvaluationSet(Component):
    """Where a student is measured: documents of each language as they are, questions, judgements.

    ``query_lang`` names the language of the questions; a list of them, or "each" for the languages of the set, measures
    the set once for each and puts them in one matrix, question language by document language.
    ``topics_in`` = every keeps the questions with a relevant document in each language (MTD §4: 41 of NeuCLIR 2022).
    """

    source: AnySource | None = None  # None: the recipe's own source
    split: str = "all"  # which questions
    docs_split: str = "all"  # which documents are in the pool; a parallel collection has all in all but "train"
    languages: LanguageCodes | None = None  # None: those that the student reads
    # None: the language of the training questions; of several the original, or the first
    query_lang: Annotated[QuestionLanguages | None, BeforeValidator(check_codes_or_each)] = None
    topics_in: Literal["any", "every"] = "any"

    def read_docs_in(self, training: Languages) -> tuple[str, ...]:
        """The languages of the documents."""
        return self.languages or training.docs

    def asked_in(self, training: Languages) -> tuple[str, ...]:
        """The languages of the questions."""
        if self.query_lang == EACH_LANGUAGE:
            return self.read_docs_in(training)
        named = self.query_lang or training.main_query
        return (named,) if isinstance(named, str) else named

    @property
    def is_asked_in_several(self) -> bool:
        """Whether the set is measured once for each language of the questions."""
        return self.query_lang == EACH_LANGUAGE or isinstance(self.query_lang, tuple)


class Measures(Component):
    """What is measured (ir_measures names), and beside which baselines."""

    measures: tuple[str, ...] = MEASURES
    bm25: bool = True
    untrained: bool = True


class Encoding(Component):
    """How texts become vectors. ``auto`` is resolved when a plan is made, and written in the manifest: fp16 on
    accelerators, on processors what is fast and ranks alike (see ``pipelines.precision``)."""

    precision: Wanted = "auto"
    batch_tokens: Speed | None = None  # of a batch, padding included: fewer where memory runs out
    pool: int = Field(1, ge=1)  # tokens of a passage to a vector: 2 halves a late-interaction index


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
    gate: Resources = Resources()
    synthesise: Resources = Resources()
    mine: Resources = Resources()
    start: Resources = Resources()
    encode: Resources = Resources()
    index: Resources = Resources()
    search: Resources = Resources()
    score: Resources = Resources()
