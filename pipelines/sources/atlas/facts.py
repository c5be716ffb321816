"""The facts of the collection, taken from CLDR and independent of a language.

A fact has a kind and slots. A slot holds a reference ``"<sort>:<code>"``, which `names` writes in a language:

    T territory   C currency   L language   S script   R region   Z zone's city   D weekday (0 = Monday)
    V entry of the phrasebook's ``values``   N number   H clock time in minutes   U offset from UTC in minutes
    A latitude   O longitude (whole degrees)   Q text as it is (codes, names in their own script)

Ts, Ls, Ds are comma-separated lists. Takes about a second for all territories, mostly to read Babel's locales.
"""

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from babel.core import get_global

from pipelines.sources.atlas import cldr
from pipelines.sources.atlas.names import find_name, has_names
from pipelines.sources.atlas.regions import CITIES, NOT_CITIES, map_regions

# Items of a list in a passage. A longer one would put too many facts into one group, and be hard to read.
MAX_LIST = 4
# Languages that are official in South Africa too, which CLDR does not say: a list of places would be incomplete.
SOUTH_AFRICAN = frozenset({"ss", "st", "tn"})


class Fact(NamedTuple):
    """A fact, which the passage ``doc_id`` states in every language.

    Facts of one ``group`` must share a split, since one gives the answer to a question about another. ``related`` are
    the doc_ids of other passages that contain the answer.
    """

    doc_id: str
    kind: str
    slots: dict[str, str]
    group: str = ""
    related: tuple[str, ...] = ()

    def list_names(self) -> list[str]:
        """List references to the territories, currencies, languages, scripts and cities that the passage mentions."""
        references = []
        for reference in self.slots.values():
            sort, _, codes = reference.partition(":")
            if sort[0] in "TCLSZ":
                references += [f"{sort[0]}:{code}" for code in codes.split(",")]
        return references


def draw(*parts: object) -> int:
    """Draw a pseudo-random 64-bit number from ``parts`` (SHA-256), the same in every process."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:8])


def list_territories(limit: int | None) -> list[str]:
    """List at most ``limit`` territories that have a usable name in every language, in a fixed pseudo-random order."""
    codes = [t for t in map_regions() if has_names(f"T:{t}")]
    return sorted(codes, key=lambda t: draw("territory", t))[:limit]


def list_facts(limit: int | None) -> list[Fact]:
    """List the facts about at most ``limit`` territories and what they mention, sorted by doc_id."""
    places = list_territories(limit)
    cities = [(t, zone) for t in places for zone in list_city_zones(t)]
    found = list(chain(*map(_describe_territory, places), _describe_cities(cities)))
    mentioned = {name for fact in found for name in fact.list_names()}
    found += chain(_describe_currencies(mentioned, places), _describe_languages(mentioned, places))
    mentioned |= {name for fact in found for name in fact.list_names()}
    found += _describe_scripts(mentioned)
    present = {fact.doc_id for fact in found}
    kept = [fact._replace(related=tuple(doc_id for doc_id in fact.related if doc_id in present)) for fact in found]
    return sorted(_merge_groups(kept), key=lambda fact: fact.doc_id)


def list_city_zones(territory: str) -> list[str]:
    """List the time zones of a territory that are named after a city with a name in every language."""
    zones = get_global("territory_zones").get(territory, [])
    chosen = CITIES.get(territory, "").split() or (zones if len(zones) == 1 else [])
    usable = [z for z in chosen if z not in NOT_CITIES and z in cldr.read_positions() and has_names(f"Z:{z}")]
    return [z for z in usable if find_name("en", f"Z:{z}") != find_name("en", f"T:{territory}")]


def _describe_territory(t: str) -> Iterator[Fact]:
    region, continent = map_regions()[t]
    yield Fact(f"region-{t}", "region", {"T": f"T:{t}", "R": f"R:{region}", "K": f"R:{continent}"})
    yield Fact(f"code-{t}", "code", {"T": f"T:{t}", "X": f"Q:{t}", "Y": f"Q:{cldr.map_alpha3_codes()[t]}"})
    if t != "XK":  # Kosovo has no top-level domain
        yield Fact(f"domain-{t}", "domain", {"T": f"T:{t}", "X": f"Q:.{'uk' if t == 'GB' else t.lower()}"})
    yield from _describe_currency(t)
    yield from _describe_spoken_languages(t)
    yield from _describe_customs(t)


def _describe_currency(t: str) -> Iterator[Fact]:
    current, former = cldr.list_currencies(t)
    if len(current) == 1 and has_names(f"C:{current[0]}"):
        related = (f"usedin-{current[0]}",)
        yield Fact(f"currency-{t}", "currency", {"T": f"T:{t}", "C": f"C:{current[0]}"}, related=related)
    # CLDR's dates before 1970 are less certain, as is its end of the Soviet rouble (SUR) in the republics.
    for old, year in [(c, y) for c, y in former if y >= 1970 and c != "SUR" and has_names(f"C:{c}")][:1]:
        yield Fact(f"former-{t}", "former", {"T": f"T:{t}", "C": f"C:{old}", "N": f"N:{year}"})


def _describe_spoken_languages(t: str) -> Iterator[Fact]:
    official = cldr.list_stated_languages(t)
    if 0 < len(official) <= MAX_LIST and all(has_names(f"L:{x}") for x in official):
        kind = "official" if len(official) == 1 else "officials"
        slot = {"L": f"L:{official[0]}"} if len(official) == 1 else {"Ls": f"Ls:{','.join(official)}"}
        yield Fact(f"official-{t}", kind, {"T": f"T:{t}", **slot}, related=tuple(f"officialin-{x}" for x in official))
    for language, percent in [(x, p) for x, p in cldr.list_spoken_languages(t) if has_names(f"L:{x}")][:2]:
        slots = {"T": f"T:{t}", "L": f"L:{language}", "N": f"N:{percent}"}
        yield Fact(f"share-{t}-{language}", "share", slots)


def _describe_customs(t: str) -> Iterator[Fact]:
    """Yield facts from CLDR's locale data: first weekday, clock, date order, decimal mark, own name."""
    locale = cldr.find_local_locale(t)
    if locale is None:
        return
    subject = {"T": f"T:{t}"}
    yield Fact(f"week-{t}", "week", subject | {"D": f"D:{locale.first_week_day}"})
    hours = 24 if "H" in locale.time_formats["short"].pattern else 12
    yield Fact(f"clock-{t}", "clock", subject | {"N": f"N:{hours}"})
    order = cldr.read_date_order(locale.date_formats["short"].pattern)
    yield Fact(f"dates-{t}", "dates", subject | {"V": f"V:{order}"})
    mark = {",": "comma", ".": "point"}.get(cldr.read_decimal_mark(locale))
    if mark:
        yield Fact(f"decimal-{t}", "decimal", subject | {"V": f"V:{mark}"})
    own = locale.territories.get(t)
    if own and locale.language not in cldr.LANGUAGES and has_names(f"L:{locale.language}"):
        yield Fact(f"ownname-{t}", "ownname", subject | {"L": f"L:{locale.language}", "Q": f"Q:{own}"})


def _describe_cities(cities: list[tuple[str, str]]) -> Iterator[Fact]:
    # a pseudo-random cycle of the cities: the facts of kind "noon" compare each with one behind it
    ring = sorted(cities, key=lambda item: draw("ring", item[1]))
    for i, (t, zone) in enumerate(ring):
        tag, city, place = zone.replace("/", "."), f"Z:{zone}", f"T:{t}"
        yield Fact(f"city-{tag}", "city", {"Z": city, "T": place}, group=f"city-{tag}", related=(f"zone-{tag}",))
        yield Fact(f"zone-{tag}", "zone", {"Z": city, "T": place, "Q": f"Q:{zone}"}, group=f"city-{tag}")
        yield Fact(f"offset-{tag}", "offset", {"Z": city, "X": f"U:{cldr.read_standard_offset(zone)}"})
        latitude, longitude = cldr.read_positions()[zone]
        if latitude and longitude:  # no passage says "0° east"
            yield Fact(f"position-{tag}", "position", {"Z": city, "X": f"A:{latitude}", "Y": f"O:{longitude}"})
        other = _find_city_on_same_day(zone, [ring[(i + step) % len(ring)][1] for step in range(1, len(ring))])
        if other:
            ahead = cldr.read_standard_offset(other) - cldr.read_standard_offset(zone)
            slots = {"Z": city, "W": f"Z:{other}", "X": "H:720", "Y": f"H:{720 + ahead}"}
            yield Fact(f"noon-{tag}-{other.replace('/', '.')}", "noon", slots)


def _find_city_on_same_day(zone: str, others: list[str]) -> str | None:
    """Find the first city territories it is between 6:00 and 23:59 of the same day when it is noon in ``zone``."""
    noon = 12 * 60 - cldr.read_standard_offset(zone)
    return next((other for other in others if 6 * 60 <= noon + cldr.read_standard_offset(other) < 24 * 60), None)


def _describe_currencies(mentioned: set[str], places: list[str]) -> Iterator[Fact]:
    users: dict[str, list[str]] = {}
    for t in sorted(set(get_global("territory_zones")) - {"001", "ZZ"}):
        for c in cldr.list_currencies(t)[0]:
            users.setdefault(c, []).append(t)
    for code in sorted(name[2:] for name in mentioned if name[0] == "C"):
        subject = {"C": f"C:{code}"}
        yield Fact(f"iso4217-{code}", "iso4217", subject | {"X": f"Q:{code}"})
        if code not in users:
            continue
        decimals = get_global("currency_fractions").get(code, get_global("currency_fractions")["DEFAULT"])[0]
        yield Fact(f"decimals-{code}", "decimals", subject | {"N": f"N:{decimals}"})
        local = next((x for x in map(cldr.find_local_locale, users[code]) if x), None)
        sign = cldr.strip_marks(local.currency_symbols.get(code, code)) if local else code
        if code not in sign:
            yield Fact(f"sign-{code}", "sign", subject | {"Q": f"Q:{sign}"})
        territories = users[code]
        if (
            len(territories) <= MAX_LIST
            and all(has_names(f"T:{t}") for t in territories)
            and set(territories) <= set(places)
        ):
            related = tuple(f"currency-{t}" for t in territories)
            yield Fact(f"usedin-{code}", "usedin", subject | {"Ts": f"Ts:{','.join(territories)}"}, related=related)


def _describe_languages(mentioned: set[str], places: list[str]) -> Iterator[Fact]:
    users: dict[str, list[str]] = {}
    for t in sorted(get_global("territory_zones")):
        for language in cldr.list_stated_languages(t):
            users.setdefault(language, []).append(t)
    for code in sorted(name[2:] for name in mentioned if name[0] == "L"):
        subject = {"L": f"L:{code}"}
        yield Fact(f"iso639-{code}", "iso639", subject | {"X": f"Q:{code}"})
        script = cldr.find_script(code)
        if script and has_names(f"S:{script}"):
            yield Fact(f"script-{code}", "script", subject | {"S": f"S:{script}"})
        if cldr.localedata.exists(code) and code not in cldr.LANGUAGES:
            yield from _describe_native_words(code)
        territories = users.get(code, [])
        if (
            code not in SOUTH_AFRICAN
            and 0 < len(territories) <= MAX_LIST
            and all(has_names(f"T:{t}") for t in territories)
            and set(territories) <= set(places)
        ):
            related = tuple(f"official-{t}" for t in territories)
            yield Fact(
                f"officialin-{code}", "officialin", subject | {"Ts": f"Ts:{','.join(territories)}"}, related=related
            )


def _describe_native_words(code: str) -> Iterator[Fact]:
    own = cldr.load_locale(code)
    subject = {"L": f"L:{code}"}
    if own.languages.get(code):
        yield Fact(f"autonym-{code}", "autonym", subject | {"Q": f"Q:{own.languages[code]}"})
    for day in (0, 6):
        word = own.days["stand-alone"]["wide"][day]
        if not word.isascii() or word.lower() != cldr.load_locale("en").days["stand-alone"]["wide"][day].lower()[:3]:
            yield Fact(f"day{day}-{code}", "day", subject | {"D": f"D:{day}", "Q": f"Q:{word}"})


def _describe_scripts(mentioned: set[str]) -> Iterator[Fact]:
    for code in sorted(name[2:] for name in mentioned if name[0] == "S"):
        yield Fact(f"iso15924-{code}", "iso15924", {"S": f"S:{code}", "X": f"Q:{code}"})


def _merge_groups(found: list[Fact]) -> list[Fact]:
    """Merge each fact's group with those of its ``related`` facts (union-find). A group gets the doc_id of its root."""
    parent = {fact.doc_id: fact.doc_id for fact in found}

    def find_root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    for fact in found:
        for other in (fact.group, *fact.related):
            if other in parent:
                low, high = sorted((find_root(fact.doc_id), find_root(other)))
                parent[high] = low
    return [fact._replace(group=find_root(fact.doc_id)) for fact in found]
