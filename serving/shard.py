"""The shard deployment: searches one part of the index, mostly a shard, and reads the texts of its documents.

A search takes two calls: ``search`` on every shard returns ids and scores, a few kilobytes however long the documents
are; ``read_texts`` returns title and text of the final results only. The process maps its files into memory and does
not import torch, so a replica needs little more memory than its shard. Both methods are plain functions, which Serve
runs in threads, so that the event loop stays free for health checks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from serving.catalog import Catalog, Part

if TYPE_CHECKING:
    from pipelines.filters.subset import Subset
    from pipelines.segments.parts import SearchPart
    from pipelines.segments.snapshot import Snapshot


class Shard(Part):
    """One replica of a part of an index, as one list of its segments has it. Where there is no encoder, one shard is
    the root of the application."""

    ONGOING: ClassVar = 16  # searches at a time; further ones wait in the gateway, where they can be cancelled

    def __init__(
        self,
        fingerprint: str,
        files: tuple["Snapshot", "SearchPart"],
        catalog: Catalog | None = None,
        others: Sequence[Any] = (),
    ):
        super().__init__(fingerprint, catalog, others)
        snapshot, part = files
        self.shard = part.open(snapshot)
        # Opened at the start, not by the first search: a node's first copy of a large collection can take longer than
        # the time limit of a search.
        self.docstore = part.open_docs(snapshot)
        self.selector = part.open_selector(snapshot, self.shard, self.docstore)

    def search(
        self, fingerprint: str, query: np.ndarray | str, options: Any, subset: "Subset | None" = None
    ) -> list[tuple[str, float]]:
        """Return the best ``options.k`` documents, of all or of a subset, as (id, score), best first.

        ``query`` is a float32 array [tokens, dim], or a text for an index of words. ``options`` are SearchOptions.
        """
        from pipelines.search import search

        self.check_fingerprint(fingerprint)
        return search(self.shard, [query], options, self.selector.select(subset))[0]

    def read_texts(
        self, fingerprint: str, ids: list[str], max_chars: int | None = None
    ) -> list[tuple[str, str]] | None:
        """Read the title and the text of each document, in the order of ``ids``; None where they are longer together
        than ``max_chars``."""
        self.check_fingerprint(fingerprint)
        rows = [self.docstore.row(doc_id) for doc_id in ids]
        texts = [(row["title"] or "", row["text"]) for row in rows]
        is_long = max_chars is not None and sum(len(title) + len(text) for title, text in texts) > max_chars
        return None if is_long else texts
