"""PLAID shards as indexes of fast-plaid 1.7 (``babelray export RECIPE index-student DIR --format fast-plaid``).

fast-plaid has one index of one collection, without ids: its "documents" are our passages, numbered through. So each
shard becomes an index, a directory below DIR: one chunk, int32 codes, lists of int64. ``passages.tsv`` in it, which
fast-plaid does not read, has the document of each passage, a line for each. fast-plaid moves codes and residuals into
files of its own when it first opens an index. Cost: one pass over the shards; memory for the codes and lists of one.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cluster.artifact import Artifact
from cluster.storage import Place
from pipelines.indexes.files import Docs, load_npy
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.codec import Codec
from pipelines.indexes.plaid.shard import check_shards, open_files

PASSAGES = "passages.tsv"


def export_fast_plaid(index: Artifact, place: Place) -> int:
    """Write every shard of an index below ``place``; returns the number of passages."""
    count = 0
    for shard in json.loads((index.place / "index.json").read())["shards"]:
        with TemporaryDirectory() as temp:
            count += write_fast_plaid((index.place / "shards" / shard["name"]).fetch(), Path(temp))
            (place / shard["name"]).put(Path(temp))
    return count


def write_fast_plaid(shard: Path, directory: Path) -> int:
    """Write a shard as an index of fast-plaid into an empty directory; returns the number of passages.

    Raises StepError when the shard is damaged or of another version.
    """
    from pipelines.indexes.plaid.lists import unpack_lists

    check_shards([shard], Plaid.version)
    docs, codec, tokens_P = Docs([shard]), Codec.load(shard), load_npy(shard / "tokens.npy")
    codes, residuals, starts_C1, lists = open_files(shard, codec, len(tokens_P), int(tokens_P.sum()))
    codec.save(directory)
    np.save(directory / "0.codes.npy", codes.astype(np.int32))
    np.save(directory / "0.residuals.npy", residuals)
    passages, counts = (
        np.concatenate(some) for some in zip(*unpack_lists(lists, starts_C1, len(tokens_P)), strict=True)
    )
    np.save(directory / "ivf.npy", passages.astype(np.int64))
    np.save(directory / "ivf_lengths.npy", counts.astype(np.int32))
    _write_metadata(directory, codec, tokens_P.tolist())
    names = docs.names(docs.of_passages(np.arange(len(tokens_P))))
    (directory / PASSAGES).write_text("".join(f"{name}\n" for name in names))
    return len(names)


def _write_metadata(directory: Path, codec: Codec, tokens: Sequence[int]) -> None:
    """The JSON files that fast-plaid expects beside the arrays."""
    counts = {"num_documents": len(tokens), "num_embeddings": sum(tokens)}
    facts = {"nbits": codec.bits, "num_chunks": 1}
    every = {"num_partitions": len(codec.centroids_CN), "avg_doclen": sum(tokens) / max(1, len(tokens))}
    documents: dict[str, Any] = {
        "plan.json": facts,
        "0.metadata.json": {"embedding_offset": 0, **counts},
        "doclens.0.json": list(tokens),
        "metadata.json": {**counts, **facts, **every, "compress_only": False},
    }
    for name, content in documents.items():
        (directory / name).write_text(json.dumps(content))
