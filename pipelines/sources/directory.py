"""A directory of documents as people keep them: text, Markdown, HTML and JSON lines, in any folders.

    guide/install.md          doc_id "guide/install.md", its first heading the title
    en/guide/install.md       with ``language_folders``: language "en", doc_id "guide/install.md" as of its translations
    faq.jsonl                 one document a line: {"id": "…", "title": "…", "text": "…"}; id and title may be absent

There are no questions and no judgements: such a collection is searched and served, or measured with questions of
another source. A file is one document, held in memory while it is read; the encoder cuts long ones into windows. A
plan reads the first and last MiB of every file to know its content: 0.1 s for 2,000 small files on a disk, and several
requests a file in an object store, where many documents are better kept as JSON lines.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal, NoReturn

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.filters.fields import FieldTypes, KeptFields
from pipelines.sources.base import Entry
from pipelines.sources.documents import READERS
from pipelines.sources.files import AbsentFileError, File, TableName, strip_compression, walk
from pipelines.sources.metadata import add_fields
from pipelines.sources.records import NOT_UTF8, make_doc, read_json_lines

JSONL = ".jsonl"


class Directory(Component):
    """All documents below ``path`` but those in hidden files and folders. A document without a title gets its file's
    name.

    They are in ``lang``; with ``language_folders``, in the language that the first folder of their path names by its
    code (``de/…``), and files outside such folders are left out. ``metadata`` names the fields that are kept of the
    documents of JSON lines, with their types; other files have none.
    """

    kind: Literal["directory"] = "directory"
    path: Location
    lang: str = "en"
    language_folders: bool = False
    metadata: KeptFields = {}

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``, ordered by their path."""
        return (entry for file in self.files("docs", lang, split) for entry in self._read(file, lang))

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """Raise RecipeError: there are none."""
        self._refuse("queries")

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Raise RecipeError: there are none."""
        self._refuse("qrels")

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        if table != "docs":
            self._refuse(table)
        if split != "all":
            raise RecipeError(f"a directory of documents has no split {split!r}; it has all")
        if not self.language_folders and lang != self.lang:
            raise RecipeError(
                f"this directory is in {self.lang}, asked for {lang}: set source.lang, or source.language_folders=true "
                "where the first folder of each path names the language"
            )
        root = Place.of(self.path)
        files = [f for f in find_documents(root) if not self.language_folders or folder_language(f) == lang]
        if not files:
            folder = f" in a folder {lang}" if self.language_folders else ""
            raise AbsentFileError(
                f"expected documents ({', '.join([*READERS, JSONL])}){folder} below {root.redacted}, found none. Set "
                "source.path to the directory that holds them"
            )
        return files

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        files = find_documents(Place.of(self.path)) if table == "docs" else []
        return (entry.row["doc_id"] for file in files for entry in self._read(file, self.lang) if entry.row)

    def _read(self, file: File, lang: str) -> Iterator[Entry]:
        """The documents of one file."""
        doc_id = file.name.partition("/")[2] if self.language_folders else file.name
        if _suffix(file) == JSONL:
            return _read_records(file, doc_id, lang, self.metadata)
        return iter([_read_document(file, doc_id, lang)])

    def _refuse(self, table: TableName) -> NoReturn:
        raise RecipeError(
            f"a directory of documents has no {table}: take them from another source, as [evaluate.NAME] with source = "
            "{ kind = …, path = … }"
        )


def find_documents(root: Place) -> list[File]:
    """The files below ``root`` that can be read as documents, ordered by their path."""
    return [file for file in walk(root) if _suffix(file) in (*READERS, JSONL)]


def folder_language(file: File) -> str:
    """The language that the first folder of the file's path names, or "" for a file that is in no folder."""
    folder, slash, _ = file.name.partition("/")
    return languages.normalise(folder) if slash else ""


def _suffix(file: File) -> str:
    return PurePosixPath(strip_compression(file.name)).suffix.lower()


def _read_document(file: File, doc_id: str, lang: str) -> Entry:
    try:
        content = b"".join(file.blocks()).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return Entry(file.name, None, NOT_UTF8)
    title, text = READERS[_suffix(file)](content)
    name = PurePosixPath(strip_compression(doc_id)).stem.replace("-", " ").replace("_", " ")
    return make_doc(file.name, doc_id, text, lang, title or (name if text else ""))


def _read_records(file: File, doc_id: str, lang: str, types: FieldTypes) -> Iterator[Entry]:
    for number, (where, record) in enumerate(read_json_lines(file), 1):
        if isinstance(record, Entry):
            yield record
        else:
            key = record.get("doc_id", record.get("id", record.get("_id", f"{doc_id}:{number}")))
            yield add_fields(make_doc(where, key, record.get("text"), lang, record.get("title")), record, types)
