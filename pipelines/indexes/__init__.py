"""The indexes: exact, bm25, faiss, plaid, fast_plaid. The union of their configs is the registry."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from cluster.errors import StepError
from pipelines.indexes.base import ShardGroup
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.fast_plaid import FastPlaid
from pipelines.indexes.plaid import Plaid

Index = Annotated[Exact | Bm25 | Faiss | Plaid | FastPlaid, Field(discriminator="kind")]


def open_group(directories: Sequence[Path], share: float = 1.0, levels: Sequence[Mapping[str, Any]] = ()) -> ShardGroup:
    """Open shards of one language of one index in local directories, whatever its kind, to be searched as one.

    ``share`` is the part of the language's documents that they hold, ``levels`` the depths that were tried on the index
    where it is PLAID with a wanted recall. Raises FileNotFoundError when a shard is not finished, StepError when it
    was damaged.
    """
    file = directories[0] / "shard.json"
    try:
        facts = json.loads(file.read_bytes())
        index: Exact | Bm25 | Faiss | Plaid | FastPlaid = TypeAdapter(Index).validate_python(facts["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{file} does not say what index it is of ({error}): build the index again") from error
    return index.open(directories, share, levels) if isinstance(index, Plaid) else index.open(directories, share)
