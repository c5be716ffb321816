"""Look-ups in CLDR (through Babel) and in the time zone database (through the tzdata package).

Each Babel locale is read once per process. The versions of Babel, CLDR and tzdata are part of the collection's
fingerprint: see ``describe_data``. Zone files are read from the tzdata package, not from the operating system, so that
every machine generates the same collection.
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
# A time in the northern winter and one in the southern winter: the smaller of the two offsets is standard time.
# (Ireland and Morocco define standard time the other way round, but their clocks agree with this rule in winter.)
SEASONS = (datetime(2025, 1, 15, 12, tzinfo=UTC), datetime(2025, 7, 15, 12, tzinfo=UTC))

# CLDR 47 has incomplete or wrong official languages for these territories, so no passage states any.
UNRELIABLE_OFFICIAL = frozenset(
    ["BF", "DZ", "IL", "MA", "ME", "MG", "ML", "NE", "NG", "NO", "RW", "SN", "TN", "TW", "UA", "ZA", "ZW"]
)
OUTDATED_CURRENCY = frozenset({"BG"})  # CLDR 47 is older than Bulgaria's change to the euro (January 2026)
WITHDRAWN_CODES = frozenset({"BUR", "DDR", "FXX", "TMP", "YMD", "ZAR"})  # alpha-3 codes of former states


def describe_data() -> str:
    """Return the versions of the data that the collection is generated from, as one line of text."""
    return f"babel {version('babel')}, cldr {get_global('cldr')['version']}, tzdata {version('tzdata')}"


@cache
def load_locale(code: str) -> Locale:
    """Parse a Babel locale, such as ``fa`` or ``de_AT`` (a few milliseconds; cached)."""
    return Locale.parse(code)


@cache
def list_stated_languages(territory: str) -> tuple[str, ...]:
    """List the official languages that a passage may state: without script variants and unreliable records."""
    if territory in UNRELIABLE_OFFICIAL:
        return ()
    return tuple(dict.fromkeys(code.split("_")[0] for code in list_official_languages(territory) if code != "gsw"))


@cache
def list_official_languages(territory: str) -> tuple[str, ...]:
    """List the languages that CLDR calls official in the whole territory, by falling number of speakers."""
    rows = get_global("territory_languages").get(territory, {})
    official = {k: v for k, v in rows.items() if v["official_status"] in ("official", "de_facto_official")}
    return tuple(sorted(official, key=lambda k: (-official[k]["population_percent"], k)))


def list_spoken_languages(territory: str) -> list[tuple[str, int]]:
    """List ``(language, percent of the population)`` by falling share, for shares from 1 % to 99 %.

    Languages that CLDR counts separately by script (Serbian in Montenegro) are left out: no row has their total.
    """
    rows = get_global("territory_languages").get(territory, {})
    by_script = {k.split("_")[0] for k in rows if "_" in k}
    shares = [(k, int(v["population_percent"] + 0.5)) for k, v in rows.items() if k.split("_")[0] not in by_script]
    return sorted(((k, p) for k, p in shares if 1 <= p <= 99), key=lambda item: (-item[1], item[0]))


def list_currencies(territory: str) -> tuple[list[str], list[tuple[str, int]]]:
    """List the current currencies of a territory, and its former ones as ``(currency, last year)``, latest first."""
    if territory in OUTDATED_CURRENCY:
        return [], []
    rows = [row for row in get_global("territory_currencies").get(territory, []) if row[3]]
    current = [row[0] for row in rows if row[2] is None]
    former = [(row[0], row[2][0]) for row in rows if row[2] is not None and row[0] not in current]
    return current, sorted(former, key=lambda item: (-item[1], item[0]))


@cache
def find_local_locale(territory: str) -> Locale | None:
    """Find the locale of the territory's most spoken official language that CLDR has a locale of."""
    codes = [f"{language}_{territory}" for language in list_official_languages(territory)]
    found = next((code for code in codes if localedata.exists(code)), None)
    return load_locale(found) if found else None


def strip_marks(text: str) -> str:
    """Strip invisible direction marks and spaces from both ends of a currency sign."""
    return text.strip("\u200e\u200f\u061c\u00a0 ")


def read_date_order(pattern: str) -> str:
    """Read the order of the fields of a CLDR date pattern: ``dd/MM/y`` gives ``dmy``."""
    order = "".join(c for c in dict.fromkeys(pattern.replace("L", "M")) if c in "dMy")
    return order.lower()


def read_decimal_mark(locale: Locale) -> str:
    """Read the decimal mark of a locale's default numbering system; "" if CLDR has none."""
    symbols: dict[str, Any] = locale.number_symbols.get(locale.default_numbering_system, {})
    return str(symbols.get("decimal", ""))


@cache
def map_alpha3_codes() -> dict[str, str]:
    """Map ISO 3166 alpha-2 codes of territories to their alpha-3 codes."""
    pairs = get_global("territory_aliases").items()
    letters = [(code, to) for code, to in sorted(pairs) if len(code) == 3 and code.isalpha() and len(to) == 1]
    return {to[0]: code for code, to in letters if code not in WITHDRAWN_CODES}


@cache
def find_script(language: str) -> str | None:
    """Find the ISO 15924 code of the script that a language is usually written in; None if CLDR does not say."""
    tag = get_global("likely_subtags").get(language)
    # CLDR has variants and combinations of scripts here; a passage names the script itself.
    general = {"Hans": "Hani", "Hant": "Hani", "Kore": "Hang"}
    return general.get(tag.split("_")[1], tag.split("_")[1]) if tag else None


def find_city_name(zone: str, lang: str) -> str | None:
    """Find the name of a zone's exemplar city; in a language of the Latin script, the zone's identifier has it too."""
    names = load_locale(lang).time_zones.get(zone) or {}
    if "city" in names:
        return str(names["city"])
    return zone.rsplit("/", 1)[-1].replace("_", " ") if lang in ("en", "de", "fr", "es") else None


@cache
def read_standard_offset(zone: str) -> int:
    """Read the offset of a zone's standard time from UTC, in minutes."""
    path = files("tzdata").joinpath("zoneinfo", *zone.split("/"))
    with path.open("rb") as f:
        info = ZoneInfo.from_file(f, key=zone)
    offsets = [info.utcoffset(moment) or timedelta() for moment in SEASONS]
    return int(min(offsets).total_seconds() // 60)


@cache
def read_positions() -> dict[str, tuple[int, int]]:
    """Read the latitude and longitude of each zone's city, in whole degrees, from zone.tab of tzdata."""
    lines = files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {row[2]: _parse_position(row[1]) for row in rows}


def _parse_position(iso6709: str) -> tuple[int, int]:
    """Parse a position such as ``+3540+05126`` (degrees and minutes, perhaps seconds) to rounded degrees."""
    cut = max(iso6709.rfind("+"), iso6709.rfind("-"))
    latitude, longitude = iso6709[:cut], iso6709[cut:]
    return _parse_angle(latitude, 2), _parse_angle(longitude, 3)


def _parse_angle(text: str, digits: int) -> int:
    value = int(text[1 : 1 + digits]) + int(text[1 + digits : 3 + digits]) / 60
    return int(value + 0.5) * (-1 if text[0] == "-" else 1)
