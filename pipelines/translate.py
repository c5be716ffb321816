"""The step *translate*: DOCS (or QUERIES) of one language -> the same ids in another.

    parallel   ``JoinTranslations``: look each id up in a collection that is translated already
    nmt        ``Translate``: run a translation model

A translation is an artifact of its own language, so adding a language to a recipe leaves every other one untouched.
Rejected rows keep their key and their reason; the manifest counts them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import model_validator

from cluster.artifact import Artifact
from cluster.component import Component
from pipelines.precision import refuse_auto
from pipelines.tables import DOCS, QUERIES
from pipelines.translators import Translator
from pipelines.translators.nmt import NmtTranslator, Translation
from pipelines.translators.parallel import JoinTranslations

__all__ = ["JoinTranslations", "Translate", "TranslateConfig"]


class TranslateConfig(Component):
    """From which language to which, and by what."""

    source_lang: str
    target_lang: str
    translator: Translator

    @model_validator(mode="after")
    def _precision_is_resolved(self) -> "TranslateConfig":
        refuse_auto(self.translator, "translate")
        return self


class Translate:
    """RowWork: rows of DOCS or QUERIES -> the same rows with title and text translated, by a model in the actor."""

    def __init__(self, config: TranslateConfig, inputs: Mapping[str, Artifact]) -> None:
        if config.translator.kind == "parallel":
            raise TypeError("translations that exist are joined, not made: use JoinTranslations")
        self._lang = config.target_lang
        self._translator: NmtTranslator = config.translator.build(config.source_lang, config.target_lang)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Translate a part."""
        table = DOCS if "doc_id" in rows.column_names else QUERIES
        given = rows.to_pylist()
        texts = [row["text"] for row in given if row["reject"] is None]
        titles = [row["title"] for row in given if row["reject"] is None and row.get("title")]
        translations = self._translator.translate(texts + titles)
        text, title = iter(translations[: len(texts)]), iter(translations[len(texts) :])
        return table.of([self._row(table.key[0], row, text, title) for row in given])

    def _row(
        self, key: str, row: dict[str, Any], text: Iterator[Translation], title: Iterator[Translation]
    ) -> dict[str, Any]:
        """The translated row; takes the next of ``text`` (and of ``title`` where it has one)."""
        out: dict[str, Any] = {key: row[key], "lang": self._lang}
        if row["reject"] is not None:
            return {**out, "reject": row["reject"]}
        words, heading = next(text), next(title) if row.get("title") else None
        if not (words.ended and (heading is None or heading.ended)):
            return {**out, "reject": "translation did not end"}
        if not words.text:
            return {**out, "reject": "empty translation"}
        if key == "query_id":
            return {**out, "text": words.text}
        return {**out, "title": heading.text if heading else row.get("title"), "text": words.text}
