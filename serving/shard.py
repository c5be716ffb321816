"""The shard deployment: searches one part of the index, mostly a shard, and reads the texts of its documents.

A search takes two calls: ``search`` on every shard returns ids and scores, a few kilobytes however long the documents
are; ``read_texts`` returns title and text of the final results only. The process maps its files into memory and does
not import torch, so a replica needs little more memory than its shard. Both methods are plain functions, which Serve
runs in threads, so that the event loop stays free for health checks.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from pipelines.segments.parts import SearchPart
    from pipelines.segments.snapshot import Snapshot


class Shard:
    """One replica of a part of an index, as one list of its segments has it."""

    ONGOING: ClassVar = 16  # searches at a time; further ones wait in the gateway, where they can be cancelled

    def __init__(self, snapshot: "Snapshot", part: "SearchPart"):
        self.shard = part.open(snapshot)
        # Opened at the start, not by the first search: a node's first copy of a large collection can take longer than
        # the time limit of a search.
        self.docstore = part.open_docs(snapshot)

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
