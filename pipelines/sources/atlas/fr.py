"""French phrasings. Colons, question marks and quotation marks take a no-break space inside."""

from pipelines.sources.atlas.phrasebook import Phrasebook, expand_patterns

BOOK = Phrasebook(
    place="en {}",
    places=expand_patterns(
        "en {}",
        {
            "au {}": (
                "BD BJ BT BR BW BF BI KH CM CA CV CL CR DK GA GL GH GT HN JP KZ KE KG XK KW LA LS LB LR LI LU MW ML "
                "MA MX MZ ME MM NP NI NE NG PK PA PY PE PT QA RW GB SV SN SD SS LK SR TJ TD TL TG TM VE VN VU YE ZW "
                "BZ BN GY"
            ),
            "aux {}": "US NL PH BS MV KM SC BM FJ PW TO WS",
            "aux Émirats arabes unis": "AE",
            "à {}": "CU CY MT MG BH SG MC DJ OM MU TT AG ST SM AW CW GU PR GI NR TV TW LC KN VC KI",
            "à la {}": "BB DM GD",
            "aux Îles Caïmans": "KY",
            "aux Îles Marshall": "MH",
            "aux Îles Salomon": "SB",
            "aux Îles Féroé": "FO",
            "à La Réunion": "RE",
            "dans les {}": "PS",
            "dans l’{}": "VA",
        },
    ),
    definite=frozenset(),
    plural=frozenset(["US", "AE", "NL", "PH", "BS", "MV", "KM", "SC", "BM", "FJ", "PW", "KY", "MH", "SB", "FO", "PS"]),
    articles=("le ", "l’"),
    values={
        "comma": "la virgule",
        "point": "le point",
        "dmy": "jour, mois, année",
        "mdy": "mois, jour, année",
        "ymd": "année, mois, jour",
        "N": "{}° de latitude nord",
        "S": "{}° de latitude sud",
        "E": "{}° de longitude est",
        "W": "{}° de longitude ouest",
    },
    phrases={
        "region": (
            "{T} : sur la carte, on se trouve ici dans la région suivante : {R} ({K}).",
            "Situation géographique ({T}) : continent « {K} », région « {R} ».",
            "Les Nations unies rangent ce territoire ({T}) dans la région nommée « {R} » ({K}).",
        ),
        "code": (
            "Le code ISO à deux lettres du pays ou territoire « {T} » est {X} ; en trois lettres, c’est {Y}.",
            "Dans la norme ISO 3166, {X} et {Y} désignent ce territoire : {T}.",
            "Sur les listes de pays et territoires, le nom « {T} » s’abrège en {X} ou en {Y}.",
        ),
        "domain": (
            "Les adresses Internet attribuées {inT} se terminent par {X}.",
            "Le domaine de premier niveau utilisé {inT} est {X}.",
            "Un site enregistré {inT} porte en général l’extension {X}.",
        ),
        "currency": (
            "La monnaie officielle {inT} est la suivante : {C}.",
            "Pour payer {inT}, on utilise cette monnaie : {C}.",
            "La monnaie qui a cours légal {inT} s’appelle « {C} ».",
            "Les prix sont exprimés {inT} dans la monnaie appelée « {C} ».",
        ),
        "former": (
            "Jusqu’en {N}, une autre monnaie avait cours {inT} : {C}.",
            "L’ancienne monnaie utilisée {inT} s’appelait « {C} » ; elle fut retirée en {N}.",
            "Monnaie d’autrefois : « {C} » a eu cours légal {inT} jusqu’en {N}.",
        ),
        "official": (
            "La langue officielle {inT} est {leL}.",
            "{leL} est la langue de l’administration et de la loi {inT}.",
            "Les textes de loi {inT} sont rédigés dans la langue officielle, {leL}.",
        ),
        "officials": (
            "Plusieurs langues sont officielles {inT} : {Ls}.",
            "Les langues officielles reconnues {inT} sont les suivantes : {Ls}.",
            "Les textes de loi {inT} paraissent en plusieurs langues officielles, à savoir : {Ls}.",
        ),
        "share": (
            "Environ {N} % des personnes qui vivent {inT} parlent {leL}.",
            "{leL} est une langue parlée {inT} par à peu près {N} % de la population.",
            "Sur cent habitants {inT}, environ {N} savent parler {leL}.",
        ),
        "week": (
            "La semaine commence {inT} par ce jour : {D}.",
            "Le premier jour de la semaine est {inT} le {D}.",
            "Les calendriers imprimés {inT} placent le {D} dans la première colonne.",
        ),
        "clock": (
            "L’heure s’écrit d’ordinaire {inT} au format de {N} heures.",
            "On lit et on écrit l’heure {inT} sur {N} heures.",
            "Les horaires suivent {inT} le système de {N} heures.",
        ),
        "dates": (
            "Les dates s’écrivent {inT} dans cet ordre : {V}.",
            "L’ordre habituel d’une date abrégée est {inT} le suivant : {V}.",
            "Pour noter une date, on suit {inT} l’ordre « {V} ».",
        ),
        "decimal": (
            "Le séparateur décimal utilisé {inT} est {V}.",
            "Dans un nombre à décimales, on écrit {inT} {V} après la partie entière.",
            "Pour séparer les décimales d’un nombre, on emploie {inT} {V}.",
        ),
        "ownname": (
            "Dans l’une des langues qu’on y parle, {leL}, le nom de ce territoire ({T}) s’écrit « {Q} ».",
            "« {Q} » : voilà comment {leL} désigne ce territoire : {T}.",
            "Le nom local de ce territoire ({T}) est « {Q} » ; la langue est {leL}.",
        ),
        "city": (
            "{Z} est une ville située {inT}.",
            "La ville de {Z} se trouve {inT}.",
            "Parmi les villes que l’on trouve {inT} figure {Z}.",
        ),
        "zone": (
            "Le fuseau horaire de {Z} ({T}) porte le nom {Q} dans la base de données tz.",
            "Un ordinateur réglé sur l’heure locale de {Z} ({T}) utilise l’identifiant {Q}.",
            "{Q} est l’identifiant du fuseau horaire de la ville de {Z} ({T}).",
        ),
        "offset": (
            "L’heure normale à {Z} est {X}.",
            "Hors heure d’été, les horloges de la ville de {Z} sont réglées sur {X}.",
            "La ville de {Z} vit à l’heure {X} en temps normal.",
        ),
        "position": (
            "La ville de {Z} est située à environ {X} et {Y}.",
            "Les coordonnées géographiques de {Z} sont à peu près {X} et {Y}.",
            "Sur un globe, on trouve {Z} vers {X} et {Y}.",
        ),
        "noon": (
            "Quand il est midi à {Z}, les horloges de {W} indiquent {Y} (heure normale).",
            "À {X}, heure normale de {Z}, il est {Y} à {W}.",
            "Si l’on compare les heures normales, {X} à {Z} correspond à {Y} à {W}.",
        ),
        "iso4217": (
            "Le code de la monnaie « {C} » est {X}.",
            "Les banques abrègent « {C} » en {X}, selon la norme ISO 4217.",
            "Sur les tableaux de change, la monnaie « {C} » figure sous le code {X}.",
        ),
        "decimals": (
            "Nombre de décimales d’un montant dans la monnaie « {C} » : {N}.",
            "Dans la monnaie « {C} », les prix s’écrivent avec un nombre de décimales égal à {N}.",
            "Pour la monnaie « {C} », le nombre de chiffres après la virgule est {N}.",
        ),
        "sign": (
            "Le symbole de la monnaie « {C} » est « {Q} ».",
            "Sur les étiquettes de prix, « {Q} » désigne la monnaie appelée « {C} ».",
            "Sur place, la monnaie « {C} » s’abrège par le signe « {Q} ».",
        ),
        "usedin": (
            "La monnaie « {C} » sert à payer dans les lieux suivants : {Ts}.",
            "On peut payer avec la monnaie « {C} » ici : {Ts}.",
            "Pays et territoires où la monnaie « {C} » a cours légal : {Ts}.",
        ),
        "iso639": (
            "Le code ISO 639 de la langue « {L} » est « {X} ».",
            "Les logiciels marquent les textes dans la langue « {L} » avec le code « {X} ».",
            "Dans la norme internationale, « {X} » est l’abréviation de la langue « {L} ».",
        ),
        "script": (
            "{leL} s’écrit avec ce système d’écriture : {S}.",
            "Écriture employée pour les textes de la langue « {L} » : {S}.",
            "Le système d’écriture de la langue « {L} » s’appelle « {S} ».",
        ),
        "autonym": (
            "Ceux qui parlent {leL} appellent leur langue « {Q} ».",
            "Le nom que la langue « {L} » se donne à elle-même est « {Q} ».",
            "{leL} est appelé « {Q} » par ses locuteurs.",
        ),
        "day": (
            "Dans la langue « {L} », {D} se dit « {Q} ».",
            "Ceux qui parlent {leL} appellent « {Q} » le jour nommé {D} en français.",
            "Le jour de la semaine nommé {D} s’appelle « {Q} » dans la langue « {L} ».",
        ),
        "officialin": (
            "{leL} est une langue officielle dans les lieux suivants : {Ts}.",
            "La langue « {L} » a un statut officiel ici : {Ts}.",
            "Pays et territoires dont une langue officielle est {leL} : {Ts}.",
        ),
        "iso15924": (
            "Le code ISO à quatre lettres de l’écriture « {S} » est {X}.",
            "Dans la norme ISO 15924, l’écriture « {S} » est enregistrée sous {X}.",
            "Les bibliothèques et les ordinateurs désignent le système d’écriture « {S} » par le code {X}.",
        ),
    },
)
