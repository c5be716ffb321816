"""Tables: named row contracts, enforced where rows are written.

A table is a pyarrow schema, a key, and a check. Every table carries one more column, ``reject``: null for a good row,
a reason for a row that could not be done. A step writes a row for each row it reads, under the same key; that law is
what makes each step resumable at any cluster size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import TableError

REJECT = pa.field("reject", pa.string())


@dataclass(frozen=True)
class Table:
    """A contract. ``columns`` is the schema without ``reject``; ``key`` names the columns that identify a row;
    ``check`` raises TableError for good rows that break it (it never sees rejected ones)."""

    name: str
    columns: pa.Schema
    key: tuple[str, ...]
    check: Callable[[pa.Table], None] = lambda rows: None
    optional: frozenset[str] = frozenset()  # text columns that are null where rows lack them
    free: frozenset[str] = frozenset()  # columns that an artifact may have, behind the others, of its own types

    @property
    def schema(self) -> pa.Schema:
        """The schema as written: the columns and ``reject``."""
        return self.columns.append(REJECT)

    def of(self, rows: list[dict[str, Any]], free: Sequence[pa.Field] = ()) -> pa.Table:
        """Make a pyarrow table of this schema, and of some free columns, from dictionaries; what is missing is null."""
        return pa.Table.from_pylist(rows, schema=pa.schema([*self.schema, *free]))

    def conform(self, rows: pa.Table) -> pa.Table:
        """Return ``rows`` in this schema's column order, or raise TableError. Types are never widened silently."""
        for name in sorted({REJECT.name, *self.optional} - set(rows.column_names)):
            rows = rows.append_column(pa.field(name, pa.string()), pa.nulls(len(rows), pa.string()))
        free = sorted(self.free & set(rows.column_names))
        missing = [n for n in self.schema.names if n not in rows.column_names]
        extra = [n for n in rows.column_names if n not in (*self.schema.names, *free)]
        if missing or extra:
            raise TableError(
                f"table {self.name}: expected columns {self.schema.names}, missing {missing}, extra {extra}"
            )
        rows = rows.select([*self.schema.names, *free])
        for field in self.schema:
            actual = rows.schema.field(field.name).type
            if actual != field.type:
                raise TableError(f"table {self.name}, column {field.name}: expected {field.type}, got {actual}")
        for name in self.key:
            if rows[name].null_count:
                raise TableError(f"table {self.name}: {rows[name].null_count} rows without {name}, which is its key")
        self.check(good(rows))
        return rows.replace_schema_metadata(None)

    def keys(self, rows: pa.Table) -> pa.Table:
        """The key columns alone."""
        return rows.select(list(self.key)).combine_chunks().replace_schema_metadata(None)


def good(rows: pa.Table) -> pa.Table:
    """The rows that carry no reject reason."""
    if "reject" not in rows.column_names or rows["reject"].null_count == len(rows):
        return rows
    return rows.filter(pc.is_null(rows["reject"]))


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not become a row: why, where it stands (``file:line``), and how it begins."""

    reason: str
    where: str
    text: str = ""
