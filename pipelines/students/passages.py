"""Passages: a long document cut into windows of tokens, one starting every ``stride`` (180 and 90 in MTD §4).

A text that is its own only passage, as most texts of a passage collection are, is tokenised once. The windows of a
longer one are cut from its text, so that any other tool reads the same passages, and are tokenised again.
"""

from collections.abc import Sequence

from pipelines.students.tokens import Row, Tokens


def cut(tokens: Tokens, texts: Sequence[str], length: int, stride: int) -> list[list[str]]:
    """The passages of each text, as ``pipelines.students.base.Encoder.windows`` describes them.

    Raises:
        ValueError: not 0 < stride <= length.
    """
    return [passages for passages, _ in _cut(tokens, texts, length, stride)]


def passage_rows(tokens: Tokens, texts: Sequence[str], length: int, stride: int) -> list[list[Row]]:
    """The same passages, tokenised."""
    found = _cut(tokens, texts, length, stride)
    others = iter(tokens.rows([passage for passages, row in found if row is None for passage in passages]))
    return [[next(others) for _ in passages] if row is None else [row] for passages, row in found]


def _cut(tokens: Tokens, texts: Sequence[str], length: int, stride: int) -> list[tuple[list[str], Row | None]]:
    """The passages of each text, and its row where it is its own only passage and the row is known."""
    if not 0 < stride <= length:
        raise ValueError(f"expected 0 < stride <= length, got stride {stride} and length {length}")
    length = max(1, min(length, tokens.longest - tokens.own))
    stride = min(stride, length)
    found = []
    for text, (row, spans) in zip(texts, tokens.locate(texts), strict=True):
        starts = range(0, max(1, len(spans) - length + stride), stride)
        if len(starts) == 1:
            found.append(([text], row))
        else:
            ends = [min(start + length, len(spans)) - 1 for start in starts]
            found.append(([text[spans[s][0] : spans[e][1]] for s, e in zip(starts, ends, strict=True)], None))
    return found
