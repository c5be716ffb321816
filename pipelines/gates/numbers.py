"""Numbers of a text, in a form that most ways of writing them share.

A number is reduced to its significant digits: digits of any script become ASCII, separators go, and so do zeros at
either end. ``1,500``, ``1 500``, ``۱۵۰۰``, ``1.5 million``, ``150万`` and ``一千五百`` all give ``15``. Two numbers that
differ by a power of ten are the same here: units differ between languages ("10 million", "1000万"), and a translator
that loses a number rarely keeps all its digits.
"""

import re

_NUMBER = re.compile(r"\d++(?:[.,٫٬،'’]\d++|[ \u00a0\u202f]\d{3}(?!\d))*+")
_DECADE = re.compile(r"\d{3}0s")  # "the 1960s" is "década de los 60", or words
_CHINESE = re.compile("[〇零一二三四五六七八九十百千万亿萬億两兩]+")
_ROMAN = re.compile(r"\b[IVXLC]+\b")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_CHINESE_DIGITS = {c: n for n, letters in enumerate(("〇零", "一", "二两兩", "三", *"四五六七八九")) for c in letters}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_CHINESE_GROUPS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}


def find_numbers(text: str) -> set[str]:
    """The significant digits of the numbers of two or more digits that a translation should have. Smaller ones and
    decades are left out: languages differ in which of them are written as words."""
    numbers = _NUMBER.findall(_DECADE.sub(" ", text))
    return {_reduce(number) for number in numbers if sum(map(str.isdecimal, number)) > 1} - {""}


def find_all_numbers(text: str) -> set[str]:
    """The significant digits of all numbers, also of those in Chinese and Roman numerals (``siglo XIX``)."""
    values = {_reduce(number) for number in _NUMBER.findall(text)}
    values |= {str(_read_chinese(numeral)).rstrip("0") for numeral in _CHINESE.findall(text)}
    return values | {str(_read_roman(numeral)).rstrip("0") for numeral in _ROMAN.findall(text)}


def _reduce(number: str) -> str:
    return "".join(str(int(c)) for c in number if c.isdecimal()).strip("0")


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
