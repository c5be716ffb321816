"""The short form of predicates, for the command line.

    year >= 2020 and section in ("news", "sport") and not (tags == "draft" or tags exists)

``and`` binds closer than ``or``, ``not`` closer than both. Strings stand in single or double quotes, with the escapes
of JSON; numbers and true or false stand as they are. A field whose name is no word stands in backquotes.
"""

import json
import re
from typing import Any, NamedTuple, NoReturn

from cluster.errors import RecipeError
from pipelines.filters.predicates import COMPARE, EXISTS, IN, Predicate, read_json

TOKEN = re.compile(
    r"""\s*(?:
      (?P<op>==|!=|<=|>=|<|>|=)
    | (?P<mark>[(),])
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | `(?P<quoted>[^`]+)`
    | (?P<word>[^\W\d][\w.-]*)
    )""",
    re.VERBOSE,
)
ESCAPE = re.compile(r'\\.|"')
WORDS = ("and", "or", "not", IN, EXISTS, "true", "false")
MAX_CHARS = 10_000


class Token(NamedTuple):
    """A piece of the text, and where it begins."""

    kind: str
    text: str
    at: int


def parse(text: str) -> Predicate:
    """The predicate that a text writes. Raises RecipeError, naming the place, where it is none."""
    if len(text) > MAX_CHARS:
        raise RecipeError(f"expected a condition of at most {MAX_CHARS:,} characters, got {len(text):,}")
    parser = _Parser(text)
    form = parser.read_or(0)
    if parser.next.kind != "end":
        parser.refuse("and, or, or the end")
    return read_json(form)


def _cut(text: str) -> list[Token]:
    tokens, at, end = list[Token](), 0, len(text.rstrip())
    while at < end:
        match = TOKEN.match(text, at)
        if not match or not match.lastgroup:
            rest = text[at:].lstrip()
            raise RecipeError(
                f"cannot read the condition at character {text.index(rest, at) + 1}, {rest[:20]!r}: expected a field, "
                'an operator, a number, or a string in quotes, as in year >= 2020 and section in ("a", "b")'
            )
        kind, piece = match.lastgroup, match[match.lastgroup]
        if kind == "word" and piece in WORDS:
            kind = piece
        tokens.append(Token("word" if kind == "quoted" else kind, piece, match.start(match.lastgroup)))
        at = match.end()
    return [*tokens, Token("end", "", len(text))]


class _Parser:
    """Reads tokens into the JSON form, from left to right."""

    def __init__(self, text: str):
        self.text, self.tokens, self.at = text, _cut(text), 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self, *kinds: str) -> Token | None:
        """The next token, where it is of one of these kinds or texts."""
        token = self.next
        if token.kind not in kinds and not (token.kind == "mark" and token.text in kinds):
            return None
        self.at += 1
        return token

    def refuse(self, expected: str) -> NoReturn:
        token = self.next
        got = "the end" if token.kind == "end" else f"{token.text!r} at character {token.at + 1}"
        raise RecipeError(f"cannot read the condition {self.text!r}: expected {expected}, got {got}")

    def read_or(self, depth: int) -> dict[str, Any]:
        parts = [self.read_and(depth)]
        while self.take("or"):
            parts.append(self.read_and(depth))
        return parts[0] if len(parts) == 1 else {"or": parts}

    def read_and(self, depth: int) -> dict[str, Any]:
        parts = [self.read_not(depth)]
        while self.take("and"):
            parts.append(self.read_not(depth))
        return parts[0] if len(parts) == 1 else {"and": parts}

    def read_not(self, depth: int) -> dict[str, Any]:
        if depth > 100:
            raise RecipeError("expected a condition of at most 100 levels, got more")
        if self.take("not"):
            return {"not": self.read_not(depth + 1)}
        if self.take("("):
            form = self.read_or(depth + 1)
            if not self.take(")"):
                self.refuse("and, or, or )")
            return form
        return self.read_condition()

    def read_condition(self) -> dict[str, Any]:
        field = self.take("word")
        if field is None:
            self.refuse("a field, not, or (")
        if self.take(EXISTS):
            return {"field": field.text, "op": EXISTS}
        if self.take(IN):
            return {"field": field.text, "op": IN, "value": self.read_values()}
        op = self.take("op")
        if op is None:
            self.refuse(f"one of {', '.join((*COMPARE, IN, EXISTS))} after the field {field.text}")
        return {"field": field.text, "op": "==" if op.text == "=" else op.text, "value": self.read_value()}

    def read_values(self) -> list[Any]:
        if not self.take("("):
            self.refuse("( after in")
        values = [self.read_value()]
        while self.take(","):
            values.append(self.read_value())
        if not self.take(")"):
            self.refuse(", or )")
        return values

    def read_value(self) -> Any:
        token = self.take("string", "number", "true", "false")
        if token is None:
            self.refuse("a number, true, false, or a string in quotes")
        if token.kind == "string":
            return _unquote(token)
        return float(token.text) if token.kind == "number" else token.kind == "true"


def _unquote(token: Token) -> str:
    inside = token.text[1:-1]
    if token.text[0] == "'":
        inside = ESCAPE.sub(lambda match: {"\\'": "'", '"': '\\"'}.get(match[0], match[0]), inside)
    try:
        return str(json.loads(f'"{inside}"', strict=False))
    except ValueError as error:
        raise RecipeError(
            f"cannot read the string {token.text} at character {token.at + 1}: expected the escapes of JSON, such as "
            r"\" \\ \n"
        ) from error
