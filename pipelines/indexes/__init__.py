"""The indexes: exact, bm25, faiss, plaid. The union of their configs is the registry."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from pipelines.indexes.base import Shard
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.plaid import Plaid

Index = Annotated[Exact | Bm25 | Faiss | Plaid, Field(discriminator="kind")]


def open_shard(directory: Path) -> Shard:
    """Open the shard in a local directory, whatever its kind. Raises FileNotFoundError when it is not finished."""
    facts = json.loads((directory / "shard.json").read_text())
    index: Exact | Bm25 | Faiss | Plaid = TypeAdapter(Index).validate_python(facts["index"])
    return index.open(directory)
