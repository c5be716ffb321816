"""The step *translate*: DOCS (or QUERIES) of one language -> the same ids in another.

    parallel   ``JoinTranslations``: look each id up in a collection that is translated already
    nmt        ``Translate``: run a translation model
    llm        ``Translate``: a language model in the actor
    openai     ``Translate``: a language model behind an endpoint

A translation is an artifact of its own language, so adding a language to a recipe leaves every other one untouched.
Rejected rows keep their key and their reason; the manifest counts them.

Stages: each translates what those before it could not. A step of stage 2 reads ``rows=("docs", "before")``: rows that
are good in ``before`` pass on unchanged, rows that were rejected there are translated, and ``origin`` says of each row
which stage made it. A row that was bad before any translation keeps its reason.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field, model_validator

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.table import Table
from pipelines.generation import Generated
from pipelines.precision import refuse_auto
from pipelines.tables import DOCS, QUERIES
from pipelines.translators import Translator

Row = dict[str, Any]


class TranslateConfig(Component):
    """From which language to which, by what, and at which stage."""

    source_lang: str
    target_lang: str
    translator: Translator
    stage: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _precision_is_resolved(self) -> "TranslateConfig":
        refuse_auto(self.translator, "translate")
        return self

    @property
    def origin(self) -> str:
        """What the rows of this stage have in their column ``origin``."""
        return f"{self.stage} {self.translator.kind}"


class Translate:
    """RowWork: rows of DOCS or QUERIES -> the same rows with title and text translated, by a model in the actor.

    ``facts`` of a call counts the good rows by their origin.
    """

    def __init__(self, config: TranslateConfig, inputs: Mapping[str, Artifact]) -> None:
        if config.translator.kind == "parallel":
            raise TypeError("translations that exist are joined, not made: use JoinTranslations")
        self._config = config
        self._translator = config.translator.build(config.source_lang, config.target_lang)
        self.facts: dict[str, int] = {}

    def __call__(self, rows: pa.Table, before: pa.Table | None = None) -> pa.Table:
        """Translate a part: the rows that are good in ``rows`` and not in ``before``, the stage before this one."""
        out = do_rest(self._config, rows, before, self._translate)
        self.facts = count_origins(out)
        return out

    def _translate(self, rows: list[Row]) -> list[Row]:
        texts = [row["text"] for row in rows]
        titles = [row["title"] for row in rows if row.get("title")]
        translations = self._translator.translate(texts + titles)
        text, title = iter(translations[: len(texts)]), iter(translations[len(texts) :])
        return [_translated(row, text, title) for row in rows]


class JoinTranslations:
    """RowWork: DOCS of the source language -> DOCS of the target language, the same ids in the same order.

    ``inputs["translations"]`` is the DOCS artifact of the target language. Memory stays flat: its texts are
    memory-mapped. A row that was rejected before keeps its reason; one without a translation is rejected. Where the
    translator says so, translations are damaged (``translators.damage``), with words of others of them.
    """

    def __init__(self, config: TranslateConfig, inputs: Mapping[str, Artifact]) -> None:
        from pipelines.docstore import Docstore

        if config.translator.kind != "parallel":
            raise TypeError("translations are made by the other translators, not joined: use Translate")
        self._config, self._damage = config, config.translator.damage
        self._translations = Docstore.open(inputs["translations"])
        self.facts: dict[str, int] = {}

    def __call__(self, rows: pa.Table, before: pa.Table | None = None) -> pa.Table:
        """Join a part; see ``Translate`` for ``before``."""
        out = do_rest(self._config, rows, before, self._join)
        self.facts = count_origins(out)
        return out

    def _join(self, rows: list[Row]) -> list[Row]:
        positions = self._translations.positions([row["doc_id"] for row in rows]).tolist()
        return [self._joined(position) for position in positions]

    def _joined(self, position: int) -> Row:
        """The columns of the translation at ``position``; -1 where there is none."""
        if position < 0:
            return {"reject": "no translation"}
        row = self._translations.row_at(position)
        if self._damage.is_none:
            return {"title": row["title"], "text": row["text"]}
        drawn = self._damage.draw(row["doc_id"], self._config.target_lang)
        other = self._translations.row_at(drawn.choose_other(position, len(self._translations)))["text"]
        text = drawn.apply(row["text"], other)
        return {"title": row["title"] and drawn.apply(row["title"], other), "text": text}


def do_rest(
    config: TranslateConfig, rows: pa.Table, before: pa.Table | None, translate: Callable[[list[Row]], list[Row]]
) -> pa.Table:
    """A stage's table. ``translate`` gets the rows to be done and gives for each a title and text, or a reject."""
    table = DOCS if "doc_id" in rows.column_names else QUERIES
    given = rows.to_pylist()
    earlier = before.to_pylist() if before is not None else [None] * len(given)
    passes_on = [old is not None and old["reject"] is None for old in earlier]
    todo = [row for row, passes in zip(given, passes_on, strict=True) if not passes and row["reject"] is None]
    done = iter(translate(todo))
    out = []
    for row, old, passes in zip(given, earlier, passes_on, strict=True):
        blank = {table.key[0]: row[table.key[0]], "lang": config.target_lang}
        if passes:
            out.append(old)
        elif row["reject"] is not None:
            out.append({**blank, "reject": row["reject"]})
        else:
            new = next(done)
            out.append({**blank, **new, "origin": None if new.get("reject") else config.origin})
    return _make(table, out)


def count_origins(rows: pa.Table) -> dict[str, int]:
    """How many good rows each stage made."""
    return dict(sorted(Counter(origin for origin in rows["origin"].to_pylist() if origin).items()))


def _make(table: Table, rows: list[Row]) -> pa.Table:
    return table.of([{name: row.get(name) for name in table.schema.names} for row in rows])


def _translated(row: Row, text: Iterator[Generated], title: Iterator[Generated]) -> Row:
    """The translated title and text, or why there are none; takes the next of ``text`` (and of ``title`` where the row
    has one)."""
    words, heading = next(text), next(title) if row.get("title") else None
    for answer in (words, heading):
        if answer and answer.failure:
            return {"reject": answer.failure}
        if answer and not answer.ended:
            return {"reject": "translation did not end"}
    if not words.text:
        return {"reject": "empty translation"}
    return {"title": heading.text if heading else row.get("title"), "text": words.text}
