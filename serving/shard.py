"""The deployment of shards: searches those that it holds, and reads the texts of their documents.

A search is one call: what each language found, and the texts of the best. The process maps its files into memory and
does not import torch, so a replica needs little more memory than its shards. Searches run in threads, so that the event
loop stays free for health checks.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from pipelines.indexes.base import Query
from serving.catalog import Part
from serving.messages import SearchRequest
from serving.opened import Name, OpenShards, PartAnswer, Text
from serving.served import Layout
from serving.tracing import trace_call


class Shards(Part):
    """One replica of a group of shards. Where there is no encoder, the first group is the root of the application."""

    ONGOING: ClassVar = 16  # searches at a time; further ones wait in the gateway, where they can be cancelled

    def __init__(self, layout: Layout, group: str, others: Sequence[Any] = ()):
        super().__init__(layout, group, others)
        # Opened at the start, not by the first search: a node's first copy of a large collection can take longer than
        # the time limit of a search.
        self.shards = OpenShards(layout, group)

    @trace_call
    async def search(self, edition: str, query: Query, request: SearchRequest, with_texts: bool) -> PartAnswer:
        """Search for what ``request`` asks.

        ``query`` is a float32 array [tokens, dim], or a text for an index of words.
        """
        return await self.shards.search(self.read_number(edition), query, request, with_texts)

    @trace_call
    async def read_texts(self, edition: str, names: list[Name]) -> dict[Name, Text]:
        """Read the title and the text of each document."""
        return await self.shards.read_texts(self.read_number(edition), names)

    async def ping(self, edition: str) -> bool:
        """Open the edition where it is not open yet. Returns True."""
        await asyncio.to_thread(self.shards.open, self.read_number(edition))
        return True
