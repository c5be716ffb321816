"""The atlas collection: short parallel passages about the world, English questions, and graded judgements.

Facts come from CLDR (through Babel) and the time zone database; phrasings turn each into one passage in each of seven
languages, under the same doc_id. Nothing is downloaded. All seven languages take about a second and 100 MB.

No training passage, in any language, states a fact of dev or test, and the questions of dev and test use phrasings of
their own. Relevance is 2 for the passage that states the fact and 1 for another passage that contains the answer.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal

from pydantic import Field, field_validator

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines.sources.atlas import cldr, de, en, es, fa, fr, ru, zh
from pipelines.sources.atlas.facts import Fact, draw, list_facts
from pipelines.sources.atlas.names import Writer
from pipelines.sources.atlas.phrasebook import Phrasebook
from pipelines.sources.atlas.questions import QUESTIONS
from pipelines.sources.atlas.splits import SPLITS, split_facts
from pipelines.sources.base import Entry

BOOKS: dict[str, Phrasebook] = {
    "en": en.BOOK,
    "de": de.BOOK,
    "fr": fr.BOOK,
    "es": es.BOOK,
    "zh": zh.BOOK,
    "fa": fa.BOOK,
    "ru": ru.BOOK,
}
NO_BREAK = "\u00a0"


class UnknownChoiceError(RecipeError, ValueError):
    """The collection does not have this language or split."""


class AtlasSource(Component):
    """The built-in collection.

    ``territories`` limits it for quick runs; the same number gives the same territories. ``questions_per_fact`` is the
    number of training questions; each dev and test fact has one question. ``made_with`` names the versions of the data,
    so that other data give another fingerprint; only the installed versions are accepted.
    """

    kind: Literal["atlas"] = "atlas"
    territories: int | None = Field(None, ge=2)
    questions_per_fact: int = Field(2, ge=1, le=3)
    seed: int = 12345
    made_with: str = Field(default_factory=cldr.describe_data)

    @field_validator("made_with")
    @classmethod
    def _check_data(cls, made_with: str) -> str:
        if made_with != cldr.describe_data():
            raise ValueError(
                f"the recipe expects atlas data {made_with!r}, but {cldr.describe_data()!r} is installed: "
                "install those versions, or leave made_with out to generate from the installed data"
            )
        return made_with

    def languages(self) -> tuple[str, ...]:
        """List the languages of the passages."""
        return cldr.LANGUAGES

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """Yield the passages of a split's facts. Questions of every split are searched in the split "all".

        Raises:
            UnknownChoiceError: the collection does not have the language or the split.
        """
        _check_choice("language", lang, cldr.LANGUAGES)
        for fact in self._list_facts(split):
            row = {"doc_id": fact.doc_id, "lang": lang, "title": "", "text": write_passage(fact, lang)}
            yield Entry(f"atlas:{fact.doc_id}", row)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """Yield the questions of a split, in English.

        Raises:
            UnknownChoiceError: the language is not English, or the split is unknown.
        """
        _check_choice("language of questions", lang, ("en",))
        for query_id, fact, text in self._write_questions(split):
            yield Entry(f"atlas:{fact.doc_id}", {"query_id": query_id, "lang": lang, "text": text})

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Yield the judgements of a split, which are the same in every language, since the passages are translations.

        Raises:
            UnknownChoiceError: the collection does not have the language or the split.
        """
        _check_choice("language", lang, cldr.LANGUAGES)
        for query_id, fact, _ in self._write_questions(split):
            for doc_id, relevance in ((fact.doc_id, 2), *((other, 1) for other in fact.related)):
                row = {"query_id": query_id, "doc_id": doc_id, "relevance": relevance}
                yield Entry(f"atlas:{fact.doc_id}", row)

    def _list_facts(self, split: str) -> list[Fact]:
        _check_choice("split", split, (*SPLITS, "all"))
        found, splits = _generate(self.territories, self.seed)
        return [fact for fact in found if split in ("all", splits[fact.doc_id])]

    def _write_questions(self, split: str) -> Iterator[tuple[str, Fact, str]]:
        """Yield ``(query_id, fact, question)``. The phrasing is drawn from the seed and the fact."""
        facts_of_split = self._list_facts(split)
        _, splits = _generate(self.territories, self.seed)
        writer = Writer("en", en.BOOK)
        for fact in facts_of_split:
            fact_split = splits[fact.doc_id]
            phrasings = QUESTIONS[fact.kind][fact_split]
            first = draw(self.seed, "question", fact.doc_id)
            for i in range(self.questions_per_fact if fact_split == "train" else 1):
                template = phrasings[(first + i) % len(phrasings)]
                yield f"{fact_split}-{fact.doc_id}-{i}", fact, _fill(template, writer, fact)


def write_passage(fact: Fact, lang: str) -> str:
    """Write the passage of a fact. The phrasing is drawn from the doc_id and the language."""
    phrasings = BOOKS[lang].phrases[fact.kind]
    text = _fill(phrasings[draw(fact.doc_id, lang) % len(phrasings)], _build_writer(lang), fact)
    return _apply_french_rules(text) if lang == "fr" else text


@cache
def _generate(limit: int | None, seed: int) -> tuple[list[Fact], dict[str, str]]:
    found = list_facts(limit)
    return found, split_facts(found, seed)


@cache
def _build_writer(lang: str) -> Writer:
    return Writer(lang, BOOKS[lang])


def _fill(template: str, writer: Writer, fact: Fact) -> str:
    """Fill the slots of a phrasing, resolve ``[singular|plural]``, and capitalise slots that start a sentence."""
    plural = fact.slots.get("T", "T:")[2:] in writer.book.plural
    words = writer.write_slots(fact.slots)

    def write_slot(match: re.Match[str]) -> str:
        word = words[match["slot"]]
        return word[:1].upper() + word[1:] if match["start"] is not None else word

    text = re.sub(r"\[(?P<one>[^|\]]*)\|(?P<many>[^|\]]*)\]", lambda m: m["many" if plural else "one"], template)
    return re.sub(r"(?P<start>^|(?<=[.?!] ))?\{(?P<slot>\w+)\}", write_slot, text)


def _apply_french_rules(text: str) -> str:
    """Elide and contract articles ("d’Athènes", "au Caire"), and set the no-break spaces of French punctuation."""
    text = re.sub(r"\bde (?=[AEIOUÀÂÉÈÊÎÔ])", "d’", text)
    text = re.sub(
        r"\bde Le (?=[A-Z])", "du ", re.sub(r"\b([àÀ]) Le (?=[A-Z])", lambda m: "au " if m[1] == "à" else "Au ", text)
    )
    text = re.sub(" (?=[:;?!»%])", NO_BREAK, text)
    return text.replace("« ", f"«{NO_BREAK}")


def _check_choice(kind: str, value: str, expected: tuple[str, ...]) -> None:
    if value not in expected:
        raise UnknownChoiceError(f"atlas: expected a {kind} among {', '.join(expected)}; got {value!r}")
