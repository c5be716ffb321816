"""Names in each language: translates the references of a fact to the words of its passage.

CLDR's names are meant for lists and menus; a few are corrected here for running text (brackets, abbreviations).
"""

import re
from functools import cache

from babel import Locale
from babel.lists import format_list
from babel.numbers import get_currency_name

from pipelines.sources.atlas import cldr
from pipelines.sources.atlas.phrasebook import Phrasebook

PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
# Names that CLDR 47 lacks, and others in place of its abbreviations.
CORRECTIONS = {
    ("ru", "T:IM"): "остров Мэн",
    ("ru", "T:NF"): "остров Норфолк",
    ("ru", "T:SH"): "остров Святой Елены",
    ("ru", "T:CX"): "остров Рождества",
    ("de", "S:Thai"): "Thailändisch",
    ("en", "R:019"): "the Americas",
    ("en", "R:029"): "the Caribbean",
    ("en", "R:057"): "the Micronesian Region",
}


def _find_territory(lang: str, code: str) -> str | None:
    name = cldr.load_locale(lang).territories.get(code)
    if name and code == "MM":
        name = re.split(r"[ (（]", name)[0]  # "Myanmar (Burma)"
    if name and lang == "ru":
        name = name.replace("о-ва", "острова")
    return None if name is None or re.search("[()（）]", name) else name


def _find_currency(lang: str, code: str) -> str | None:
    if code not in cldr.load_locale(lang).currencies:
        return None
    # English capitalises the name alone ("Iranian Rial") but not the counted name ("1 Iranian rial"), which is wanted.
    name = get_currency_name(code, count=1 if lang == "en" else None, locale=cldr.load_locale(lang))
    return None if re.search(r"\d|\(.*\d|（", name) else name


def _find_language(lang: str, code: str) -> str | None:
    name = cldr.load_locale(lang).languages.get(code)
    return None if name is None or "_" in code or re.search("[()（）,،]", name) else name


@cache
def find_name(lang: str, reference: str) -> str | None:
    """Find the name of a territory, currency, language, script, region, city or weekday; None if CLDR has none.

    Raises:
        ValueError: the reference is of another sort, such as a number.
    """
    if (lang, reference) in CORRECTIONS:
        return CORRECTIONS[lang, reference]
    sort, _, code = reference.partition(":")
    locale: Locale = cldr.load_locale(lang)
    match sort:
        case "T":
            return _find_territory(lang, code)
        case "C":
            return _find_currency(lang, code)
        case "L":
            return _find_language(lang, code)
        case "S":
            return locale.scripts.get(code)
        case "R":
            return locale.territories.get(code)
        case "Z":
            return cldr.find_city_name(code, lang)
        case "D":
            return str(locale.days["stand-alone"]["wide"][int(code)])
    raise ValueError(f"expected a reference to a name (T, C, L, S, R, Z or D), got {reference!r}")


@cache
def has_names(reference: str) -> bool:
    """Whether the reference has a usable name in every language."""
    return all(find_name(lang, reference) for lang in cldr.LANGUAGES)


def _format_clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _format_offset(minutes: int) -> str:
    """Format an offset as ``UTC+3:30`` or ``UTC−5``, with the minus sign U+2212."""
    size = abs(minutes)
    hours = str(size // 60) if size % 60 == 0 else _format_clock(size)
    return f"UTC{'−' if minutes < 0 else '+'}{hours}"


class Writer:
    """Writes the references of facts in one language."""

    def __init__(self, lang: str, book: Phrasebook) -> None:
        self.lang, self.book = lang, book

    def write(self, reference: str) -> str:
        """Write one reference.

        Raises:
            ValueError: CLDR has no name for it in this language.
        """
        sort, _, code = reference.partition(":")
        match sort:
            case "Q":
                return code
            case "V":
                return self.book.values[code]
            case "N":
                return self._localise_digits(code)
            case "H":
                return self._localise_digits(_format_clock(int(code)))
            case "U":
                return _format_offset(int(code))
            case "A" | "O":
                side = ("N" if int(code) >= 0 else "S") if sort == "A" else ("E" if int(code) >= 0 else "W")
                return self._localise_digits(self.book.values[side].format(abs(int(code))))
            case "Ts" | "Ls" | "Ds":
                words = [self.write(f"{sort[0]}:{item}") for item in code.split(",")]
                # CLDR puts direction marks into Persian lists; queries, which are typed, have none.
                return format_list(words, locale=cldr.load_locale(self.lang)).replace("\u200f", "")
        name = find_name(self.lang, reference)
        if name is None:
            raise ValueError(
                f"no name for {reference} in {self.lang!r}; check names.has_names before making a fact of it"
            )
        return f"the {name}" if sort == "T" and code in self.book.definite else name

    def write_slots(self, references: dict[str, str]) -> dict[str, str]:
        """Write all slots of a fact, and the derived slots ``inT`` and ``leL`` (see `phrasebook`)."""
        words = {slot: self.write(reference) for slot, reference in references.items()}
        if "T" in words:
            code = references["T"][2:]
            words["inT"] = self.book.places.get(code, self.book.place).format(words["T"])
        if "L" in words:
            words["leL"] = self._add_article(words["L"])
        return words

    def _add_article(self, word: str) -> str:
        consonant, vowel = self.book.articles
        # French elides the article before a vowel and a mute h; of the languages with h, only hébreu has a mute one.
        elided = (re.match("[aeiouyàâéèêëîïôû]", word) and not re.match("y[aeiou]|oua", word)) or word.startswith(
            "hébreu"
        )
        return (vowel if elided else consonant) + word

    def _localise_digits(self, text: str) -> str:
        return text.translate(PERSIAN_DIGITS) if self.lang == "fa" else text
