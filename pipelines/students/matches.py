"""Which token of a passage each token of a query matched, and where both stand in their texts.

MaxSim adds up, over the query's vectors, the best dot product with a vector of the passage. So each vector of the query
has a partner, and the scores of the pairs add up to that of the passage. Vectors are assigned to places in a text by
tokenising it once more with offsets; tokens that the encoder adds ([CLS], markers, masks that expand a query) stand
nowhere. Cost: that of encoding the query and the passages.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import numpy as np
import torch

from pipelines.batching import by_length
from pipelines.precision import autocast
from pipelines.students.base import Task
from pipelines.students.encoder import TextEncoder
from pipelines.students.lexical.words import find_spans, split_words
from pipelines.students.tokens import Row, Tokens, make_writable


class Token(NamedTuple):
    """A token: its text, and the characters [start, end) where it stands; both -1 for one of the encoder's own."""

    text: str
    start: int
    end: int


class Pair(NamedTuple):
    """A token of a query, its partner in a text, and the dot product of their vectors."""

    query: Token
    text: Token
    score: float


def count_tokens(encoder: TextEncoder, texts: Sequence[str], task: Task) -> list[int]:
    """The tokens of each text, also of what the encoder does not read, its own tokens among them."""
    prompt = Tokens(encoder.model, task).prompt
    tokenizer: Any = encoder.model.tokenizer
    found = tokenizer(
        [prompt + make_writable(text) for text in texts], return_offsets_mapping=True, truncation=False, verbose=False
    )
    return [len(offsets) for offsets in found["offset_mapping"]]


def match(encoder: TextEncoder, query: str, texts: Sequence[str], passages: tuple[int, int]) -> list[list[Pair]]:
    """Match the tokens of a query with those of each text, in the best of its windows (``Encoder.windows``).

    ``passages`` are the length and the stride of the windows. Returns a pair for each vector of the query, in order; no
    pair where the query or the text has no vector. Raises ValueError for an encoder with one vector per text.
    """
    if encoder.similarity != "maxsim":
        raise ValueError("expected an encoder with a vector for each token, got one with a vector for each text")
    windows = encoder.windows(texts, *passages)
    asked = _locate(encoder, [query], "query")[0]
    read = iter(_locate(encoder, [window for of_text in windows for window in of_text], "document"))
    found = []
    for text, of_text in zip(texts, windows, strict=True):
        candidates = [(window, *next(read)) for window in of_text]
        found.append(_match_best(asked, text, candidates))
    return found


Located = tuple[np.ndarray, list[Token]]  # vectors [T, D] and their tokens


def _match_best(asked: Located, text: str, windows: Sequence[tuple[str, np.ndarray, list[Token]]]) -> list[Pair]:
    """The pairs of the window with the highest score. Places are those in ``text``."""
    query_QD, query_tokens = asked
    best: list[Pair] = []
    start = -1
    for window, vectors_TD, tokens in windows:
        start = max(text.find(window, start + 1), 0)
        if not len(query_QD) or not len(vectors_TD):
            continue
        similar_QT = query_QD @ vectors_TD.T
        partners = similar_QT.argmax(axis=1)
        pairs = [
            Pair(query_token, _move(tokens[t], start), float(similar_QT[q, t]))
            for q, (query_token, t) in enumerate(zip(query_tokens, partners, strict=True))
        ]
        if not best or sum(pair.score for pair in pairs) > sum(pair.score for pair in best):
            best = pairs
    return best


def _move(token: Token, by: int) -> Token:
    return token if token.start < 0 else Token(token.text, token.start + by, token.end + by)


def _locate(encoder: TextEncoder, texts: Sequence[str], task: Task) -> list[Located]:
    """The vectors of each text that count, and the token of each."""
    rows = encoder.rows(texts, task)
    tokens = Tokens(encoder.model, task)
    located: list[Located] = [(np.empty((0, encoder.dim), np.float32), [])] * len(rows)
    with torch.inference_mode(), autocast(encoder.device.type, encoder.precision):
        for batch in by_length([len(row["input_ids"]) for row in rows], encoder.batch_tokens):
            vectors_BTD, mask_BT = encoder.embed([rows[i] for i in batch], task)
            for i, vectors_TD, mask_T in zip(batch, vectors_BTD.float().cpu().numpy(), mask_BT.cpu(), strict=True):
                kept = np.flatnonzero(mask_T.numpy())
                places = _find_places(tokens, texts[i], rows[i])
                located[i] = vectors_TD[kept], [places[at] for at in kept]
    return located


def _find_places(tokens: Tokens, text: str, row: Row) -> list[Token]:
    """The token at each position of a row."""
    tokenizer: Any = tokens.model.tokenizer
    ids: list[int] = row["input_ids"].tolist()
    if not hasattr(tokenizer, "backend_tokenizer"):
        return _find_words(text, tokens.task, len(ids))
    found = tokenizer(
        [tokens.prompt + make_writable(text)],
        return_offsets_mapping=True,
        truncation=True,
        max_length=tokens.longest,
        verbose=False,
    )
    begin, read = len(tokens.prompt), found["input_ids"][0]
    places = [Token(name, -1, -1) for name in tokenizer.convert_ids_to_tokens(ids)]
    # a row may hold tokens that the tokenizer alone does not give: a marker, masks behind a query
    for block in SequenceMatcher(None, ids, read, autojunk=False).get_matching_blocks():
        for at in range(block.size):
            first, last = (place - begin for place in found["offset_mapping"][0][block.b + at])
            if text[max(first, 0) : max(last, 0)].strip():
                places[block.a + at] = _strip(text, max(first, 0), last)
    return places


def _strip(text: str, first: int, last: int) -> Token:
    """The token at [first, last), without the blanks that some tokenizers put before a word."""
    piece = text[first:last]
    first += len(piece) - len(piece.lstrip())
    return Token(piece.strip(), first, first + len(piece.strip()))


def _find_words(text: str, task: Task, length: int) -> list[Token]:
    """The words of a lexical student's row: of a document each word once, where it stands first."""
    words = split_words(text)
    words = (words if task == "query" else list(dict.fromkeys(words)))[:length]
    spans = [(first, last) for first, last in find_spans(text)]
    used: dict[str, list[tuple[int, int]]] = {}
    for first, last in reversed(spans):
        for word in split_words(text[first:last])[:1]:
            used.setdefault(word, []).append((first, last))
    places = []
    for word in words:
        left = used.get(word)
        first, last = (left.pop() if len(left) > 1 else left[0]) if left else (-1, -1)
        places.append(Token(text[first:last] if left else word, first, last))
    return places
