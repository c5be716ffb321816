"""Values as TOML: what a recipe's file and ``--set`` read."""

import json
from typing import Any


def format_value(value: Any) -> str:
    """A TOML value: JSON's strings, numbers and lists are TOML, its objects become inline tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_format_key(key)} = {format_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(format_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _format_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else json.dumps(key, ensure_ascii=False)
