"""How many rows a source has, and how long its texts are.

In this order: what the user says (``--rows docs=8841823``); the manifest of a finished step; the source, where its
files are here; what is published of the collection. Small files are read; of larger ones the rows follow from the
bytes of a line at their beginning.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cluster.artifact import MANIFEST, Artifact
from cluster.errors import RecipeError
from cluster.step import Step
from cluster.storage import Place
from pipelines.ingest import ABSENT, IngestConfig
from pipelines.score_file import ScoreFileConfig
from pipelines.sources import IrDatasets
from pipelines.sources.files import COMPRESSED, FileSource

READ_WHOLE = 64 << 20  # bytes of files that are read to count their rows
SAMPLED = 200  # rows whose texts are measured
TOKENS_PER_WORD = 1.35  # of a multilingual vocabulary, English: an assumption
CHARACTERS_PER_TOKEN = 1.5  # of text without spaces: an assumption
BYTES_PER_WORD = 6.0  # of English, with its space
SPACED = 0.05  # share of spaces from which on a text has words

# MS MARCO passage ranking (Nguyen et al. 2016) and its translations mMARCO, as they are published
MARCO_ROWS = {
    "docs": {"": 8_841_823},
    "queries": {"train": 808_731, "train.judged": 502_939, "dev": 101_093, "dev.small": 6_980, "all": 909_824},
    "qrels": {"train": 532_761, "train.judged": 532_761, "dev": 59_273, "dev.small": 7_437, "all": 592_034},
}
MARCO = ("msmarco", "mmarco")
MARCO_IDS = ("msmarco-passage/", "neumarco/")  # of ir_datasets: how the ids of the same passages begin
MARCO_SPLITS = {"train/judged": "train.judged", "dev/small": "dev.small", "train": "train", "dev": "dev"}
MARCO_WORDS = {"docs": 56.0, "queries": 6.0}  # words of an English text, an assumption where no file is here
WORDS = {"docs": 100.0, "queries": 8.0, "pairs": 20.0}  # of a collection of which nothing is known


@dataclass(frozen=True)
class Size:
    """Rows of a table of a source and how long its texts are, with where each number comes from."""

    rows: int
    origin: str
    tokens: float = 0.0  # of a text, mean
    bytes: float = 0.0  # of a text, mean
    texts: str = ""


def parse_rows(given: Sequence[str]) -> dict[str, int]:
    """Rows by the name of a step or of a table. Raises RecipeError for what is not ``NAME=NUMBER``."""
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        digits = number.replace("_", "").replace(",", "").strip()
        if not name.strip() or not digits.isdigit() or int(digits) < 1:
            raise RecipeError(f"expected --rows NAME=NUMBER, as --rows docs=8841823, got {text!r}")
        found[name.strip()] = int(digits)
    return found


def find_size(step: Step, root: Place, given: Mapping[str, int]) -> Size:
    """The size of the table that an ingest step makes. ``given`` is what the user says.

    Raises:
        RecipeError: nothing tells how many rows there are; the message names ``--rows``.
    """
    config = step.config
    if isinstance(config, ScoreFileConfig):
        return _size_of_score_file(step, root, given)
    assert isinstance(config, IngestConfig)
    table = step.table.name if step.table else "docs"
    rows, origin = _find_rows(step, root, given, table, config)
    tokens, size, texts = _measure(config, table)
    return Size(rows, origin, tokens, size, texts)


def _find_rows(step: Step, root: Place, given: Mapping[str, int], table: str, config: IngestConfig) -> tuple[int, str]:
    for name in (step.id, step.name, f"{table}.{config.split}", table):
        if name in given:
            return given[name], f"--rows {name}"
    if (root / step.id / MANIFEST).exists():
        return Artifact(root / step.id).rows, "ingested"
    if not config.content.startswith(ABSENT) and (rows := count_rows(config, table)) is not None:
        return rows
    if published := _published_rows(config, table):
        return published, "published"
    if table == "qrels":  # a few bytes each: one judgement a question
        queries = step.parents.get("queries")
        return (_find_rows(queries, root, given, "queries", config)[0] if queries else 0), "one for each question"
    raise RecipeError(
        f"how many rows {step.name} has is not known: its source ({config.source.kind}) is not here"
        f"{_why(config)}. Say it: --rows {table}=NUMBER, or --rows {step.name}=NUMBER for this step alone"
    )


def _published_rows(config: IngestConfig, table: str) -> int | None:
    """Rows of MS MARCO, also where ir_datasets has it; None of any other collection."""
    if not _is_marco(config):
        return None
    split, rows = config.split, MARCO_ROWS[table]
    if isinstance(config.source, IrDatasets):
        name = config.source.id[config.lang].replace("{split}", split)
        split = next((ours for theirs, ours in MARCO_SPLITS.items() if name.endswith(f"/{theirs}")), split)
    return rows.get(split, rows.get(""))


def _is_marco(config: IngestConfig) -> bool:
    source = config.source
    if isinstance(source, IrDatasets):
        return source.id.get(config.lang, "").startswith(MARCO_IDS)
    return source.kind in MARCO


def _why(config: IngestConfig) -> str:
    return f": {config.content.removeprefix(ABSENT)}" if config.content.startswith(ABSENT) else ""


def count_rows(config: IngestConfig, table: str) -> tuple[int, str] | None:
    """The rows of a source that is here, and how they were counted; None where it cannot be read."""
    source: Any = config.source
    if not isinstance(source, FileSource):
        if source.kind == "ir_datasets":
            return None  # asking its library would download the collection
        return sum(1 for entry in getattr(source, table)(config.lang, config.split) if entry.row), "counted"
    files = source.files(table, config.lang, config.split)  # type: ignore[arg-type]
    sizes = [file.place.size() for file in files]
    if sum(sizes) <= READ_WHOLE:
        return sum(1 for entry in getattr(source, table)(config.lang, config.split) if entry.row), "counted"
    if published := _published_rows(config, table):
        return published, "published"
    if files[0].name.endswith(COMPRESSED):
        return None
    head = next(files[0].blocks())
    lines = max(1, head.count(b"\n"))
    return round(sizes[0] * lines / len(head)), "from the bytes of a line"


def _measure(config: IngestConfig, table: str) -> tuple[float, float, str]:
    """Mean tokens and bytes of the texts of a table, and where these come from."""
    if table == "qrels":
        return 0.0, 0.0, ""
    if not config.content.startswith(ABSENT) and config.source.kind != "ir_datasets":
        entries = getattr(config.source, table)(config.lang, config.split)
        rows = (entry.row for entry in islice(entries, 4 * SAMPLED) if entry.row)
        if texts := [_text_of(row) for row in islice(rows, SAMPLED)]:
            tokens = sum(map(count_tokens, texts)) / len(texts)
            size = sum(len(text.encode()) for text in texts) / len(texts)
            return tokens, size, f"the first {len(texts)} texts"
    words = (MARCO_WORDS if _is_marco(config) else WORDS)[table]
    return words * TOKENS_PER_WORD, words * BYTES_PER_WORD, f"{words:g} words a text, assumed"


def _text_of(row: Mapping[str, Any]) -> str:
    """What is read of a row: title and text, or both sentences of a pair."""
    if "left" in row:
        return f"{row['left']} {row['right']}"
    return f"{row.get('title') or ''} {row['text']}".strip()


def count_tokens(text: str) -> float:
    """About how many tokens a multilingual vocabulary makes of a text: by its words, or by its characters where it
    writes no spaces."""
    words = text.split()
    if len(words) - 1 >= SPACED * len(text):
        return len(words) * TOKENS_PER_WORD
    return len(text) / CHARACTERS_PER_TOKEN


def _size_of_score_file(step: Step, root: Place, given: Mapping[str, int]) -> Size:
    """A file of scores has a row for each question that it scores: of all of them, where it is not read."""
    if step.name in given:
        return Size(given[step.name], f"--rows {step.name}")
    if (root / step.id / MANIFEST).exists():
        return Size(Artifact(root / step.id).rows, "ingested")
    return Size(find_size(step.parents["queries"], root, given).rows, "one for each question")


def describe_origins(sizes: Iterable[tuple[str, Size]]) -> list[str]:
    """In words: which rows and which lengths of texts come from where. Names are without languages."""
    rows: dict[str, Counter[str]] = {}
    tokens: dict[str, dict[str, list[float]]] = {}
    for name, size in sizes:
        rows.setdefault(size.origin, Counter())[f"{name} {size.rows:,}"] += 1
        if size.texts:
            tokens.setdefault(size.texts, {}).setdefault(name, []).append(size.tokens)
    lines = [
        f"rows, {origin}: {', '.join(f'{text} ×{n}' if n > 1 else text for text, n in counted.items())}"
        for origin, counted in rows.items()
    ]
    for origin, named in tokens.items():
        found = ", ".join(f"{name} {_span(values)}" for name, values in named.items())
        lines.append(f"tokens of a text, from {origin}: {found}")
    return lines


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
