"""Indexes that grow, for tests: a base of a few texts, an encoder of words, the ranking of an index built at once."""

import threading
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact, write_part
from cluster.storage import Place
from pipelines.index import BuildShard, plan_shards
from pipelines.indexes import open_group
from pipelines.indexes.base import Query, SearchOptions
from pipelines.search import search
from pipelines.segments.build import SHARED
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.snapshot import Snapshot
from pipelines.tables import DOCS, VECTORS
from tests.shards import Doc, build, docs_artifact, local_fan_out, unit, vectors_artifact

DIM = 16
WORDS = [f"w{i}" for i in range(120)]


def encode_text(text: str, dim: int = DIM) -> np.ndarray:
    """A unit vector for each word, which depends on the word and a little on the one before it."""
    vectors, before = [], np.zeros(dim)
    for word in text.split():
        own = np.random.default_rng(zlib.crc32(word.encode())).normal(size=dim)
        vectors.append(unit(own + 0.3 * before))
        before = own
    return np.array(vectors).reshape(-1, dim).astype(np.float16)


def encode_rows(rows: pa.Table, dim: int = DIM) -> pa.Table:
    """DOCS to VECTORS, a text of no words rejected."""
    made = []
    for row in rows.to_pylist():
        vectors = encode_text(row["text"].replace(".", ""), dim)
        done = {"tokens": [len(vectors)], "vectors": vectors.tobytes()}
        made.append({"id": row["doc_id"], **(done if len(vectors) else {"reject": "the encoder made no vector"})})
    return VECTORS.of(made)


def make_texts(count: int, seed: int = 0, prefix: str = "d") -> dict[str, str]:
    """Texts of 3 to 12 words, which come in groups."""
    rng = np.random.default_rng(seed)
    firsts = rng.integers(0, len(WORDS) - 20, count)
    return {
        f"{prefix}{i}": " ".join(WORDS[first + j] for j in rng.integers(0, 20, rng.integers(3, 13)))
        for i, first in enumerate(firsts)
    }


def as_docs(texts: Mapping[str, str]) -> list[Doc]:
    return [(name, [encode_text(text)]) for name, text in texts.items()]


def make_growing(
    root: Path, index: Any, texts: Mapping[str, Mapping[str, str]], shard_rows: int = 1000
) -> GrowingIndex:
    """An index artifact of texts by language, ready to grow."""
    docs = {lang: docs_artifact(root / f"docs-{lang}@0", dict(some), lang) for lang, some in texts.items()}
    if index.kind == "bm25":
        return GrowingIndex(build(root / "index@0", index, {"docs": docs}, shard_rows), docs, shard_rows=shard_rows)
    vectors = {lang: vectors_artifact(root / f"v-{lang}", as_docs(some), 3) for lang, some in texts.items()}
    place = build(root / "index@0", index, {"vectors": vectors}, shard_rows)
    parts = {lang: [part.uri for part in artifact.parts] for lang, artifact in vectors.items()}
    return GrowingIndex(place, docs, partial(dict.fromkeys, tuple(texts), encode_rows), parts, shard_rows)


def write_parts(directory: Path, texts: Mapping[str, str], lang: str = "en") -> dict[str, list[Place]]:
    """Texts as parts of DOCS, as ``read_documents`` writes them."""
    rows = [{"doc_id": name, "lang": lang, "title": "", "text": text} for name, text in texts.items()]
    place = Place.of(directory / f"{len(list(directory.glob('*')))}.parquet")
    write_part(place, DOCS.conform(DOCS.of(rows)))
    return {lang: [place]}


def build_at_once(growing: GrowingIndex, index: Any, texts: Mapping[str, str], out: Path) -> Place:
    """An index of texts built at once under the codec or the statistics of another, in one shard."""
    for name in SHARED:
        if (growing.index / name).exists():
            (Place.of(out) / name).put((growing.index / name).path)
    artifact: Artifact = (
        docs_artifact(out / "docs", dict(texts), "en")
        if index.kind == "bm25"
        else vectors_artifact(out / "vectors", as_docs(texts))
    )
    builder = index.build()
    plans = plan_shards({builder.role: {"en": artifact}}, builder.role, 10**6)
    if builder.role == "docs":
        builder.prepare(plans, Place.of(out), local_fan_out)
    BuildShard(index, plans, Place.of(out))(0)
    return Place.of(out)


def rank_at_once(place: Place, queries: Sequence[Query], options: SearchOptions) -> list[list[tuple[str, float]]]:
    return search(open_group([(place / "shards" / "en-00000").path]), queries, options)


def rank(
    snapshot: Snapshot, queries: Sequence[Query], options: SearchOptions, lang: str = "en"
) -> list[list[tuple[str, float]]]:
    return search(snapshot.open(lang), queries, options)


def read_texts(snapshot: Snapshot, lang: str = "en") -> dict[str, str]:
    """All documents that a search finds, each once, with their texts."""
    query = np.ones((1, DIM), np.float32)
    (found,) = rank(snapshot, [query], SearchOptions(k=10_000), lang)
    ids = [doc_id for doc_id, _ in found]
    assert len(set(ids)) == len(ids), "a document is found twice"
    docs = snapshot.open_docs(lang)
    return {doc_id: docs.row(doc_id)["text"] for doc_id in ids}


class Watcher:
    """A reader that opens the newest list again and again while another changes it, and keeps all that it saw."""

    def __init__(self, growing: GrowingIndex):
        self.growing, self.seen = growing, list[dict[str, str]]()
        self.error: BaseException | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        try:
            while not self._end.is_set():
                texts = read_texts(self.growing.snapshot())
                if not self.seen or self.seen[-1] != texts:
                    self.seen.append(texts)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        if self.error:
            raise self.error
