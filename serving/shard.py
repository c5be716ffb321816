"""The shard deployment: searches one shard of the index and reads texts of its language.

A search takes two calls: ``search`` on every shard returns ids and scores, a few kilobytes however long the documents
are; ``read_texts`` returns title and text of the final results only. The process maps its files into memory and does
not import torch, so a replica needs little more memory than its shard. Both methods are plain functions, which Serve
runs in threads, so that the event loop stays free for health checks.
"""

from typing import Any, ClassVar

import numpy as np

from cluster.artifact import Artifact
from cluster.storage import Place


class Shard:
    """One replica of a shard.

    ``index`` is the place of the index artifact, ``name`` the directory of the shard in it, ``docs`` the place of the
    DOCS artifact of the shard's language.
    """

    ONGOING: ClassVar = 16  # searches at a time; further ones wait in the gateway, where they can be cancelled

    def __init__(self, index: Place, name: str, docs: Place):
        from pipelines.docstore import Docstore
        from pipelines.search import open_shard

        self.shard = open_shard(index, name)
        # Opened at the start, not by the first search: a node's first copy of a large collection can take longer than
        # the time limit of a search.
        self.docstore = Docstore.open(Artifact(docs))

    def search(self, query: np.ndarray | str, options: Any) -> list[tuple[str, float]]:
        """Return the best ``options.k`` documents as (id, score), best first.

        ``query`` is a float32 array [tokens, dim], or a text for an index of words. ``options`` are SearchOptions.
        """
        from pipelines.search import search

        return search(self.shard, [query], options)[0]

    def read_texts(self, ids: list[str]) -> list[tuple[str, str]]:
        """Read the title and the text of each document, in the order of ``ids``."""
        rows = [self.docstore.row(doc_id) for doc_id in ids]
        return [(row["title"] or "", row["text"]) for row in rows]

    async def ping(self) -> bool:
        """Return True: the replica runs and its shard is open."""
        return True
