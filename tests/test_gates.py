"""Gates: each measure against a naive count or another library, what is known of lingua."""

import subprocess
import sys

import pytest
from babel.numbers import format_decimal
from hypothesis import given
from hypothesis import strategies as st
from lingua import Language
from pydantic import ValidationError

from cluster.component import fingerprint
from cluster.errors import RecipeError
from pipelines import languages
from pipelines.gates import Gate, GateConfig, Gates, judge
from pipelines.gates.config import LINGUA, find_lingua_code
from pipelines.gates.judge import measure_copied, measure_kept_markup, measure_kept_numbers, measure_repetition
from pipelines.gates.lengths import Expected, learn, measure_own
from pipelines.gates.numbers import find_all_numbers, find_numbers
from pipelines.gates.words import leave_out_latin, leave_out_shared
from pipelines.synthesis.language import check_detectable

ENGLISH = "The bridge over the river was built by the town's masons, and it has carried carts to the market ever since."
GERMAN = "Die Brücke über den Fluss bauten die Maurer der Stadt, und seither trägt sie die Karren zum Markt hinüber."
SPANISH = (
    "El puente sobre el río fue construido por los albañiles de la ciudad y desde entonces lleva carros al mercado."
)
DATED = "It was built in 1742 and 1,350 people paid for it."
OFF = Gates(empty=False, language=0, length=0, ending=0, repetition=1, copied=1, numbers=0, markup=0)


def verdict(source: str, target: str, pair: tuple[str, str] = ("en", "de"), **gates) -> str | None:
    """What the pure gates say, and then the language."""
    config = GateConfig(source_lang=pair[0], target_lang=pair[1], gates=Gates(**gates))
    return Gate(config, {}).judge([(source, target)])[0]


# what each gate is for, and the setting that switches it off
FAULTS = [
    ("empty", ENGLISH, ".....", {"empty": False, "length": 0, "language": 0}),
    ("copied", ENGLISH, ENGLISH, {"copied": 1, "language": 0}),
    ("repetition", ENGLISH, GERMAN[:25] + "die Stadt " * 8, {"repetition": 1}),
    ("markup", ENGLISH + " See {page} at https://example.org/x", GERMAN, {"markup": 0}),
    ("numbers", DATED, "Sie wurde 1724 gebaut, und 1.530 Leute zahlten dafür.", {"numbers": 0}),
    ("length", ENGLISH, GERMAN[:34] + ".", {"length": 0}),
    ("ending", ENGLISH, GERMAN[:75], {"ending": 0}),
    ("language", ENGLISH, SPANISH, {"language": 0}),
]


@pytest.mark.parametrize(("gate", "source", "target", "off"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_each_gate_finds_its_fault_and_can_be_switched_off(gate, source, target, off):
    assert verdict(source, target) == f"gate: {gate}"
    assert verdict(source, target, **off) is None


@pytest.mark.parametrize(
    ("source", "target", "is_cut"),
    [
        ("He said: “Go home.”", "彼は言った：「帰れ。」", False),
        ("Is it (really)?", "هل هو حقا؟", False),
        ("Click the button", "Klicken Sie", False),  # a source without a mark demands none
        (ENGLISH.rstrip("."), GERMAN[:75], False),
        (ENGLISH, GERMAN[:75] + "…»", False),
        (ENGLISH, GERMAN[:75] + ",", True),
    ],
)
def test_a_translation_is_cut_off_where_it_is_short_and_lacks_the_mark_at_the_end(source, target, is_cut):
    gates = OFF.model_copy(update={"ending": 1.5})
    assert judge(source, target, gates, Expected.between("en", "de")) == ("gate: ending" if is_cut else None)


def test_in_scripts_without_marks_nothing_is_cut_off():
    long, short = "This is the end of a long story that I told you. " * 4, "นี่คือจุดจบของเรื่องยาว" * 4
    assert judge(long, short, OFF.model_copy(update={"ending": 0.1}), Expected.between("en", "th")) == "gate: ending"
    settings = {**dict(OFF), "ending": 0.1}
    assert verdict(long, short, ("en", "th"), **settings) is None


def test_a_good_translation_passes_all():
    assert verdict(ENGLISH, GERMAN) is None
    assert verdict(DATED, "Sie wurde 1742 gebaut, und 1.350 Leute zahlten dafür.") is None
    assert verdict(ENGLISH, "这座跨河大桥由镇上的石匠建造，从那时起一直有马车经过它前往市场。", ("en", "zh")) is None


@given(st.text(), st.text())
def test_any_two_texts_get_a_verdict_and_with_all_off_none(source, target):
    expected = Expected.between("en", "zh")
    assert judge(source, target, Gates(), expected) in {None, *(f"gate: {fault[0]}" for fault in FAULTS)}
    assert judge(source, target, OFF, expected) is None


@given(st.text(alphabet="ab ", max_size=60), st.text(alphabet="ab ", max_size=60))
def test_copied_share_is_that_of_a_naive_count(source, target):
    starts = range(len(source) - 7)
    found = sum(1 for i in starts if source[i : i + 8] in target)
    expected = found / len(starts) if len(source) >= 20 else 0
    assert measure_copied(source, target) == pytest.approx(expected)


@given(st.text(alphabet="ab", max_size=40))
def test_repeated_share_is_that_of_a_naive_count(text):
    windows = [text[i : i + 10] for i in range(len(text) - 9)]
    repeated = [window for window in windows if windows.count(window) >= 3]
    assert measure_repetition(text) == pytest.approx(len(repeated) / max(1, len(windows)))


def test_loops_of_any_length_are_repetition_and_prose_is_not():
    for loop in ("ha", "no, no, ", "the old market of the town ", GERMAN):
        assert measure_repetition(ENGLISH + loop * (400 // len(loop))) > 0.5
    assert measure_repetition(ENGLISH + GERMAN + SPANISH) == 0
    assert verdict("la " * 40, "la " * 40 + "la", copied=1, language=0) is None  # the source is as repetitive


@given(
    st.integers(10, 10**9), st.sampled_from(["en", "de", "fr", "es", "ru", "hi", "ar_EG@numbers=arab", "fa", "de_CH"])
)
def test_a_number_is_found_as_babel_writes_it_in_any_language(number, locale):
    name, _, system = locale.partition("@numbers=")
    written = format_decimal(number, locale=name, numbering_system=system or "default")
    assert find_numbers(f"x {written} y") == find_numbers(f"a {number}.") == {str(number).rstrip("0")}


def write_chinese(number: int) -> str:
    """A numeral from 1 to 9,999."""
    out, digits = "", [int(d) for d in f"{number:04}"]
    for place, digit in enumerate(digits):
        if digit:
            out += (
                ("零" if out and digits[place - 1] == 0 else "")
                + "零一二三四五六七八九"[digit]
                + "千百十 "[place].strip()
            )
    return out


@given(st.integers(10, 9_999))
def test_chinese_numerals_are_numbers(number):
    significant = str(number).rstrip("0")
    assert find_all_numbers(f"共{write_chinese(number)}人") == {significant}
    assert find_all_numbers(f"共{write_chinese(number)}万人") == {significant}
    assert find_all_numbers("".join("〇一二三四五六七八九"[int(d)] for d in f"{number}年"[:-1])) == {significant}


def test_numbers_written_in_other_ways_are_the_same():
    assert find_all_numbers("siglo XIX, chapitre XLIV") == {"19", "44"}
    assert measure_kept_numbers("10 million of 1.5 billion in the 1960s", "15亿中的1000万，六十年代") == 1
    assert measure_kept_numbers("in 1745 and 1912", "۱۷۴۵ و ۱۹۱۲") == 1
    assert measure_kept_numbers("in 1745 and 1912", "1745, 1921") == 0.5
    assert measure_kept_numbers("20世纪60年代的12人和25人", "the 12 and 25 people in the 1960s") == 1
    assert measure_kept_numbers("on 2001-12-28, at 5.5 %", "am 28.12.2001, zu 5,5 %") == 1
    assert measure_kept_numbers("the 12 of them", "die zwölf") == 1  # one number may be a word


def test_markup_must_arrive():
    source = 'Press <b class="x">{key}</b> or see https://example.org/a?b=1, %s and %(name)s.'
    assert measure_kept_markup(source, "<b>{key}</b>请见https://example.org/a?b=1，%s、%(name)s。") == 1
    assert measure_kept_markup(source, "请见 https://example.org/a?b=1。") == pytest.approx(1 / 6)
    assert measure_kept_markup("100% safe, 3 < 4", "sicher") == 1


def test_lengths_are_compared_by_way_of_english_and_without_shared_words():
    there, back = Expected.between("de", "zh"), Expected.between("zh", "de")
    assert there.mean == pytest.approx(-back.mean)
    assert there.mean == pytest.approx(Expected.between("en", "zh").mean - Expected.between("en", "de").mean)
    assert measure_own("Use React now", "用React吧") == (8, 2)
    assert abs(Expected.between("en", "zh").deviation("useState " * 30, "useState " * 30)) < 4
    assert Expected.between("en", "de").deviation(ENGLISH, GERMAN * 4) > 4
    assert Expected.between("en", "de").deviation(ENGLISH, GERMAN[:20]) < -4
    unknown, known = Expected.between("en", "sw"), Expected.between("en", "de")
    assert unknown.spread > known.spread
    assert Expected.between("en", "zh-Hant") == Expected.between("en", "zh")


def test_lengths_are_learnt_from_pairs():
    pairs = [("a" * n, "b" * (2 * n)) for n in range(40, 140)]
    assert learn(pairs) == (pytest.approx(0.6931, abs=1e-4), pytest.approx(0, abs=1e-9))


def test_names_in_latin_letters_are_no_fault_of_a_russian_sentence():
    assert leave_out_shared("Who wrote Liber servitoris?", "Кто написал Liber servitoris?") == "Кто написал  ?"
    assert verdict("Who wrote Liber servitoris?", "Кто написал Liber servitoris?", ("en", "ru")) is None
    assert verdict("Who wrote Liber servitoris?", "Qui a écrit le Liber servitoris ?", ("en", "ru")) == "gate: language"


def test_latin_names_are_no_fault_of_other_scripts_whatever_the_source():
    assert leave_out_latin("Internet2 คืออะไร") == "2 คืออะไร"
    assert leave_out_latin("What is the Internet, please? คือ") == "What is the Internet, please? คือ"
    assert verdict("इंटरनेट 2 क्या है और किसने बनाया?", "Internet2 คืออะไร", ("hi", "th")) is None
    assert (
        verdict("यह पुल शहर के राजमिस्त्रियों ने बनाया", "The masons of the town built it", ("hi", "th")) == "gate: language"
    )


def test_languages_are_those_of_lingua():
    assert {language.iso_code_639_1.name.lower() for language in Language.all()} == LINGUA
    spelled = {find_lingua_code(languages.normalise(code)) for code in LINGUA}
    assert spelled == LINGUA


def test_an_unknown_language_is_an_error_before_anything_runs():
    with pytest.raises(RecipeError, match=r"gates\.language = 0\.1: lingua does not know Burmese \('my'\)"):
        GateConfig(source_lang="en", target_lang="my")
    with pytest.raises(RecipeError, match="Serbian"):
        GateConfig(source_lang="sr-Latn", target_lang="en")  # lingua has it in Cyrillic letters
    assert GateConfig(source_lang="en", target_lang="my", gates=Gates(language=0))
    with pytest.raises(ValidationError, match="against\n.*lingua knows no xx"):
        Gates(against=("de", "xx"))


def test_without_lingua_a_plan_with_a_language_gate_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(RecipeError, match=r"\[gates\] checks languages with lingua: pip install 'babelray\[gates\]'"):
        GateConfig(source_lang="en", target_lang="de")
    assert GateConfig(source_lang="en", target_lang="de", gates=Gates(language=0))
    with pytest.raises(RecipeError, match=r"\[synthesis\] checks languages with lingua: .*on every node"):
        check_detectable("en")


def test_lingua_is_imported_by_the_actor_alone():
    code = "import pipelines.gates as g, sys; g.GateConfig(source_lang='en', target_lang='zh'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"lingua", "ray", "torch"} & set(done.stdout.split())


def test_thresholds_are_part_of_the_fingerprint():
    config = GateConfig(source_lang="en", target_lang="zh")
    assert fingerprint(config) == fingerprint(config.model_copy(update={"gates": Gates(length=4.0)}))
    assert fingerprint(config) != fingerprint(config.model_copy(update={"gates": Gates(length=5.0)}))
