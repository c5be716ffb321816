"""English phrasings."""

from pipelines.sources.atlas.phrasebook import Phrasebook

BOOK = Phrasebook(
    place="in {}",
    places={"GU": "on {}"},
    definite=frozenset(["AE", "BS", "CF", "DO", "FO", "GB", "KM", "KY", "MH", "MV", "NL", "PH", "PS", "SB", "US"]),
    plural=frozenset(),
    articles=("", ""),
    values={
        "comma": "a comma",
        "point": "a point",
        "dmy": "day, month, year",
        "mdy": "month, day, year",
        "ymd": "year, month, day",
        "N": "{}° north",
        "S": "{}° south",
        "E": "{}° east",
        "W": "{}° west",
    },
    phrases={
        "region": (
            "{T} lies in {R}, one of the regions of {K}.",
            "On the map of {K}, {T} is counted in the region called {R}.",
            "The United Nations place {T} in this part of the world: {R} ({K}).",
        ),
        "code": (
            "The two-letter ISO code for {T} is {X}; the three-letter code is {Y}.",
            "In the ISO 3166 standard, {T} is abbreviated {X}, or {Y} in three letters.",
            "On lists of countries and territories, {X} and {Y} are the short codes that stand for {T}.",
        ),
        "domain": (
            "Internet addresses from {T} end in {X}.",
            "The top-level domain assigned to {T} on the internet is {X}.",
            "A website registered under the national domain of {T} has an address ending in {X}.",
        ),
        "currency": (
            "The currency of {T} is the {C}.",
            "People {inT} pay with the {C}, the legal tender there.",
            "Prices and wages {inT} are given in this currency: {C}.",
            "The official money used {inT} is called the {C}.",
        ),
        "former": (
            "Until {N}, the {C} was legal tender {inT}.",
            "The {C} is a former currency of {T}; it was withdrawn in {N}.",
            "Old money from {T}: the {C} was valid there until {N}.",
        ),
        "official": (
            "The official language of {T} is {L}.",
            "{L} is the language of government and law {inT}.",
            "Laws and public documents {inT} are written in the official language, {L}.",
        ),
        "officials": (
            "{T} has more than one official language: {Ls}.",
            "The official languages of {T} are {Ls}.",
            "Several languages have official status {inT}, namely {Ls}.",
        ),
        "share": (
            "About {N} percent of the people {inT} speak {L}.",
            "{L} is spoken by roughly {N}% of the population {inT}.",
            "Out of every hundred inhabitants of {T}, around {N} can speak {L}.",
        ),
        "week": (
            "{inT}, the week begins on {D}.",
            "On calendars {inT}, {D} is the first day of the week.",
            "Calendars printed for {T} put {D} in the first column.",
        ),
        "clock": (
            "{inT}, the time of day is normally written with the {N}-hour clock.",
            "The {N}-hour clock is the usual way to write times {inT}.",
            "Timetables and clocks {inT} follow the {N}-hour format.",
        ),
        "dates": (
            "Dates {inT} are written in this order: {V}.",
            "In a short date written {inT}, the parts follow the order {V}.",
            "The customary date format {inT} is {V}.",
        ),
        "decimal": (
            "{inT}, the decimal separator in numbers is {V}.",
            "Numbers with decimals are written with {V} {inT}.",
            "To separate the whole part of a number from the decimals, people {inT} use {V}.",
        ),
        "ownname": (
            "In {L}, a language spoken there, {T} is called “{Q}”.",
            "The {L} name for {T} is “{Q}”.",
            "Speakers of {L} write the name of {T} as “{Q}”.",
        ),
        "city": (
            "{Z} is a city {inT}.",
            "The city of {Z} belongs to {T}.",
            "One of the cities of {T} is {Z}.",
        ),
        "zone": (
            "The time zone of {Z} ({T}) is listed in the tz database as {Q}.",
            "Computers set to local time for {Z}, {T}, use the zone name {Q}.",
            "{Q} is the identifier of the time zone that covers {Z} in the territory of {T}.",
        ),
        "offset": (
            "The standard time in {Z} is {X}.",
            "Outside any summer time, clocks in {Z} are set to {X}.",
            "{Z} keeps {X} as its standard time.",
        ),
        "position": (
            "{Z} lies at about {X} and {Y}.",
            "The geographical coordinates of {Z} are roughly {X}, {Y}.",
            "On a globe you find {Z} near latitude {X} and longitude {Y}.",
        ),
        "noon": (
            "When it is noon in {Z}, the clocks in {W} show {Y} (standard time).",
            "At {X} standard time in {Z}, it is {Y} in {W}.",
            "Comparing standard times, {X} in {Z} corresponds to {Y} in {W}.",
        ),
        "iso4217": (
            "The currency code of the {C} is {X}.",
            "Banks abbreviate the {C} as {X} in the ISO 4217 standard.",
            "On exchange-rate boards the {C} appears under the code {X}.",
        ),
        "decimals": (
            "Amounts in this currency, the {C}, have {N} digits after the decimal point.",
            "For the {C}, the number of decimal places in an amount is {N}.",
            "Prices in the {C} are written with this number of decimals: {N}.",
        ),
        "sign": (
            "The {C} is written with the sign “{Q}”.",
            "On price tags, the symbol “{Q}” stands for the {C}.",
            "Locally, the {C} is abbreviated with the symbol “{Q}”.",
        ),
        "usedin": (
            "The {C} is used as money in {Ts}.",
            "You can pay with the {C} here: {Ts}.",
            "The {C} is legal tender in the following places: {Ts}.",
        ),
        "iso639": (
            "The ISO 639 code of the language {L} is “{X}”.",
            "Software marks text in {L} with the language code “{X}”.",
            "The language {L} is abbreviated “{X}” in the international standard.",
        ),
        "script": (
            "The language {L} is written in this script: {S}.",
            "Texts in {L} usually use the {S} script.",
            "The writing system of the {L} language is called {S}.",
        ),
        "autonym": (
            "Speakers of {L} call their own language “{Q}”.",
            "The language {L} has the native name “{Q}”.",
            "In {L}, the name of the language itself is “{Q}”.",
        ),
        "day": (
            "In {L}, the word for {D} is “{Q}”.",
            "Speakers of {L} call {D} “{Q}”.",
            "The day that English calls {D} is named “{Q}” in {L}.",
        ),
        "officialin": (
            "{L} is an official language in {Ts}.",
            "The language {L} has official status here: {Ts}.",
            "Places where {L} is an official language: {Ts}.",
        ),
        "iso15924": (
            "The four-letter ISO code of the script called {S} is {X}.",
            "In the ISO 15924 standard, the {S} script is registered as {X}.",
            "Libraries and computers refer to the {S} writing system by the code {X}.",
        ),
    },
)
