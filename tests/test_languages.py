"""Language codes, compared with published lists and with the tables of the translation models in transformers."""

import json
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RecipeError
from pipelines import languages


@pytest.mark.parametrize(
    "code", ["en", "de", "zh", "zh-Hant", "fa", "ru", "th", "no", "nb", "sr", "sr-Latn", "yue", "he"]
)
def test_check_returns_a_canonical_code(code):
    assert languages.check(code) == code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("zho", "zh"),
        ("zh-Hans", "zh"),
        ("zh-CN", "zh"),
        ("zh-TW", "zh-Hant"),
        ("zh_Hant", "zh-Hant"),
        ("sr-Cyrl", "sr"),
        ("EN", "en"),
        ("en-US", "en"),
        ("ger", "de"),
        ("iw", "he"),
        ("fas", "fa"),
        ("prs", "fa"),
        ("German", "de"),
    ],
)
def test_check_of_another_spelling_suggests_the_code(code, expected):
    with pytest.raises(RecipeError, match=f"did you mean '{expected}'"):
        languages.check(code)
    assert languages.normalise(code) == expected


@pytest.mark.parametrize("code", ["xx", "qqq", "", "und", "mul", "e n", "../en", "en-Xxxx"])
def test_check_of_an_unknown_code_states_the_expected_form(code):
    with pytest.raises(RecipeError, match="expected ISO 639-1"):
        languages.check(code)
    assert languages.normalise(code) == code


@given(st.text(max_size=12))
def test_any_text_normalises_to_a_valid_code_or_to_itself(text):
    normalised = languages.normalise(text)
    if normalised == text:
        with suppress(RecipeError):
            languages.check(text)
    else:
        assert languages.check(normalised) == normalised


def test_names_scripts_and_directions():
    assert languages.name("zh-Hant") == "Chinese (Traditional)"
    assert languages.name("fa") == "Persian"
    assert languages.autonym("fa") == "فارسی"
    assert languages.autonym("de") == "Deutsch"
    assert [languages.script(c) for c in ("zh", "zh-Hant", "fa", "ru", "sr-Latn")] == [
        "Hans",
        "Hant",
        "Arab",
        "Cyrl",
        "Latn",
    ]
    assert [c for c in ("ar", "fa", "he", "ur", "yi", "dv", "en", "zh", "hi", "th") if languages.is_rtl(c)] == [
        *("ar", "fa", "he", "ur", "yi", "dv")
    ]


def test_conversions_for_the_languages_of_the_papers():
    assert [languages.to_neuclir(c) for c in ("zh", "fa", "ru", "en")] == ["zho", "fas", "rus", "eng"]
    assert [languages.to_iso3(c) for c in ("zh", "fa", "de", "fr", "es", "ru")] == [
        "zho",
        "fas",
        "deu",
        "fra",
        "spa",
        "rus",
    ]
    assert [languages.to_mmarco(c) for c in ("zh", "en", "nl")] == ["chinese", "english", "dutch"]
    assert languages.to_miracl("sw") == "sw"


@pytest.mark.parametrize(
    ("convert", "code"),
    [
        ("to_neuclir", "de"),
        ("to_miracl", "el"),
        ("to_mmarco", "fa"),
        ("to_m2m100", "yue"),
        ("to_flores", "la"),
        ("to_m2m100", "zh-Hant"),
    ],
)
def test_error_for_a_missing_language_lists_those_of_the_scheme(convert, code):
    with pytest.raises(RecipeError, match="it has"):
        getattr(languages, convert)(code)


def test_flores_names_of_every_language_of_the_other_schemes():
    known = {"ar": "arb_Arab", "fa": "pes_Arab", "zh": "zho_Hans", "zh-Hant": "zho_Hant", "ko": "kor_Hang"}
    known |= {"ja": "jpn_Jpan", "sw": "swh_Latn", "no": "nob_Latn", "yue": "yue_Hant", "ku": "kmr_Latn"}
    known |= {"ps": "pbt_Arab", "th": "tha_Thai", "az": "azj_Latn", "sr": "srp_Cyrl", "fil": "tgl_Latn"}
    known |= {"sq": "als_Latn", "he": "heb_Hebr", "de": "deu_Latn"}
    assert {code: languages.to_flores(code) for code in known} == known
    for code in {*languages.MIRACL, *languages.MMARCO, *languages.NEUCLIR}:
        assert languages.to_nllb(code) == languages.to_flores(code)


def test_tables_equal_those_of_the_published_models():
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb")
    m2m = pytest.importorskip("transformers.models.m2m_100.tokenization_m2m_100")
    assert set(nllb.FAIRSEQ_LANGUAGE_CODES) == languages.NLLB
    assert set(m2m.FAIRSEQ_LANGUAGE_CODES["m2m100"]) == languages.M2M100


def test_every_m2m100_language_has_a_code():
    codes = {"tl": "fil", "ns": "nso"}
    assert {languages.to_m2m100(codes.get(code, code)) for code in languages.M2M100} == languages.M2M100


def test_importing_languages_loads_no_model_library():
    code = "import sys, json, pipelines.languages; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert not {"torch", "transformers", "ray"} & set(loaded)
