"""Predicates: conditions on the metadata of documents, as a tree that is made from JSON or from text and checked once.

    {"field": "year", "op": ">=", "value": 2020}            ==  !=  <  <=  >  >=
    {"field": "section", "op": "in", "value": ["a", "b"]}   one of the values
    {"field": "tags", "op": "exists"}                       the document has the field
    {"and": [P, …]}   {"or": [P, …]}   {"not": P}

A comparison holds for no document that lacks the field, ``!=`` included; ``not`` holds wherever its condition does not,
so ``not year == 2020`` finds documents without a year and ``year != 2020`` does not. A field of several strings is
equal to each of them. Strings are ordered by code point, which is the order of dates written as 2024-05-31.

Evaluating costs a pass over the columns of the fields named, by pyarrow's kernels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import RecipeError
from pipelines.filters.fields import FieldType, FieldTypes, find_type, list_types

COMPARE: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
ORDER = ("<", "<=", ">", ">=")
IN, EXISTS = "in", "exists"
MAX_DEPTH, MAX_CONDITIONS = 20, 1000
Value = str | float | bool


@dataclass(frozen=True)
class Condition:
    """A condition on one field. ``values`` has one value, several for ``in``, none for ``exists``."""

    field: str
    op: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Group:
    """Conditions joined by "and" or "or"; or one, turned by "not"."""

    op: str
    of: tuple["Predicate", ...]


Predicate = Condition | Group
Columns = Mapping[str, pa.Array]


def read_json(form: Any) -> Predicate:
    """The predicate that JSON writes. Raises RecipeError, naming what is wrong, for anything else."""
    made = _read(form, 0)
    if count_conditions(made) > MAX_CONDITIONS:
        raise RecipeError(f"expected a filter of at most {MAX_CONDITIONS} conditions, got {count_conditions(made)}")
    return made


def write_json(predicate: Predicate) -> dict[str, Any]:
    """The JSON of a predicate."""
    if isinstance(predicate, Group):
        parts = [write_json(part) for part in predicate.of]
        return {predicate.op: parts[0] if predicate.op == "not" else parts}
    made: dict[str, Any] = {"field": predicate.field, "op": predicate.op}
    if predicate.op == EXISTS:
        return made
    return made | {"value": list(predicate.values) if predicate.op == IN else predicate.values[0]}


def count_conditions(predicate: Predicate) -> int:
    """How many conditions a predicate has."""
    return 1 if isinstance(predicate, Condition) else sum(map(count_conditions, predicate.of))


def check(predicate: Predicate, types: FieldTypes) -> None:
    """Raise RecipeError where a predicate names a field that there is not, or compares one with another type."""
    if isinstance(predicate, Group):
        for part in predicate.of:
            check(part, types)
        return
    if not types:
        raise RecipeError(
            "the documents of this index have no metadata to filter by: name the fields that are to be kept in "
            'the recipe, as [source] metadata = { year = "number" }, and run it again; ids can be asked for as it is'
        )
    kind = types.get(predicate.field)
    if kind is None:
        raise RecipeError(f"no field {predicate.field!r}: expected one of {list_types(types)}")
    if predicate.op in ORDER and kind not in ("number", "string"):
        raise RecipeError(f"field {predicate.field!r} ({kind}) has no order: expected ==, !=, in or exists")
    of_one: FieldType = "string" if kind == "strings" else kind
    for value in predicate.values:
        if find_type(value) != of_one:
            raise RecipeError(f"field {predicate.field!r}: expected a {of_one} to compare with, got {value!r}")


def find_rows(predicate: Predicate, columns: Columns, count: int) -> np.ndarray:
    """Which of ``count`` rows a checked predicate holds for, given the columns of the fields: bool [count]."""
    if isinstance(predicate, Condition):
        return _find(predicate, columns[predicate.field])
    if predicate.op == "not":
        return ~find_rows(predicate.of[0], columns, count)
    parts = [find_rows(part, columns, count) for part in predicate.of]
    join = np.logical_and if predicate.op == "and" else np.logical_or
    return np.asarray(join.reduce(parts))


def list_fields(predicate: Predicate) -> set[str]:
    """The names of the fields that a predicate reads."""
    if isinstance(predicate, Condition):
        return {predicate.field}
    return set().union(*map(list_fields, predicate.of))


def _find(condition: Condition, column: pa.Array) -> np.ndarray:
    if condition.op == EXISTS:
        return _as_mask(pc.is_valid(column))
    if condition.op == "!=":  # the field is there, and equal to the value it is not
        return _as_mask(pc.is_valid(column)) & ~_find(Condition(condition.field, "==", condition.values), column)
    if pa.types.is_list(column.type):
        holds = np.zeros(len(column), bool)
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        holds[parents[_compare(condition, pc.list_flatten(column))]] = True
        return holds
    return _compare(condition, column)


def _compare(condition: Condition, column: pa.Array) -> np.ndarray:
    if condition.op == IN:
        return _as_mask(pc.is_in(column, value_set=pa.array(condition.values, column.type)))
    return _as_mask(COMPARE[condition.op](column, pa.scalar(condition.values[0], column.type)))


def _as_mask(held: Any) -> np.ndarray:
    """A mask of booleans, false where they are null."""
    return np.asarray(pc.fill_null(held, False).to_numpy(zero_copy_only=False), bool)


def _read(form: Any, depth: int) -> Predicate:
    if depth > MAX_DEPTH:
        raise RecipeError(f"expected a filter of at most {MAX_DEPTH} levels, got more")
    if not isinstance(form, Mapping):
        raise RecipeError(f"expected a condition as a JSON object, got {_show(form)}")
    if "field" in form:
        return _read_condition(form)
    if len(form) != 1 or (op := next(iter(form))) not in ("and", "or", "not"):
        raise RecipeError(
            "expected a condition with the keys field, op and value, or with one of the keys and, or, not; "
            f"got the keys {_show(list(form))}"
        )
    if op == "not":
        return Group(op, (_read(form[op], depth + 1),))
    if not isinstance(form[op], list) or not form[op]:
        raise RecipeError(f"expected a list of one or more conditions in {op!r}, got {_show(form[op])}")
    return Group(op, tuple(_read(part, depth + 1) for part in form[op]))


def _read_condition(form: Mapping[str, Any]) -> Condition:
    field, op = form["field"], form.get("op")
    if not isinstance(field, str):
        raise RecipeError(f"expected the name of a field, got {_show(field)}")
    if not isinstance(op, str) or op not in (*COMPARE, IN, EXISTS):
        raise RecipeError(f"field {field!r}: expected an op of {', '.join((*COMPARE, IN, EXISTS))}, got {_show(op)}")
    wanted = {"field", "op"} if op == EXISTS else {"field", "op", "value"}
    if set(form) != wanted:
        raise RecipeError(f"field {field!r}: expected the keys {', '.join(sorted(wanted))}, got {_show(list(form))}")
    values = form.get("value")
    if op == IN:
        if not isinstance(values, list | tuple) or not values:
            raise RecipeError(f"field {field!r}: expected a list of one or more values, got {_show(values)}")
    else:
        values = () if op == EXISTS else (values,)
    return Condition(field, op, tuple(_read_value(field, value) for value in values))


def _read_value(field: str, value: Any) -> Value:
    """A value as it is compared: numbers as float64."""
    try:
        kind = find_type(value)
        if kind == "number":
            return float(value)
    except OverflowError:
        kind = None
    if kind in ("string", "boolean") and (kind == "boolean" or is_utf8(value)):
        made: Value = value
        return made
    raise RecipeError(
        f"field {field!r}: expected a string, a number, true or false to compare with, got {_show(value)}"
    )


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can write a text: JSON can write half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _show(form: Any) -> str:
    """A part of a request, short enough for a message."""
    if isinstance(form, Mapping):
        return "an object" if form else "an empty object"
    try:
        text = repr(form)
    except RecursionError:
        return "lists within lists"
    return text if len(text) <= 80 else f"{text[:80]}…"
