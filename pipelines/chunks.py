"""Cut a stream of anything into lists of a fixed size."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunk(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut ``items`` into lists of ``size``; the last may be shorter. Python 3.12 has it as ``itertools.batched``."""
    stream = iter(items)
    while items_of_chunk := list(islice(stream, size)):
        yield items_of_chunk
