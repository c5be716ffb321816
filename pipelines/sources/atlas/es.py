"""Spanish phrasings."""

from pipelines.sources.atlas.phrasebook import Phrasebook, expand_patterns

BOOK = Phrasebook(
    place="en {}",
    places=expand_patterns(
        "en {}",
        {
            "en los {}": "AE PS",
            "en las {}": "KY MH SB FO BS",
            "en la {}": "CF DO",
            "en el {}": "GB",
            "en los Países Bajos": "NL",
        },
    ),
    definite=frozenset(),
    plural=frozenset(["US", "AE", "NL", "PH", "BS", "MV", "KM", "SC", "BM", "PW", "KY", "MH", "SB", "FO", "PS"]),
    articles=("el ", "el "),
    values={
        "comma": "la coma",
        "point": "el punto",
        "dmy": "día, mes, año",
        "mdy": "mes, día, año",
        "ymd": "año, mes, día",
        "N": "{}° de latitud norte",
        "S": "{}° de latitud sur",
        "E": "{}° de longitud este",
        "W": "{}° de longitud oeste",
    },
    phrases={
        "region": (
            "En el mapa, {T} se [sitúa|sitúan] en la siguiente región: {R} ({K}).",
            "Situación geográfica de este territorio ({T}): {K}, región «{R}».",
            "Las Naciones Unidas incluyen a {T} en la región llamada «{R}» ({K}).",
        ),
        "code": (
            "El código ISO de dos letras para {T} es {X}; el de tres letras es {Y}.",
            "En la norma ISO 3166, {X} y {Y} designan este territorio: {T}.",
            "En las listas de países y territorios, el nombre de {T} se abrevia como {X}, o bien {Y}.",
        ),
        "domain": (
            "Las direcciones de Internet asignadas {inT} terminan en {X}.",
            "El dominio de nivel superior para {T} es {X}.",
            "Una página web registrada {inT} suele llevar la terminación {X}.",
        ),
        "currency": (
            "La moneda oficial {inT} es la siguiente: {C}.",
            "Para pagar {inT} se usa esta moneda: {C}.",
            "La moneda de curso legal {inT} se llama «{C}».",
            "Los precios se expresan {inT} en la moneda llamada «{C}».",
        ),
        "former": (
            "Hasta {N} circulaba {inT} otra moneda: {C}.",
            "La antigua moneda usada {inT} se llamaba «{C}»; dejó de circular en {N}.",
            "Dinero de otra época: la moneda «{C}» fue de curso legal {inT} hasta {N}.",
        ),
        "official": (
            "La lengua oficial {inT} es {leL}.",
            "{leL} es el idioma de la administración y de la ley {inT}.",
            "Las leyes {inT} se redactan en el idioma oficial, que es {leL}.",
        ),
        "officials": (
            "Varias lenguas son oficiales {inT}: {Ls}.",
            "Los idiomas oficiales reconocidos {inT} son los siguientes: {Ls}.",
            "Las leyes {inT} se publican en varios idiomas oficiales, a saber: {Ls}.",
        ),
        "share": (
            "Alrededor del {N} % de las personas que viven {inT} habla {L}.",
            "{leL} es un idioma hablado {inT} por cerca del {N} % de la población.",
            "De cada cien habitantes {inT}, unos {N} saben hablar {L}.",
        ),
        "week": (
            "La semana comienza {inT} con este día: {D}.",
            "El primer día de la semana es {inT} el {D}.",
            "Los calendarios impresos {inT} ponen el {D} en la primera columna.",
        ),
        "clock": (
            "La hora se escribe normalmente {inT} en formato de {N} horas.",
            "El reloj de {N} horas es el habitual {inT}.",
            "Los horarios siguen {inT} el sistema de {N} horas.",
        ),
        "dates": (
            "Las fechas se escriben {inT} en este orden: {V}.",
            "El orden habitual de una fecha abreviada es {inT} el siguiente: {V}.",
            "Para anotar una fecha se sigue {inT} el orden «{V}».",
        ),
        "decimal": (
            "El separador decimal usado {inT} es {V}.",
            "En un número con decimales se escribe {inT} {V} tras la parte entera.",
            "Para separar los decimales de un número se emplea {inT} {V}.",
        ),
        "ownname": (
            "En una de las lenguas que allí se hablan, {leL}, el nombre de este territorio ({T}) se escribe «{Q}».",
            "El nombre de {T} en la lengua local ({L}) es «{Q}».",
            "«{Q}» es el nombre que da {leL} a este territorio: {T}.",
        ),
        "city": (
            "{Z} es una ciudad situada {inT}.",
            "La ciudad de {Z} se encuentra {inT}.",
            "Entre las ciudades que hay {inT} figura {Z}.",
        ),
        "zone": (
            "La zona horaria de {Z} ({T}) aparece en la base de datos tz como {Q}.",
            "Un ordenador ajustado a la hora local de {Z} ({T}) usa el identificador {Q}.",
            "{Q} es el identificador de la zona horaria de la ciudad de {Z} ({T}).",
        ),
        "offset": (
            "La hora estándar en {Z} es {X}.",
            "Fuera del horario de verano, los relojes de {Z} marcan la hora {X}.",
            "La ciudad de {Z} se rige por la hora {X} como hora estándar.",
        ),
        "position": (
            "La ciudad de {Z} está situada a unos {X} y {Y}.",
            "Las coordenadas geográficas de {Z} son aproximadamente {X} y {Y}.",
            "En un globo terráqueo, {Z} se encuentra hacia {X} y {Y}.",
        ),
        "noon": (
            "Cuando es mediodía en {Z}, los relojes de {W} marcan las {Y} (hora estándar).",
            "Si en {Z} el reloj marca las {X}, en {W} marca las {Y} (hora estándar).",
            "Al comparar las horas estándar, {X} en {Z} equivale a {Y} en {W}.",
        ),
        "iso4217": (
            "El código de la moneda «{C}» es {X}.",
            "Los bancos abrevian «{C}» como {X} según la norma ISO 4217.",
            "En los tableros de cambio, la moneda «{C}» figura con el código {X}.",
        ),
        "decimals": (
            "Número de decimales de un importe en la moneda «{C}»: {N}.",
            "En la moneda «{C}», los precios se escriben con un número de decimales igual a {N}.",
            "Para la moneda «{C}», el número de cifras decimales es {N}.",
        ),
        "sign": (
            "El símbolo de la moneda «{C}» es «{Q}».",
            "En las etiquetas de precios, «{Q}» representa la moneda llamada «{C}».",
            "En su lugar de origen, la moneda «{C}» se abrevia con el signo «{Q}».",
        ),
        "usedin": (
            "La moneda «{C}» sirve para pagar en estos lugares: {Ts}.",
            "Se puede pagar con la moneda «{C}» aquí: {Ts}.",
            "Países y territorios donde la moneda «{C}» es de curso legal: {Ts}.",
        ),
        "iso639": (
            "El código ISO 639 de la lengua «{L}» es «{X}».",
            "Los programas marcan los textos en la lengua «{L}» con el código «{X}».",
            "En la norma internacional, «{X}» es la abreviatura de la lengua «{L}».",
        ),
        "script": (
            "{leL} se escribe con este sistema de escritura: {S}.",
            "Escritura empleada en los textos de la lengua «{L}»: {S}.",
            "El sistema de escritura de la lengua «{L}» se llama «{S}».",
        ),
        "autonym": (
            "Quienes hablan {L} llaman a su lengua «{Q}».",
            "El nombre que la lengua «{L}» se da a sí misma es «{Q}».",
            "Los hablantes de la lengua «{L}» la llaman «{Q}».",
        ),
        "day": (
            "En la lengua «{L}», {D} se dice «{Q}».",
            "Quienes hablan {L} llaman «{Q}» al día que en español es {D}.",
            "El día de la semana llamado {D} se denomina «{Q}» en la lengua «{L}».",
        ),
        "officialin": (
            "{leL} es lengua oficial en estos lugares: {Ts}.",
            "La lengua «{L}» tiene carácter oficial aquí: {Ts}.",
            "Países y territorios donde es oficial {leL}: {Ts}.",
        ),
        "iso15924": (
            "El código ISO de cuatro letras de la escritura «{S}» es {X}.",
            "En la norma ISO 15924, la escritura «{S}» está registrada como {X}.",
            "Las bibliotecas y los ordenadores designan el sistema de escritura «{S}» con el código {X}.",
        ),
    },
)
