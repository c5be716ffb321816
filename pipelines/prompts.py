"""Prompts: texts with placeholders, ``{text}``, that a language model continues.

A component's ``prompt`` is the name of a prompt that comes with its package, the path of a file, or the text itself.
It is read when the recipe is, and the component holds the text: so the text is in the fingerprint and in the manifest,
and workers need no file.
"""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
NAME_BYTES, PATH_BYTES = 250, 4000  # a little less than a file's name and a path may have: 255 and 4,095


def read_prompt(value: str, package: str, placeholders: Sequence[str]) -> str:
    """The text of a prompt: of ``package``/prompts/``value``.txt, of a file, or ``value`` itself where it is a text.

    Raises:
        ValueError: no such name or file, or the text lacks one of the placeholders or has one that nothing fills.
    """
    is_text = PLACEHOLDER.search(value) or "\n" in value or _is_longer_than_a_path(value)
    text = value if is_text else _read_file(value, package)
    found = set(PLACEHOLDER.findall(text))
    if found != set(placeholders):
        lacks = ", ".join(f"{{{name}}}" for name in placeholders if name not in found)
        unknown = ", ".join(f"{{{name}}}" for name in sorted(found - set(placeholders)))
        raise ValueError(
            f"prompt: expected a text with {', '.join(f'{{{name}}}' for name in placeholders)}"
            + (f"; it lacks {lacks}" if lacks else "")
            + (f"; nothing fills {unknown}" if unknown else "")
            + f". Correct prompt, which is {value[:80]!r}"
        )
    return text


def fill_prompt(prompt: str, **values: str) -> str:
    """The prompt with a value for each placeholder. Braces in a value stay as they are."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], prompt)


def _is_longer_than_a_path(value: str) -> bool:
    longest = max(len(part.encode()) for part in value.split("/"))
    return longest > NAME_BYTES or len(value.encode()) > PATH_BYTES


def _read_file(name: str, package: str) -> str:
    folder = resources.files(package) / "prompts"
    file = folder / f"{name}.txt"
    if "/" not in name and file.is_file():
        return file.read_text("utf-8").strip("\n")
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text("utf-8").strip("\n")
    known = ", ".join(sorted(f.name.removesuffix(".txt") for f in folder.iterdir() if f.name.endswith(".txt")))
    raise ValueError(
        f"prompt: expected a name ({known}), the path of a file, or a text with placeholders, got {name!r}"
    )
