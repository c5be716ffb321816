"""Bitext: sentences and their translations, a file for each language.

    en-de.tsv       sentence<TAB>translation, no header; the first column is in the language ``left``
    en-de.dev.tsv   and en-de.test.tsv: the sentences of another split; may be absent

A sentence is a document and a question at once. Its id is a hash of the left sentence, so that what several files
translate is one document in several languages, and a left sentence that is in several files is there once. The relevant
document of a question is the one of its id: in another language, its translation. The split "train" reads the files
that name no split, and no other split reads them. Files stream; memory holds 8 bytes for each left sentence.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.chunks import chunk
from pipelines.ids import IdSet
from pipelines.sources.base import Entry
from pipelines.sources.files import AbsentFileError, File, TableName, find_any, list_names
from pipelines.sources.records import BATCH, make_doc, make_judgement, make_query, read_cells
from pipelines.sources.splits import SPLITS

LANG = "{lang}"
SUFFIX = ".tsv"


def _check_name(name: str) -> str:
    """The path of a file that has a place for the language in its last part."""
    folder, _, last = name.rpartition("/")
    if last.count(LANG) != 1 or LANG in folder or not last.endswith(SUFFIX):
        raise ValueError(f"expected a path with {LANG} once in the file's name, as en-{LANG}{SUFFIX}, got {name!r}")
    return name


class Bitext(Component):
    """Pairs of sentences below ``path``.

    ``names`` are those of the files, with ``{lang}`` for the language of the second column. Of several, the files that
    a language has are read one after another, and a language that has none is an error. A sentence's second translation
    into a language is rejected, since its id is there.
    """

    kind: Literal["bitext"] = "bitext"
    path: Location
    names: tuple[Annotated[str, AfterValidator(_check_name)], ...] = Field(("en-{lang}.tsv",), min_length=1)
    left: str = "en"

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The sentences in ``lang``."""
        for where, sentence_id, text in self._sentences("docs", lang, split):
            yield where if isinstance(where, Entry) else make_doc(where, sentence_id, text, lang)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The same sentences as questions."""
        for where, sentence_id, text in self._sentences("queries", lang, split):
            yield where if isinstance(where, Entry) else make_query(where, sentence_id, text, lang)

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Each question's document is the one of its id."""
        for where, sentence_id, _ in self._sentences("qrels", lang, split):
            if not isinstance(where, Entry):  # such a line is a reject among the documents
                yield make_judgement(where, sentence_id, sentence_id, 1)

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``. The left sentences are in the files of all languages.

        Raises:
            AbsentFileError: the language has no file of this split.
        """
        if split not in (*SPLITS, "all"):
            raise RecipeError(f"sentence pairs have no split {split!r}: expected {', '.join(SPLITS)} or all")
        splits = SPLITS if split == "all" else (split,)
        found = [file for name in self.names for part in splits for file in self._find(name, lang, part)]
        if not found:
            raise AbsentFileError(
                f"expected a file of {lang} for split {split!r} in {self._root.redacted}, named "
                f"{' or '.join(_name_of_split(name, split) for name in self.names)}, found none. Set the source's "
                "path to the directory that holds them, or leave the language out"
            )
        return found

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        return (key for _, key, _ in self._sentences(table, self.left, "all") if key)

    @property
    def _root(self) -> Place:
        return Place.of(self.path)

    def _find(self, name: str, lang: str, split: str) -> list[File]:
        """The file of a language and a split, or, for ``left``, those of all languages."""
        wanted = _name_of_split(name, split)
        folder, _, last = wanted.rpartition("/")
        if lang != self.left:
            file = find_any(self._root, wanted.replace(LANG, lang))
            return [file] if file else []
        if folder and not (self._root / folder).exists():
            return []
        before, _, after = last.partition(LANG)
        names = [n for n in list_names(self._root, folder) if n.startswith(before) and n.endswith(after)]
        # "en-{lang}.tsv" is not the name of en-de.test.tsv
        names = [n for n in names if "." not in n[len(before) : len(n) - len(after)]]
        return [file for n in names if (file := find_any(self._root, f"{folder}/{n}" if folder else n))]

    def _sentences(self, table: TableName, lang: str, split: str) -> Iterator[tuple[str | Entry, str, str]]:
        """Where each sentence is, its id, and its text; in place of the first the reject of a line that has none."""
        seen = IdSet()
        for file in self.files(table, lang, split):
            for lines in chunk(read_cells(file, (2,)), BATCH):
                keys = [hash_sentence(cells[0]) if isinstance(cells, list) else "" for _, cells in lines]
                fresh = seen.add(keys) if lang == self.left else [True] * len(keys)
                for (where, cells), key, is_new in zip(lines, keys, fresh, strict=True):
                    if not isinstance(cells, list):
                        yield cells, "", ""
                    elif is_new:
                        yield where, key, cells[0] if lang == self.left else cells[1]


def hash_sentence(sentence: str) -> str:
    """The id of a left sentence: 16 hexadecimal digits of its digest."""
    return blake2b(sentence.encode(errors="replace"), digest_size=8).hexdigest()


def _name_of_split(name: str, split: str) -> str:
    return name if split in ("train", "all") else f"{name.removesuffix(SUFFIX)}.{split}{SUFFIX}"
