"""Recognise the layout of a directory: which source reads it, and which languages and splits its files name.

A recogniser looks at file names, and at the first record of a JSON file; it counts nothing (``pipelines.survey`` does).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cluster.errors import RecipeError, StorageError
from cluster.storage import Place
from pipelines import languages
from pipelines.filters.fields import FieldType
from pipelines.sources import AnySource, Beir, Directory, Jsonl, Mmarco, MsMarco, Parallel, Squad
from pipelines.sources.directory import find_documents, folder_language
from pipelines.sources.files import File, find, find_any, list_names
from pipelines.sources.jsonl import Fields
from pipelines.sources.metadata import propose_fields
from pipelines.sources.msmarco import JUDGED, TRANSLATIONS
from pipelines.sources.records import read_json_lines
from pipelines.sources.splits import SPLITS
from pipelines.sources.squad import find_languages

LAYOUTS = {  # what an error lists
    "parallel collection": "collection.<lang>.tsv, queries.<lang>.tsv, qrels.tsv, also groups.tsv, splits/fold0.tsv",
    "SQuAD": "<lang>.json or xquad.<lang>.json, with data, paragraphs and qas",
    "BEIR": "corpus.jsonl, queries.jsonl, qrels/<split>.tsv",
    "MS MARCO": "collection.tsv, queries.<split>.tsv, qrels.<split>.tsv, with mMARCO in mmarco/data/google",
    "JSON lines": "docs.jsonl, queries.jsonl, qrels.tsv (or .jsonl), also as docs.<lang>.jsonl, queries.<split>.jsonl",
    "directory of documents": "files .txt, .md, .html or .jsonl in any folders, or in a folder for each language",
}
DOCS, QUERIES = "docs|documents|collection|passages|corpus", "queries|questions|topics"
DOC_IDS, QUERY_IDS = ("doc_id", "docid", "id", "_id", "pid"), ("query_id", "qid", "id", "_id", "topic_id")
TEXTS = ("text", "contents", "content", "body", "passage", "query", "question")
NOT_DOCUMENTS = re.compile(r"(readme|license|licence|changelog|notice)\b", re.IGNORECASE)
LOOK = 1_000_000  # records of a file that are read to find its languages
LOOK_BELOW = 100  # directories that are looked at where the one given holds no collection


@dataclass(frozen=True)
class Layout:
    """A directory that was recognised. ``docs`` and ``queries`` are languages; ``splits`` those with questions."""

    name: str
    source: AnySource
    docs: tuple[str, ...]
    queries: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


def recognise(root: Place, lang: str) -> Layout:
    """Recognise the layout of ``root``. A record whose language nothing says is in ``lang``.

    Raises:
        RecipeError: no layout fits; the message lists what was expected, and directories below that would fit.
    """
    found = _recognise_collection(root, lang) or _recognise_directory(root, lang)
    if found:
        return found
    if below := _recognise_below(root, lang):
        names = ", ".join(f"{name} ({fit.name})" for name, fit in below.items())
        raise RecipeError(
            f"no collection in {root.redacted} itself, but below it: {names}. Give one of them as --source"
        )
    expected = "\n".join(f"  {name}: {files}" for name, files in LAYOUTS.items())
    there = ", ".join(place.name for place in islice(root.list(), 20)) or "nothing"
    raise RecipeError(f"no collection in {root.redacted}: expected one of\n{expected}\nfound there: {there}")


def _recognise_collection(root: Place, lang: str) -> Layout | None:
    return (
        _recognise_parallel(root)
        or _recognise_squad(root)
        or _recognise_beir(root, lang)
        or _recognise_msmarco(root)
        or _recognise_jsonl(root, lang)
    )


def _recognise_below(root: Place, lang: str) -> dict[str, Layout]:
    """The collections in the directories of ``root``, by the names of these."""
    found = {}
    for place in islice(root.list(), LOOK_BELOW):
        try:
            layout = _recognise_collection(place, lang)
        except (StorageError, RecipeError):  # a file, or a collection that its own message would describe
            continue
        if layout:
            found[place.name] = layout
    return found


def _recognise_parallel(root: Place) -> Layout | None:
    docs = _find_languages(root, "collection|candidates", "tsv")
    if not docs:
        return None
    source = Parallel(path=root.uri)
    return Layout("parallel collection", source, docs, _find_languages(root, "queries", "tsv"), SPLITS)


def _recognise_squad(root: Place) -> Layout | None:
    found = {lang: file for lang, file in find_languages(root).items() if _is_language(lang)}
    langs = _put_english_first(lang for lang, file in found.items() if b'"paragraphs"' in next(file.blocks(), b""))
    if not langs:
        return None
    return Layout("SQuAD", Squad(path=root.uri), langs, langs, SPLITS)


def _recognise_beir(root: Place, lang: str) -> Layout | None:
    corpus = find_any(root, "corpus.jsonl")
    if not corpus or "_id" not in _first_record(corpus):
        return None
    source = Beir(path=root.uri, lang=lang, metadata=_propose_fields(corpus, ("_id", "title", "text", "lang")))
    queries = find_any(root, "queries.jsonl")
    spoken = _spoken(queries, "lang", lang) if queries else ()
    judged = [name.removesuffix(".tsv") for name in list_names(root, "qrels") if name.endswith(".tsv")]
    return Layout("BEIR", source, _spoken(corpus, "lang", lang), spoken, tuple(judged) or SPLITS)


def _recognise_msmarco(root: Place) -> Layout | None:
    if not find_any(root, "collection.tsv"):
        return None
    splits = [split for split in ("train", "dev", "dev.small") if find_any(root, f"queries.{split}.tsv")]
    if "train" in splits and find_any(root, "qrels.train.tsv"):
        splits[0] = JUDGED
    files = list_names(root / TRANSLATIONS, "collections")
    translations = [n.removesuffix("_collection.tsv") for n in files if n.endswith("_collection.tsv")]
    codes = ("en", *sorted({languages.normalise(name) for name in translations} - {"en"}))
    if len(codes) == 1:
        return Layout("MS MARCO", MsMarco(path=root.uri), codes, codes if splits else (), tuple(splits))
    return Layout("MS MARCO with mMARCO", Mmarco(path=root.uri), codes, codes if splits else (), tuple(splits))


def _recognise_jsonl(root: Place, lang: str) -> Layout | None:
    docs = _find_pattern(root, DOCS, "jsonl")
    if not docs:
        return None
    queries, qrels = _find_pattern(root, QUERIES, "jsonl"), _find_pattern(root, "qrels|judgements", "tsv|txt|jsonl")
    record, question = _first_record(docs.first), _first_record(queries.first) if queries else {}
    splits = (queries.splits if queries else ()) or (qrels.splits if qrels else ())
    is_topic = isinstance(question.get("topics"), list)
    named = {
        "doc_id": _first_of(record, DOC_IDS, docs.first),
        "text": _first_of(record, TEXTS, docs.first),
        "query_id": _first_of(question, QUERY_IDS, queries.first) if queries else "query_id",
    }
    source = Jsonl(
        docs_path=docs.path,
        queries_path=queries.path if queries else None,
        qrels_path=qrels.path if qrels else None,
        lang=lang,
        splits=splits,
        fields=Fields.model_validate(named),
        topics=("title", "description") if is_topic else (),
        metadata=_propose_fields(docs.first, (*DOC_IDS, *TEXTS, "title", "lang")),
    )
    if queries and not is_topic and named["text"] not in question:
        raise RecipeError(
            f"{queries.first.name} has no field {named['text']!r}, which holds the text in {docs.first.name}; it has "
            f"{', '.join(question)}. Give the text the same name in both"
        )
    asked = (lang,) if is_topic else (queries.languages or _spoken(queries.first, "lang", lang)) if queries else ()
    spoken = docs.languages or _spoken(docs.first, "lang", lang)
    return Layout("JSON lines", source, spoken, asked, splits or SPLITS)


def _recognise_directory(root: Place, lang: str) -> Layout | None:
    files = [file for file in find_documents(root) if _is_document(file)]
    if not files:
        return None
    codes = sorted({folder_language(file) for file in files})
    if all(len(code.split("-")[0]) == 2 and _is_language(code) for code in codes):
        return Layout("directory of documents", Directory(path=root.uri, language_folders=True), tuple(codes))
    return Layout("directory of documents", Directory(path=root.uri, lang=lang), (lang,))


def _is_document(file: File) -> bool:
    """Whether the file tells us that it is a document: no readme beside data, and JSON lines only with a text."""
    if NOT_DOCUMENTS.match(file.name):
        return False
    return ".jsonl" not in file.name or isinstance(_first_record(file).get("text"), str)


@dataclass(frozen=True)
class _Pattern:
    """Files whose names differ in a language or a split: the path with ``{lang}`` or ``{split}``, and one of them."""

    path: str
    first: File
    languages: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


def _find_pattern(root: Place, stems: str, suffixes: str) -> _Pattern | None:
    """Find ``stem.suffix``, or else files ``stem.<lang>.suffix`` or ``stem.<split>.suffix``."""
    form = re.compile(rf"({stems})(?:\.([\w-]+))?\.({suffixes})")
    for name in list_names(root):
        match = form.fullmatch(name)
        if not match:
            continue
        stem, part, suffix = match.groups()
        first = find(root, name)
        if part is None:
            return _Pattern(first.place.uri, first)
        others = [
            m[2] for n in list_names(root) if (m := form.fullmatch(n)) and m[1] == stem and m[3] == suffix and m[2]
        ]
        spelled = tuple(sorted(filter(_is_language, others)))
        if _is_language(part):
            return _Pattern(first.place.uri.replace(f"{stem}.{part}.", f"{stem}.{{lang}}."), first, languages=spelled)
        return _Pattern(first.place.uri.replace(f"{stem}.{part}.", f"{stem}.{{split}}."), first, splits=tuple(others))
    return None


def _find_languages(root: Place, stems: str, suffix: str) -> tuple[str, ...]:
    """The languages of the files ``stem.<lang>.suffix``, English first."""
    form = re.compile(rf"(?:{stems})\.([\w-]+)\.{suffix}")
    found = {match[1] for name in list_names(root) if (match := form.fullmatch(name)) and _is_language(match[1])}
    return _put_english_first(found)


def _put_english_first(langs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(langs, key=lambda code: (code != "en", code)))


def _is_language(text: str) -> bool:
    return bool(text) and languages.normalise(text) == text and languages.is_known(text)


def _spoken(file: File, field: str, lang: str) -> tuple[str, ...]:
    """The languages that the records of a JSON file name, the most frequent first."""
    records = (record for _, record in read_json_lines(file) if isinstance(record, dict))
    counts = Counter(languages.normalise(str(record.get(field) or lang)) for record in islice(records, LOOK))
    return tuple(code for code, _ in counts.most_common() if languages.is_known(code)) or (lang,)


def _propose_fields(file: File, known: tuple[str, ...]) -> dict[str, FieldType]:
    """The fields of documents that can be kept beside what is ``known``, as a file of them has them."""
    records = (record for _, record in read_json_lines(file) if isinstance(record, dict))
    return propose_fields(islice(records, LOOK), known)


def _first_record(file: File) -> dict[str, Any]:
    records: Iterator[dict[str, Any]] = (r for _, r in read_json_lines(file) if isinstance(r, dict))
    return next(records, {})


def _first_of(record: dict[str, Any], names: tuple[str, ...], file: File) -> str:
    """The first of some field names that the record has."""
    if name := next((name for name in names if name in record), None):
        return name
    raise RecipeError(
        f"{file.name}: expected one of the fields {', '.join(names)}, found {', '.join(record) or 'none'}"
    )
