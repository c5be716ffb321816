"""Collections of the ir_datasets catalogue, one dataset id per language: NeuCLIR, HC4, MIRACL, neuMARCO, mMARCO, …

    id = {en = "msmarco-passage/{split}", zh = "neumarco/zh/{split}"}
    splits = ["train/judged", "dev/small"]

The library downloads what is free, explains where to get what is not, and keeps its own copies. A table costs one pass
of its iterators and holds nothing.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines import languages
from pipelines.sources.base import Entry, TopicField
from pipelines.sources.records import make_doc, make_judgement, make_query


class IrDatasets(Component):
    """Dataset ids by language. ``splits`` are those that ``{split}`` in an id stands for; "all" is all of them.

    ``topics`` are the fields of a TREC topic that make the question, joined by a blank: the papers on NeuCLIR and HC4
    search with title and description. Fields are those of the original topic, which is English there.
    """

    kind: Literal["ir_datasets"] = "ir_datasets"
    id: dict[str, str] = Field(min_length=1)
    splits: tuple[str, ...] = ()
    topics: tuple[TopicField, ...] = Field(("title",), min_length=1)

    @field_validator("id")
    @classmethod
    def _known(cls, ids: dict[str, str]) -> dict[str, str]:
        return {languages.check(lang): name for lang, name in ids.items()}

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``, from the first of the datasets, since all splits of a collection share them."""
        name = self._names(lang, split)[0]
        for number, record in enumerate(_load(name, "docs").docs_iter(), 1):
            text = record.text if hasattr(record, "text") else record.default_text()
            title = getattr(record, "title", None) if hasattr(record, "text") else None
            yield make_doc(f"{name}/docs:{number}", record.doc_id, text, lang, title)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions of the split; with the title alone, what the library calls the default text of a query."""
        for name in self._names(lang, split):
            for number, record in enumerate(_load(name, "queries").queries_iter(), 1):
                yield make_query(f"{name}/queries:{number}", record.query_id, self._question(name, record), lang)

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The judgements of the split."""
        for name in self._names(lang, split):
            for number, record in enumerate(_load(name, "qrels").qrels_iter(), 1):
                yield make_judgement(f"{name}/qrels:{number}", record.query_id, record.doc_id, record.relevance)

    def _question(self, name: str, record: Any) -> str:
        if self.topics == ("title",):
            return str(record.default_text())
        if lacking := [field for field in self.topics if not hasattr(record, field)]:
            raise RecipeError(
                f"the topics of {name} have no {', '.join(lacking)}; they have {', '.join(record._fields)}. Choose "
                "source.topics among these, or leave it out"
            )
        return " ".join(text for field in self.topics if (text := str(getattr(record, field) or "").strip()))

    def _names(self, lang: str, split: str) -> list[str]:
        if lang not in self.id:
            raise RecipeError(f"no dataset id for {lang}: source.id has {', '.join(self.id)}")
        pattern = self.id[lang]
        known = self.splits if "{split}" in pattern else ()
        if split not in (*known, "all"):
            raise RecipeError(
                f"dataset {pattern} has no split {split!r}; it has {', '.join([*known, 'all'])}. Put {{split}} into "
                "the id and name the splits in source.splits"
            )
        if "{split}" in pattern and not known:
            raise RecipeError(f"dataset {pattern}: name the splits in source.splits")
        return [pattern.replace("{split}", part) for part in (known if split == "all" else (split,))] or [pattern]


def _load(name: str, table: str) -> Any:
    try:
        import ir_datasets
    except ImportError as error:
        raise RecipeError(
            "source kind ir_datasets needs a package that is not installed: pip install 'babelray[datasets]'"
        ) from error
    try:
        dataset = ir_datasets.load(name)
    except KeyError as error:
        raise RecipeError(f"ir_datasets has no dataset {name!r}: see its catalogue for the ids") from error
    if not getattr(dataset, f"has_{table}")():
        raise RecipeError(f"the dataset {name} of ir_datasets has no {table}: name another in source.id")
    return dataset
