"""The languages of a recipe: of its texts, of its questions, and of whatever reads them."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from cluster.component import Component
from pipelines import languages

LanguageCode = Annotated[str, Field(min_length=2)]
# languages.docs = "de" is languages.docs = ["de"]: so that a product over languages can set it
LanguageCodes = Annotated[
    tuple[LanguageCode, ...], BeforeValidator(lambda codes: (codes,) if isinstance(codes, str) else codes)
]
EVERY_LANGUAGE = "all"  # of doc_lang: a selection that pools the languages
EACH_LANGUAGE = "each"  # of query_lang: the set is asked in each of its languages


def _check_code(code: str) -> str:
    """A language that is known, or none."""
    return languages.check(code) if code else code


OptionalLanguage = Annotated[str, AfterValidator(_check_code)]  # "": none is named


def _check_codes(value: Any) -> Any:
    """A language, or several; a list of one is that one."""
    if isinstance(value, str):
        return languages.check(value)
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(code, str) for code in value):
        raise ValueError('expected a language, as "de", or a list of languages')
    if len(set(value)) != len(value):
        raise ValueError(f"each language once, got {list(value)}")
    codes = tuple(languages.check(code) for code in value)
    return codes if len(codes) > 1 else codes[0]


def check_codes_or_each(value: Any) -> Any:
    """As ``_check_codes``; none, and ``EACH_LANGUAGE``, stay what they are."""
    return value if value in (None, EACH_LANGUAGE) else _check_codes(value)


QuestionLanguages = str | tuple[str, ...]  # one, or several


class Languages(Component):
    """The languages of training: of the text, of the questions, and those in which the student reads passages.

    Where ``query`` names several languages, the student is asked each question of a batch in one of them, drawn at
    random; the selector and the teacher read the original.
    """

    original: LanguageCode = "en"
    query: Annotated[QuestionLanguages, BeforeValidator(_check_codes)] = "en"
    docs: LanguageCodes = Field(min_length=1)

    @property
    def queries(self) -> tuple[str, ...]:
        """The languages of the training questions; the first is ``main_query``."""
        named = (self.query,) if isinstance(self.query, str) else self.query
        return tuple(sorted(named, key=lambda lang: lang != self.main_query))

    @property
    def main_query(self) -> str:
        """The language in which questions are asked where one is enough, to validate say: the original if the
        training questions are in it too, else the first that ``query`` names."""
        if isinstance(self.query, str):
            return self.query
        return self.original if self.original in self.query else self.query[0]

    @field_validator("original")
    @classmethod
    def _known(cls, code: str) -> str:
        return languages.check(code)

    @field_validator("docs")
    @classmethod
    def _all_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(codes)) != len(codes):
            raise ValueError(f"each language once, got {list(codes)}")
        return tuple(languages.check(code) for code in codes)


class Reading(Component):
    """The languages in which questions and passages are read. Where a recipe names none it is ``languages.original``:
    texts are there in it without translation, whatever the student reads. A loaded recipe has both filled in."""

    query_lang: OptionalLanguage = ""
    doc_lang: OptionalLanguage = ""

    def fill_in(self, languages: Languages) -> Self:
        """This table with the original language of the recipe where it names none."""
        original = languages.original
        found = {"query_lang": self.query_lang or original, "doc_lang": self.doc_lang or original}
        return self.model_copy(update=found)
