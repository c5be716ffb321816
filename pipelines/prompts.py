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


def read_prompt(value: str, package: str, placeholders: Sequence[str]) -> str:
    """The text of a prompt: of ``package``/prompts/``value``.txt, of a file, or ``value`` itself where it is a text.

    Raises:
        ValueError: no such name or file, or the text lacks one of the placeholders or has one that nothing fills.
    """
    text = value if PLACEHOLDER.search(value) or "\n" in value else _read_file(value, package)
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
