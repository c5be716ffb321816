"""Reads a file that people write, text, Markdown or HTML, as a title and a text."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
FRONT_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
BLANKS_AROUND_LINE_END = re.compile(r"\s*\n\s*")


def read_text(content: str) -> tuple[str, str]:
    """Plain text has no title."""
    return "", content.strip()


def read_markdown(content: str) -> tuple[str, str]:
    """The title is the one of the front matter, or else the first heading, which is cut out of the text."""
    front = FRONT_MATTER.match(content)
    text = content[front.end() :] if front else content
    if front and (title := FRONT_TITLE.search(front[1])):
        return title[1].strip().strip("'\""), text.strip()
    if heading := HEADING.search(text):
        return heading[1], (text[: heading.start()] + text[heading.end() :]).strip()
    return "", text.strip()


def read_html(content: str) -> tuple[str, str]:
    """The title of the head; the text of the body without its scripts and styles, a line for each block."""
    page = _Page()
    page.feed(content)
    page.close()
    return " ".join("".join(page.title).split()), BLANKS_AROUND_LINE_END.sub("\n", "".join(page.text)).strip()


READERS: dict[str, Callable[[str], tuple[str, str]]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
}


class _Page(HTMLParser):
    """Collects the title and the text of a page."""

    HIDDEN = frozenset({"script", "style", "noscript", "template"})
    INLINE = frozenset(
        [
            "a",
            "abbr",
            "b",
            "bdi",
            "bdo",
            "cite",
            "code",
            "em",
            "i",
            "kbd",
            "mark",
            "q",
            "s",
            "small",
            "span",
            "strong",
            "sub",
            "sup",
            "time",
            "u",
            "var",
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.title: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []  # elements that are not text

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "title" or tag in self.HIDDEN:
            self._open.append(tag)
        elif tag not in self.INLINE:
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        elif tag not in self.INLINE:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.text.append(data)
        elif self._open[-1] == "title":
            self.title.append(data)
