"""Numbers of a text, in a form that most ways of writing them share.

A number is reduced to its significant digits: digits of any script become ASCII, separators go, and so do zeros at
either end. ``1,500``, ``1 500``, ``۱۵۰۰``, ``1.5 million``, ``150万`` and ``一千五百`` all give ``15``. Two numbers
that differ by a power of ten are the same here: units differ between languages ("10 million", "1000万"), and a
translator that loses a number rarely keeps all its digits.
"""

import re
from collections.abc import Iterable

_NUMBER = re.compile(
    r"""
    \d++
    (?: [,٬،'’]\d{2,3}(?!\d) | [.\x20\u00a0\u202f]\d{3}(?!\d) )*+  # groups: 1,500; 15,00,000; 1 500
    (?: [.,٫]\d++ )?+                                                # a decimal part
    """,
    re.VERBOSE,
)
_DATE = re.compile(r"(\d{1,4})[./-](\d{1,2})[./-](\d{1,4})")  # three numbers, in any order
_PERIOD = re.compile(r"\d{3}0s|\d+ ?世纪|\d0 ?年代")  # "the 1960s" is "década de los 60", or words
_CHINESE = re.compile("[〇零一二三四五六七八九十百千万亿萬億两兩]+")
_ROMAN = re.compile(r"\b[IVXLC]+\b")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_CHINESE_DIGITS = {c: n for n, letters in enumerate(("〇零", "一", "二两兩", "三", *"四五六七八九")) for c in letters}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_CHINESE_GROUPS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}


def find_numbers(text: str) -> set[str]:
    """The significant digits of the numbers that a translation should have: those from 10 on, written in digits.
    Smaller ones, decades and centuries are left out: languages differ in which of them are written as words."""
    return _reduce(_find_written(_PERIOD.sub(" ", text)))


def find_all_numbers(text: str) -> set[str]:
    """The significant digits of all numbers from 10 on, also of those in Chinese and Roman numerals (``siglo XIX``)."""
    numerals = [str(_read_chinese(numeral)) for numeral in _CHINESE.findall(text)]
    numerals += [str(_read_roman(numeral)) for numeral in _ROMAN.findall(text)]
    return _reduce(_find_written(text) + numerals)


def _find_written(text: str) -> list[str]:
    return _NUMBER.findall(_DATE.sub(r"\1 - \2 - \3", text))


def _reduce(numbers: Iterable[str]) -> set[str]:
    found = ("".join(str(int(c)) for c in number if c.isdecimal()).lstrip("0") for number in numbers)
    return {digits.rstrip("0") for digits in found if len(digits) > 1}


def _read_chinese(numeral: str) -> int:
    """``三百五十`` is 350; ``二〇一五``, which has no unit, is 2015."""
    if not set(numeral) & (_CHINESE_UNITS.keys() | _CHINESE_GROUPS.keys()):
        return int("".join(str(_CHINESE_DIGITS[c]) for c in numeral))
    total = section = 0
    digit: int | None = None
    for c in numeral:
        if c in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[c]
        elif c in _CHINESE_UNITS:
            section, digit = section + (1 if digit is None else digit) * _CHINESE_UNITS[c], None
        else:
            total, section, digit = (total + section + (digit or 0)) * _CHINESE_GROUPS[c], 0, None
    return total + section + (digit or 0)


def _read_roman(numeral: str) -> int:
    """``XIX`` is 19: a smaller value before a larger one is taken away."""
    values = [_ROMAN_VALUES[c] for c in numeral]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
