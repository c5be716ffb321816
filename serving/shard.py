"""The shard deployment: one shard of the index, and the texts of its language.

A search takes two calls: ``search`` on every shard returns ids and scores, a few kilobytes however long the documents
are; ``texts`` returns what is shown of the winners alone. The process maps its files into memory and never imports
torch, so a replica costs its shard and little else. Both methods are plain functions: Serve runs them in threads, and
the event loop stays free for health checks.
"""

from typing import Any, ClassVar

import numpy as np

from cluster.artifact import Artifact
from cluster.storage import Place


class Shard:
    """Holds shard ``name`` of the index artifact at ``index``, and reads texts from the DOCS artifact at ``docs``."""

    ONGOING: ClassVar = 16  # searches at a time; more wait in the gateway, where they can be given up

    def __init__(self, index: Place, name: str, docs: Place):
        from pipelines.docstore import Docstore
        from pipelines.search import open_shard

        self.shard = open_shard(index, name)
        # opened now, not by the first search: a node's first copy of a large collection takes longer than a search may
        self.docstore = Docstore.open(Artifact(docs))

    def search(self, query: np.ndarray | str, options: Any) -> list[tuple[str, float]]:
        """The best ``options.k`` documents as (id, score), best first. ``query``: float32 [tokens, dim], or words."""
        from pipelines.search import search

        return search(self.shard, [query], options)[0]

    def texts(self, ids: list[str]) -> list[tuple[str, str]]:
        """Title and text of each id."""
        rows = [self.docstore.row(doc_id) for doc_id in ids]
        return [(row["title"] or "", row["text"]) for row in rows]

    async def ping(self) -> bool:
        """Answer: this replica is up, its shard is open."""
        return True
