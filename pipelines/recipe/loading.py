"""Loading recipes: from a file, with overrides, or as a variant that another recipe names.

A recipe is a name in ``pipelines/recipes/`` or a path. It may say ``extends = "other"`` and hold only what differs.
``--set section.key=value`` reaches every key; the value is TOML, and a bare word is a string. Setting a ``kind`` to
another one starts that component afresh, since the keys of the old kind do not fit the new one.

Loading a recipe imports neither torch, transformers nor ray.
"""

import difflib
import itertools
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.component import Location
from cluster.errors import RecipeError
from pipelines.recipe.explain import explain
from pipelines.recipe.schema import Recipe
from pipelines.recipe.tables import Mix, MixMember

RECIPES = Path(__file__).parents[1] / "recipes"
DATA = "{data}"
OF_MEMBERS = ("mine", "select", "synthesis")  # tables that a recipe with [mix] does not read itself


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load(name: str, overrides: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe by name or path and apply ``key=value`` overrides in their order, then ``values`` of keys.

    Raises:
        RecipeError: no such recipe, an unknown key, a value that does not fit; the message names the key.
    """
    tree = _read(name)
    for key, value in itertools.chain(map(_parse_override, overrides), (values or {}).items()):
        _assign(tree, key, value)
        if "mix" in tree and key.partition(".")[0] in OF_MEMBERS:
            raise RecipeError(
                f"{key}: recipe {name} trains on the data of its members, each of which has its own. Set "
                f'mix.of.NAME.over={{"{key}"=[…]}}, where NAME is one of {", ".join(tree["mix"].get("of", {}))}'
            )
    return _validate(name, tree)


def variant(name: str, like: Recipe, values: Mapping[str, Any] | None = None) -> Recipe:
    """Load the recipe that ``like`` names, with values for some of its keys.

    It stands below the same root, and reads a source of the same kind from the same place: where data stand is no part
    of an experiment, so a recipe that names others is moved with them.

    Raises:
        RecipeError: as ``load``.
    """
    tree = _read(name)
    tree["root"] = like.root
    if like.data is not None:
        tree["data"] = str(like.data)
    source = tree.setdefault("source", {})
    if source.get("kind", like.source.kind) == like.source.kind:
        for key, value in like.source:
            if isinstance(value, Location):
                source.setdefault(key, str(value))
    for key, value in (values or {}).items():
        _assign(tree, key, value)
    return _validate(name, tree)


def find_members(mix: Mix, like: Recipe) -> dict[str, tuple[Recipe, MixMember]]:
    """The recipes of a mixture with what the mixture says of them, by name: one for each element of a member's product.

    Raises:
        RecipeError: a member does not load, or two have the same name; the message names the key.
    """
    members: dict[str, tuple[Recipe, MixMember]] = {}
    for name, member in mix.of.items():
        for values in _products(member.over):
            tied = {key: values[of] for key, of in member.tied.items() if of in values}
            if unknown := sorted(set(member.tied.values()) - set(values)):
                raise RecipeError(f"mix.of.{name}.tied names {unknown[0]}, which is no key of mix.of.{name}.over")
            try:
                recipe = variant(member.recipe, like, values | tied)
            except RecipeError as error:
                where = "".join(f", {key} = {value!r}" for key, value in values.items())
                raise RecipeError(f"mix.of.{name}.recipe = {member.recipe!r}{where}: {error}") from error
            label = "-".join([name, *map(_label, values.values())])
            if label in members:
                raise RecipeError(f"mix.of.{name}: two members are named {label!r}; values differ in their last part")
            members[label] = (recipe, member)
    return members


def _products(over: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*over.values()):
        yield dict(zip(over, values, strict=True))


def _label(value: Any) -> str:
    """A value as part of a member's name: the last part of a path."""
    return str(value).rstrip("/").rpartition("/")[2]


def _fill_in(value: Any, data: str) -> Any:
    """A value of a recipe with the directory of its data in the place of {data}."""
    if isinstance(value, Mapping):
        return {key: _fill_in(of_key, data) for key, of_key in value.items()}
    if isinstance(value, list | tuple):
        return [_fill_in(item, data) for item in value]
    return value.replace(DATA, data) if isinstance(value, str) else value


def _validate(name: str, tree: Mapping[str, Any]) -> Recipe:
    if isinstance(data := tree.get("data"), str):
        tree = _fill_in(tree, data)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(f"recipe {name}", tree, error, Recipe)) from error


def find_file(name: str, directory: Path, what: str) -> Path:
    """The TOML file of a name in ``directory``, or of a path. Raises RecipeError, with the names that there are."""
    known = sorted(path.stem for path in directory.glob("*.toml"))
    path = directory / f"{name}.toml" if name in known else Path(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RecipeError(f"no {what} {name!r}: {hint}expected one of {', '.join(known)} or the path of a TOML file")
    return path


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises RecipeError where it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    path = find_file(name, RECIPES, "recipe")
    tree = read_toml(path)
    tree.setdefault("name", path.stem)
    score = tree.get("score")
    if isinstance(score, dict) and "scorer" in score:
        score.setdefault("kind", "teacher")  # said, so that a score file starts this table afresh, and the other way
    _find_beside(tree, path.parent)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if parent not in names():
        parent = str(path.parent / parent)  # beside the file that extends it
    if parent in above:
        raise RecipeError(f"recipes extend each other in a circle: {' → '.join((*above, parent))}")
    return _merge(_read(parent, (*above, parent)), tree)


def _find_beside(table: dict[str, Any], directory: Path) -> None:
    """Make the paths of recipes that this one names, in whatever table, absolute: they stand beside it."""
    for key, value in table.items():
        if key in ("after", "recipe") and isinstance(value, str) and value.endswith(".toml"):
            table[key] = str((directory / value).absolute())
        for below in value if isinstance(value, list) else [value]:
            if isinstance(below, dict):
                _find_beside(below, directory)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, table by table; a table of another kind, or an empty one, replaces the one below."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value:
            same_kind = value.get("kind", old.get("kind")) == old.get("kind")
            value = _merge(old, value) if same_kind else value
        merged[key] = value
    return merged


def _parse_override(override: str) -> tuple[str, Any]:
    """Key and value of ``key=value``."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"expected --set section.key=value, got {override!r}")
    try:
        return key.strip(), tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text  # a bare word: --set source.path=data/xquad


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, last = _split(key)
    table = tree
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {key}: {name} is a value, not a table with keys below it")
    if last == "kind" and table.get("kind") not in (None, value):
        table.clear()
    table[last] = deepcopy(value)  # a later key may reach into it, and the caller's stays as it is


def _split(key: str) -> list[str]:
    """The names of a key. Below ``over`` and ``tied`` of a mixture's member stands a whole key of that member's recipe:
    ``mix.of.NAME.over.languages.original`` ends in ``languages.original``."""
    parts = key.split(".")
    if parts[:2] == ["mix", "of"] and parts[3:4] in (["over"], ["tied"]):
        return [*parts[:4], *filter(None, [".".join(parts[4:])])]
    return parts
