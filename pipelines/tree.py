"""Trees of components: finding and replacing all that are of one class, at any depth. Paths are keys of the recipe."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from cluster.component import Component

Part = TypeVar("Part", bound=Component)


def walk(value: Any, kind: type[Part]) -> Iterator[tuple[str, Part]]:
    """Every component of a class in a tree, with its path: ``score.scorer``."""
    yield from _walk(value, kind, "")


def replace(value: Any, kind: type[Part], function: Callable[[str, Part], Part]) -> Any:
    """The tree with ``function(path, component)`` in place of each component of a class, inner ones first. What has
    none is kept as it is."""
    return _replace(value, kind, function, "")


def _walk(value: Any, kind: type[Part], path: str) -> Iterator[tuple[str, Part]]:
    if isinstance(value, kind):
        yield path, value
    for name, child in _children(value):
        yield from _walk(child, kind, _extend(path, name, value))


def _replace(value: Any, kind: type[Part], function: Callable[[str, Part], Part], path: str) -> Any:
    changed = {
        name: new
        for name, child in _children(value)
        if (new := _replace(child, kind, function, _extend(path, name, value))) is not child
    }
    if changed and isinstance(value, Component):
        value = value.model_copy(update=changed)
    elif changed and isinstance(value, Mapping):
        value = {**value, **changed}
    elif changed:
        value = type(value)(changed.get(str(i), child) for i, child in enumerate(value))
    return function(path, value) if isinstance(value, kind) else value


def _extend(path: str, name: str, parent: Any) -> str:
    """The path of a child. The only element of a list is named as the list is: a recipe may write it as a table."""
    if isinstance(parent, (list, tuple)) and len(parent) == 1:
        return path
    return f"{path}.{name}" if path else name


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Component):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    return [(str(i), child) for i, child in enumerate(value)] if isinstance(value, (list, tuple)) else []
