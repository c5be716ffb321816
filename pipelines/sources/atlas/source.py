"""The atlas collection: short parallel passages about the world, English questions, and graded judgements.

Facts come from CLDR (through Babel) and the time zone database; careful phrasings turn each into one passage in each
of seven languages under the same doc_id. There is no download. All seven languages take about a second and 100 MB.

Test and dev facts are not stated by any training passage in any language, and their questions use phrasings that
training never shows. Relevance 2 is the passage that states the fact; 1 is another passage that contains the answer.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal

from pydantic import Field, field_validator

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines.sources.atlas import cldr, de, en, es, fa, fr, ru, zh
from pipelines.sources.atlas.facts import Fact, draw, facts
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
    """A language or a split that the collection does not have."""


class AtlasSource(Component):
    """The built-in collection. ``territories`` cuts it for quick runs; the same number gives the same territories.

    ``questions_per_fact`` counts training questions; each dev and test fact has one question. ``made_with`` names the
    data it is generated from, so that other data make another fingerprint; it cannot be chosen.
    """

    kind: Literal["atlas"] = "atlas"
    territories: int | None = Field(None, ge=2)
    questions_per_fact: int = Field(2, ge=1, le=3)
    seed: int = 12345
    made_with: str = Field(default_factory=cldr.data_version)

    @field_validator("made_with")
    @classmethod
    def _installed(cls, made_with: str) -> str:
        if made_with != cldr.data_version():
            raise ValueError(
                f"the recipe expects atlas data {made_with!r}, but {cldr.data_version()!r} is installed: "
                "install those versions, or leave made_with out to generate from the installed data"
            )
        return made_with

    def languages(self) -> tuple[str, ...]:
        """List the languages of the passages."""
        return cldr.LANGUAGES

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """Yield the passages of a split's facts; "all" is the pool that questions of every split are asked of."""
        _expect("language", lang, cldr.LANGUAGES)
        for fact in self._facts(split):
            row = {"doc_id": fact.doc_id, "lang": lang, "title": "", "text": passage(fact, lang)}
            yield Entry(f"atlas:{fact.doc_id}", row)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """Yield the questions of a split, in English."""
        _expect("language of questions", lang, ("en",))
        for query_id, fact, text in self._questions(split):
            yield Entry(f"atlas:{fact.doc_id}", {"query_id": query_id, "lang": lang, "text": text})

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Yield the judgements of a split: the same in every language, as the passages are translations."""
        _expect("language", lang, cldr.LANGUAGES)
        for query_id, fact, _ in self._questions(split):
            for doc_id, relevance in ((fact.doc_id, 2), *((other, 1) for other in fact.also)):
                row = {"query_id": query_id, "doc_id": doc_id, "relevance": relevance}
                yield Entry(f"atlas:{fact.doc_id}", row)

    def _facts(self, split: str) -> list[Fact]:
        _expect("split", split, (*SPLITS, "all"))
        found, splits = _generated(self.territories, self.seed)
        return [fact for fact in found if split in ("all", splits[fact.doc_id])]

    def _questions(self, split: str) -> Iterator[tuple[str, Fact, str]]:
        """Yield ``(query_id, fact, question)``; the phrasing is drawn from the seed and the fact."""
        facts_of_split = self._facts(split)
        _, splits = _generated(self.territories, self.seed)
        writer = Writer("en", en.BOOK)
        for fact in facts_of_split:
            own = splits[fact.doc_id]
            phrasings = QUESTIONS[fact.kind][own]
            first = draw(self.seed, "question", fact.doc_id)
            for i in range(self.questions_per_fact if own == "train" else 1):
                template = phrasings[(first + i) % len(phrasings)]
                yield f"{own}-{fact.doc_id}-{i}", fact, _fill(template, writer, fact)


def passage(fact: Fact, lang: str) -> str:
    """Write the passage of one fact; the phrasing is drawn from the doc_id and the language."""
    phrasings = BOOKS[lang].phrases[fact.kind]
    text = _fill(phrasings[draw(fact.doc_id, lang) % len(phrasings)], _writer(lang), fact)
    return _french(text) if lang == "fr" else text


@cache
def _generated(limit: int | None, seed: int) -> tuple[list[Fact], dict[str, str]]:
    found = facts(limit)
    return found, split_facts(found, seed)


@cache
def _writer(lang: str) -> Writer:
    return Writer(lang, BOOKS[lang])


def _fill(template: str, writer: Writer, fact: Fact) -> str:
    """Fill the slots, resolve ``[singular|plural]``, and begin each sentence with a capital."""
    plural = fact.slots.get("T", "T:")[2:] in writer.book.plural
    words = writer.slots(fact.slots)

    def slot(match: re.Match[str]) -> str:
        word = words[match["slot"]]
        return word[:1].upper() + word[1:] if match["start"] is not None else word

    text = re.sub(r"\[(?P<one>[^|\]]*)\|(?P<many>[^|\]]*)\]", lambda m: m["many" if plural else "one"], template)
    return re.sub(r"(?P<start>^|(?<=[.?!] ))?\{(?P<slot>\w+)\}", slot, text)


def _french(text: str) -> str:
    """Elide and contract ("d’Athènes", "au Caire"); no-break spaces inside quotation marks and before high marks."""
    text = re.sub(r"\bde (?=[AEIOUÀÂÉÈÊÎÔ])", "d’", text)
    text = re.sub(
        r"\bde Le (?=[A-Z])", "du ", re.sub(r"\b([àÀ]) Le (?=[A-Z])", lambda m: "au " if m[1] == "à" else "Au ", text)
    )
    text = re.sub(" (?=[:;?!»%])", NO_BREAK, text)
    return text.replace("« ", f"«{NO_BREAK}")


def _expect(what: str, got: str, expected: tuple[str, ...]) -> None:
    if got not in expected:
        raise UnknownChoiceError(f"atlas: expected a {what} among {', '.join(expected)}; got {got!r}")
