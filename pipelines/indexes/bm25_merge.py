"""Merging shards of a BM25 index: their postings are put together term by term, with the scores that they have.

Scores are under the statistics of the index that the shards are of, so nothing is counted or scored again. Takes memory
for the shards' terms and for one shard's postings; the merged postings are written memory-mapped.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexes.files import Docs, DocsWriter, Inversion, load_npy
from pipelines.vectors import IntArray


def merge_postings(sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
    """Write one shard of the documents ``kept`` of ``sources``. See ``Builder.merge``."""
    docs = Docs(sources)
    new_docs = np.full(len(docs), -1, np.int64)
    new_docs[kept] = np.arange(len(kept))
    with DocsWriter(directory) as written:
        written.copy(docs, kept)
    of_shards = [new_docs[first:end] for first, end in zip(docs.docs_S1, docs.docs_S1[1:], strict=False)]
    held = [_count(source, of_shard) for source, of_shard in zip(sources, of_shards, strict=True)]
    some = [terms.filter(pa.array(counts > 0)) for terms, counts in held]
    terms = pc.unique(pa.chunked_array(some, pa.large_string())).sort()
    counts_V = np.zeros(len(terms), np.int64)
    for own, counts in held:
        is_held = counts > 0
        counts_V[pc.index_in(own.filter(pa.array(is_held)), terms).to_numpy()] += counts[is_held]
    lists = Inversion(counts_V, {directory / "docs.npy": "<i4", directory / "scores.npy": "<f4"})
    for source, of_shard, (own, _) in zip(sources, of_shards, held, strict=True):
        term_of = pc.fill_null(pc.index_in(own, terms), -1).to_numpy().astype(np.int64)
        entry_terms = np.repeat(term_of, np.diff(np.load(source / "starts.npy")))
        entry_docs, scores = of_shard[load_npy(source / "docs.npy")], load_npy(source / "scores.npy")
        is_kept = entry_docs >= 0
        lists.add(entry_terms[is_kept], entry_docs[is_kept], scores[is_kept])
    lists.close()
    np.save(directory / "starts.npy", lists.starts_K1)
    with pa.ipc.new_file(str(directory / "terms.arrow"), pa.schema([("term", pa.large_string())])) as file:
        file.write_batch(pa.record_batch([terms], names=["term"]))
    text_lang = json.loads((sources[0] / "shard.json").read_text())["text_lang"]
    return {"docs": len(kept), "terms": len(terms), "postings": int(counts_V.sum()), "text_lang": text_lang}


def _count(source: Path, new_docs: IntArray) -> tuple[pa.Array, IntArray]:
    """The terms of a shard, and how many of the documents that are kept have each."""
    with pa.memory_map(str(source / "terms.arrow")) as file:
        terms = pa.ipc.open_file(file).read_all()["term"].combine_chunks()
    starts = np.load(source / "starts.npy")
    is_kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(new_docs[load_npy(source / "docs.npy")] >= 0)])
    return terms, is_kept[starts[1:]] - is_kept[starts[:-1]]
