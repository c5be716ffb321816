"""The metadata of documents: fields beside title and text, each of one type, in the column ``metadata`` of DOCS.

A recipe names the fields that are kept, with their types; a source without such fields writes DOCS as it always did.

    [source]
    metadata = { year = "number", section = "string", tags = "strings", open = "boolean" }

A field is looked for in the record's ``metadata``, as BEIR has it, and then in the record itself. A record that lacks a
field, or has null there, is kept; one whose field has another type is rejected. Numbers are kept as float64: whole ones
are exact up to 2^53.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import StringConstraints

METADATA: Final = "metadata"
FieldType = Literal["string", "number", "boolean", "strings"]
FieldTypes = Mapping[str, FieldType]
KeptFields = dict[Annotated[str, StringConstraints(min_length=1)], FieldType]  # of a source's config
ARROW: dict[FieldType, pa.DataType] = {
    "string": pa.string(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "strings": pa.list_(pa.string()),
}


class WrongTypeError(ValueError):
    """A field of a record has another type than the recipe says."""


def make_column(types: FieldTypes) -> list[pa.Field]:
    """The column of DOCS that holds fields of these types; none where there are no fields."""
    if not types:
        return []
    return [pa.field(METADATA, pa.struct([(name, ARROW[kind]) for name, kind in types.items()]))]


def find_types(schema: pa.Schema) -> dict[str, FieldType]:
    """The fields that a table of this schema has, and their types."""
    if METADATA not in schema.names:
        return {}
    return {field.name: _name_type(field.type) for field in schema.field(METADATA).type}


def _name_type(arrow: pa.DataType) -> FieldType:
    if pa.types.is_list(arrow):  # of items when it is made, of elements when it is read from Parquet
        return "strings"
    return next(kind for kind, own in ARROW.items() if own == arrow)


def read_fields(record: Mapping[str, Any], types: FieldTypes) -> dict[str, Any]:
    """The fields of a record, None for one that it lacks. Raises WrongTypeError for one of another type."""
    nested = record.get(METADATA)
    inside = nested if isinstance(nested, Mapping) else {}
    return {name: _read(inside.get(name, record.get(name)), kind) for name, kind in types.items()}


def find_type(value: Any) -> FieldType | None:
    """The type of a value of a record; None where a field cannot have it."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if math.isfinite(value) else None
    if isinstance(value, str):
        return "string"
    is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return "strings" if is_texts else None


def list_types(types: FieldTypes) -> str:
    """The fields and their types, for people."""
    return ", ".join(f"{name} ({kind})" for name, kind in types.items())


def _read(value: Any, kind: FieldType) -> Any:
    if value is None:
        return None
    try:
        if find_type(value) != kind:
            raise WrongTypeError
        "".join([value] if kind == "string" else value if kind == "strings" else []).encode()
        return float(value) if kind == "number" else value
    except (OverflowError, UnicodeEncodeError) as error:  # a number of 400 digits; half a surrogate pair
        raise WrongTypeError from error
