"""Cutting long texts: nothing is lost, every piece fits, and cuts are where a reader would make them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.translators.pieces import pieces, sentences

SCRIPTS = [
    "One. Two! Three? ",
    "第一句。第二句！",
    "पहला। दूसरा। ",
    "جمله اول؟ دوم. ",
    "ภาษาไทยไม่มีเว้นวรรค",
    "e\u0301a\u0300",
    "\n",
]


@given(st.lists(st.sampled_from(SCRIPTS) | st.text(max_size=8), max_size=12).map("".join), st.integers(1, 20))
def test_pieces_lose_nothing(text, limit):
    assert "".join(pieces(text, limit, len)) == text


@given(st.lists(st.sampled_from(SCRIPTS[:4]), max_size=12).map("".join), st.integers(3, 20))
def test_pieces_fit_the_limit(text, limit):
    assert max(map(len, pieces(text, limit, len))) <= limit


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("One two. Three four. Five.", 16, ["One two. ", "Three four. ", "Five."]),
        ('He said "no." Then he left.', 15, ['He said "no." ', "Then he left."]),
        ("第一句话。第二句话！第三句。", 9, ["第一句话。", "第二句话！第三句。"]),
        ("alpha beta gamma delta", 12, ["alpha beta ", "gamma delta"]),
        ("ภาษาไทย", 4, ["ภาษา", "ไทย"]),
        ("costs 3.14 euros", 10, ["costs ", "3.14 euros"]),
    ],
)
def test_pieces_are_cut_at_sentences_then_spaces_then_characters(text, limit, expected):
    assert pieces(text, limit, len) == expected


@given(st.lists(st.sampled_from(SCRIPTS) | st.text(max_size=8), max_size=12).map("".join))
def test_sentences_lose_nothing(text):
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('He said "no." Then he left. ', ['He said "no." ', "Then he left. "]),
        ("第一句话。第二句话！第三句", ["第一句话。", "第二句话！", "第三句"]),
        ("costs 3.14 euros", ["costs 3.14 euros"]),
        ("", [""]),
    ],
)
def test_sentences_end_where_a_reader_says(text, expected):
    assert sentences(text) == expected
