"""Messages for a recipe that does not validate: they name the key of the file, and what it may be."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.component import Component


def explain(what: str, tree: Mapping[str, Any], error: ValidationError, model: type[Component]) -> str:
    """The lines of a RecipeError: each wrong key of ``model`` with what was expected and what came."""
    lines = [f"{what}:"]
    for item in error.errors():
        if item["type"] == "default_factory_not_called":
            continue  # a default that follows from a key which is wrong and told
        key = ".".join(_path(tree, item["loc"]))
        if item["type"] == "extra_forbidden":
            lines.append(f"  unknown key {key}{_suggest(item['loc'], model)}")
        elif item["type"] == "missing":
            lines.append(f"  {key} is missing: add it to the file, or --set {key}=…")
        elif item["type"] == "union_tag_not_found" and item.get("ctx", {}).get("discriminator") == "'kind'":
            lines.append(f"  {key}.kind is missing: other keys need it; add it to the file, or --set {key}.kind=…")
        else:
            got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"  # a rule over several keys
            where = f"{key}: " if key else ""
            lines.append(f"  {where}{item['msg'].removeprefix('Value error, ')}{got}")
    return "\n".join(lines)


def _path(tree: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Where an error stands, as a key of the file: pydantic also names the kind that it took a table for."""
    path = []
    for part in loc:
        if isinstance(tree, dict) and part not in tree and (tree.get("kind") == part or part == 0):
            continue  # the kind, or the number of the only stage
        path.append(str(part))
        tree = tree.get(part) if isinstance(tree, dict) else None
    return path


def _suggest(loc: tuple[int | str, ...], model: type[Component]) -> str:
    known = sorted(_keys(model) - {str(loc[-1])})  # where it is known, it belongs to another table
    close = difflib.get_close_matches(str(loc[-1]), known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _keys(model: type[Component]) -> set[str]:
    """All key names that occur anywhere in the file of a model, for suggestions."""
    schema = TypeAdapter(model).json_schema()
    tables = [schema, *schema.get("$defs", {}).values()]
    return {key for table in tables for key in table.get("properties", {})}
