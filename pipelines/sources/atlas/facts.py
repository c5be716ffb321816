"""Facts from CLDR, with no words: a kind, references to names, and the facts that give the same thing away.

A slot holds a reference ``"<sort>:<code>"`` that `names` writes out in a language:

    T territory   C currency   L language   S script   R region   Z zone's city   D weekday (0 = Monday)
    V a word of the language's VALUES   N number   H clock time   Q text quoted as it is (codes, names in own script)

Ts, Ls, Ds are comma-separated lists. ``group`` ties facts together that must share a split; ``also`` names other
passages that contain the answer. About a second for the whole world, most of it spent in reading Babel's locales.
"""

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from babel.core import get_global

from pipelines.sources.atlas import cldr
from pipelines.sources.atlas.names import known
from pipelines.sources.atlas.names import name as name_in
from pipelines.sources.atlas.regions import CITIES, NOT_CITIES, region_of

# A list longer than this would tie too many facts into one group, and would read badly.
LONGEST_LIST = 4
# Official in South Africa too, which CLDR does not say: a list of places would be incomplete.
SOUTH_AFRICAN = frozenset({"ss", "st", "tn"})


class Fact(NamedTuple):
    """One fact: the passage ``doc_id`` states it in every language."""

    doc_id: str
    kind: str
    slots: dict[str, str]
    group: str = ""
    also: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """List the named things (territories, currencies, languages, scripts, cities) that the passage mentions."""
        found = []
        for reference in self.slots.values():
            sort, _, codes = reference.partition(":")
            if sort[0] in "TCLSZ":
                found += [f"{sort[0]}:{code}" for code in codes.split(",")]
        return found


def draw(*parts: object) -> int:
    """Return a number that depends on ``parts`` alone, the same in every process."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:8])


def territories(limit: int | None) -> list[str]:
    """List the territories with a plain name in every language, at most ``limit``, in a scattered order."""
    codes = [t for t in region_of() if known(f"T:{t}")]
    return sorted(codes, key=lambda t: draw("territory", t))[:limit]


def facts(limit: int | None) -> list[Fact]:
    """List every fact of the collection, sorted by doc_id, with groups resolved."""
    places = territories(limit)
    cities = [(t, zone) for t in places for zone in city_zones(t)]
    found = list(chain(*map(_territory, places), _cities(cities)))
    named = {name for fact in found for name in fact.names()}
    found += chain(_currencies(named, places), _languages(named, places))
    named |= {name for fact in found for name in fact.names()}
    found += _scripts(named)
    present = {fact.doc_id for fact in found}
    kept = [fact._replace(also=tuple(i for i in fact.also if i in present)) for fact in found]
    return sorted(_grouped(kept), key=lambda fact: fact.doc_id)


def city_zones(territory: str) -> list[str]:
    """List the time zones of a territory that are named after a city with a name in every language."""
    zones = get_global("territory_zones").get(territory, [])
    chosen = CITIES.get(territory, "").split() or (zones if len(zones) == 1 else [])
    named = [z for z in chosen if z not in NOT_CITIES and z in cldr.positions() and known(f"Z:{z}")]
    return [z for z in named if name_in("en", f"Z:{z}") != name_in("en", f"T:{territory}")]


def _territory(t: str) -> Iterator[Fact]:
    region, continent = region_of()[t]
    yield Fact(f"region-{t}", "region", {"T": f"T:{t}", "R": f"R:{region}", "K": f"R:{continent}"})
    yield Fact(f"code-{t}", "code", {"T": f"T:{t}", "X": f"Q:{t}", "Y": f"Q:{cldr.territory_codes()[t]}"})
    if t not in ("XK",):  # no top-level domain in use
        yield Fact(f"domain-{t}", "domain", {"T": f"T:{t}", "X": f"Q:.{'uk' if t == 'GB' else t.lower()}"})
    yield from _money(t)
    yield from _tongues(t)
    yield from _customs(t)


def _money(t: str) -> Iterator[Fact]:
    current, former = cldr.tenders(t)
    if len(current) == 1 and known(f"C:{current[0]}"):
        also = (f"usedin-{current[0]}",)
        yield Fact(f"currency-{t}", "currency", {"T": f"T:{t}", "C": f"C:{current[0]}"}, also=also)
    # CLDR's earlier dates are less certain, as is its end of the Soviet rouble (SUR) in the republics.
    for old, year in [(c, y) for c, y in former if y >= 1970 and c != "SUR" and known(f"C:{c}")][:1]:
        yield Fact(f"former-{t}", "former", {"T": f"T:{t}", "C": f"C:{old}", "N": f"N:{year}"})


def _tongues(t: str) -> Iterator[Fact]:
    official = cldr.stated_official(t)
    if 0 < len(official) <= LONGEST_LIST and all(known(f"L:{x}") for x in official):
        kind = "official" if len(official) == 1 else "officials"
        slot = {"L": f"L:{official[0]}"} if len(official) == 1 else {"Ls": f"Ls:{','.join(official)}"}
        yield Fact(f"official-{t}", kind, {"T": f"T:{t}", **slot}, also=tuple(f"officialin-{x}" for x in official))
    for language, percent in [(x, p) for x, p in cldr.spoken_languages(t) if known(f"L:{x}")][:2]:
        slots = {"T": f"T:{t}", "L": f"L:{language}", "N": f"N:{percent}"}
        yield Fact(f"share-{t}-{language}", "share", slots)


def _customs(t: str) -> Iterator[Fact]:
    """Yield what CLDR's locale data says of everyday life: the week, the clock, dates and numbers."""
    where = cldr.local_locale(t)
    if where is None:
        return
    subject = {"T": f"T:{t}"}
    yield Fact(f"week-{t}", "week", subject | {"D": f"D:{where.first_week_day}"})
    hours = 24 if "H" in where.time_formats["short"].pattern else 12
    yield Fact(f"clock-{t}", "clock", subject | {"N": f"N:{hours}"})
    order = cldr.date_order(where.date_formats["short"].pattern)
    yield Fact(f"dates-{t}", "dates", subject | {"V": f"V:{order}"})
    mark = {",": "comma", ".": "point"}.get(cldr.decimal_mark(where))
    if mark:
        yield Fact(f"decimal-{t}", "decimal", subject | {"V": f"V:{mark}"})
    own = where.territories.get(t)
    if own and where.language not in cldr.LANGUAGES and known(f"L:{where.language}"):
        yield Fact(f"ownname-{t}", "ownname", subject | {"L": f"L:{where.language}", "Q": f"Q:{own}"})


def _cities(cities: list[tuple[str, str]]) -> Iterator[Fact]:
    ring = sorted(cities, key=lambda item: draw("ring", item[1]))
    for i, (t, zone) in enumerate(ring):
        tag, city, place = zone.replace("/", "."), f"Z:{zone}", f"T:{t}"
        yield Fact(f"city-{tag}", "city", {"Z": city, "T": place}, group=f"city-{tag}", also=(f"zone-{tag}",))
        yield Fact(f"zone-{tag}", "zone", {"Z": city, "T": place, "Q": f"Q:{zone}"}, group=f"city-{tag}")
        yield Fact(f"offset-{tag}", "offset", {"Z": city, "X": f"U:{cldr.standard_offset(zone)}"})
        latitude, longitude = cldr.positions()[zone]
        if latitude and longitude:  # "0° east" would read oddly
            yield Fact(f"position-{tag}", "position", {"Z": city, "X": f"A:{latitude}", "Y": f"O:{longitude}"})
        other = _same_day(zone, [ring[(i + step) % len(ring)][1] for step in range(1, len(ring))])
        if other:
            ahead = cldr.standard_offset(other) - cldr.standard_offset(zone)
            slots = {"Z": city, "W": f"Z:{other}", "X": "H:720", "Y": f"H:{720 + ahead}"}
            yield Fact(f"noon-{tag}-{other.replace('/', '.')}", "noon", slots)


def _same_day(zone: str, others: list[str]) -> str | None:
    """Return the first city where it is between 6:00 and 23:59 of the same day when it is noon in ``zone``."""
    noon = 12 * 60 - cldr.standard_offset(zone)
    return next((other for other in others if 6 * 60 <= noon + cldr.standard_offset(other) < 24 * 60), None)


def _currencies(named: set[str], places: list[str]) -> Iterator[Fact]:
    users: dict[str, list[str]] = {}
    for t in sorted(set(get_global("territory_zones")) - {"001", "ZZ"}):
        for c in cldr.tenders(t)[0]:
            users.setdefault(c, []).append(t)
    for code in sorted(name[2:] for name in named if name[0] == "C"):
        subject = {"C": f"C:{code}"}
        yield Fact(f"iso4217-{code}", "iso4217", subject | {"X": f"Q:{code}"})
        if code not in users:
            continue
        decimals = get_global("currency_fractions").get(code, get_global("currency_fractions")["DEFAULT"])[0]
        yield Fact(f"decimals-{code}", "decimals", subject | {"N": f"N:{decimals}"})
        local = next((x for x in map(cldr.local_locale, users[code]) if x), None)
        sign = cldr.bare(local.currency_symbols.get(code, code)) if local else code
        if code not in sign:
            yield Fact(f"sign-{code}", "sign", subject | {"Q": f"Q:{sign}"})
        where = users[code]
        if len(where) <= LONGEST_LIST and all(known(f"T:{t}") for t in where) and set(where) <= set(places):
            also = tuple(f"currency-{t}" for t in where)
            yield Fact(f"usedin-{code}", "usedin", subject | {"Ts": f"Ts:{','.join(where)}"}, also=also)


def _languages(named: set[str], places: list[str]) -> Iterator[Fact]:
    users: dict[str, list[str]] = {}
    for t in sorted(get_global("territory_zones")):
        for language in cldr.stated_official(t):
            users.setdefault(language, []).append(t)
    for code in sorted(name[2:] for name in named if name[0] == "L"):
        subject = {"L": f"L:{code}"}
        yield Fact(f"iso639-{code}", "iso639", subject | {"X": f"Q:{code}"})
        script = cldr.script_of(code)
        if script and known(f"S:{script}"):
            yield Fact(f"script-{code}", "script", subject | {"S": f"S:{script}"})
        if cldr.localedata.exists(code) and code not in cldr.LANGUAGES:
            yield from _own_words(code)
        where = users.get(code, [])
        if (
            code not in SOUTH_AFRICAN
            and 0 < len(where) <= LONGEST_LIST
            and all(known(f"T:{t}") for t in where)
            and set(where) <= set(places)
        ):
            also = tuple(f"official-{t}" for t in where)
            yield Fact(f"officialin-{code}", "officialin", subject | {"Ts": f"Ts:{','.join(where)}"}, also=also)


def _own_words(code: str) -> Iterator[Fact]:
    own = cldr.locale(code)
    subject = {"L": f"L:{code}"}
    if own.languages.get(code):
        yield Fact(f"autonym-{code}", "autonym", subject | {"Q": f"Q:{own.languages[code]}"})
    for day in (0, 6):
        word = own.days["stand-alone"]["wide"][day]
        if not word.isascii() or word.lower() != cldr.locale("en").days["stand-alone"]["wide"][day].lower()[:3]:
            yield Fact(f"day{day}-{code}", "day", subject | {"D": f"D:{day}", "Q": f"Q:{word}"})


def _scripts(named: set[str]) -> Iterator[Fact]:
    for code in sorted(name[2:] for name in named if name[0] == "S"):
        yield Fact(f"iso15924-{code}", "iso15924", {"S": f"S:{code}", "X": f"Q:{code}"})


def _grouped(found: list[Fact]) -> list[Fact]:
    """Join each fact with those in its ``also`` and its own ``group`` (union-find); a group is named by its root."""
    parent = {fact.doc_id: fact.doc_id for fact in found}

    def root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    for fact in found:
        for other in (fact.group, *fact.also):
            if other in parent:
                low, high = sorted((root(fact.doc_id), root(other)))
                parent[high] = low
    return [fact._replace(group=root(fact.doc_id)) for fact in found]
