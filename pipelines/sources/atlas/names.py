"""Names as each language writes them: from a fact's reference to the words that stand in the sentence.

CLDR's names are made for lists and menus; a few are mended here for running text (brackets, abbreviations).
"""

import re
from functools import cache

from babel import Locale
from babel.lists import format_list
from babel.numbers import get_currency_name

from pipelines.sources.atlas import cldr
from pipelines.sources.atlas.phrasebook import Phrasebook

PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
# Gaps in CLDR 47, and abbreviations that a reader of running text does not expect.
MENDED = {
    ("ru", "T:IM"): "остров Мэн",
    ("ru", "T:NF"): "остров Норфолк",
    ("ru", "T:SH"): "остров Святой Елены",
    ("ru", "T:CX"): "остров Рождества",
    ("de", "S:Thai"): "Thailändisch",
    ("en", "R:019"): "the Americas",
    ("en", "R:029"): "the Caribbean",
    ("en", "R:057"): "the Micronesian Region",
}


def _territory(lang: str, code: str) -> str | None:
    name = cldr.locale(lang).territories.get(code)
    if name and code == "MM":
        name = re.split(r"[ (（]", name)[0]  # "Myanmar (Burma)"
    if name and lang == "ru":
        name = name.replace("о-ва", "острова")
    return None if name is None or re.search("[()（）]", name) else name


def _currency(lang: str, code: str) -> str | None:
    if code not in cldr.locale(lang).currencies:
        return None
    # English capitalises the name in a list ("Iranian Rial") but not the counted name ("1 Iranian rial").
    name = get_currency_name(code, count=1 if lang == "en" else None, locale=cldr.locale(lang))
    return None if re.search(r"\d|\(.*\d|（", name) else name


def _language(lang: str, code: str) -> str | None:
    name = cldr.locale(lang).languages.get(code)
    return None if name is None or "_" in code or re.search("[()（）,،]", name) else name


@cache
def name(lang: str, reference: str) -> str | None:
    """Return the name of a territory, currency, language, script, region, city or weekday, or None if CLDR has none."""
    if (lang, reference) in MENDED:
        return MENDED[lang, reference]
    sort, _, code = reference.partition(":")
    where: Locale = cldr.locale(lang)
    match sort:
        case "T":
            return _territory(lang, code)
        case "C":
            return _currency(lang, code)
        case "L":
            return _language(lang, code)
        case "S":
            return where.scripts.get(code)
        case "R":
            return where.territories.get(code)
        case "Z":
            return cldr.city_name(code, lang)
        case "D":
            return str(where.days["stand-alone"]["wide"][int(code)])
    raise ValueError(f"expected a reference to a name (T, C, L, S, R, Z or D), got {reference!r}")


@cache
def known(reference: str) -> bool:
    """Say whether a thing has a usable name in every language."""
    return all(name(lang, reference) for lang in cldr.LANGUAGES)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _offset(minutes: int) -> str:
    """Write an offset as ``UTC+3:30`` or ``UTC−5``, with a true minus sign."""
    size = abs(minutes)
    hours = str(size // 60) if size % 60 == 0 else _clock(size)
    return f"UTC{'−' if minutes < 0 else '+'}{hours}"


class Writer:
    """Writes references as words of one language."""

    def __init__(self, lang: str, book: Phrasebook) -> None:
        self.lang, self.book = lang, book

    def word(self, reference: str) -> str:
        """Write one slot."""
        sort, _, code = reference.partition(":")
        match sort:
            case "Q":
                return code
            case "V":
                return self.book.values[code]
            case "N":
                return self._digits(code)
            case "H":
                return self._digits(_clock(int(code)))
            case "U":
                return _offset(int(code))
            case "A" | "O":
                side = ("N" if int(code) >= 0 else "S") if sort == "A" else ("E" if int(code) >= 0 else "W")
                return self._digits(self.book.values[side].format(abs(int(code))))
            case "Ts" | "Ls" | "Ds":
                words = [self.word(f"{sort[0]}:{item}") for item in code.split(",")]
                # CLDR puts direction marks into Persian lists, which no keyboard types.
                return format_list(words, locale=cldr.locale(self.lang)).replace("\u200f", "")
        found = name(self.lang, reference)
        if found is None:
            raise ValueError(f"no name for {reference} in {self.lang!r}; ask names.known before making a fact of it")
        return f"the {found}" if sort == "T" and code in self.book.the else found

    def slots(self, references: dict[str, str]) -> dict[str, str]:
        """Write all slots of a fact, with the derived ``inT`` and ``leL``."""
        words = {slot: self.word(reference) for slot, reference in references.items()}
        if "T" in words:
            code = references["T"][2:]
            words["inT"] = self.book.places.get(code, self.book.place).format(words["T"])
        if "L" in words:
            words["leL"] = self._with_article(words["L"])
        return words

    def _with_article(self, word: str) -> str:
        consonant, vowel = self.book.articles
        # French elides before a vowel and a mute h; of the languages in h, only Hebrew's is mute.
        elided = (re.match("[aeiouyàâéèêëîïôû]", word) and not re.match("y[aeiou]|oua", word)) or word.startswith(
            "hébreu"
        )
        return (vowel if elided else consonant) + word

    def _digits(self, text: str) -> str:
        return text.translate(PERSIAN_DIGITS) if self.lang == "fa" else text
