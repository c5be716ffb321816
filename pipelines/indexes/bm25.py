"""BM25 (Lucene's variant) over terms, with the statistics of a language summed over its shards.

    score(q, d) = Σ_t  ln(1 + (D − df + ½) / (df + ½)) · tf / (tf + k1·(1 − b + b·len(d)/avg))

Built in two rounds of units: *postings* cuts texts into terms and counts them; then document frequencies and lengths
are summed by language; *index* computes every term's score in every document once, as bm25s does (Lù 2024), so that a
search only adds up. k1 = 0.9 and b = 0.4 are Anserini's values.
Takes 8 bytes per (term, document) pair; building a shard holds its vocabulary in memory and streams the rest. A query
costs one addition per posting of its terms, a bisection per term and shard, and 8 bytes of memory per document.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from cluster.artifact import read_part
from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from cluster.table import good
from pipelines.indexes.base import Query, Ranking, SearchOptions, ShardPlan, read_lang
from pipelines.indexes.files import Docs, DocsWriter, Inversion, NpyAppender, load_npy
from pipelines.indexes.maxsim import rank
from pipelines.text import join_title
from pipelines.tokenize import Analyser, load_analyser
from pipelines.vectors import FloatArray, IntArray

BLOCK = 1 << 18  # postings per pass over a memory-mapped array
POSTINGS, STATISTICS = "postings", "statistics"


class Bm25(Component):
    """Config of a BM25 index: ``k1`` saturates term frequency, ``b`` normalises by document length."""

    kind: Literal["bm25"] = "bm25"
    k1: float = Field(0.9, gt=0)
    b: float = Field(0.4, ge=0, le=1)

    def build(self) -> "Bm25Builder":
        """The builder."""
        return Bm25Builder(self)

    def open(self, directories: Sequence[Path], share: float = 1.0) -> "Bm25Group":
        """Open finished shards of one language, to be searched as one."""
        return Bm25Group(directories)


class Bm25Builder:
    """Counts terms shard by shard, sums the counts by language, scores postings shard by shard."""

    role: Literal["docs"] = "docs"

    def __init__(self, config: Bm25):
        self.config = config

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Write each shard's postings and each language's statistics."""
        facts = fan_out(POSTINGS, CountTerms, {"plans": list(plans), "out": out}, list(range(len(plans))))
        for lang in sorted({plan.lang for plan in plans}):
            _sum_statistics(lang, [(p, f) for p, f in zip(plans, facts, strict=True) if p.lang == lang], out)
        return {}

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write ``docs.arrow``, ``terms.arrow`` (sorted), and by term ``starts.npy``, ``docs.npy``, ``scores.npy``."""
        source = (out / POSTINGS / plan.name).fetch()
        statistics = (out / STATISTICS / plan.lang).fetch()
        totals = json.loads((statistics / "totals.json").read_text())
        for name in ("docs.arrow", "tokens.npy"):
            (directory / name).write_bytes((source / name).read_bytes())
        terms, new_ids, idf_V = _local_terms(source, statistics, totals["docs"])
        with pa.ipc.new_file(str(directory / "terms.arrow"), pa.schema([("term", pa.large_string())])) as file:
            file.write_batch(pa.record_batch([terms], names=["term"]))
        saturation_D = self._saturation(load_npy(source / "lengths.npy"), totals["length"] / max(1, totals["docs"]))
        _write_scores(source, directory, new_ids, idf_V, saturation_D)
        facts = {"docs": len(saturation_D), "terms": len(terms), "postings": len(load_npy(directory / "docs.npy"))}
        return {**facts, "text_lang": totals["text_lang"]}

    def merge(self, sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
        """See ``Builder.merge``."""
        from pipelines.indexes.bm25_merge import merge_postings

        return merge_postings(sources, kept, directory)

    def _saturation(self, lengths_D: IntArray, average: float) -> FloatArray:
        """k1·(1 − b + b·len/avg) of each document."""
        return self.config.k1 * (1 - self.config.b + self.config.b * lengths_D.astype(np.float64) / max(average, 1e-9))


class CountTerms:
    """First round: the postings of a shard, in the order of its documents, and its document frequencies."""

    def __init__(self, plans: list[ShardPlan], out: Place):
        self.plans, self.out = plans, out

    def __call__(self, unit: int) -> dict[str, Any]:
        """Write ``postings/<shard>/``; returns the shard's documents and their total length in terms."""
        plan = self.plans[unit]
        with TemporaryDirectory() as temp:
            facts = _count(plan, Path(temp))
            (self.out / POSTINGS / plan.name).put(Path(temp))
        return facts


def _count(plan: ShardPlan, directory: Path) -> dict[str, Any]:
    text_lang = read_text_lang(plan)
    analyse, vocabulary, length = load_analyser(text_lang), dict[str, int](), 0
    names = ("terms", "docs", "counts", "lengths")
    terms, docs, counts, lengths = (NpyAppender(directory / f"{name}.npy", "<i4") for name in names)
    with DocsWriter(directory) as ids, terms, docs, counts, lengths:
        for rows in (good(read_part(Place(part), ["doc_id", "title", "text"])) for part in plan.parts):
            for batch in rows.to_batches(max_chunksize=1024):
                bags = _bags(analyse, batch)
                terms.append(
                    np.array([vocabulary.setdefault(t, len(vocabulary)) for bag in bags for t in bag], np.int32)
                )
                docs.append(np.repeat(np.arange(ids.docs, ids.docs + len(bags)), [len(bag) for bag in bags]))
                counts.append(np.array([n for bag in bags for n in bag.values()], np.int32))
                lengths_D = np.array([bag.total() for bag in bags], np.int64)
                lengths.append(lengths_D)
                length += int(lengths_D.sum())
                ids.append_ids(batch["doc_id"].cast(pa.large_string()), np.ones(len(bags), np.int32))
    df = sum((np.bincount(keys, minlength=len(vocabulary)) for keys in _blocks(directory / "terms.npy")), np.int64(0))
    frequencies = pa.table(
        {"term": pa.array(vocabulary, pa.large_string()), "df": np.broadcast_to(df, len(vocabulary))}
    )
    pq.write_table(frequencies, directory / "frequencies.parquet")
    return {"docs": ids.docs, "length": length, "text_lang": text_lang}


def read_text_lang(plan: ShardPlan) -> str:
    """The language of a shard's texts: another than the shard's where documents were translated to be searched."""
    for part in plan.parts:
        if len(rows := good(read_part(Place(part), ["lang"]))):
            return str(rows["lang"][0])
    return plan.lang


def _bags(analyse: Analyser, batch: pa.RecordBatch) -> list[Counter[str]]:
    """The terms of each document and how often it has them."""
    rows = zip(batch["title"].to_pylist(), batch["text"].to_pylist(), strict=True)
    return [Counter(analyse(join_title(title, text))) for title, text in rows]


def _blocks(*paths: Path) -> Iterator[Any]:
    """Yield aligned arrays block by block: the block itself for one path, a tuple for several.

    Each block is mapped anew: pages of a mapping that stays open count as memory.
    """
    for start in range(0, len(load_npy(paths[0])), BLOCK):
        blocks = [np.array(load_npy(path)[start : start + BLOCK]) for path in paths]
        yield blocks[0] if len(blocks) == 1 else tuple(blocks)


def _sum_statistics(lang: str, shards: list[tuple[ShardPlan, dict[str, Any]]], out: Place) -> None:
    """Sum document frequencies shard after shard: memory holds the vocabulary of the language. ``totals.json`` is
    written last: where it exists, all is summed (and the postings may have been deleted)."""
    if (out / STATISTICS / lang / "totals.json").exists():
        return
    total: pa.Table | None = None
    for plan, _ in shards:
        with (out / POSTINGS / plan.name / "frequencies.parquet").open() as file:
            more = pq.read_table(file)
        both = more if total is None else pa.concat_tables([total, more])
        total = both.group_by("term").aggregate([("df", "sum")]).rename_columns(["term", "df"])
    with (out / STATISTICS / lang / "frequencies.parquet").writing() as file:
        pq.write_table(total, file)
    totals: dict[str, Any] = {key: sum(facts[key] for _, facts in shards) for key in ("docs", "length")}
    totals["text_lang"] = next((facts["text_lang"] for _, facts in shards if facts["docs"]), lang)
    (out / STATISTICS / lang / "totals.json").write(json.dumps(totals).encode())


def _local_terms(source: Path, statistics: Path, docs: int) -> tuple[pa.Array, IntArray, FloatArray]:
    """The terms of a shard, sorted; the new number of each old one; and the idf of each in its language."""
    local = pq.read_table(source / "frequencies.parquet")["term"].combine_chunks()
    everywhere = pq.read_table(statistics / "frequencies.parquet")
    order = pc.sort_indices(local).to_numpy()
    terms = local.take(pa.array(order))
    new_ids = np.empty(len(order), np.int64)
    new_ids[order] = np.arange(len(order))
    df = everywhere["df"].take(pc.index_in(terms, everywhere["term"].combine_chunks()))
    df_V = pc.fill_null(df, 0).to_numpy().astype(np.float64)  # a term of documents that came after the statistics: 0
    return terms, new_ids, np.log(1 + (docs - df_V + 0.5) / (df_V + 0.5))


def _write_scores(
    source: Path, directory: Path, new_ids: IntArray, idf_V: FloatArray, saturation_D: FloatArray
) -> None:
    counts_V = np.zeros(len(new_ids), np.int64)
    for terms in _blocks(source / "terms.npy"):
        counts_V += np.bincount(new_ids[terms], minlength=len(new_ids))
    lists = Inversion(counts_V, {directory / "docs.npy": "<i4", directory / "scores.npy": "<f4"})
    for terms, docs, counts in _blocks(*(source / f"{name}.npy" for name in ("terms", "docs", "counts"))):
        lists.add(new_ids[terms], docs, idf_V[new_ids[terms]] * (counts / (counts + saturation_D[docs])))
    lists.close()
    np.save(directory / "starts.npy", lists.starts_K1)


class Bm25Group:
    """BM25 shards. Queries are texts in the language of the shards' texts; its analyser cuts them."""

    def __init__(self, directories: Sequence[Path]):
        self.lang = read_lang(directories)
        self.docs = Docs(directories)
        self.postings = [Postings(directory) for directory in directories]
        facts = json.loads((directories[0] / "shard.json").read_text())
        self._analyse = load_analyser(facts["text_lang"])

    def hide(self, ids: Sequence[pa.Array]) -> None:
        """See ``ShardGroup.hide``."""
        self.docs.hide(ids)

    def search(self, queries: Sequence[Query], options: SearchOptions, within: IntArray | None = None) -> list[Ranking]:
        """See ``ShardGroup.search``: only documents with a term of the query are found. Statistics are those of the
        language, whatever the search is limited to."""
        return [self._search(query, options.k, within) for query in queries]

    def _search(self, query: Query, k: int, within: IntArray | None) -> Ranking:
        if not isinstance(query, str):
            raise ValueError("a bm25 index takes texts as queries, got vectors: search it with a QUERIES table")
        counts = sorted(Counter(self._analyse(query)).items())
        scores_D = np.zeros(len(self.docs), np.float64)
        for postings, first, end in zip(self.postings, self.docs.docs_S1, self.docs.docs_S1[1:], strict=False):
            postings.add_scores(counts, scores_D[first:end])
        if self.docs.is_hidden_D is not None:
            scores_D[self.docs.is_hidden_D] = 0
        found = np.flatnonzero(scores_D) if within is None else within[scores_D[within] != 0]
        return rank(self.docs, found, scores_D[found], k)


class Postings:
    """The terms of one shard and the score of each in each document that has it."""

    def __init__(self, directory: Path):
        with pa.memory_map(str(directory / "terms.arrow")) as file:
            self.terms = SortedTerms(pa.ipc.open_file(file).read_all()["term"].combine_chunks())
        self.starts = np.load(directory / "starts.npy")
        self.docs, self.scores = load_npy(directory / "docs.npy"), load_npy(directory / "scores.npy")

    def add_scores(self, counts: list[tuple[str, int]], scores_D: FloatArray) -> None:
        """Add the scores of a query's terms, each as often as the query has it, to those of the shard's documents."""
        for term, times in counts:
            encoded = term.encode()
            number = bisect_left(self.terms, encoded)
            if number < len(self.terms) and self.terms[number] == encoded:
                entries = slice(self.starts[number], self.starts[number + 1])
                scores_D[self.docs[entries]] += times * self.scores[entries].astype(np.float64)


class SortedTerms(Sequence[bytes]):
    """A sorted Arrow array of strings, each as UTF-8: for bisection, without a dictionary in memory."""

    def __init__(self, terms: pa.Array):
        _, starts, text = terms.buffers()
        self._terms = terms  # owns the mapped memory
        self._starts = memoryview(starts).cast("q")[terms.offset :] if len(terms) else memoryview(b"")
        self._text = memoryview(text) if text is not None else memoryview(b"")

    def __len__(self) -> int:
        return len(self._terms)

    def __getitem__(self, number: Any) -> Any:
        return bytes(self._text[self._starts[number] : self._starts[number + 1]])
