"""One rule for what a model reads of a document."""


def join_title(title: str | None, text: str | None) -> str:
    """``title + " " + text`` (MTD §4), without blanks at the ends; what is missing or empty is left out."""
    return f"{title or ''} {text or ''}".strip()
