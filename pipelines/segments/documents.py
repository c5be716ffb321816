"""Files of documents as they are given to ``add``, and of ids as they are given to ``delete``.

    JSON lines  {"doc_id": "d1", "title": "…", "text": "…", "lang": "de"}   title and lang may be absent; "id" will do
    TSV         doc_id<TAB>text, or doc_id<TAB>title<TAB>text

The fields that the documents of the index have are read from JSON lines as its source reads them.

A file is taken whole or not at all: a line that is no document, an id that occurs twice in a language or a language
that the index lacks is an error that names the line. Memory holds one part, and 8 bytes for each id.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from cluster.artifact import write_part
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.chunks import chunk
from pipelines.filters.fields import FieldTypes, make_column
from pipelines.ids import IdSet
from pipelines.sources.base import Entry
from pipelines.sources.files import File, strip_compression
from pipelines.sources.metadata import add_fields
from pipelines.sources.records import make_doc, read_json_lines
from pipelines.tables import DOCS

PART_ROWS = 4096
SHOWN = 5  # faults of a file in a message
JSON_LINES, TSV = (".jsonl", ".json"), (".tsv", ".txt")


def read_documents(
    files: Sequence[str], lang: str, langs: Sequence[str], directory: Path, types: FieldTypes | None = None
) -> dict[str, list[Place]]:
    """Write the documents of files as parts of DOCS below ``directory``; returns the parts by language.

    ``lang`` is the language of records that name none; "" where the index has one alone. ``types`` are the fields of
    its documents' metadata.

    Raises:
        RecipeError: a file is not as described above; nothing of any file is to be used then.
    """
    usual = languages.normalise(lang) if lang else (langs[0] if len(langs) == 1 else "")
    entries = chain.from_iterable(_read_file(_open(name), usual, langs, types or {}) for name in files)
    parts: dict[str, list[Place]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    faults: list[str] = []
    wrong = 0
    seen = IdSet()

    def flush(code: str) -> None:
        place = Place.of(directory / code / f"part-{len(parts.setdefault(code, [])):05d}.parquet")
        write_part(place, DOCS.conform(DOCS.of(rows.pop(code), make_column(types or {}))))
        parts[code].append(place)

    for batch in chunk(entries, PART_ROWS):
        good = [entry.row for entry in batch if entry.row]
        is_new = iter(seen.add([f"{row['lang']}:{row['doc_id']}" for row in good]))
        for entry in batch:
            if entry.row and not next(is_new):
                entry = Entry(entry.where, None, f"the id {entry.row['doc_id']!r} occurs twice", "")
            if entry.row:
                rows.setdefault(entry.row["lang"], []).append(entry.row)
                continue
            wrong += 1
            if wrong <= SHOWN:
                faults.append(f"{entry.where}: {entry.reject}" + (f": {entry.text}" if entry.text else ""))
        for code in [code for code, held in rows.items() if len(held) >= PART_ROWS]:
            flush(code)
    if faults:
        more = f"\n… and {wrong - SHOWN:,} more" if wrong > SHOWN else ""
        raise RecipeError("\n".join(faults) + f"{more}\nnothing was added: mend these lines, and add again")
    for code in list(rows):
        flush(code)
    if not parts:
        raise RecipeError(f"no document in {', '.join(files)}: expected one a line")
    return parts


def read_ids(file: str) -> list[str]:
    """The ids of a file, one a line; blank lines are passed over. Raises RecipeError where it is not UTF-8."""
    opened = _open(file)
    lines = list(opened.lines())
    if wrong := [where for where, line in lines if line is None]:
        raise RecipeError(f"{wrong[0]}: expected an id in UTF-8. Nothing was done")
    return [line.strip() for _, line in lines if line and line.strip()]


def _open(name: str) -> File:
    place = Place.of(name)
    if not place.exists():
        raise RecipeError(f"expected a file at {place.redacted}, found none: check its path")
    return File(place.name, place)


def _read_file(file: File, usual: str, langs: Sequence[str], types: FieldTypes) -> Iterator[Entry]:
    name = strip_compression(file.name)
    if name.endswith(JSON_LINES):
        entries = _read_json(file, usual, types)
    elif name.endswith(TSV):
        entries = _read_tsv(file, usual)
    else:
        raise RecipeError(
            f"{file.name}: expected a name that ends in {', '.join(JSON_LINES + TSV)}, perhaps compressed"
        )
    for entry in entries:
        if entry.row and entry.row["lang"] not in langs:
            asked = f"got {entry.row['lang']!r}" if entry.row["lang"] else "none is given: name one with --lang"
            yield Entry(entry.where, None, f"expected one of the index's languages, {', '.join(langs)}; {asked}")
        else:
            yield entry


def _read_json(file: File, usual: str, types: FieldTypes) -> Iterator[Entry]:
    for where, record in read_json_lines(file):
        if isinstance(record, Entry):
            yield record
            continue
        lang = languages.normalise(str(record["lang"])) if record.get("lang") else usual
        key = record.get("doc_id", record.get("id"))
        yield add_fields(make_doc(where, key, record.get("text"), lang, record.get("title")), record, types)


def _read_tsv(file: File, usual: str) -> Iterator[Entry]:
    for where, line in file.lines():
        cells = (line or "").split("\t")
        if line is None or len(cells) not in (2, 3):
            yield Entry(where, None, "expected doc_id<TAB>text or doc_id<TAB>title<TAB>text", (line or "")[:80])
        else:
            yield make_doc(where, cells[0], cells[-1], usual, cells[1] if len(cells) == 3 else "")
