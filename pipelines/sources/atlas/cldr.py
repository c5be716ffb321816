"""Look-ups in CLDR (through Babel) and in the time zone database (through the tzdata package), without any words.

Reads each Babel locale once per process. The versions of the three are part of the collection's identity:
see ``data_version``. The zone files come from the tzdata package, never from the machine, so that every machine agrees.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, localedata
from babel.core import get_global

LANGUAGES = ("en", "de", "fr", "es", "zh", "fa", "ru")
# A moment in a northern winter and one in a southern winter: the smaller offset of the two is standard time
# (Ireland and Morocco define theirs the other way round, yet keep the same clock as their neighbours in winter).
SEASONS = (datetime(2025, 1, 15, 12, tzinfo=UTC), datetime(2025, 7, 15, 12, tzinfo=UTC))


# CLDR 47 lists too few official languages here, or widely used ones that are not official; no passage says anything.
DOUBTFUL_OFFICIAL = frozenset(
    ["BF", "DZ", "IL", "MA", "ME", "MG", "ML", "NE", "NG", "NO", "RW", "SN", "TN", "TW", "UA", "ZA", "ZW"]
)
OUTDATED_TENDER = frozenset({"BG"})  # CLDR 47 was made before Bulgaria took the euro (January 2026)
WITHDRAWN_CODES = frozenset({"BUR", "DDR", "FXX", "TMP", "YMD", "ZAR"})  # alpha-3 codes of former states


def data_version() -> str:
    """Name the data that the collection is generated from: Babel, CLDR and tzdata."""
    return f"babel {version('babel')}, cldr {get_global('cldr')['version']}, tzdata {version('tzdata')}"


@cache
def locale(code: str) -> Locale:
    """Return one parsed Babel locale (a few milliseconds the first time)."""
    return Locale.parse(code)


@cache
def stated_official(territory: str) -> tuple[str, ...]:
    """List the official languages that a passage may state: without script variants and doubtful records."""
    if territory in DOUBTFUL_OFFICIAL:
        return ()
    return tuple(dict.fromkeys(code.split("_")[0] for code in official_languages(territory) if code != "gsw"))


@cache
def official_languages(territory: str) -> tuple[str, ...]:
    """List the languages that CLDR calls official in the whole territory, the most spoken first."""
    rows = get_global("territory_languages").get(territory, {})
    official = {k: v for k, v in rows.items() if v["official_status"] in ("official", "de_facto_official")}
    return tuple(sorted(official, key=lambda k: (-official[k]["population_percent"], k)))


def spoken_languages(territory: str) -> list[tuple[str, int]]:
    """List ``(language, percent of the population)``, the most spoken first, from 1 % to 99 %.

    Left out are languages that CLDR counts once per script (Serbian in Montenegro): no row gives their whole share.
    """
    rows = get_global("territory_languages").get(territory, {})
    split = {k.split("_")[0] for k in rows if "_" in k}
    shares = [(k, int(v["population_percent"] + 0.5)) for k, v in rows.items() if k.split("_")[0] not in split]
    return sorted(((k, p) for k, p in shares if 1 <= p <= 99), key=lambda item: (-item[1], item[0]))


def tenders(territory: str) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the current currencies of a territory and the former ones as ``(currency, last year)``, latest first."""
    if territory in OUTDATED_TENDER:
        return [], []
    rows = [row for row in get_global("territory_currencies").get(territory, []) if row[3]]
    current = [row[0] for row in rows if row[2] is None]
    former = [(row[0], row[2][0]) for row in rows if row[2] is not None and row[0] not in current]
    return current, sorted(former, key=lambda item: (-item[1], item[0]))


@cache
def local_locale(territory: str) -> Locale | None:
    """Return the locale of the most spoken official language in a territory, if CLDR has one of it."""
    codes = [f"{language}_{territory}" for language in official_languages(territory)]
    found = next((code for code in codes if localedata.exists(code)), None)
    return locale(found) if found else None


def bare(text: str) -> str:
    """Drop the invisible direction marks and spaces around a currency sign."""
    return text.strip("\u200e\u200f\u061c\u00a0 ")


def date_order(pattern: str) -> str:
    """Reduce a CLDR date pattern to the order of its fields: ``dd/MM/y`` to ``dmy``."""
    order = "".join(c for c in dict.fromkeys(pattern.replace("L", "M")) if c in "dMy")
    return order.lower()


def decimal_mark(where: Locale) -> str:
    """Return the decimal mark of a locale's own digits."""
    symbols: dict[str, Any] = where.number_symbols.get(where.default_numbering_system, {})
    return str(symbols.get("decimal", ""))


@cache
def territory_codes() -> dict[str, str]:
    """Map ISO 3166 alpha-2 codes to alpha-3."""
    pairs = get_global("territory_aliases").items()
    letters = [(code, to) for code, to in sorted(pairs) if len(code) == 3 and code.isalpha() and len(to) == 1]
    return {to[0]: code for code, to in letters if code not in WITHDRAWN_CODES}


@cache
def script_of(language: str) -> str | None:
    """Return the ISO 15924 code of the script that a language is mostly written in."""
    tag = get_global("likely_subtags").get(language)
    # CLDR names mixed or simplified forms of a script; the plain script reads better in a sentence.
    plain = {"Hans": "Hani", "Hant": "Hani", "Kore": "Hang"}
    return plain.get(tag.split("_")[1], tag.split("_")[1]) if tag else None


def city_name(zone: str, lang: str) -> str | None:
    """Return the exemplar city of a zone; languages in the Latin script may fall back on the identifier."""
    names = locale(lang).time_zones.get(zone) or {}
    if "city" in names:
        return str(names["city"])
    return zone.rsplit("/", 1)[-1].replace("_", " ") if lang in ("en", "de", "fr", "es") else None


@cache
def standard_offset(zone: str) -> int:
    """Return the offset of a zone's standard time from UTC in minutes."""
    path = files("tzdata").joinpath("zoneinfo", *zone.split("/"))
    with path.open("rb") as f:
        info = ZoneInfo.from_file(f, key=zone)
    offsets = [info.utcoffset(moment) or timedelta() for moment in SEASONS]
    return int(min(offsets).total_seconds() // 60)


@cache
def positions() -> dict[str, tuple[int, int]]:
    """Map each zone to the latitude and longitude of its city, in whole degrees (zone.tab of tzdata)."""
    lines = files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {row[2]: _degrees(row[1]) for row in rows}


def _degrees(iso6709: str) -> tuple[int, int]:
    """Read ``+3540+05126`` (or with seconds) as rounded degrees."""
    cut = max(iso6709.rfind("+"), iso6709.rfind("-"))
    latitude, longitude = iso6709[:cut], iso6709[cut:]
    return _round(latitude, 2), _round(longitude, 3)


def _round(text: str, digits: int) -> int:
    value = int(text[1 : 1 + digits]) + int(text[1 + digits : 3 + digits]) / 60
    return int(value + 0.5) * (-1 if text[0] == "-" else 1)
