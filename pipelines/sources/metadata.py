"""The fields of documents that a source keeps beside their text, and those that it could keep."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.filters.fields import METADATA, FieldType, FieldTypes, WrongTypeError, find_type, read_fields
from pipelines.sources.base import Entry

WRONG_TYPE = "metadata of another type"
SHOWN = 80  # characters of a rejected record
MAX_FIELDS = 20  # that are proposed for a collection


def list_kept(source: Any) -> FieldTypes:
    """The fields that a source keeps of its documents, with their types; none of a kind that keeps none."""
    kept: FieldTypes = getattr(source, METADATA, {})
    return kept


def drop_fields(source: Any) -> Any:
    """The source without the fields that it keeps: the documents are the same, with their title and text alone."""
    return source.model_copy(update={METADATA: {}}) if list_kept(source) else source


def add_fields(entry: Entry, record: Mapping[str, Any], types: FieldTypes) -> Entry:
    """Add to a row of DOCS the fields of its record, or reject it where one is of another type."""
    if not types or not entry.row:
        return entry
    try:
        return entry._replace(row={**entry.row, METADATA: read_fields(record, types)})
    except WrongTypeError:
        row = entry.row
        return Entry(entry.where, None, WRONG_TYPE, f"{row['doc_id']} {row['title']} {row['text']}"[:SHOWN])


def propose_fields(records: Iterable[Mapping[str, Any]], known: Iterable[str]) -> dict[str, FieldType]:
    """The fields of records that have one type wherever they are, the most frequent first; not the ``known`` ones."""
    counts: dict[str, int] = {}
    types: dict[str, FieldType | None] = {}
    passed_over = {*known, METADATA}
    for record in records:
        nested = record.get(METADATA)
        fields = {**record, **(nested if isinstance(nested, Mapping) else {})}
        for name, value in fields.items():
            if name in passed_over or not name or value is None:
                continue
            kind = find_type(value)
            types[name] = kind if types.get(name, kind) == kind else None
            counts[name] = counts.get(name, 0) + 1
    found = sorted((name for name, kind in types.items() if kind), key=lambda name: -counts[name])
    return {name: kind for name in found[:MAX_FIELDS] if (kind := types[name])}
