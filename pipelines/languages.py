"""Language codes: checks the project's own codes and converts them to the schemes of models and collections.

A code is ISO 639-1, with a script where the script is not the usual one: ``zh``, ``zh-Hant``, ``sr-Latn``. A language
that ISO 639-1 lacks has its three-letter code (``yue``). A language has one spelling only, since codes name artifacts.

    code      flores      nllb        m2m100   neuclir   miracl   mmarco     iso3
    zh        zho_Hans    zho_Hans    zh       zho       zh       chinese    zho
    fa        pes_Arab    pes_Arab    fa       fas       fa       -          fas

The converters ``to_*`` raise RecipeError for a language that the scheme lacks; the message lists what it has. For an
unknown code every function except ``normalise`` raises RecipeError. Look-ups are cached.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster.errors import RecipeError

if TYPE_CHECKING:
    from langcodes import Language

# FLORES-200 (Team NLLB 2022, "No Language Left Behind", table 1): a script, then the languages written in it.
_FLORES = """
Latn ace afr aka arb ast ayr azj bam ban bem bjn bos bug cat ceb ces cjk crh cym dan deu dik dyu eng epo est eus
     ewe fao fij fin fon fra fur fuv gaz gla gle glg grn hat hau hrv hun ibo ilo ind isl ita jav kab kac kam kbp kea
     kik kin kmb kmr knc kon lij lim lin lit lmo ltg ltz lua lug luo lus lvs min mlt mos mri nld nno nob nso nus nya
     oci pag pap plt pol por quy ron run sag scn slk slv smo sna som sot spa als srd ssw sun swe swh szl taq tgl tpi
     tsn tso tuk tum tur twi umb uzn vec vie war wol xho yor zsm zul
Arab ace acm acq aeb ajp apc arb ars ary arz azb bjn ckb kas knc min pbt pes prs snd uig urd
Cyrl bak bel bul kaz khk kir mkd rus srp tat tgk ukr
Deva awa bho hin hne kas mag mai mar npi san
Beng asm ben mni sat
Hebr heb ydd
Ethi amh tir
Tibt bod dzo
Tfng taq tzm
Hant yue zho
Mymr mya shn
Armn hye  Geor kat  Grek ell  Gujr guj  Guru pan  Hang kor  Hans zho  Jpan jpn  Khmr khm  Knda kan  Laoo lao  Mlym
mal  Orya ory  Sinh sin  Taml tam  Telu tel  Thai tha
"""
_M2M100 = """
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy id
ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk
sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
"""  # Fan et al. 2020, "Beyond English-Centric Multilingual Machine Translation", table 1
_MIRACL = "ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh"  # Zhang et al. 2023, table 1
_MMARCO = "ar de en es fr hi id it ja nl pt ru vi zh"  # Bonifacio et al. 2021, version 2
_NEUCLIR = "en fa ru zh"  # Lawrie et al. 2023, "Overview of the TREC 2022 NeuCLIR Track"
# FLORES has the standard variety of a macrolanguage in its place: Modern Standard Arabic, Persian of Iran.
_VARIETIES = """
ara arb  aym ayr  aze azj  din dik  fas pes  fil tgl  ful fuv  kau knc  kur kmr  lav lvs  mlg plt  mon khk  msa zsm
nep npi  nor nob  ori ory  orm gaz  pus pbt  que quy  sqi als  swa swh  uzb uzn  yid ydd
"""
_RIGHT_TO_LEFT = {"Adlm", "Arab", "Hebr", "Mand", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa"}


def _parse_flores() -> Iterator[str]:
    script = ""
    for word in _FLORES.split():
        if word[0].isupper():
            script = word
        else:
            yield f"{word}_{script}"


FLORES = frozenset(_parse_flores())
NLLB = FLORES - {"arb_Latn", "min_Arab"}  # the NLLB-200 checkpoints have no token for these two
M2M100, MIRACL, MMARCO, NEUCLIR = (frozenset(codes.split()) for codes in (_M2M100, _MIRACL, _MMARCO, _NEUCLIR))
_VARIETY = dict(zip(_VARIETIES.split()[::2], _VARIETIES.split()[1::2], strict=True))
_SCRIPT = {"ko": "Hang", "yue": "Hant"}  # FLORES writes Hangul alone where CLDR says Korean (Hangul and Han)
_M2M100_NAMES = {"fil": "tl", "nso": "ns", "nb": "no"}


def is_known(code: str) -> bool:
    """Whether ``code`` is the project's spelling of a known language."""
    return _canonicalise(code) == code


def check(code: str) -> str:
    """Return ``code`` if it is the project's spelling of a known language.

    Raises:
        RecipeError: the language is unknown, or the project spells it otherwise; the message names that spelling.
    """
    canonical = _canonicalise(code)
    if canonical == code:
        return code
    hint = f"did you mean {canonical!r}?" if canonical else "see ISO 639-1 for the codes"
    raise RecipeError(
        f"unknown language code {code!r}: expected ISO 639-1 with a script where it is not the usual one, such as 'zh' "
        f"or 'zh-Hant'; {hint}"
    )


def normalise(code: str) -> str:
    """Convert a code found in data to the project's spelling (``zho``, ``zh_CN`` → ``zh``). Returns an unknown code
    unchanged."""
    return _canonicalise(code) or code


def name(code: str) -> str:
    """Return the English name: ``Chinese (Traditional)``."""
    return _parse(code).display_name("en")


def autonym(code: str) -> str:
    """Return the language's own name for itself: ``فارسی``."""
    return _parse(code).autonym()


def script(code: str) -> str:
    """Return the ISO 15924 code of the script in which the language is written: ``Arab``."""
    return _find_script(_parse(code))


def is_rtl(code: str) -> bool:
    """Whether the script runs from right to left."""
    return script(code) in _RIGHT_TO_LEFT


def to_iso3(code: str) -> str:
    """Convert to ISO 639-3 (terminological), without the script: ``zho``, ``fas``, ``deu``."""
    return str(_parse(code).to_alpha3())


def to_flores(code: str) -> str:
    """Convert to the FLORES-200 name: ``zho_Hans``, ``pes_Arab``."""
    return _require(FLORES, _build_flores_name(code), code, "FLORES-200")


def to_nllb(code: str) -> str:
    """Convert to the language token of NLLB-200, which is the FLORES-200 name."""
    return _require(NLLB, _build_flores_name(code), code, "NLLB-200")


def to_m2m100(code: str) -> str:
    """Convert to the language token of M2M-100 without its underscores: ``zh``. It has no scripts."""
    return _require(M2M100, _M2M100_NAMES.get(check(code), code), code, "M2M-100")


def to_neuclir(code: str) -> str:
    """Convert to the name in the NeuCLIR, HC3 and HC4 collections: ``zho``, ``fas``, ``rus``; ``eng`` for topics."""
    _require(NEUCLIR, check(code), code, "NeuCLIR")
    return to_iso3(code)


def to_miracl(code: str) -> str:
    """Convert to the name in MIRACL's files, which is ISO 639-1."""
    return _require(MIRACL, check(code), code, "MIRACL")


def to_mmarco(code: str) -> str:
    """Convert to the name in mMARCO's files, an English word: ``chinese``."""
    _require(MMARCO, check(code), code, "mMARCO")
    return name(code).lower()


def _require(known: frozenset[str], converted: str, code: str, scheme: str) -> str:
    if converted not in known:
        raise RecipeError(f"{scheme} has no {name(code)} ({code!r}); it has {', '.join(sorted(known))}")
    return converted


def _build_flores_name(code: str) -> str:
    iso = to_iso3(code)
    return f"{_VARIETY.get(iso, iso)}_{_SCRIPT.get(check(code), script(code))}"


def _find_script(language: "Language") -> str:
    return str(language.script or language.maximize().script)


@lru_cache(maxsize=1024)
def _parse(code: str) -> "Language":
    from langcodes import Language

    return Language.get(check(code))


@lru_cache(maxsize=1024)
def _canonicalise(code: str) -> str | None:
    """Convert a language tag of any kind, or an English name, to the project's spelling; None if it is neither."""
    import langcodes

    # langcodes' index of names raises on control characters
    if not all(letter.isalnum() or letter in " -_'()" for letter in code):
        return None
    try:
        language = langcodes.Language.get(code) if langcodes.tag_is_valid(code) else langcodes.find(code)
    except LookupError:
        return None
    base = language.language
    if base is None or not language.is_valid() or base in ("und", "mul", "mis", "zxx"):
        return None
    if len(base) == 3 and "qaa" <= base <= "qtz":  # ISO 639-2 reserves this range for private use
        return None
    given, usual = language.maximize().script, langcodes.Language.make(language=base).maximize().script
    return base if given == usual else f"{base}-{given}"
