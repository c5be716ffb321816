"""German phrasings."""

from pipelines.sources.atlas.phrasebook import Phrasebook, expand_patterns

BOOK = Phrasebook(
    place="in {}",
    places=expand_patterns(
        "in {}",
        {
            "im {}": "IR IQ YE LB SD SS NE TD XK",
            "in der {}": "CH TR UA SK MN DO CF",
            "in der Republik Moldau": "MD",
            "in der Zentralafrikanischen Republik": "CF",
            "in der Dominikanischen Republik": "DO",
            "in der Vatikanstadt": "VA",
            "in St. Vincent und den Grenadinen": "VC",
            "in den Vereinigten Staaten": "US",
            "in den Vereinigten Arabischen Emiraten": "AE",
            "im Vereinigten Königreich": "GB",
            "in den Niederlanden": "NL",
            "in den Palästinensischen Autonomiegebieten": "PS",
            "auf den {}": "PH MV KM SC BS",
            "auf den Komoren": "KM",
            "auf {}": "CU CY MT BB JM GD DM AW CW GU RE NR BM MG",
            "auf den Färöern": "FO",
            "auf den Kaimaninseln": "KY",
            "auf den Marshallinseln": "MH",
            "auf den Salomonen": "SB",
        },
    ),
    definite=frozenset(),
    plural=frozenset(["US", "AE", "NL", "PH", "BS", "MV", "KM", "SC", "KY", "FO", "MH", "SB", "PS"]),
    articles=("", ""),
    values={
        "comma": "das Komma",
        "point": "der Punkt",
        "dmy": "Tag, Monat, Jahr",
        "mdy": "Monat, Tag, Jahr",
        "ymd": "Jahr, Monat, Tag",
        "N": "{}° nördlicher Breite",
        "S": "{}° südlicher Breite",
        "E": "{}° östlicher Länge",
        "W": "{}° westlicher Länge",
    },
    phrases={
        "region": (
            "Zur Region „{R}“ ({K}) gehört auch: {T}.",
            "{T}: Auf der Landkarte findet man dieses Gebiet in der Region „{R}“ ({K}).",
            "Geografische Lage ({T}): Kontinent {K}, Teilregion {R}.",
        ),
        "code": (
            "Das ISO-Kürzel für „{T}“ lautet {X}, in drei Buchstaben {Y}.",
            "In der Norm ISO 3166 steht {X} oder {Y} für „{T}“.",
            "In Länderlisten wird „{T}“ mit den Codes {X} und {Y} abgekürzt.",
        ),
        "domain": (
            "Internetadressen, die {inT} vergeben werden, enden auf {X}.",
            "Die Top-Level-Domain {inT} lautet {X}.",
            "Wer eine Website {inT} anmeldet, erhält meist die Endung {X}.",
        ),
        "currency": (
            "Gesetzliches Zahlungsmittel {inT}: {C}.",
            "Bezahlt wird {inT} in dieser Währung: {C}.",
            "Die Währung, mit der man {inT} bezahlt, heißt „{C}“.",
            "Das Geld, das {inT} als Landeswährung gilt, trägt den Namen „{C}“.",
        ),
        "former": (
            "Bis zum Jahr {N} galt {inT} eine andere Währung: {C}.",
            "Die frühere Währung {inT} hieß „{C}“; sie war bis {N} gültig.",
            "Altes Geld: „{C}“ war {inT} bis {N} gesetzliches Zahlungsmittel.",
        ),
        "official": (
            "Die Amtssprache {inT} ist {L}.",
            "Behörden {inT} verwenden als Amtssprache {L}.",
            "{L} hat {inT} den Rang der Amtssprache.",
        ),
        "officials": (
            "Mehrere Sprachen sind {inT} amtlich: {Ls}.",
            "Als Amtssprachen gelten {inT} {Ls}.",
            "Gesetze erscheinen {inT} in mehreren Amtssprachen, nämlich {Ls}.",
        ),
        "share": (
            "Etwa {N} Prozent der Menschen {inT} sprechen {L}.",
            "{L} wird {inT} von rund {N} % der Bevölkerung gesprochen.",
            "Der Anteil der Bevölkerung, der {inT} {L} spricht, liegt bei ungefähr {N} %.",
        ),
        "week": (
            "Die Woche beginnt {inT} mit diesem Tag: {D}.",
            "Der erste Tag der Woche ist {inT} der {D}.",
            "In Kalendern steht {inT} der {D} in der ersten Spalte.",
        ),
        "clock": (
            "Uhrzeiten werden {inT} im {N}-Stunden-Format geschrieben.",
            "{inT} ist bei Zeitangaben die {N}-Stunden-Uhr üblich.",
            "Fahrpläne und Uhren folgen {inT} der {N}-Stunden-Zählung.",
        ),
        "dates": (
            "Das Datum schreibt man {inT} in dieser Reihenfolge: {V}.",
            "Die übliche Form eines kurzen Datums ist {inT}: {V}.",
            "Bei Datumsangaben gilt {inT} die Folge „{V}“.",
        ),
        "decimal": (
            "Als Dezimaltrennzeichen dient {inT} {V}.",
            "In Zahlen trennt {inT} {V} die Nachkommastellen ab.",
            "Zwischen dem ganzen Teil und den Dezimalstellen einer Zahl steht {inT} {V}.",
        ),
        "ownname": (
            "Das Wort für „{T}“ lautet in der Sprache {L} „{Q}“.",
            "{T} [heißt|heißen] in der dort gesprochenen Sprache ({L}) „{Q}“.",
            "„{Q}“ ist der Eigenname für „{T}“ in der Landessprache {L}.",
        ),
        "city": (
            "{Z} ist eine Stadt {inT}.",
            "Die Stadt {Z} liegt {inT}.",
            "Zu den Städten {inT} zählt {Z}.",
        ),
        "zone": (
            "Die Zeitzone von {Z} ({T}) ist in der tz-Datenbank als {Q} verzeichnet.",
            "Computer, die auf die Ortszeit von {Z} ({T}) eingestellt sind, verwenden den Namen {Q}.",
            "{Q} ist die Kennung der Zeitzone für die Stadt {Z} ({T}).",
        ),
        "offset": (
            "Die Normalzeit in {Z} ist {X}.",
            "Außerhalb einer Sommerzeit gehen die Uhren in {Z} nach {X}.",
            "In {Z} gilt als Normalzeit {X}.",
        ),
        "position": (
            "{Z} liegt ungefähr auf {X} und {Y}.",
            "Die geografischen Koordinaten von {Z} sind etwa {X} und {Y}.",
            "Auf dem Globus findet man {Z} bei {X} und {Y}.",
        ),
        "noon": (
            "Wenn es in {Z} Mittag ist, zeigen die Uhren in {W} {Y} Uhr (Normalzeit).",
            "Um {X} Uhr Normalzeit in {Z} ist es in {W} {Y} Uhr.",
            "Vergleicht man die Normalzeiten, so entspricht {X} Uhr in {Z} der Uhrzeit {Y} in {W}.",
        ),
        "iso4217": (
            "Der Währungscode für „{C}“ lautet {X}.",
            "Banken kürzen die Währung „{C}“ nach ISO 4217 mit {X} ab.",
            "Auf Kurstafeln steht die Währung „{C}“ unter dem Code {X}.",
        ),
        "decimals": (
            "Beträge in der Währung „{C}“ haben {N} Nachkommastellen.",
            "Zahl der Nachkommastellen bei Beträgen in der Währung „{C}“: {N}.",
            "Preise in der Währung „{C}“ schreibt man mit so vielen Nachkommastellen: {N}.",
        ),
        "sign": (
            "Das Zeichen der Währung „{C}“ ist „{Q}“.",
            "Auf Preisschildern steht das Symbol „{Q}“ für die Währung „{C}“.",
            "Die Währung „{C}“ wird vor Ort mit „{Q}“ abgekürzt.",
        ),
        "usedin": (
            "Mit der Währung „{C}“ bezahlt man hier: {Ts}.",
            "Die Währung „{C}“ ist an diesen Orten gesetzliches Zahlungsmittel: {Ts}.",
            "Länder und Gebiete mit der Währung „{C}“: {Ts}.",
        ),
        "iso639": (
            "Der ISO-639-Code der Sprache {L} lautet „{X}“.",
            "Software kennzeichnet Texte in der Sprache {L} mit dem Kürzel „{X}“.",
            "In der internationalen Norm steht „{X}“ für die Sprache {L}.",
        ),
        "script": (
            "Die Sprache {L} wird in dieser Schrift geschrieben: {S}.",
            "Für Texte in der Sprache {L} dient die Schrift „{S}“.",
            "Das Schriftsystem der Sprache {L} heißt „{S}“.",
        ),
        "autonym": (
            "Wer die Sprache {L} spricht, nennt sie selbst „{Q}“.",
            "Die Eigenbezeichnung der Sprache {L} lautet „{Q}“.",
            "Die Sprache {L} heißt bei ihren Sprechern „{Q}“.",
        ),
        "day": (
            "In der Sprache {L} heißt der {D} „{Q}“.",
            "Das Wort für {D} lautet in der Sprache {L} „{Q}“.",
            "Der Wochentag {D} wird in der Sprache {L} „{Q}“ genannt.",
        ),
        "officialin": (
            "{L} ist hier Amtssprache: {Ts}.",
            "Die Sprache {L} hat an folgenden Orten amtlichen Rang: {Ts}.",
            "Länder und Gebiete mit der Amtssprache {L}: {Ts}.",
        ),
        "iso15924": (
            "Der vierbuchstabige ISO-Code der Schrift „{S}“ lautet {X}.",
            "In der Norm ISO 15924 ist die Schrift „{S}“ als {X} verzeichnet.",
            "Bibliotheken und Computer bezeichnen das Schriftsystem „{S}“ mit dem Code {X}.",
        ),
    },
)
