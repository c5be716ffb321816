"""Predicates: text and JSON to one tree, what each holds for beside plain Python, and how the rest is refused."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import RecipeError
from pipelines.filters.fields import ARROW
from pipelines.filters.predicates import check, find_rows, read_json, write_json
from pipelines.filters.text import parse

TYPES = {"year": "number", "section": "string", "open": "boolean", "tags": "strings"}
ROWS: list[dict[str, Any]] = [
    {"year": 2019.0, "section": "a", "open": True, "tags": ["x", "y"]},
    {"year": 2020.0, "section": "b", "open": False, "tags": []},
    {"year": 2020.5, "section": None, "open": None, "tags": ["y"]},
    {"year": None, "section": "B'\"\\ü", "open": True, "tags": None},
    {"year": -1.0, "section": "", "open": None, "tags": ["x", "x"]},
]
COLUMNS = {name: pa.array([row[name] for row in ROWS], ARROW[kind]) for name, kind in TYPES.items()}


def holds(form: dict[str, Any], row: dict[str, Any]) -> bool:
    """What a predicate's JSON means, in plain Python."""
    if "field" not in form:
        ((op, parts),) = form.items()
        if op == "not":
            return not holds(parts, row)
        return (all if op == "and" else any)(holds(part, row) for part in parts)
    own = row[form["field"]]
    if own is None:
        return False
    if form["op"] == "exists":
        return True
    values = own if isinstance(own, list) else [own]
    value = form["value"]
    if form["op"] == "!=":
        return value not in values
    tests = {
        "==": lambda v: v == value,
        "<": lambda v: v < value,
        "<=": lambda v: v <= value,
        ">": lambda v: v > value,
        ">=": lambda v: v >= value,
        "in": lambda v: v in value,
    }
    return any(tests[form["op"]](v) for v in values)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "year": st.sampled_from([2019, 2020, 2020.5, -1, 0]),
    "section": st.sampled_from(["a", "b", "", "B'\"\\ü", "zz"]),
    "open": st.booleans(),
    "tags": st.sampled_from(["x", "y", "z"]),
}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(sorted(TYPES)))
    ordered = ["<", "<=", ">", ">="] if TYPES[field] in ("number", "string") else []
    op = draw(st.sampled_from(["==", "!=", "in", "exists", *ordered]))
    if op == "exists":
        return {"field": field, "op": op}
    value = draw(st.lists(VALUES[field], min_size=1, max_size=3)) if op == "in" else draw(VALUES[field])
    return {"field": field, "op": op, "value": value}


forms = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=8,
)


def write_text(form: dict[str, Any]) -> str:
    if "field" not in form:
        ((op, parts),) = form.items()
        return f"not ({write_text(parts)})" if op == "not" else "(" + f" {op} ".join(map(write_text, parts)) + ")"

    def quote(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    if form["op"] == "exists":
        return f"{form['field']} exists"
    value = form["value"]
    shown = "(" + ", ".join(map(quote, value)) + ")" if form["op"] == "in" else quote(value)
    return f"{form['field']} {form['op']} {shown}"


@settings(max_examples=200, deadline=None)
@given(form=forms)
def test_a_predicate_holds_for_the_rows_that_it_says(form: dict[str, Any]) -> None:
    predicate = read_json(form)
    check(predicate, TYPES)
    assert find_rows(predicate, COLUMNS, len(ROWS)).tolist() == [holds(form, row) for row in ROWS]
    assert read_json(write_json(predicate)) == predicate
    text = find_rows(parse(write_text(form)), COLUMNS, len(ROWS))
    assert text.tolist() == [holds(form, row) for row in ROWS]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a = 1", {"field": "a", "op": "==", "value": 1}),
        ("a in ('x')and b exists", {"and": [
            {"field": "a", "op": "in", "value": ["x"]}, {"field": "b", "op": "exists"},
        ]}),
        ("a<1 or b>=-2.5e3 and not c == true", {"or": [
            {"field": "a", "op": "<", "value": 1},
            {"and": [
                {"field": "b", "op": ">=", "value": -2500.0}, {"not": {"field": "c", "op": "==", "value": True}},
            ]},
        ]}),
        ("`odd name!` != 'it\\'s \"so\"\\n'", {"field": "odd name!", "op": "!=", "value": "it's \"so\"\n"}),
        ('straße.nr == "\\u00e9"', {"field": "straße.nr", "op": "==", "value": "é"}),
    ],
)  # fmt: skip
def test_text_reads_as_json_does(text: str, form: dict[str, Any]) -> None:
    assert parse(text) == read_json(form)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a field, not, or \\(, got the end"),
        ("year", "expected one of ==, .*exists after the field year, got the end"),
        ("year >= ", "expected a number, true, false, or a string in quotes, got the end"),
        ("year >= new", "string in quotes, got 'new' at character 9"),
        ("year >= 2020 section", "expected and, or, or the end, got 'section' at character 14"),
        ("(year >= 2020", "expected and, or, or \\), got the end"),
        ("section in a", "expected \\( after in, got 'a'"),
        ("section in ()", "got '\\)' at character 13"),
        ("section == 'a", "cannot read the condition at character 12"),
        ("section == '\\q'", "cannot read the string '\\\\q' at character 12: expected the escapes of JSON"),
        ("year >= 1" + "0" * 400, "expected a string, a number, true or false to compare with, got inf"),
        ("(" * 500 + "year > 1" + ")" * 500, "at most 100 levels"),
        ("not " * 30 + "year > 1", "at most 20 levels"),
        ("year > 1" + " or year > 1" * 900, "at most 10,000 characters, got 10,808"),
    ],
)
def test_text_that_is_no_condition_says_where(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "expected a condition as a JSON object, got \\[\\]"),
        ({}, "the keys field, op and value, or with one of the keys and, or, not; got the keys \\[\\]"),
        ({"and": []}, "a list of one or more conditions in 'and', got \\[\\]"),
        ({"or": {"field": "a"}}, "a list of one or more conditions in 'or', got an object"),
        ({"and": [{"field": "a", "op": "exists"}], "or": []}, "got the keys"),
        ({"field": 3, "op": "exists"}, "expected the name of a field, got 3"),
        ({"field": "year", "op": "~"}, "field 'year': expected an op of ==, .*, got '~'"),
        ({"field": "year", "op": []}, "expected an op of"),
        ({"field": "year", "op": ">"}, "expected the keys field, op, value"),
        ({"field": "year", "op": "exists", "value": 1}, "expected the keys field, op, got"),
        ({"field": "year", "op": ">", "value": None}, "expected a string, a number, true or false"),
        ({"field": "year", "op": ">", "value": [1]}, "expected a string, a number, true or false"),
        ({"field": "year", "op": ">", "value": 10**400}, "expected a string, a number"),
        ({"field": "year", "op": ">", "value": float("nan")}, "expected a string, a number"),
        ({"field": "section", "op": "==", "value": "\ud800"}, "expected a string, a number"),
        ({"field": "section", "op": "in", "value": "a"}, "expected a list of one or more values, got 'a'"),
    ],
)
def test_json_that_is_no_condition_is_refused(form: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_json(form)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jahr > 1", "no field 'jahr': expected one of year \\(number\\), section \\(string\\), open \\(boolean\\)"),
        ("year == 'x'", "field 'year': expected a number to compare with, got 'x'"),
        ("section in ('a', 1)", "field 'section': expected a string to compare with, got 1.0"),
        ("year == true", "expected a number to compare with, got True"),
        ("tags < 'a'", "field 'tags' \\(strings\\) has no order: expected ==, !=, in or exists"),
        ("not (open > false)", "has no order"),
    ],
)
def test_a_predicate_must_fit_the_fields(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check(parse(text), TYPES)


def test_without_metadata_the_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match=r'metadata = \{ year = "number" \}, and run it again'):
        check(parse("year > 1"), {})
