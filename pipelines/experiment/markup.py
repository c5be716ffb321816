"""HTML elements from plain values: whatever is not made by ``element`` is escaped."""

from collections.abc import Iterable
from html import escape

VOID = {"meta"}


class Html(str):
    """Text that is HTML already."""


def element(name: str, /, *content: str | Iterable[str], **attributes: str) -> Html:
    """Make an element: ``element("td", "a < b", class_="number")``. Strings that are not Html are escaped."""
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{join(*content)}</{name}>")


def join(*content: str | Iterable[str]) -> Html:
    """Put content one after another."""
    return Html("".join(_write(part) if isinstance(part, str) else join(*part) for part in content))


def _write(text: str) -> str:
    return text if isinstance(text, Html) else escape(text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str, kind: str = "") -> Html:
    """A table whose first column has the rows' names; it scrolls sideways where the page is narrow."""
    lines = [
        element("tr", element("th", next(cells), scope="row"), [element("td", cell) for cell in cells])
        for cells in map(iter, rows)
    ]
    return frame_table(element("tr", [element("th", cell, scope="col") for cell in head]), lines, caption, kind)


def frame_table(head: Html, lines: Iterable[Html], caption: str, kind: str = "") -> Html:
    """A table of finished lines in a frame with its caption."""
    made = element("table", element("thead", head), element("tbody", lines), aria_label=caption)
    frame = element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return element("div", element("p", caption, class_="caption"), frame, class_=f"wide {kind}".rstrip())
