"""Analysers: what counts as a term in each language."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tokenize import load_analyser

CASES = [
    ("en", "The U.S. has 3 dogs; don't_stop naïve Café ５０", "the u s has 3 dogs don t stop naïve café 50"),
    ("de", "Straße, Übermut – 7 Äpfel!", "straße übermut 7 äpfel"),
    ("fr", "L'été à Évry", "l été à évry"),
    ("ru", "Москва – столица России", "москва столица россии"),
    ("vi", "Hà Nội là thủ đô", "hà nội là thủ đô"),
    ("hi", "हिन्दी भाषा में १२ किताबें", "हिन्दी भाषा में 12 किताबें"),
    ("fa", "می‌خواهم كتاب‌های علي ۱۲۳", "می خواهم کتاب های علی 123"),
    ("ar", "مُحَمَّد في المدرســة ٣", "محمد فی المدرسه 3"),
    ("zh", "我来到北京，3次 iPhone", "我 来到 北京 3 次 iphone"),
    ("zh-Hant", "東京大學", "東京 京大 大學"),
    ("ja", "東京タワーは3つ", "東京 京タ タワ ワー ーは 3 つ"),
    ("ko", "서울에 간다", "서울 울에 간다"),
    ("th", "ฉันรักเมืองไทย 2 ABC", "ฉัน รัก เมือง ไทย 2 abc"),
    ("km", "ភាសា", "ភាសា"),
    ("lo", "ລາວ", "ລາ າວ"),
    ("de", "in 東京 und パリ", "in 東京 und パリ"),
]


@pytest.mark.parametrize(("lang", "text", "terms"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_terms(lang: str, text: str, terms: str) -> None:
    assert load_analyser(lang)(text) == unicodedata.normalize("NFKC", terms).split()


def test_chinese_words_hold_the_words_inside_them() -> None:
    assert {"清华", "大学", "清华大学"} <= set(load_analyser("zh")("他来到北京清华大学"))


@pytest.mark.parametrize("lang", ["en", "fa", "ja", "hi", "zh", "th", "xx"])
@given(text=st.text(max_size=60))
def test_any_text(lang: str, text: str) -> None:
    """Terms are stable, lower case, and hold no space; writing the text in capitals or composed changes nothing."""
    terms = load_analyser(lang)(text)
    assert terms == load_analyser(lang)(text)
    assert all(term and not any(c.isspace() for c in term) for term in terms)
    assert terms == load_analyser(lang)(unicodedata.normalize("NFC", text))


@given(digits=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_digits_of_every_script_are_the_same_number(digits: list[int]) -> None:
    for zero in ("0", "٠", "۰", "०", "๐", "０"):
        assert load_analyser("en")("".join(chr(ord(zero) + d) for d in digits)) == ["".join(map(str, digits))]


def test_chinese_is_segmented_silently_and_leaves_no_file(tmp_path: Path) -> None:
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from pipelines.tokenize import load_analyser\n"
        "assert load_analyser('zh')('中国') == ['中国'] and load_analyser('th')('กิน') == ['กิน']"
    )
    env = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_segmenters_load_only_where_they_are_needed() -> None:
    code = (
        "import sys; from pipelines.tokenize import load_analyser; load_analyser('ja')('東京')\n"
        "print({'jieba', 'pythainlp'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
